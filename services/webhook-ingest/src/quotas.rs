//! How many documents a user may bring in a day, as the directory has it, kept for a minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::problem::Chain;
use common::{Deps, TenantKey};

use crate::clients::Clients;
use crate::error::Error;

const KEPT: Duration = Duration::from_mins(1);
/// While the directory is away, what it said last counts for this long.
const STALE: Duration = Duration::from_hours(1);
const MOST: usize = 20_000;

/// Asks the directory.
#[derive(Debug)]
pub(crate) struct Quotas {
    clients: Clients,
    deps: Deps,
    kept: Mutex<HashMap<TenantKey, (Duration, Option<i64>)>>,
}

impl Quotas {
    /// As the directory behind `clients` has them.
    pub(crate) fn new(clients: &Clients, deps: &Deps) -> Self {
        Self {
            clients: clients.clone(),
            deps: deps.clone(),
            kept: Mutex::default(),
        }
    }

    /// The quota of the tenant's users; `None` for no limit.
    pub(crate) async fn documents_a_day(&self, tenant: TenantKey) -> Result<Option<i64>, Error> {
        let now = self.deps.clock.boottime();
        let known = self.kept().get(&tenant).copied();
        if let Some((asked_at, quota)) = known
            && now.saturating_sub(asked_at) < KEPT
        {
            return Ok(quota);
        }
        match (self.clients.documents_a_day(tenant).await, known) {
            (Ok(quota), _) => {
                let mut kept = self.kept();
                if kept.len() >= MOST {
                    kept.retain(|_, (asked_at, _)| now.saturating_sub(*asked_at) < KEPT);
                }
                kept.insert(tenant, (now, quota));
                Ok(quota)
            }
            (Err(error), Some((asked_at, quota)))
                if error.is_transient() && now.saturating_sub(asked_at) < STALE =>
            {
                tracing::warn!(
                    event = "quota_stale",
                    tenant.id = %tenant,
                    error = %Chain(&error),
                    "the directory cannot be asked for a quota; the last one known counts"
                );
                Ok(quota)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<TenantKey, (Duration, Option<i64>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
