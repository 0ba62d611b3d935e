//! Tells providers of revocations that they have not heard of yet.

use std::convert::Infallible;
use std::time::Duration;

use common::problem::Chain;
use futures::StreamExt as _;

use super::pause;
use crate::store::{Revocation, StoreError};
use crate::vault::Vault;

/// From one bucket at a time. All at once, so that a provider that is slow keeps no other one waiting; each is taken for
/// longer than its requests can last.
const BATCH: i64 = 20;

/// Runs until the process is to end.
pub(crate) async fn revoke(vault: Vault, every: Duration) -> Result<(), Infallible> {
    while pause(&vault.shutdown, every).await {
        if let Err(error) = step(&vault).await {
            tracing::warn!(event = "revocations_failed", error = %Chain(&error), "due revocations could not be worked off");
        }
    }
    Ok(())
}

async fn step(vault: &Vault) -> Result<(), StoreError> {
    let mut due = Vec::new();
    for bucket in vault.store.revocation_buckets(BATCH).await? {
        due.extend(vault.store.revocations_claim(bucket, BATCH).await?);
    }
    futures::stream::iter(due)
        .for_each_concurrent(None, |revocation| revoke_one(vault, revocation))
        .await;
    Ok(())
}

async fn revoke_one(vault: &Vault, revocation: Revocation) {
    if let Err(error) = vault.revoke_at_provider(&revocation).await {
        tracing::warn!(
            event = "revocation_not_recorded",
            tenant.id = %revocation.tenant,
            grant.id = %revocation.grant_id,
            error = %Chain(&error),
            "what became of a revocation could not be stored; it is made once more"
        );
    }
}
