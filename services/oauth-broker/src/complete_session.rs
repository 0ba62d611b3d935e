//! The host application's word that the user who came back is the one whom it made the session for.

use common::identity::Caller;
use common::pg::{Scope, audit};
use contracts::broker::v1::{self as contract, ConnectSessionState};
use subtle::ConstantTimeEq as _;

use crate::api::encode;
use crate::broker::Broker;
use crate::error::Error;
use crate::link_token;
use crate::session::Session;
use crate::store::accounts::account_list_now;
use crate::store::connections::connection_get;

const METHOD: &str = "ConnectService/CompleteConnectSession";

impl Broker {
    /// Saves the connection that was kept back. A repeated call gets the connection.
    pub(crate) async fn complete_session(
        &self,
        caller: &Caller,
        session: &Session,
        user_id: &str,
        confirmation_code: &str,
    ) -> Result<contract::Connection, Error> {
        if session.user_id != user_id {
            return Err(Error::NotFound("session"));
        }
        let connection = match (
            session.state_at(self.deps.now()),
            &session.authorized,
            session.connection_id,
        ) {
            (ConnectSessionState::Succeeded, _, Some(connection_id))
                if session.require_confirmation =>
            {
                let found = connection_get(&self.db, session.tenant, connection_id).await?;
                found.ok_or(Error::NotFound("connection"))?
            }
            (ConnectSessionState::AwaitingConfirmation, Some(authorized), _) => {
                let given = link_token::hash(confirmation_code);
                let kept = session.confirmation_hash.as_deref().unwrap_or_default();
                if !bool::from(given.as_slice().ct_eq(kept)) {
                    return Err(Error::SessionOver {
                        advice: "the confirmation code is not this session's",
                    });
                }
                let (owner, id) = session
                    .integration
                    .as_ref()
                    .ok_or(Error::NotFound("integration"))?;
                let integration = self.integration_of(*owner, id).await?;
                match self
                    .save_for_session(session, &integration, authorized.clone())
                    .await
                {
                    Ok(saved) => saved,
                    Err(error @ (Error::AlreadyConnected | Error::OtherAccount)) => {
                        self.fail_session(session, &error, None).await?;
                        return Err(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => {
                return Err(Error::SessionOver {
                    advice: "the session does not wait for a confirmation",
                });
            }
        };
        let actor = caller.actor().clone();
        let (tenant, session_id) = (session.tenant, session.session_id);
        self.db
            .run_tx("session_complete", Scope::Tenant(tenant), async move |tx| {
                let resource = format!("connect-sessions/{session_id}");
                audit::append(tx, tenant, &actor, METHOD, &resource, "").await
            })
            .await?;
        let accounts = account_list_now(&self.db, session.tenant, connection.connection_id).await?;
        let active = accounts.iter().find(|account| account.active);
        Ok(encode::connection(&connection, active, &[]))
    }
}
