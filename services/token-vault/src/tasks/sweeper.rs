//! Refreshes what is due, whether or not anybody asks for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::problem::Chain;
use tokio::sync::Semaphore;

use super::pause;
use crate::grant::GrantKey;
use crate::refresh_grant::{RefreshError, Refresher};
use crate::store::StoreError;
use crate::vault::Vault;

/// Looks for due refreshes and starts them, so many at a time.
#[derive(Clone)]
pub(crate) struct Sweeper {
    vault: Vault,
    refresher: Refresher,
    interval: Duration,
    permits: Arc<Semaphore>,
}

/// From one bucket at a time, so that none keeps the others waiting.
const BATCH: i64 = 64;
/// Between two steps while there is more to do.
const SOON: Duration = Duration::from_millis(100);
/// At least until what could not be refreshed is due again.
const LATER: Duration = Duration::from_secs(10);

impl Sweeper {
    pub(crate) fn new(
        vault: Vault,
        refresher: Refresher,
        interval: Duration,
        concurrency: usize,
    ) -> Self {
        Self {
            vault,
            refresher,
            interval,
            permits: Arc::new(Semaphore::new(concurrency)),
        }
    }

    pub(crate) async fn run(self) -> Result<(), Infallible> {
        loop {
            let has_more = self.step().await.unwrap_or_else(|error| {
                tracing::warn!(event = "sweep_failed", error = %Chain(&error), "due refreshes could not be looked for");
                false
            });
            self.vault.keys.sweep();
            let wait = if has_more {
                self.interval.min(SOON)
            } else {
                self.interval
            };
            if !pause(&self.vault.shutdown, wait).await {
                return Ok(());
            }
        }
    }

    /// Starts what is due; whether there may be more behind a full batch.
    async fn step(&self) -> Result<bool, StoreError> {
        let mut has_more = false;
        for bucket in self.vault.store.due_buckets().await? {
            let due = self.vault.store.due_list(bucket, BATCH).await?;
            has_more |= due.len() as i64 == BATCH;
            for (key, version) in due {
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                let permit = permit.expect("the semaphore is never closed");
                if self.vault.shutdown.is_requested() {
                    return Ok(false);
                }
                let (this, run) = (self.clone(), self.refresher.start(key, version));
                self.vault.tasks.spawn_work("due_refresh", async move {
                    if let Err(error) = run.await {
                        this.put_off(key, &error).await;
                    }
                    drop(permit);
                });
            }
        }
        Ok(has_more)
    }

    /// What fails without a word in its row would be due again at once.
    async fn put_off(&self, key: GrantKey, error: &RefreshError) {
        if matches!(
            error,
            RefreshError::Store(_) | RefreshError::Keys(_) | RefreshError::Spool(_)
        ) {
            tracing::warn!(
                event = "due_refresh_failed",
                tenant.id = %key.tenant,
                grant.id = %key.id,
                error = %Chain(error),
                "a refresh that was due could not be made"
            );
        }
        // Where this fails too, the next step finds the grant again.
        if let Err(error) = self.vault.postpone(key, LATER).await {
            tracing::debug!(event = "refresh_not_postponed", error = %Chain(&error), "a due refresh could not be put off");
        }
    }
}
