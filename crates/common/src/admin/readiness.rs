//! Whether the process should be sent work: its phase, and checks by name.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use tokio::sync::watch;

use crate::telemetry::chain;

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a check failed.
pub type CheckError = Box<dyn std::error::Error + Send + Sync>;

type Check =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), CheckError>> + Send>> + Send + Sync>;

/// The registry of checks; clones are the same one, and [`Readiness::scoped`] ones are too.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
    scope: String,
}

struct Shared {
    checks: Mutex<BTreeMap<String, Check>>,
    phase: watch::Sender<Phase>,
}

/// Where in its life the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not yet ready for work.
    Starting,
    /// Ready for work if the checks say so.
    Serving,
    /// Finishes what it has, and is to get nothing new.
    Draining,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, Serialize)]
pub struct ReadinessReport {
    /// Whether to send work.
    pub ready: bool,
    /// Where in its life the process is.
    pub phase: Phase,
    /// What each check said.
    pub checks: BTreeMap<String, CheckReport>,
}

/// What one check said.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Whether it passed.
    pub ok: bool,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                checks: Mutex::default(),
                phase: watch::Sender::new(Phase::Starting),
            }),
            scope: String::new(),
        }
    }
}

impl Readiness {
    /// Without checks, and starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same registry; what is registered through it is called `<scope>.<name>`.
    #[must_use]
    pub fn scoped(&self, scope: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            scope: format!("{}{scope}.", self.scope),
        }
    }

    /// Adds a check, or takes the place of the one of that name. It has two seconds.
    pub fn register<F, R>(&self, name: &str, check: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.checks().insert(format!("{}{name}", self.scope), check);
    }

    /// Everything is started.
    pub fn set_serving(&self) {
        self.shared.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Serving;
            }
            starting
        });
    }

    /// No work from now on, whatever the checks say.
    pub fn set_draining(&self) {
        self.shared.phase.send_replace(Phase::Draining);
    }

    /// Where in its life the process is.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// Tells of each new phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// Runs every check, all at once.
    pub async fn check(&self) -> ReadinessReport {
        let checks: Vec<(String, Check)> = self
            .checks()
            .iter()
            .map(|(name, check)| (name.clone(), Arc::clone(check)))
            .collect();
        let run = async |(name, check): (String, Check)| {
            let error = match tokio::time::timeout(PATIENCE, check()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(chain(error.as_ref())),
                Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            let ok = error.is_none();
            (name, CheckReport { ok, error })
        };
        let checks: BTreeMap<_, _> = join_all(checks.into_iter().map(run))
            .await
            .into_iter()
            .collect();
        let phase = self.phase();
        ReadinessReport {
            ready: phase == Phase::Serving && checks.values().all(|check| check.ok),
            phase,
            checks,
        }
    }

    fn checks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Check>> {
        self.shared
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("phase", &self.phase())
            .field("checks", &self.checks().keys().collect::<Vec<_>>())
            .finish()
    }
}
