//! How a process starts, works, and ends.
//!
//! [`run`] is the `main` of every binary. A SIGTERM or SIGINT makes the process not ready, waits until that has been
//! noticed, asks everything to finish ([`Shutdown`]), waits for it ([`Tasks`]), sends what telemetry is left, and exits
//! with 0. A second signal exits at once. A background task that ends when it should not takes the process down.
//!
//! What others lean on while they finish (the task that writes what requests hand it, the admin listener) is spawned
//! with [`Tasks::spawn_until_drained`] and asked to end last.

mod shutdown;
mod signals;
mod tasks;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration as StdDuration;

use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::admin::{self, AdminConfig, BindError, Readiness};
use crate::config::{Duration, Problems, Validate};
use crate::telemetry::{self, Telemetry, TelemetryConfig, TelemetryError, chain};

pub use shutdown::Shutdown;
pub use signals::{Signal, signals};
pub use tasks::{BoxError, Tasks};

/// After a second signal telemetry has so long.
const PARTING: StdDuration = StdDuration::from_millis(500);

/// Between "not ready" and the end of listening in Kubernetes, where endpoints are updated after a moment only.
const KUBERNETES_DELAY: StdDuration = StdDuration::from_secs(5);

/// The `[lifecycle]` part of every service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LifecycleConfig {
    /// How long to go on as usual after having become not ready; 5 s in Kubernetes and 0 s elsewhere if not given.
    pub pre_drain_delay: Option<Duration>,
    /// How long requests and tasks may take to finish; with the delay and 3 s for telemetry, less than the time after
    /// which the process is killed (Kubernetes: `terminationGracePeriodSeconds`, 30 s).
    pub drain_timeout: Duration,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            pre_drain_delay: None,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Validate for LifecycleConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            self.drain_timeout.get() <= StdDuration::from_secs(30),
            "drain_timeout",
            "must be 30s or less",
        );
        problems.check(
            self.pre_drain_delay
                .is_none_or(|delay| delay.get() <= StdDuration::from_secs(30)),
            "pre_drain_delay",
            "must be 30s or less",
        );
    }
}

/// The parts of a service's configuration that are about its process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[lifecycle]`.
    pub lifecycle: LifecycleConfig,
}

/// What a service is given to live in; clones are the same process.
#[derive(Clone, Debug)]
pub struct Process {
    /// When to finish.
    pub shutdown: Shutdown,
    /// What the process consists of.
    pub tasks: Tasks,
    /// Whether it is ready for work.
    pub readiness: Readiness,
    /// What it tells.
    pub telemetry: Telemetry,
    /// Where the admin listener is, if [`run`] has started one.
    pub admin: Option<SocketAddr>,
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to, and everything finished.
    Clean,
    /// It did not start, a task died, or something did not finish in time.
    Failed,
    /// It was asked twice.
    Forced(Signal),
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Admin(#[from] BindError),
}

/// Runs the process `service`: starts telemetry and the admin listener, lets `start` put the service together and spawn
/// its tasks, and keeps it until it ends. `start` returns when the service is ready for work.
pub fn run<E: Into<BoxError>>(
    service: &str,
    settings: &Settings,
    start: impl AsyncFnOnce(Process) -> Result<(), E>,
) -> ExitCode {
    // It is fine if somebody else was first: there is but one provider in the workspace.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(service, &StartError::Runtime(error)),
    };
    let exit = runtime.block_on(live(service, settings, start));
    // Whoever still blocks a thread has had the time to drain.
    runtime.shutdown_timeout(PARTING);
    match exit {
        Ok(exit) => exit.into(),
        Err(error) => fail(service, &error),
    }
}

async fn live<E: Into<BoxError>>(
    service: &str,
    settings: &Settings,
    start: impl AsyncFnOnce(Process) -> Result<(), E>,
) -> Result<Exit, StartError> {
    let signals = signals().map_err(StartError::Signals)?;
    let telemetry = telemetry::init(service, &settings.telemetry)?;
    let mut process = Process::new(telemetry.clone());
    let listener = match admin::bind(&settings.admin).await {
        Ok(listener) => listener,
        Err(error) => {
            let _ = telemetry.shutdown().await;
            return Err(error.into());
        }
    };
    process.admin = listener.local_addr().ok();
    process.tasks.spawn_until_drained(
        "admin",
        admin::serve(listener, telemetry.clone(), process.readiness.clone(), {
            let shutdown = process.shutdown.clone();
            async move { shutdown.drained().await }
        }),
    );
    tracing::info!(
        event = "process_starting",
        version = env!("CARGO_PKG_VERSION"),
        admin = process.admin.map(tracing::field::display),
        "{service} is starting",
    );

    let exit = drive(service, &process, &settings.lifecycle, signals, start).await;
    if let Exit::Forced(signal) = exit {
        let _ = tokio::time::timeout(PARTING, telemetry.shutdown()).await;
        std::process::exit(signal.exit_code().into());
    }
    if let Err(error) = telemetry.shutdown().await {
        tracing::warn!(
            event = "telemetry_lost",
            error = &error as &dyn std::error::Error,
            "the last telemetry was not sent",
        );
    }
    Ok(exit)
}

