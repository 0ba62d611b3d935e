//! `hawser`, started as its users start it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Instance, Log, Process};

/// A folder for one instance, and for what the processes of a test say; it ends with this.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    starts: AtomicUsize,
}

/// A `hawser up` that is about to be started.
#[derive(Debug)]
pub struct Up<'a> {
    home: &'a Home,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    expected: Vec<String>,
}

/// A `hawser up` that is ready.
#[derive(Debug)]
pub struct Hawser {
    /// Where everything is.
    pub instance: Instance,
    data_dir: PathBuf,
    process: Process,
    expected: Vec<String>,
}

/// Initdb, five schemas and six services, on a machine that builds something else beside it.
const READY: Duration = Duration::from_secs(90);
const STOPPED: Duration = Duration::from_secs(40);
/// In each collection of the simulated provider: several pages of them, and quickly synced.
const RECORDS: &str = "250";

/// What a shell around the test may have set, and a test does not mean.
const FOREIGN_SETTINGS: [&str; 3] = [
    "HAWSER_DATA_DIR",
    "HAWSER_DATABASE_URL",
    "HAWSER_DATABASE_PASSWORD_FILE",
];

impl Home {
    /// An empty folder that Postgres' user may pass through, where we are root.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("hawser-e2e-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            folder,
            starts: AtomicUsize::new(0),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The instance's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// A `hawser up` on this folder.
    pub fn up(&self) -> Up<'_> {
        Up {
            home: self,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            expected: Vec::new(),
        }
    }

    /// Starts a `hawser up` with nothing special about it.
    pub async fn start(&self) -> Result<Hawser> {
        self.up().start().await
    }
}

impl Up<'_> {
    /// An argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A setting of the process: `telemetry.log_filter`.
    #[must_use]
    pub fn set(self, setting: &str, value: &str) -> Self {
        self.arg("--set").arg(format!("{setting}={value}"))
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Warnings and errors of this event, or with this text in them, are as they should be.
    #[must_use]
    pub fn expect(mut self, what: &str) -> Self {
        self.expected.push(what.to_owned());
        self
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> Result<Hawser> {
        let data_dir = self.home.data_dir();
        let expected = self.expected.clone();
        let process = self.spawn()?;
        process.line("ready", READY).await?;
        let instance = Instance::read(&data_dir.join("hawser.json"))?;
        Ok(Hawser {
            instance,
            data_dir,
            process,
            expected,
        })
    }

    /// Starts it, and leaves it at that.
    pub fn spawn(self) -> Result<Process> {
        let number = self.home.starts.fetch_add(1, Ordering::Relaxed);
        let mut command = hawser_program()?;
        command
            .arg("up")
            .arg("--data-dir")
            .arg(self.home.data_dir())
            .args(["--records", RECORDS]);
        command.args(&self.arguments).envs(&self.environment);
        Process::start(&format!("hawser-{number}"), command, self.home.path())
    }
}

impl Hawser {
    /// The folder that it runs in.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its log so far.
    pub fn log(&self) -> Log {
        Log::parse(&self.process.stderr())
    }

    /// Another `hawser` command on the same folder: `token mint …`.
    pub fn command(&self, words: &[&str]) -> Result<Output> {
        let mut command = hawser_program()?;
        command.args(words).arg("--data-dir").arg(&self.data_dir);
        Ok(command.output()?)
    }

    /// A user's token, from `hawser token mint`.
    pub fn user_token(&self, tenant: &str, user: &str, roles: &[&str]) -> Result<String> {
        let mut words = vec!["token", "mint", "--tenant", tenant, "--user", user];
        for role in roles {
            words.extend(["--role", role]);
        }
        let output = self.command(&words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "no token was minted: {}",
            said.trim()
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Ends it as SIGKILL does: at once, and without a word.
    pub async fn kill(self) {
        self.process.signal(Signal::SIGKILL);
        self.process.ended(STOPPED).await;
    }

    /// Stops it as SIGTERM does, and looks into its log.
    ///
    /// # Panics
    /// Where it does not end with 0, or where its log has a warning or an error that nobody expects.
    pub async fn finish(self) {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.ended(STOPPED).await;
        let log = self.log();
        let unexpected: Vec<_> = log
            .unexpected(&self.expected)
            .into_iter()
            .map(|line| line.text.as_str())
            .collect();
        assert!(
            unexpected.is_empty(),
            "unexpected in the log:\n{}",
            unexpected.join("\n")
        );
        assert!(ExitStatus::success(&status), "it ended with {status}");
    }
}

/// The program that was built beside this test.
///
/// # Errors
/// Where it was not.
pub fn hawser_program() -> Result<Command> {
    let test = std::env::current_exe()?;
    let program = test
        .ancestors()
        .nth(2)
        .context("a test lies in target/<profile>/deps")?
        .join("hawser");
    ensure!(
        program.exists(),
        "{} is missing: run the tests with `just test`, or build it with `cargo build -p hawser`",
        program.display()
    );
    let mut command = Command::new(program);
    for name in FOREIGN_SETTINGS {
        command.env_remove(name);
    }
    Ok(command)
}
