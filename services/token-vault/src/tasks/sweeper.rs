//! Refreshes what is due, whether or not anybody asks for it, and what others have left lying.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::problem::Chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// From one bucket at a time, so that none keeps the others waiting, and no more than can soon be worked on.
const BATCH: usize = 16;
/// Between two looks for refreshes that others have left, since a provider's replay window may be ten seconds.
const TAKEOVER_EVERY: Duration = Duration::from_secs(1);
/// More than that are looked at in the next step.
const ORPHANS: i64 = 256;
/// What may not be taken over yet is looked at again after this.
const NOT_YET: Duration = Duration::from_secs(5);

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
            self.vault.pacing.sweep();
            // While there is more, places that become free set the pace.
            if self.vault.shutdown.is_requested()
                || (!has_more && !pause(&self.vault.shutdown, self.interval).await)
            {
                return Ok(());
            }
        }
    }

    /// Starts what is due; whether there may be more.
    async fn step(&self) -> Result<bool, StoreError> {
        let mut has_more = false;
        for bucket in self.vault.store.due_buckets().await? {
            let Some(first) = self.place().await else {
                return Ok(false);
            };
            let mut places = vec![first];
            while places.len() < BATCH
                && let Ok(place) = Arc::clone(&self.permits).try_acquire_owned()
            {
                places.push(place);
            }
            let without_way = self.vault.pacing.clients_without_way();
            let due = self
                .vault
                .store
                .due_take(bucket, places.len() as i64, &without_way)
                .await?;
            has_more |= due.len() == places.len();
            for ((key, version), place) in due.into_iter().zip(places) {
                self.start(key, version, place);
            }
        }
        Ok(has_more)
    }

    /// A place for one more refresh; `None` once the process is to end.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            place = Arc::clone(&self.permits).acquire_owned() => place.ok(),
            () = self.vault.shutdown.requested() => None,
        }
    }

    fn start(&self, key: GrantKey, version: i64, place: OwnedSemaphorePermit) {
        let refresher = self.refresher.clone();
        self.vault.tasks.spawn_work("due_refresh", async move {
            if let Err(error) = refresher.refresh_due(key, version).await {
                tell(key, &error);
            }
            drop(place);
        });
    }

    /// Takes over what vaults that are gone have left open.
    pub(crate) async fn run_takeover(self) -> Result<(), Infallible> {
        let mut not_before = HashMap::new();
        // First of all what this vault's own last run has left: its provider's window may be about to close.
        loop {
            if let Err(error) = self.take_over(&mut not_before).await {
                tracing::warn!(event = "takeover_failed", error = %Chain(&error), "refreshes that others have left could not be looked for");
            }
            if !pause(&self.vault.shutdown, TAKEOVER_EVERY).await {
                return Ok(());
            }
        }
    }

    /// Each refresh of somebody who is silent is tried; whether it may be taken over yet, its row says.
    async fn take_over(
        &self,
        not_before: &mut HashMap<GrantKey, Duration>,
    ) -> Result<(), StoreError> {
        let vault = &self.vault;
        let left = vault
            .store
            .orphans_list(vault.instance.id(), ORPHANS)
            .await?;
        let now = vault.deps.clock.boottime();
        not_before.retain(|_, at| *at > now);
        for (key, version) in left {
            if not_before.contains_key(&key) {
                continue;
            }
            let Ok(place) = Arc::clone(&self.permits).try_acquire_owned() else {
                return Ok(());
            };
            not_before.insert(key, now + NOT_YET);
            self.start(key, version, place);
        }
        Ok(())
    }
}

/// What became of the grant stands in its row; only our own failures do not.
fn tell(key: GrantKey, error: &RefreshError) {
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
}