/// The life of a process whose signals come from `signals`; [`run`] without the outside.
pub async fn drive<E: Into<BoxError>>(
    service: &str,
    process: &Process,
    config: &LifecycleConfig,
    signals: impl Stream<Item = Signal>,
    start: impl AsyncFnOnce(Process) -> Result<(), E>,
) -> Exit {
    // A stream that ends means that no signal will come.
    let signals = signals.chain(futures::stream::pending());
    let mut signals = std::pin::pin!(signals);

    let started = tokio::select! {
        biased;
        () = process.shutdown.requested() => Ok(None),
        signal = signals.next() => Ok(signal),
        started = start(process.clone()) => started.map(|()| None),
    };
    let mut failed = false;
    let mut signal = match started {
        Ok(signal) => signal,
        Err(error) => {
            let error = chain(error.into().as_ref());
            tracing::error!(
                event = "process_not_started",
                "{service} cannot start: {error}"
            );
            failed = true;
            process.shutdown.request();
            None
        }
    };
    if signal.is_none() && !process.shutdown.is_requested() {
        process.readiness.set_serving();
        tracing::info!(event = "process_started", "{service} is ready");
        signal = tokio::select! {
            () = process.shutdown.requested() => None,
            signal = signals.next() => signal,
        };
    }

    process.readiness.set_draining();
    let drained = async {
        if let Some(signal) = signal {
            tracing::info!(
                event = "process_stopping",
                signal = signal.name(),
                "{service} finishes and stops"
            );
            tokio::time::sleep(config.pre_drain_delay()).await;
        }
        process.shutdown.request();
        process.tasks.drained(config.drain_timeout.get()).await
    };
    let unfinished = tokio::select! {
        biased;
        Some(signal) = signals.next() => {
            tracing::warn!(event = "process_forced", signal = signal.name(), "{service} stops at once, being asked to");
            return Exit::Forced(signal);
        }
        unfinished = drained => unfinished,
    };
    if !unfinished.is_empty() {
        failed = true;
        tracing::error!(
            event = "drain_timed_out",
            tasks = unfinished.join(", "),
            "{service} stops before everything has finished: {}",
            unfinished.join(", "),
        );
    }
    let exit = if failed || process.tasks.any_failed() {
        Exit::Failed
    } else {
        Exit::Clean
    };
    tracing::info!(
        event = "process_stopped",
        clean = exit == Exit::Clean,
        "{service} has stopped"
    );
    exit
}

impl LifecycleConfig {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is Kubernetes' sign, and no setting of ours"
    )]
    fn pre_drain_delay(&self) -> StdDuration {
        let in_kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        match self.pre_drain_delay {
            Some(delay) => delay.get(),
            None if in_kubernetes => KUBERNETES_DELAY,
            None => StdDuration::ZERO,
        }
    }
}

impl Process {
    /// A process without tasks, not yet ready.
    pub fn new(telemetry: Telemetry) -> Self {
        let shutdown = Shutdown::new();
        Self {
            tasks: Tasks::new(shutdown.clone()),
            shutdown,
            readiness: Readiness::new(),
            telemetry,
            admin: None,
        }
    }

    /// The same process for one of several services in it: its tasks and checks carry its name.
    #[must_use]
    pub fn scoped(&self, service: &str) -> Self {
        Self {
            tasks: self.tasks.scoped(service),
            readiness: self.readiness.scoped(service),
            ..self.clone()
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Forced(signal) => Self::from(signal.exit_code()),
        }
    }
}

/// Tells why there is no process, before there is a log.
fn fail(service: &str, error: &dyn std::error::Error) -> ExitCode {
    // Nobody can be told if this fails.
    let _ = writeln!(io::stderr(), "{service} cannot start: {}", chain(error));
    ExitCode::FAILURE
}
