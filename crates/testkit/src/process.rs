//! A child process with its output in files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually_some;

/// A process; it ends with this, a stopped one too.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    exit: Arc<Exit>,
    out: PathBuf,
    err: PathBuf,
    at_end: Signal,
}

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

/// The time that a process has to end by itself. A service drains for 30 s at most.
const DRAIN: Duration = Duration::from_secs(35);
/// How much of its output is shown when a test fails: of the last lines, and of those that complain.
const SHOWN_LINES: usize = 12;
const SHOWN_COMPLAINTS: usize = 30;
const SHOWN_WIDTH: usize = 600;

impl Process {
    /// Starts it, with its output in `<folder>/<name>.out` and `.err`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let out = folder.join(format!("{name}.out"));
        let err = folder.join(format!("{name}.err"));
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let exit = Arc::new(Exit::default());
        let pid = Pid::from_raw(child.id() as i32);
        let told = exit.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || told.tell(child.wait().ok()))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            exit,
            out,
            err,
            at_end: Signal::SIGTERM,
        })
    }

    /// Waits for a line on its standard output that begins with `beginning`.
    ///
    /// # Errors
    /// Where it ends before it says that; the message has what it said instead.
    pub async fn line(&self, beginning: &str, within: Duration) -> Result<String> {
        let found = eventually_some(within, async || {
            let ended = self.exit.status().is_some();
            let said = self.stdout();
            // A line is said when it has ended.
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let line = whole.lines().find(|line| line.starts_with(beginning));
            line.map(|line| Ok(line.to_owned()))
                .or_else(|| ended.then_some(Err(())))
        });
        match found.await {
            Ok(line) => Ok(line),
            Err(()) => bail!(
                "{} ended before it said `{beginning}`: {}",
                self.name,
                self.stderr().trim()
            ),
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub async fn ended(&self, within: Duration) -> ExitStatus {
        eventually_some(within, async || self.exit.status()).await
    }

    /// Its end, if it has come.
    pub fn status(&self) -> Option<ExitStatus> {
        self.exit.status()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.exit.status().is_none() {
            // One that has just ended does not take it.
            let _ = kill(self.pid, signal);
        }
    }

    /// One that is not asked to end, but killed, when nobody needs it any more.
    #[must_use]
    pub fn killed_at_end(mut self) -> Self {
        self.at_end = Signal::SIGKILL;
        self
    }

    /// Ends it as SIGKILL does: at once, and without a word.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.ended(DRAIN).await;
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// What it has said on standard output.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// What it has said on standard error.
    pub fn stderr(&self) -> String {
        read(&self.err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(self.at_end);
        // One that is stopped hears nothing else.
        self.signal(Signal::SIGCONT);
        if !self.exit.comes_within(DRAIN) {
            self.signal(Signal::SIGKILL);
            self.exit.comes_within(DRAIN);
        }
        if thread::panicking() {
            let said = format!("{}{}", self.stdout(), self.stderr());
            let shown = worth_showing(&said);
            eprintln!("--- the end of what {} said:\n{shown}\n---", self.name);
        }
    }
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, status: Option<ExitStatus>) {
        *self.lock() = status;
        self.changed.notify_all();
    }

    fn status(&self) -> Option<ExitStatus> {
        *self.lock()
    }

    fn comes_within(&self, span: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), span, |status| status.is_none());
        waited.is_ok_and(|(status, _)| status.is_some())
    }
}

/// The last lines, and before them those that are no ordinary lines of a log.
fn worth_showing(said: &str) -> String {
    let is_ordinary = |line: &&str| {
        let level = |level: &str| line.contains(&format!("\"level\":\"{level}\""));
        level("INFO") || level("DEBUG") || level("TRACE")
    };
    let lines: Vec<_> = said.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(SHOWN_LINES));
    let complaints: Vec<_> = before.iter().filter(|line| !is_ordinary(line)).collect();
    let first_complaint = complaints.len().saturating_sub(SHOWN_COMPLAINTS);
    let shown = complaints[first_complaint..].iter().copied().chain(last);
    let cut = |line: &&str| line.chars().take(SHOWN_WIDTH).collect::<String>();
    shown.map(cut).collect::<Vec<_>>().join("\n")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
