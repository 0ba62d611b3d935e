//! What every use case has at hand.

use std::time::Duration;

use common::Deps;
use common::lifecycle::{Shutdown, Tasks};
use common::pg::statistics::Statistics;

use crate::instance::Instance;
use crate::keys::Keys;
use crate::providers::Providers;
use crate::refresh_grant::{Pacing, RefreshMetrics};
use crate::spool::Spool;
use crate::store::Store;

/// The vault's parts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) providers: Providers,
    pub(crate) spool: Spool,
    pub(crate) instance: Instance,
    pub(crate) deps: Deps,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
    pub(crate) statistics: Statistics,
    pub(crate) pacing: Pacing,
    pub(crate) refresh_metrics: RefreshMetrics,
    pub(crate) provider_timeout: Duration,
}

/// A lease outlives the request that it is for by this.
const LEASE_SLACK: Duration = Duration::from_secs(15);

impl Vault {
    /// How long a lease on a grant lasts.
    pub(crate) fn lease(&self) -> Duration {
        self.provider_timeout + LEASE_SLACK
    }

    /// A random number from 0 to 1.
    pub(crate) fn random(&self) -> f64 {
        f64::from(u32::from_be_bytes(self.deps.random())) / f64::from(u32::MAX)
    }

    /// Full jitter over a span that doubles with each failure.
    pub(crate) fn backoff(&self, failures: i32, first: Duration, longest: Duration) -> Duration {
        let doublings = u32::try_from(failures).unwrap_or_default().min(20);
        let span = first.saturating_mul(1 << doublings).min(longest);
        span.mul_f64(self.random()).max(first / 4)
    }
}
