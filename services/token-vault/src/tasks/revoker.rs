//! Tells providers of revocations that they have not heard of yet.

use std::convert::Infallible;
use std::time::Duration;

use common::problem::Chain;

use super::pause;
use crate::error::Error;
use crate::vault::Vault;

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

async fn step(vault: &Vault) -> Result<(), Error> {
    for revocation in vault.store.revocations_claim(BATCH).await? {
        vault.revoke_at_provider(&revocation).await?;
    }
    Ok(())
}
