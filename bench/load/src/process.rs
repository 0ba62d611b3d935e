//! The programs that are measured, each in a process of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A process that ends with this.
pub(crate) struct Process {
    child: Child,
    pid: i32,
    log: PathBuf,
    began: Instant,
}

const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl Process {
    /// Starts it, with all that it says in `log`.
    pub(crate) fn start(program: &Path, arguments: &[String], log: PathBuf) -> Result<Self> {
        let out = File::create(&log)?;
        let began = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started; build it first", program.display()))?;
        let pid = child.id().context("it has just been started")? as i32;
        Ok(Self {
            child,
            pid,
            log,
            began,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until its admin listener says that it is ready; the time since it was started.
    pub(crate) async fn ready(&mut self, admin: SocketAddr) -> Result<Duration> {
        loop {
            if is_ready(admin).await {
                return Ok(self.began.elapsed());
            }
            self.still_runs()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until somebody listens on `address`.
    pub(crate) async fn listens(&mut self, address: SocketAddr) -> Result<()> {
        while TcpStream::connect(address).await.is_err() {
            self.still_runs()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits for its end; for one that ends by itself.
    pub(crate) async fn ended(mut self) -> Result<()> {
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("it ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("it does not stop")??;
        Ok(())
    }

    /// Ends it without asking: what it does can wait for nobody.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// How often its log has a line with this in it.
    pub(crate) fn said(&self, what: &str) -> Result<usize> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| line.contains(what)).count())
    }

    fn still_runs(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            bail!("it ended while it was waited for: {}", self.last_words());
        }
        if self.began.elapsed() > PATIENCE {
            bail!("it is not ready: {}", self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// A port that is free now; whoever takes it next is meant to be the process that it is for.
pub(crate) async fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?)
}

async fn is_ready(admin: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    asked.await.unwrap_or(false)
}
