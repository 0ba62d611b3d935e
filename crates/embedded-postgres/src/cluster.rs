//! A cluster in a folder: made once, started and stopped often.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, thread};

use common::{Deps, Secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::Error;
use crate::binaries::Binaries;
use crate::postmaster::{self, Postmaster};
use crate::run_as::RunAs;

/// Recovery after a crash may take its time.
const START_LIMIT: Duration = Duration::from_mins(2);
/// `sun_path`, without its last byte.
const SOCKET_PATH_LIMIT: usize = 107;
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
const SUPERUSER: &str = "postgres";

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a commit is on disk when it is acknowledged. Only a cluster that may be lost with its machine, as tests have
    /// it, can do without. (A killed process loses nothing either way.)
    pub durable: bool,
    /// To whom the server belongs.
    pub lifetime: Lifetime,
    /// At most this many connections.
    pub max_connections: u32,
    /// The folder of the server's programs; looked for where it is `None`.
    pub binaries: Option<PathBuf>,
    /// As whom Postgres runs where we are root.
    pub user: String,
    /// The port to take where it is free; another one where it is not, or where this is `None`.
    pub port: Option<u16>,
    /// Further settings, by name.
    pub settings: Vec<(String, String)>,
}

/// To whom a server belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// To this process alone, and it ends with it.
    Owned,
    /// To nobody: it stays when we end, and one that already runs is used as it is.
    Shared,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Transactions are rolled back, and a checkpoint is made.
    Fast,
    /// As a crash: the next start recovers.
    Immediate,
}

/// A running server.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    data: PathBuf,
    postmaster: Postmaster,
    password_file: PathBuf,
    lifetime: Lifetime,
    /// Its end; `None` for one that somebody else has started.
    exit: Option<watch::Receiver<Option<ExitStatus>>>,
    /// Held as long as the server is ours.
    _lock: Option<File>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durable: true,
            lifetime: Lifetime::Owned,
            max_connections: 200,
            binaries: None,
            user: "postgres".to_owned(),
            port: None,
            settings: Vec::new(),
        }
    }
}

impl Cluster {
    /// Starts the cluster in `folder`, and makes it first where there is none.
    ///
    /// # Errors
    /// Sentences that say what to do.
    pub async fn start(folder: &Path, options: &Options, deps: &Deps) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let folder = fs::canonicalize(folder).map_err(Error::file(folder))?;
        let lock = lock(&folder, options.lifetime)?;
        let data = folder.join("data");
        let password_file = folder.join("superuser.password");
        if options.lifetime == Lifetime::Shared
            && let Some(postmaster) = running(&data)
        {
            return Ok(Self {
                folder,
                data,
                postmaster,
                password_file,
                lifetime: Lifetime::Shared,
                exit: None,
                _lock: None,
            });
        }
        let run_as = RunAs::find(&options.user)?;
        run_as.check_reach(&folder)?;
        let binaries = Binaries::find(options.binaries.as_deref(), &data)?;
        if !data.exists() {
            make(&folder, &data, &password_file, &binaries, &run_as, deps)?;
        }
        postmaster::end_orphans(&data).await?;
        let (postmaster, exit) = launch(&folder, &data, &binaries, &run_as, options).await?;
        let kept = (options.lifetime == Lifetime::Owned).then_some(lock);
        Ok(Self {
            folder,
            data,
            postmaster,
            password_file,
            lifetime: options.lifetime,
            exit: Some(exit),
            _lock: kept,
        })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The superuser's address by the Unix socket, in libpq's key-value form, without the password.
    pub fn socket_url(&self, database: &str) -> String {
        let (folder, port) = (
            self.postmaster.socket_folder.display(),
            self.postmaster.port,
        );
        format!("host='{folder}' port={port} user={SUPERUSER} dbname='{database}'")
    }

