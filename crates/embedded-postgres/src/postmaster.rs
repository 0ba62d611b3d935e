//! The server's main process: its pid file, what is left of it, and its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

const POLL: Duration = Duration::from_millis(10);

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: i32,
    pub(crate) port: u16,
    pub(crate) socket_folder: PathBuf,
    pub(crate) ready: bool,
}

impl Postmaster {
    /// `None` where there is no such file, or it is still being written.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        Self::parse(&text)
    }

    /// Pid, data folder, start time, port, socket folder, address, shared memory, status: a line each.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3)?.parse().ok()?,
            socket_folder: PathBuf::from(lines.get(4)?),
            ready: lines.get(7).is_some_and(|status| *status == "ready"),
        })
    }
}

/// The processes that live in the data folder: a postmaster, or backends that outlived theirs. Every one of them has the
/// folder as its working directory.
pub(crate) fn living_in(data: &Path) -> Vec<i32> {
    let Ok(data) = fs::canonicalize(data) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| lives_in(pid, &data)).collect()
}

/// Whether this process is one of them.
pub(crate) fn lives_in(pid: i32, data: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data) && !is_zombie(&process)
}

/// Ends whatever still runs in the folder, gently at first, and then removes the pid file that is left. Removing it is
/// safe only then: it is what keeps a second postmaster off the data of living backends.
pub(crate) async fn end_orphans(data: &Path) -> Result<(), Error> {
    for (signal, patience) in [
        (Signal::SIGINT, Duration::from_secs(20)),
        (Signal::SIGQUIT, Duration::from_secs(10)),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ] {
        let living = living_in(data);
        if living.is_empty() {
            break;
        }
        tracing::info!(event = "postgres_orphan_stopped", pids = ?living, "stopping a Postgres that outlived its Hawser");
        let main = Postmaster::read(data)
            .map(|postmaster| postmaster.pid)
            .filter(|pid| living.contains(pid));
        for pid in main.map_or(living, |pid| vec![pid]) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        wait_until(patience, || living_in(data).is_empty()).await;
    }
    if let Some(&pid) = living_in(data).first() {
        return Err(Error::Stuck { pid });
    }
    let file = data.join("postmaster.pid");
    if Path::new("/proc/self/cwd").exists() && file.exists() {
        fs::remove_file(&file).map_err(Error::file(&file))?;
    }
    Ok(())
}

/// Whether the condition came true in time.
pub(crate) async fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let waited = tokio::time::timeout(patience, async {
        while !condition() {
            tokio::time::sleep(POLL).await;
        }
    });
    waited.await.is_ok()
}

fn is_zombie(process: &Path) -> bool {
    // The state follows the program's name, which stands in parentheses.
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read() {
        let text = "4711\n/data\n1700000000\n5433\n/tmp/s\n127.0.0.1\n  17 0\nready   \n";
        let expected = Postmaster {
            pid: 4711,
            port: 5433,
            socket_folder: PathBuf::from("/tmp/s"),
            ready: true,
        };
        assert_eq!(Postmaster::parse(text), Some(expected));
        assert_eq!(Postmaster::parse("4711\n/data\n17"), None);
    }
}
