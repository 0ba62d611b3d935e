//! What processes use, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Processor time used by some processes, and by the whole machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) client: Duration,
    pub(crate) server: Duration,
    pub(crate) postgres: Duration,
    /// Everybody's, ours included.
    pub(crate) machine: Duration,
}

impl Cpu {
    /// Since they were started.
    pub(crate) fn now(server: i32, postmaster: Option<i32>) -> Result<Self> {
        let postgres = match postmaster {
            Some(pid) => with_children(pid)?,
            None => Duration::ZERO,
        };
        Ok(Self {
            client: of_process(std::process::id() as i32)?,
            server: of_process(server)?,
            postgres,
            machine: of_machine()?,
        })
    }

    /// What was used since then.
    pub(crate) fn since(self, then: Self) -> Self {
        Self {
            client: self.client.saturating_sub(then.client),
            server: self.server.saturating_sub(then.server),
            // A backend that has ended takes its time with it.
            postgres: self.postgres.saturating_sub(then.postgres),
            machine: self.machine.saturating_sub(then.machine),
        }
    }

    /// What neither we nor what we measure have used.
    pub(crate) fn others(self) -> Duration {
        self.machine
            .saturating_sub(self.client + self.server + self.postgres)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            client: self.client + other.client,
            server: self.server + other.server,
            postgres: self.postgres + other.postgres,
            machine: self.machine + other.machine,
        }
    }
}

/// Resident memory now, and the most that there ever was, in MiB.
pub(crate) fn memory(pid: i32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("no {name} of process {pid}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Linux counts in hundredths of a second, whatever its own clock.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 10)
}

fn of_process(pid: i32) -> Result<Duration> {
    let fields = stat(pid)?;
    Ok(ticks(
        fields[11].parse::<u64>()? + fields[12].parse::<u64>()?,
    ))
}

fn with_children(parent: i32) -> Result<Duration> {
    let mut sum = of_process(parent)?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may end while it is looked at.
        if stat(pid).is_ok_and(|fields| fields[1] == parent.to_string()) {
            sum += of_process(pid).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// The fields behind the program's name, which may have spaces in it: state, parent, ….
fn stat(pid: i32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Time in which the processors were not idle.
fn of_machine() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("a line for all processors")?;
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // User, nice, system, then idle and waiting for disks, then interrupts and what the hypervisor took.
    let busy = times.iter().take(8).enumerate();
    Ok(ticks(
        busy.filter(|(field, _)| !matches!(field, 3 | 4))
            .map(|(_, time)| time)
            .sum(),
    ))
}