    /// The superuser's address by loopback, without the password.
    pub fn tcp_url(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}@127.0.0.1:{}/{database}",
            self.postmaster.port
        )
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.postmaster.port
    }

    /// The file with the superuser's password.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// The server's main process.
    pub fn pid(&self) -> i32 {
        self.postmaster.pid
    }

    /// Waits for the server's end, expected or not. Never ends for one that was already running.
    pub async fn exited(&self) -> Option<ExitStatus> {
        match self.exit.clone() {
            Some(mut exit) => exit
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|status| *status),
            None => std::future::pending().await,
        }
    }

    /// Stops the server, and waits until it is gone. The data stays.
    ///
    /// # Errors
    /// Where it does not stop.
    pub async fn stop(mut self, mode: StopMode) -> Result<(), Error> {
        let pid = self.postmaster.pid;
        self.signal(mode);
        let gone = || postmaster::living_in(&self.data).is_empty() && self.has_exited();
        if !postmaster::wait_until(Duration::from_secs(20), gone).await {
            tracing::warn!(
                event = "postgres_slow_stop",
                pid,
                "Postgres does not stop by itself; ending it as after a crash"
            );
            self.signal(StopMode::Immediate);
            let gone = || postmaster::living_in(&self.data).is_empty() && self.has_exited();
            if !postmaster::wait_until(Duration::from_secs(10), gone).await {
                return Err(Error::Stuck { pid });
            }
        }
        // Nothing is left for `drop` to stop.
        self.lifetime = Lifetime::Shared;
        Ok(())
    }

    fn signal(&self, mode: StopMode) {
        let signal = match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        // Only while it is that process: a pid may have been given to another one.
        if !self.has_exited() && postmaster::lives_in(self.postmaster.pid, &self.data) {
            let _ = kill(Pid::from_raw(self.postmaster.pid), signal);
        }
    }

    fn has_exited(&self) -> bool {
        self.exit
            .as_ref()
            .is_none_or(|exit| exit.borrow().is_some())
            && !postmaster::lives_in(self.postmaster.pid, &self.data)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            self.signal(StopMode::Fast);
        }
    }
}

/// One process at a time: an owner for as long as it lives, users of a shared one while they look for it.
fn lock(folder: &Path, lifetime: Lifetime) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file(&path))?;
    match lifetime {
        Lifetime::Shared => file.lock().map_err(Error::file(&path))?,
        Lifetime::Owned => file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse {
                folder: folder.to_owned(),
            },
            TryLockError::Error(source) => Error::File { path, source },
        })?,
    }
    Ok(file)
}

fn running(data: &Path) -> Option<Postmaster> {
    Postmaster::read(data)
        .filter(|postmaster| postmaster.ready && postmaster::lives_in(postmaster.pid, data))
}

/// Makes the data aside, and puts it in its place when it is whole.
fn make(
    folder: &Path,
    data: &Path,
    password_file: &Path,
    binaries: &Binaries,
    run_as: &RunAs,
    deps: &Deps,
) -> Result<(), Error> {
    let (aside, handed) = (folder.join("data.new"), folder.join("password.new"));
    for left_over in [&aside, &handed] {
        let removed = if left_over.is_dir() {
            fs::remove_dir_all(left_over)
        } else {
            fs::remove_file(left_over)
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::File {
                    path: left_over.clone(),
                    source: error,
                });
            }
            _ => {}
        }
    }
    let password = deps.token("");
    write_secret(password_file, &password)?;
    write_secret(&handed, &password)?;
    run_as.give(&handed).map_err(Error::file(&handed))?;
    run_as.private_folder(&aside)?;

    let program = binaries.program("initdb");
    let output = run_as
        .command(&program, false)
        .args([
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        ])
        .arg(format!("--username={SUPERUSER}"))
        .arg("--pwfile")
        .arg(&handed)
        .arg("--pgdata")
        .arg(&aside)
        .output()
        .map_err(|source| Error::Run { program, source })?;
    fs::remove_file(&handed).map_err(Error::file(&handed))?;
    if !output.status.success() {
        return Err(Error::Initdb {
            data: data.to_owned(),
            said: last_lines(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    fs::rename(&aside, data).map_err(Error::file(data))
}

fn write_secret(path: &Path, secret: &Secret<String>) -> Result<(), Error> {
    let written = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(secret.expose().as_bytes())?;
            file.sync_all()
        });
    written.map_err(Error::file(path))
}

/// Starts the postmaster, and waits until it takes connections. A port that somebody took meanwhile is tried again.
async fn launch(
    folder: &Path,
    data: &Path,
    binaries: &Binaries,
    run_as: &RunAs,
    options: &Options,
) -> Result<(Postmaster, watch::Receiver<Option<ExitStatus>>), Error> {
    let log = folder.join("postgres.log");
    let socket_folder = socket_folder(folder, run_as)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let wanted = options.port.filter(|_| tries == 1);
        let port = match wanted {
            Some(port) => port,
            None => free_port().map_err(Error::file("127.0.0.1"))?,
        };
        let started_at = open_log(&log)?;
        let mut command = run_as.command(
            &binaries.program("postgres"),
            options.lifetime == Lifetime::Owned,
        );
        command.arg("-D").arg(data);
        for (name, value) in settings(options, port, &socket_folder) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let output = OpenOptions::new()
            .append(true)
            .open(&log)
            .map_err(Error::file(&log))?;
        // In a process group of its own, so that Ctrl-C at the terminal reaches us alone.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .process_group(0);
        let exit = spawn(command, binaries.program("postgres")).await?;

        let ended = || exit.borrow().is_some();
        let ready = || Postmaster::read(data).is_some_and(|postmaster| postmaster.ready);
        if !postmaster::wait_until(START_LIMIT, || ended() || ready()).await {
            let _ = postmaster::end_orphans(data).await;
            return Err(Error::Slow {
                seconds: START_LIMIT.as_secs(),
                log,
            });
        }
        if let Some(postmaster) = Postmaster::read(data).filter(|_| !ended()) {
            return Ok((postmaster, exit));
        }
        let said = said_since(&log, started_at);
        if tries == 5 || !said.contains("Address already in use") {
            return Err(Error::Start {
                said: last_lines(&said),
                log,
            });
        }
    }
}

