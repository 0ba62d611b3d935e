//! What is kept of the keys in this process's memory, and for how long.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::{Clock, TenantKey};
use envelope::DataKey;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

/// Longest time that a data key is kept in memory, here and by the services that are handed one.
pub(crate) const CACHE_FOR: Duration = Duration::from_mins(5);

/// Data keys by version, and uses that were taken from the database and not used yet.
#[derive(Default)]
pub(super) struct Cache {
    kept: Mutex<Contents>,
    /// Of those who miss the same key at the same time one asks for it.
    gates: Gates,
}

#[derive(Default)]
struct Contents {
    by_version: HashMap<(TenantKey, i32), Kept<DataKey>>,
    blocks: HashMap<TenantKey, Kept<Block>>,
}

struct Kept<T> {
    value: T,
    since: Duration,
}

/// Uses of the version that seals.
struct Block {
    version: i32,
    left: u32,
}

/// A few locks for many keys.
struct Gates(Vec<AsyncMutex<()>>);

const GATES: usize = 64;

impl Cache {
    pub(super) fn get(
        &self,
        tenant: TenantKey,
        version: i32,
        clock: &dyn Clock,
    ) -> Option<DataKey> {
        let now = clock.boottime();
        self.with(|contents| {
            let kept = contents.by_version.get(&(tenant, version))?;
            kept.is_fresh(now).then(|| kept.value.clone())
        })
    }

    pub(super) fn put(&self, tenant: TenantKey, key: DataKey, clock: &dyn Clock) {
        let (version, now) = (key.version().cast_signed(), clock.boottime());
        self.with(|contents| {
            contents.by_version.insert(
                (tenant, version),
                Kept {
                    value: key,
                    since: now,
                },
            )
        });
    }

    /// Takes so many uses of the version that seals, and says which that is. `None` where there are not as many left, or
    /// it may not be that version any more.
    pub(super) fn take_uses(&self, tenant: TenantKey, uses: u32, clock: &dyn Clock) -> Option<i32> {
        let now = clock.boottime();
        self.with(|contents| {
            let kept = contents.blocks.get_mut(&tenant)?;
            if !kept.is_fresh(now) {
                return None;
            }
            kept.value.left = kept.value.left.checked_sub(uses)?;
            Some(kept.value.version)
        })
    }

    /// Uses that the database has counted.
    pub(super) fn put_uses(&self, tenant: TenantKey, version: i32, left: u32, clock: &dyn Clock) {
        let since = clock.boottime();
        self.with(|contents| {
            contents.blocks.insert(
                tenant,
                Kept {
                    value: Block { version, left },
                    since,
                },
            )
        });
    }

    /// The next one who seals asks the database which version does.
    pub(super) fn forget_uses(&self, tenant: TenantKey) {
        self.with(|contents| contents.blocks.remove(&tenant));
    }

    /// Nothing of the tenant's is left.
    pub(super) fn forget_tenant(&self, tenant: TenantKey) {
        self.with(|contents| {
            contents.blocks.remove(&tenant);
            contents.by_version.retain(|(of, _), _| *of != tenant);
        });
    }

    /// Drops what has been kept too long, so that it does not lie in memory either.
    pub(super) fn sweep(&self, clock: &dyn Clock) {
        let now = clock.boottime();
        self.with(|contents| {
            contents.by_version.retain(|_, kept| kept.is_fresh(now));
            contents.blocks.retain(|_, kept| kept.is_fresh(now));
        });
    }

    /// Held while the tenant's keys are asked for.
    pub(super) async fn gate(&self, tenant: TenantKey) -> MutexGuard<'_, ()> {
        let number = tenant.id().as_u128() >> 16;
        self.gates.0[(number % GATES as u128) as usize].lock().await
    }

    fn with<T>(&self, act: impl FnOnce(&mut Contents) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Kept<T> {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < CACHE_FOR
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self((0..GATES).map(|_| AsyncMutex::default()).collect())
    }
}
