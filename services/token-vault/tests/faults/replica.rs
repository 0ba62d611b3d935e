//! A vault in a process of its own, with a disk and a port that it keeps from one life to the next.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{Process, eventually_some};
use token_vault::Config;
use uuid::Uuid;

use crate::world::{Vault, World};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What is started again and again.
#[derive(Debug)]
pub(crate) struct Replica {
    name: String,
    folder: PathBuf,
    config: PathBuf,
    address: SocketAddr,
    spool: PathBuf,
    environment: BTreeMap<&'static str, String>,
    lives: AtomicUsize,
}

/// A point that a process has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) pid: i32,
    /// When, in microseconds since 1970.
    pub(crate) micros: i64,
    pub(crate) grant: Uuid,
    pub(crate) point: String,
}

impl Replica {
    /// One that is not started yet. `adjust` changes the configuration that vaults have in tests.
    pub(crate) fn new(world: &World, name: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = world.config(name, world.database.config(token_vault::SCHEMA.name));
        "warn".clone_into(&mut config.telemetry.log_filter);
        // A dozen of them may start at once.
        config.database.connect_timeout = PATIENCE;
        config.database.acquire_timeout = PATIENCE;
        adjust(&mut config);
        config.grpc.listen = free_address();
        let path = world.folder().join(format!("{name}.toml"));
        fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        Self {
            name: name.to_owned(),
            folder: world.folder(),
            config: path,
            address: config.grpc.listen,
            spool: config.spool_dir,
            environment: BTreeMap::new(),
            lives: AtomicUsize::new(0),
        }
    }

    /// The provider takes a used token again for this long, in place of what the catalogue says.
    pub(crate) fn with_replay_window(mut self, seconds: u32) -> Self {
        self.environment
            .insert("HAWSER_VAULT_REPLAY_WINDOW", seconds.to_string());
        self
    }

    /// One life, that ends as `failpoint` says; with an empty one, not by itself.
    pub(crate) fn start(&self, failpoint: &str) -> Process {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(env!("CARGO_BIN_EXE_token-vault"));
        command
            .args(["serve", "--config"])
            .arg(&self.config)
            .env("HAWSER_VAULT_FAILPOINT", failpoint)
            .env("HAWSER_VAULT_FAILPOINT_LOG", self.log())
            .envs(&self.environment);
        let process = Process::start(&format!("{}-{life}", self.name), command, &self.folder);
        process.unwrap().killed_at_end()
    }

    /// Those who call it.
    pub(crate) fn client(&self, world: &World) -> Vault {
        world.vault_at(self.address)
    }

    /// Its disk is gone; it will be another instance.
    pub(crate) fn lose_disk(&self) {
        match fs::remove_dir_all(&self.spool) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    /// Answers that lie in its spool.
    pub(crate) fn spooled(&self) -> usize {
        answers_in(&self.spool)
    }

    /// Room that it has allocated for answers, with and without one.
    pub(crate) fn slots(&self) -> usize {
        slots_in(&self.spool).count()
    }

    /// All points that it has reached, in all its lives.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines()
            .map(|line| Reached::parse(line).unwrap())
            .collect()
    }

    /// Waits until it has reached the point for this grant, in any life.
    pub(crate) async fn reaches(&self, grant: Uuid, point: &str) -> Reached {
        eventually_some(PATIENCE, async || {
            self.reached()
                .into_iter()
                .find(|reached| reached.grant == grant && reached.point == point)
        })
        .await
    }

    /// Whether it has complained of anything that a person must look after.
    pub(crate) fn errors(&self) -> Vec<String> {
        let said = (0..self.lives.load(Ordering::Relaxed)).flat_map(|life| {
            let path = self.folder.join(format!("{}-{life}.err", self.name));
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .filter(|line| line.contains("\"level\":\"ERROR\"") || line.contains("panicked"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        said.collect()
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.points", self.name))
    }
}

impl Reached {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            micros: words.next()?.parse().ok()?,
            grant: words.next()?.parse().ok()?,
            point: words.next()?.to_owned(),
        })
    }
}

/// Answers that lie in a spool; slots without one do not count.
pub(crate) fn answers_in(spool: &Path) -> usize {
    let content = slots_in(spool).filter_map(|path| fs::read(path).ok());
    content
        .filter(|content| content.starts_with(b"HWSPOOL1"))
        .count()
}

fn slots_in(spool: &Path) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(spool).unwrap();
    files
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "answer"))
}

fn free_address() -> SocketAddr {
    // The child binds it a moment later; nobody else is given it in between, as the system hands ports out by turns.
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}
