//! The person has chosen one of several accounts.

use crate::broker::{Broker, browser_caller};
use crate::error::Error;
use crate::finish_authorization::Finished;
use crate::session::{Authorized, Session};

impl Broker {
    /// Goes on with the chosen account.
    pub(crate) async fn choose_account(
        &self,
        session: &Session,
        account_id: &str,
    ) -> Result<Finished, Error> {
        let authorized = session
            .authorized
            .clone()
            .ok_or(Error::NotFound("session"))?;
        if !authorized
            .selectable()
            .any(|account| account.external_account_id == account_id)
        {
            return Err(Error::NotFound("account"));
        }
        let (owner, id) = session
            .integration
            .as_ref()
            .ok_or(Error::NotFound("integration"))?;
        let integration = self.integration_of(*owner, id).await?;
        let resolved = integration.resolve()?;
        let authorized = Authorized {
            chosen: Some(account_id.to_owned()),
            ..authorized
        };
        let work = Box::pin(self.take(session, &integration, &resolved, authorized));
        match common::identity::scope(browser_caller(session), work).await {
            Ok(finished) => Ok(finished),
            Err(error) => self.fail_session(session, &error, None).await,
        }
    }
}