/// Starts the process from a thread that lives as long as it does: the parent-death signal is about the thread, and the
/// runtime's own come and go.
async fn spawn(
    mut command: std::process::Command,
    program: PathBuf,
) -> Result<watch::Receiver<Option<ExitStatus>>, Error> {
    let (started, start) = tokio::sync::oneshot::channel();
    let (exited, exit) = watch::channel(None);
    let run = move || match command.spawn() {
        Ok(mut child) => {
            let _ = started.send(Ok(()));
            let _ = exited.send(child.wait().ok());
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    };
    let failed = |source| Error::Run {
        program: program.clone(),
        source,
    };
    thread::Builder::new()
        .name("postgres".to_owned())
        .spawn(run)
        .map_err(failed)?;
    start
        .await
        .expect("the thread answers before it ends")
        .map_err(failed)?;
    Ok(exit)
}

fn settings(options: &Options, port: u16, socket_folder: &Path) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_permissions", "0700"),
        ("password_encryption", "scram-sha-256"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("jit", "off"),
        // Neither values nor statements with their literals belong into the log.
        ("log_error_verbosity", "terse"),
        ("log_min_error_statement", "panic"),
        ("log_checkpoints", "off"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    settings.push(("port".to_owned(), port.to_string()));
    settings.push((
        "unix_socket_directories".to_owned(),
        socket_folder.display().to_string(),
    ));
    settings.push((
        "max_connections".to_owned(),
        options.max_connections.to_string(),
    ));
    let (sync, full_pages) = if options.durable {
        ("on", "on")
    } else {
        ("off", "off")
    };
    settings.push(("fsync".to_owned(), sync.to_owned()));
    settings.push(("full_page_writes".to_owned(), full_pages.to_owned()));
    settings.push(("synchronous_commit".to_owned(), "on".to_owned()));
    settings.extend(options.settings.iter().cloned());
    settings
}

/// In the folder, unless its path is too long for a socket.
fn socket_folder(folder: &Path, run_as: &RunAs) -> Result<PathBuf, Error> {
    let near = folder.join("socket");
    if near.as_os_str().len() + "/.s.PGSQL.65535.lock".len() <= SOCKET_PATH_LIMIT {
        run_as.private_folder(&near)?;
        return Ok(near);
    }
    // By the folder's path, so that there is one each; by the owner, as others may write to /tmp too.
    let digest = folder
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let far = PathBuf::from(format!(
        "/tmp/hawser-pg-{}-{digest:016x}",
        nix::unistd::Uid::effective()
    ));
    if fs::symlink_metadata(&far).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(Error::File {
            path: far,
            source: ErrorKind::PermissionDenied.into(),
        });
    }
    run_as.private_folder(&far)?;
    Ok(far)
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Makes the log, sets a big one aside, and says where the new part begins.
fn open_log(log: &Path) -> Result<u64, Error> {
    let opened = (|| {
        if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            fs::rename(log, log.with_extension("log.1"))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)?;
        Ok(file.metadata()?.len())
    })();
    opened.map_err(Error::file(log))
}

fn said_since(log: &Path, start: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(start as usize..).unwrap_or_default()).into_owned()
}

fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}
