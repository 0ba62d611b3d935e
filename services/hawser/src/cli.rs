//! The command line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use common::Deps;
use common::admin::AdminConfig;
use common::config::{self, Problems, Validate};
use common::lifecycle::{self, LifecycleConfig, Process, Settings};
use common::problem::Chain;
use common::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;
use crate::instance::Instance;
use crate::user_token::Subject;
use crate::{audit, database, demo, doctor, up, user_token};

/// Keeps other systems' doors open for a product.
#[derive(Debug, Parser)]
#[command(name = "hawser", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every service in one process, on a Postgres that is brought up with it.
    Up(UpArgs),
    /// Go down the whole path against a simulated provider, in a minute.
    Demo(demo::DemoArgs),
    /// Bring every schema of a database up to date.
    Migrate(DatabaseArgs),
    /// Look at what is running, and say what to do about what is not well.
    Doctor(DataDirArgs),
    /// The record of who was handed which secret.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Users' tokens for development.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The database.
    #[command(subcommand)]
    Db(DbCommand),
}

#[derive(Debug, Args)]
struct DataDirArgs {
    /// Where everything is kept.
    #[arg(long, env = "HAWSER_DATA_DIR", default_value = ".hawser")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The first of the ports that are listened on; without it those of the last run, or free ones.
    #[arg(long)]
    port_base: Option<u16>,
    /// Records in each collection of the simulated provider.
    #[arg(long, default_value_t = 2000)]
    records: u32,
    /// A setting of the process, `telemetry.otlp.endpoint=http://127.0.0.1:4317`; can be given again.
    #[arg(long = "set", value_name = "SETTING=VALUE")]
    settings: Vec<String>,
}

#[derive(Debug, Args)]
struct DatabaseArgs {
    /// Another Postgres (15 or newer) than the one that is brought up: postgres://user@host:5432/database.
    #[arg(long, env = "HAWSER_DATABASE_URL")]
    database_url: Option<String>,
    /// The file with the password of that login, which may create roles and schemas.
    #[arg(long, env = "HAWSER_DATABASE_PASSWORD_FILE")]
    database_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Recompute every chain of access records, and say which record is the first that does not fit.
    Verify(audit::VerifyArgs),
    /// Print the end of every chain, to be kept elsewhere and handed to `verify` later.
    Heads(audit::VaultArgs),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a user's token, signed with the development key.
    Mint {
        #[command(flatten)]
        data: DataDirArgs,
        /// The tenant's id, Hawser's or your own.
        #[arg(long)]
        tenant: String,
        /// The user's id in your application.
        #[arg(long)]
        user: String,
        /// `admin` administers the tenant; can be given again.
        #[arg(long)]
        role: Vec<String>,
        /// How many minutes it is good for.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Make the development tenant `acme` with its users.
    Seed(DataDirArgs),
    /// Delete everything in a development database, and make its schemas anew.
    Reset {
        #[command(flatten)]
        data: DataDirArgs,
        /// Yes, delete everything.
        #[arg(long)]
        yes: bool,
    },
    /// The SQL with which a database administrator makes roles and schemas.
    Bootstrap {
        /// Print it; it is run by whoever may.
        #[arg(long, required = true)]
        print: bool,
    },
}

/// What can be set of the process itself, by `--set`, or in the environment as `HAWSER_UP__TELEMETRY__LOG_FILTER`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProcessConfig {
    /// Logs, traces, metrics.
    telemetry: TelemetryConfig,
    /// The listener for operators.
    admin: AdminConfig,
    /// How it ends.
    lifecycle: LifecycleConfig,
}

impl Validate for ProcessConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("telemetry", &self.telemetry);
        problems.nested("admin", &self.admin);
        problems.nested("lifecycle", &self.lifecycle);
    }
}

/// The whole of `main`.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // It is fine if somebody else was first: there is but one provider in the workspace.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match cli.command {
        Command::Up(args) => return run_up(args),
        Command::Demo(args) => block_on(demo::demo(args)),
        Command::Migrate(args) => block_on(database::migrate(
            args.database_url,
            args.database_password_file,
        )),
        Command::Doctor(args) => block_on(doctor::doctor(args.data_dir)),
        Command::Audit(AuditCommand::Verify(args)) => block_on(audit::verify(args)),
        Command::Audit(AuditCommand::Heads(args)) => block_on(audit::heads(args)),
        Command::Token(TokenCommand::Mint {
            data,
            tenant,
            user,
            role,
            minutes,
        }) => mint(
            &data,
            &Subject {
                tenant,
                user,
                roles: role,
            },
            minutes,
        ),
        Command::Db(DbCommand::Seed(args)) => block_on(database::seed(args.data_dir)),
        Command::Db(DbCommand::Reset { data, yes }) => {
            block_on(database::reset(data.data_dir, yes))
        }
        Command::Db(DbCommand::Bootstrap { .. }) => say(&database::bootstrap_sql()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run_up(args: UpArgs) -> ExitCode {
    let overrides: Result<Vec<_>, _> = args
        .settings
        .iter()
        .map(|text| config::parse_override(text))
        .collect();
    let overrides = match overrides {
        Ok(overrides) => overrides,
        Err(error) => return fail(&error.into()),
    };
    let config: ProcessConfig = match config::load("up", None, config::environment(), &overrides) {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
    };
    let settings = Settings {
        telemetry: config.telemetry,
        admin: config.admin,
        lifecycle: config.lifecycle,
    };
    let options = up::Options {
        data_dir: args.data.data_dir,
        database_url: args.database.database_url,
        database_password_file: args.database.database_password_file,
        port_base: args.port_base,
        records: args.records,
    };
    let refused = Mutex::new(None);
    let leavings = up::Leavings::default();
    let code = lifecycle::run(
        "hawser",
        &settings,
        async |process: Process| -> Result<()> {
            let started = up::start(&options, &process).await;
            let running = started.inspect_err(|error| {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Chain(error.as_ref()).to_string());
            })?;
            let summary = ready_line(&running.instance);
            running.hold(&process, &leavings);
            say(&summary)
        },
    );
    let remains = leavings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(remains) = remains
        && let Err(error) = block_on(remains.stop())
    {
        return fail(&error);
    }
    // The log has it too, among other lines and perhaps as JSON; this one is for the person at the terminal.
    if let Some(sentence) = refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let _ = writeln!(std::io::stderr(), "hawser: {sentence}");
    }
    code
}

/// One line that begins with `ready`, and says where to look.
fn ready_line(instance: &Instance) -> String {
    let mut line = String::from("ready");
    for (name, url) in &instance.http {
        let _ = write!(line, "  {name} {url}");
    }
    line
}

fn mint(data: &DataDirArgs, subject: &Subject, minutes: u32) -> Result<()> {
    let dir = DataDir::at(&data.data_dir)?;
    let instance = Instance::read(&dir)?;
    let deps = Deps::system("hawser");
    say(&user_token::mint(
        &instance.jwt,
        subject,
        time::Duration::minutes(i64::from(minutes)),
        &deps,
    )?)
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Prints a line for the user.
///
/// # Errors
/// Where standard output is gone.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("standard output is closed")
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to be told where standard error is gone.
    let _ = writeln!(std::io::stderr(), "hawser: {}", Chain(error.as_ref()));
    ExitCode::FAILURE
}
