//! Works on what was asked for about keys, and retires those that nobody needs.

use std::convert::Infallible;
use std::time::Duration;

use common::problem::Chain;

use crate::vault::Vault;

/// A job that another vault has let go of is found within this.
const POLL: Duration = Duration::from_secs(5);
const RETIRE_EVERY: Duration = Duration::from_hours(1);

/// Runs until the process is to end.
pub(crate) async fn work_on_keys(vault: Vault) -> Result<(), Infallible> {
    let mut retired_at = vault.deps.clock.boottime();
    while !vault.shutdown.is_requested() {
        match vault.run_key_job().await {
            // There may be another.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(event = "key_jobs_failed", error = %Chain(&error), "work on the keys could not be looked for");
            }
        }
        let now = vault.deps.clock.boottime();
        if now.saturating_sub(retired_at) >= RETIRE_EVERY {
            retired_at = now;
            if let Err(error) = vault.retire_data_keys().await {
                tracing::warn!(event = "keys_not_retired", error = %Chain(&error), "keys that nobody needs could not be looked for");
            }
        }
        tokio::select! {
            () = vault.keys.wait_for_job() => {}
            () = tokio::time::sleep(POLL) => {}
            () = vault.shutdown.requested() => {}
        }
    }
    Ok(())
}
