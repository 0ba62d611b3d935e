//! What every use case works with.

use std::sync::Arc;

use common::identity::{Actor, Caller};
use common::pg::Database;
use common::pg::statistics::Statistics;
use common::{Deps, TenantKey};
use egress::Egress;
use oauth_client::Documents;
use tokio::time::Instant;

use crate::clients::{Directory, Vault};
use crate::config::PagesConfig;
use crate::error::Error;
use crate::integration::Integration;
use crate::sealer::Sealer;
use crate::session::Session;
use crate::store::integrations::integration_get;

/// How long a browser waits for us, and we for others.
const BROWSER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(50);

/// The parts, put together once.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) db: Database,
    pub(crate) vault: Vault,
    pub(crate) directory: Directory,
    pub(crate) egress: Egress,
    pub(crate) documents: Documents,
    pub(crate) sealer: Sealer,
    pub(crate) statistics: Statistics,
    /// Without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) pages: PagesConfig,
    pub(crate) deps: Deps,
}

/// The one that all share.
pub(crate) type SharedBroker = Arc<Broker>;

impl Broker {
    /// The integration that a tenant means by this id: its own comes first, then the platform's.
    pub(crate) async fn integration(
        &self,
        tenant: TenantKey,
        id: &str,
    ) -> Result<Integration, Error> {
        let own = integration_get(&self.db, tenant, id).await?;
        let found = match own {
            None if !tenant.is_platform() => {
                integration_get(&self.db, TenantKey::PLATFORM, id).await?
            }
            own => own,
        };
        found.ok_or(Error::NotFound("integration"))
    }

    /// The integration that was meant when something was written.
    pub(crate) async fn integration_of(
        &self,
        owner: TenantKey,
        id: &str,
    ) -> Result<Integration, Error> {
        integration_get(&self.db, owner, id)
            .await?
            .ok_or(Error::NotFound("integration"))
    }
}

/// On whose behalf a browser's request is worked on: the session's user, by way of us.
pub(crate) fn browser_caller(session: &Session) -> Caller {
    let mut caller = Caller::service("oauth-broker");
    caller.actor = Actor {
        tenant_id: session.tenant.to_string(),
        user_id: session.user_id.clone(),
        purpose: format!("connect session {}", session.session_id),
        ..caller.actor
    };
    caller.deadline = Some(Instant::now() + BROWSER_DEADLINE);
    caller
}
