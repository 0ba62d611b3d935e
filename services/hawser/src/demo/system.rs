//! The instance of the demo: `hawser up` in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::data_dir::DataDir;
use crate::instance::Instance;

/// A first start makes a cluster, keys and certificates.
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(35);

/// A running `hawser up`.
pub(super) struct System {
    dir: DataDir,
    child: Child,
    instance: Instance,
    records: u32,
    settings: Vec<String>,
}

impl System {
    /// Starts one in a folder that is begun anew.
    pub(super) async fn fresh(data_dir: &Path, records: u32, settings: &[String]) -> Result<Self> {
        let dir = DataDir::at(data_dir)?;
        if dir.root().join("VERSION").exists() {
            // Held, so that no running instance loses its ground; a folder that is not ours was refused by then.
            drop(dir.clone().hold()?);
            std::fs::remove_dir_all(dir.root())
                .with_context(|| format!("{} cannot be emptied", dir.root().display()))?;
        }
        let (child, instance) = start(&dir, records, settings).await?;
        Ok(Self {
            dir,
            child,
            instance,
            records,
            settings: settings.to_vec(),
        })
    }

    /// Where everything is.
    pub(super) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// SIGKILL, and up again.
    pub(super) async fn kill_and_restart(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .context("the instance cannot be killed")?;
        (self.child, self.instance) = start(&self.dir, self.records, &self.settings).await?;
        Ok(())
    }

    /// An orderly end.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)
                .context("the instance cannot be asked to stop")?;
        }
        let status = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await;
        let status = status
            .context("the instance did not stop in time")?
            .context("the instance is gone")?;
        if status.success() {
            Ok(())
        } else {
            bail!(
                "the instance ended with {status}; its log is {}",
                log_file(&self.dir).display()
            )
        }
    }
}

fn log_file(dir: &DataDir) -> PathBuf {
    dir.root().with_extension("log")
}

async fn start(dir: &DataDir, records: u32, settings: &[String]) -> Result<(Child, Instance)> {
    let program = std::env::current_exe().context("our own program cannot be found")?;
    if let Some(parent) = dir.root().parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("{} cannot be made", parent.display()))?;
    }
    let path = log_file(dir);
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let log = log.with_context(|| format!("{} cannot be written", path.display()))?;
    let mut command = Command::new(program);
    command
        .arg("up")
        .arg("--data-dir")
        .arg(dir.root())
        .arg("--records")
        .arg(records.to_string());
    for setting in settings {
        command.arg("--set").arg(setting);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("the instance cannot be started")?;
    let out = child.stdout.take().context("its output is piped")?;
    let ready = async {
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("ready") {
                return Ok::<_, std::io::Error>(true);
            }
        }
        Ok(false)
    };
    match tokio::time::timeout(START_LIMIT, ready).await {
        Ok(Ok(true)) => Ok((child, Instance::read(dir)?)),
        Ok(_) => bail!(
            "the instance ended before it was ready: {}",
            last_words(&path)
        ),
        Err(_) => bail!(
            "the instance was not ready within {} s; its log is {}",
            START_LIMIT.as_secs(),
            path.display()
        ),
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing")
        .to_owned()
}
