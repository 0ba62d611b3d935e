//! Revokes grants that nobody confirmed, and forgets exchanges that came to nothing.

use std::convert::Infallible;
use std::time::Duration;

use common::identity::{Actor, Identity};
use common::problem::Chain;

use super::pause;
use crate::error::Error;
use crate::vault::Vault;

const BATCH: i64 = 100;

/// Runs until the process is to end.
pub(crate) async fn reap(vault: Vault, every: Duration) -> Result<(), Infallible> {
    let actor = Actor {
        identity: Identity::service("token-vault").to_string(),
        ..Actor::default()
    };
    while pause(&vault.shutdown, every).await {
        if let Err(error) = step(&vault, &actor).await {
            tracing::warn!(event = "reap_failed", error = %Chain(&error), "unconfirmed grants could not be looked for");
        }
    }
    Ok(())
}

async fn step(vault: &Vault, actor: &Actor) -> Result<(), Error> {
    for key in vault.store.unconfirmed_list(BATCH).await? {
        if let Err(error) = vault
            .revoke_grant(key, true, actor, "not confirmed in time")
            .await
        {
            tracing::warn!(
                event = "unconfirmed_not_revoked",
                tenant.id = %key.tenant,
                grant.id = %key.id,
                error = %Chain(&error),
                "a grant that nobody confirmed could not be revoked"
            );
        }
    }
    vault.store.abandoned_delete().await?;
    Ok(())
}
