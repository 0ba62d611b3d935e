//! The shape of a service, and the process around it.
//!
//! A service says what it is called, how it is configured, and how it starts; [`main`] gives it its subcommands, its
//! listeners, its logs, and its end. `hawser up` starts the same services in one process, through the same [`Service`].

use std::error::Error;
use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;

use crate::Deps;
use crate::admin::{AdminConfig, Readiness};
use crate::config::{self, Config, ConfigError};
use crate::lifecycle::{self, BoxError, LifecycleConfig, Process, Settings, Shutdown, Tasks};
use crate::pg::{self, PgConfig, Schema};
use crate::problem::Chain;
use crate::telemetry::TelemetryConfig;

/// A service that can be started, in a process of its own or beside others.
pub trait Service {
    /// What it is called: `token-vault`.
    const NAME: &'static str;
    /// Its configuration.
    type Config: Config + Clone + Send + 'static;

    /// Its schema; `None` where it keeps nothing.
    fn schema() -> Option<&'static Schema>;

    /// The parts of its configuration that every service has.
    fn shared(config: &Self::Config) -> Shared<'_>;

    /// Builds it and spawns its tasks; returns once it serves.
    fn start(
        config: Self::Config,
        listeners: Listeners,
        runtime: Runtime,
    ) -> impl Future<Output = Result<(), StartError>> + Send;
}

/// What a service is started with.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Time, randomness, metrics.
    pub deps: Deps,
    /// Where its tasks are spawned; one that dies takes the process down.
    pub tasks: Tasks,
    /// Requested once, when the process is to end.
    pub shutdown: Shutdown,
    /// Where it says whether it can serve.
    pub readiness: Readiness,
}

/// Listeners, bound outside, so that tests and `hawser up` can take free ports.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For gRPC, where the service has any.
    pub grpc: Option<TcpListener>,
    /// For its public HTTP, where it has any.
    pub http: Option<TcpListener>,
}

/// What every service's configuration has.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Logs, traces, metrics.
    pub telemetry: &'a TelemetryConfig,
    /// The listener for operators.
    pub admin: &'a AdminConfig,
    /// How the process ends.
    pub lifecycle: &'a LifecycleConfig,
    /// Where it keeps what it keeps.
    pub database: Option<&'a PgConfig>,
    /// Where it listens for gRPC.
    pub grpc: Option<SocketAddr>,
    /// Where it listens for public HTTP.
    pub http: Option<SocketAddr>,
}

impl Runtime {
    /// The part of `process` that the service `name` lives in.
    pub fn new(process: &Process, name: &'static str) -> Self {
        let process = process.scoped(name);
        let deps = Deps {
            meter: process.telemetry.meter(name),
            ..Deps::system(name)
        };
        Self {
            deps,
            tasks: process.tasks,
            shutdown: process.shutdown,
            readiness: process.readiness,
        }
    }
}

/// Why a service did not start.
pub type StartError = BoxError;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on; choose another with `{setting}`")]
pub struct BindError {
    address: SocketAddr,
    setting: &'static str,
    source: io::Error,
}

/// A command line that is not understood.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(
        "use it as: {service} serve|migrate|check-config [--config FILE] [--set setting=value]…"
    )]
    Usage { service: &'static str },
    #[error("--set is not understood")]
    Override(#[from] config::OverrideError),
}

enum Command {
    Serve,
    Migrate,
    CheckConfig,
}

struct Arguments {
    command: Command,
    config: Option<PathBuf>,
    overrides: Vec<(String, String)>,
}

/// Listens, and says which setting to change where that fails.
///
/// # Errors
/// [`BindError`] where the port is taken or not ours to take.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError {
            address,
            setting,
            source,
        })
}

/// The whole `main` of a service: `serve`, `migrate`, and `check-config`.
pub fn main<S: Service>() -> ExitCode {
    let arguments = match parse(S::NAME, std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error),
    };
    let environment = config::environment();
    let file = arguments.config.as_deref();
    if matches!(arguments.command, Command::CheckConfig) {
        let checked = config::check_config::<S::Config>(
            section(S::NAME),
            file,
            environment,
            &arguments.overrides,
            &mut io::stdout(),
        );
        return if checked.is_ok_and(|ok| ok) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let loaded: Result<S::Config, ConfigError> =
        config::load(section(S::NAME), file, environment, &arguments.overrides);
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    match arguments.command {
        Command::Migrate => migrate::<S>(&config),
        _ => serve::<S>(&config),
    }
}

/// The name under which a service's settings stand in the environment: `vault` of `token-vault`.
fn section(name: &'static str) -> &'static str {
    name.rsplit('-').next().unwrap_or(name)
}

fn parse(
    service: &'static str,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Arguments, UsageError> {
    let usage = || UsageError::Usage { service };
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut command, mut config, mut overrides) = (None, None, Vec::new());
    while let Some(argument) = parser.next().map_err(|_| usage())? {
        match argument {
            lexopt::Arg::Long("config") => {
                config = Some(PathBuf::from(parser.value().map_err(|_| usage())?));
            }
            lexopt::Arg::Long("set") => {
                let value = parser.value().map_err(|_| usage())?;
                overrides.push(config::parse_override(&value.to_string_lossy())?);
            }
            lexopt::Arg::Value(value) if command.is_none() => {
                command = Some(match value.to_str() {
                    Some("serve") => Command::Serve,
                    Some("migrate") => Command::Migrate,
                    Some("check-config") => Command::CheckConfig,
                    _ => return Err(usage()),
                });
            }
            _ => return Err(usage()),
        }
    }
    Ok(Arguments {
        command: command.ok_or_else(usage)?,
        config,
        overrides,
    })
}

fn migrate<S: Service>(config: &S::Config) -> ExitCode {
    let (Some(schema), Some(database)) = (S::schema(), S::shared(config).database) else {
        return ExitCode::SUCCESS;
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(pg::migrate(database, schema)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn serve<S: Service>(config: &S::Config) -> ExitCode {
    let shared = S::shared(config);
    let settings = Settings {
        telemetry: shared.telemetry.clone(),
        admin: shared.admin.clone(),
        lifecycle: shared.lifecycle.clone(),
    };
    lifecycle::run(S::NAME, &settings, async |process: Process| {
        if let (Some(schema), Some(database)) = (S::schema(), shared.database) {
            pg::check_schema(database, schema).await?;
        }
        let listeners = Listeners {
            grpc: listen(shared.grpc, "grpc.listen").await?,
            http: listen(shared.http, "http.listen").await?,
        };
        S::start(config.clone(), listeners, Runtime::new(&process, S::NAME)).await
    })
}

async fn listen(
    address: Option<SocketAddr>,
    setting: &'static str,
) -> Result<Option<TcpListener>, BindError> {
    match address {
        Some(address) => bind(address, setting).await.map(Some),
        None => Ok(None),
    }
}

fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    // Nobody is left to be told where standard error is gone.
    let _ = writeln!(io::stderr(), "{}", Chain(error));
    ExitCode::FAILURE
}
