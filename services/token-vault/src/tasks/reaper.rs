//! Revokes grants that nobody confirmed, tells of ends that are near, and forgets what came to nothing.

use std::convert::Infallible;
use std::time::Duration;

use common::identity::{Actor, Identity};
use common::problem::Chain;
use futures::StreamExt as _;

use super::pause;
use crate::grant::GrantKey;
use crate::store::{Change, StoreError};
use crate::vault::Vault;

const BATCH: i64 = 100;
/// At a time, since each may wait for its provider.
const AT_ONCE: usize = 8;

/// Runs until the process is to end.
pub(crate) async fn reap(vault: Vault, every: Duration) -> Result<(), Infallible> {
    let actor = Actor {
        identity: Identity::service("token-vault").to_string(),
        ..Actor::default()
    };
    while pause(&vault.shutdown, every).await {
        if let Err(error) = step(&vault, &actor).await {
            tracing::warn!(event = "reap_failed", error = %Chain(&error), "unconfirmed grants and near ends could not be looked for");
        }
    }
    Ok(())
}

async fn step(vault: &Vault, actor: &Actor) -> Result<(), StoreError> {
    for key in vault.store.reminders_list(BATCH).await? {
        remind(vault, key).await?;
    }
    let unconfirmed = vault.store.unconfirmed_list(BATCH).await?;
    futures::stream::iter(unconfirmed)
        .for_each_concurrent(AT_ONCE, |key| revoke(vault, key, actor))
        .await;
    vault.store.abandoned_delete().await?;
    vault.store.instances_forget().await?;
    Ok(())
}

async fn revoke(vault: &Vault, key: GrantKey, actor: &Actor) {
    if let Err(error) = vault.revoke_unconfirmed(key, actor).await {
        tracing::warn!(
            event = "unconfirmed_not_revoked",
            tenant.id = %key.tenant,
            grant.id = %key.id,
            error = %Chain(&error),
            "a grant that nobody confirmed could not be revoked"
        );
    }
}

async fn remind(vault: &Vault, key: GrantKey) -> Result<(), StoreError> {
    let reminded = vault.store.grant_change("grant_remind", key, |grant| {
        let event = grant.remind();
        Change::told((event, grant.refresh_token_expires_at), event)
    });
    if let Some((Some(_), Some(end))) = reminded.await? {
        tracing::info!(
            event = "reauthorization_due",
            tenant.id = %key.tenant,
            grant.id = %key.id,
            ends_at = %end,
            "a grant's refresh token is going to end, and its user has to connect again before"
        );
    }
    Ok(())
}
