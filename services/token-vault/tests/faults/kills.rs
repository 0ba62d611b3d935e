//! Two vaults on one database, killed again and again: by themselves at whichever point they have come to, and from
//! outside at any moment.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Reason, Rng as _};
use testkit::SeededRng;
use uuid::Uuid;

use crate::exposure::Exposure;
use crate::fleet::{Both, all_due, ask, expire_all, import, lifetime, lost, rotate, setting};
use crate::replica::{PATIENCE, Reached, Replica};
use crate::world::World;

/// What a kill leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Kept,
    Lost,
}

/// Processes that are killed, and grants that are always due.
struct Storm {
    world: World,
    replicas: [Replica; 2],
    grants: Vec<Both>,
    random: std::sync::Arc<SeededRng>,
    disk: Disk,
    kills: u64,
    killed: AtomicU64,
    deaths: Mutex<Vec<Death>>,
}

/// A process that was killed.
#[derive(Clone, Copy, Debug)]
struct Death {
    pid: i32,
    /// In microseconds since 1970.
    micros: i64,
}

/// The provider's, and in the short form one that does not end before a vault is up again on a machine that does ten other
/// things.
const WINDOW_SECONDS: u32 = 10;
const LONG_WINDOW_SECONDS: u32 = 60;
/// Access tokens are good for this long, so that there is always something to refresh.
const LIFETIME_SECONDS: u32 = 1;
/// A life ends at one of so many points, or within so many milliseconds.
const POINTS: u64 = 250;
const LONGEST_LIFE_MS: u64 = 1500;
/// One life in so many is ended from outside; one death in so many lasts long enough for the other vault to take over.
const FROM_OUTSIDE: u64 = 4;
const LONG_DEATH: u64 = 20;
const LONG_DEATH_MS: u64 = 4000;
/// A life that does not come to its point ends after this long all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// From the first to the last of these the answer is in the process alone, or not there yet.
const NOT_ON_DISK: [&str; 3] = [SENT, "answered", "sealed"];
const SENT: &str = "before_send";
/// As many as two vaults can keep fresh, so that what a kill has left open is not far behind in the queue.
const GRANTS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_procore_01_with_a_window_no_kill_loses_a_grant() {
    let storm = Storm::new(window(), Disk::Kept, kills()).await;
    storm.rage().await;
    storm.expect_none_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_window_no_kill_loses_a_grant_where_its_disk_goes_with_it() {
    let storm = Storm::new(window(), Disk::Lost, (kills() / 4).max(5)).await;
    storm.rage().await;
    storm.expect_none_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_a_kill_loses_what_had_not_reached_the_disk_and_nothing_else() {
    let storm = Storm::new(0, Disk::Kept, kills()).await;
    storm.rage().await;
    storm.expect_each_loss_proven().await;
}

fn kills() -> u64 {
    setting("FAULT_KILLS").unwrap_or(10)
}

fn window() -> u32 {
    if setting("FAULT_KILLS").is_some() {
        WINDOW_SECONDS
    } else {
        LONG_WINDOW_SECONDS
    }
}

impl Storm {
    async fn new(window: u32, disk: Disk, kills: u64) -> Self {
        let seed = setting("FAULT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("{kills} kills; FAULT_SEED={seed} takes the same choices again");
        let (world, maker) = World::new().await;
        rotate(&world, window).await;
        // Without a window some are lost on the way.
        let spare = if window == 0 { kills as usize } else { 0 };
        let grants = import(&world, &maker, GRANTS + spare).await;
        drop(maker);
        lifetime(&world, LIFETIME_SECONDS).await;
        expire_all(&world).await;
        all_due(&world).await;
        let replica = |name| {
            let replica = Replica::new(&world, name, |config| {
                config.tasks.sweep_every = common::config::Duration::from_millis(50);
                config.refresh.concurrency = 16;
            });
            if window == 0 {
                replica
            } else {
                replica.with_replay_window(window)
            }
        };
        Self {
            replicas: [replica("left"), replica("right")],
            world,
            grants,
            random: SeededRng::new(seed),
            disk,
            kills,
            killed: AtomicU64::new(0),
            deaths: Mutex::default(),
        }
    }

    fn below(&self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }

    /// Until there were enough kills; then both are up and nobody kills them.
    async fn rage(&self) {
        let [left, right] = &self.replicas;
        tokio::select! {
            _ = async { tokio::join!(self.live_and_die(left), self.live_and_die(right)) } => {}
            () = self.call() => {}
        }
        eprintln!("killed at: {:?}", self.last_points());
        lifetime(&self.world, 3600).await;
    }

    async fn live_and_die(&self, replica: &Replica) {
        while self.killed.fetch_add(1, Ordering::SeqCst) < self.kills {
            let from_outside = self.below(FROM_OUTSIDE) == 0;
            let (failpoint, life) = if from_outside {
                let life = Duration::from_millis(self.below(LONGEST_LIFE_MS));
                (String::new(), life)
            } else {
                let failpoint = format!("random:{}:{POINTS}", self.below(u64::MAX));
                (failpoint, LONGEST_WAIT)
            };
            let process = replica.start(&failpoint);
            let _ = tokio::time::timeout(life, process.ended(PATIENCE)).await;
            process.kill().await;
            let status = process.ended(PATIENCE).await;
            assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}");
            self.deaths.lock().unwrap().push(Death {
                pid: process.pid(),
                micros: (self.world.deps.now().unix_timestamp_nanos() / 1000) as i64,
            });
            if self.disk == Disk::Lost {
                replica.lose_disk();
            }
            if self.below(LONG_DEATH) == 0 {
                tokio::time::sleep(Duration::from_millis(self.below(LONG_DEATH_MS))).await;
            }
        }
    }

    /// Callers, who are told now and then that they should come again, and with a window nothing worse.
    async fn call(&self) {
        let mut vaults = self
            .replicas
            .each_ref()
            .map(|replica| replica.client(&self.world));
        loop {
            let grant = &self.grants[self.below(self.grants.len() as u64) as usize];
            let vault = &mut vaults[self.below(2) as usize];
            match ask(&self.world, vault, grant.id, Duration::from_millis(500)).await {
                Err(error) if error.reason == Some(Reason::ReauthorizationRequired) => {
                    assert!(
                        self.world.sim.control().counters().reuse_refused() > 0,
                        "a grant was ended that its provider still takes"
                    );
                }
                Err(error) if error.is_transient() => {}
                Err(error) => panic!("{error}"),
                Ok(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn expect_none_lost(&self) {
        let lost = self.judge().await;
        let counters = self.world.sim.control().counters();
        let replays: u64 = counters.grants.values().map(|grant| grant.replays).sum();
        eprintln!(
            "{} kills, {} grants, {} refreshes, {replays} of them answered again: {} grants lost",
            self.kills,
            self.grants.len(),
            counters.refreshes(),
            lost.len(),
        );
        for both in &lost {
            eprintln!("{both:?}: {:#?}", self.history(both));
        }
        assert_eq!((lost.len(), counters.reuse_refused()), (0, 0));
    }

    /// A rotation that no version came of is a loss; it has a process that died with the answer in it or under way.
    async fn expect_each_loss_proven(&self) {
        let lost = self.judge().await;
        let counters = self.world.sim.control().counters();
        let versions = self.versions().await;
        let deaths = self.deaths.lock().unwrap().clone();
        let mut under_way = 0;
        for both in &self.grants {
            let theirs = counters
                .grants
                .get(&both.theirs)
                .copied()
                .unwrap_or_default();
            let is_lost = lost.iter().any(|lost| lost.id == both.id);
            // The first version came by import, and each other one of a rotation.
            let expected = versions[&both.id] - 1 + u64::from(is_lost);
            assert_eq!(
                theirs.refreshes,
                expected,
                "{both:?}: {:#?}",
                self.history(both)
            );
            if !is_lost {
                continue;
            }
            // The simulator's clock shows milliseconds.
            let committed = theirs.refreshed_ms * 1000 + 999;
            let death = deaths.iter().find(|death| {
                let mut life = self.history(both);
                life.retain(|reached| reached.pid == death.pid);
                let sent = life.iter().rfind(|reached| reached.point == SENT);
                let ended = life
                    .last()
                    .is_some_and(|last| NOT_ON_DISK.contains(&last.point.as_str()));
                ended && sent.is_some_and(|sent| sent.micros <= committed)
            });
            let death = death
                .unwrap_or_else(|| panic!("nothing explains {both:?}: {:#?}", self.history(both)));
            under_way += u64::from(death.micros < committed);
        }
        let reused = counters.reuse_refused();
        assert_eq!(reused, lost.len() as u64, "each was asked for once more");
        eprintln!(
            "{} kills, {} grants, {} refreshes: {} grants lost, each between the provider's commit and the disk ({under_way} of them with the request still under way)",
            self.kills,
            self.grants.len(),
            counters.refreshes(),
            lost.len(),
        );
    }

    /// With both vaults up and left alone.
    async fn judge(&self) -> Vec<Both> {
        let [left, right] = self.replicas.each_ref().map(|replica| replica.start(""));
        let vault = self.replicas[0].client(&self.world);
        let lost = lost(&self.world, &vault, &self.grants).await;
        for process in [left, right] {
            process.kill().await;
        }
        let errors: Vec<_> = self.replicas.iter().flat_map(Replica::errors).collect();
        assert_eq!(errors, Vec::<String>::new());
        eprintln!("{}", Exposure::of(&self.replicas));
        lost
    }

    async fn versions(&self) -> BTreeMap<Uuid, u64> {
        let admin = self.world.database.admin().await;
        let rows = admin
            .query("SELECT grant_id, version FROM vault.grants", &[])
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1) as u64))
            .collect()
    }

    /// Everything that was done about a grant, in order.
    fn history(&self, both: &Both) -> Vec<Reached> {
        let mut all: Vec<_> = self.replicas.iter().flat_map(Replica::reached).collect();
        all.retain(|reached| reached.grant == both.id);
        all.sort_by_key(|reached| reached.micros);
        all
    }

    /// How many processes ended at which point, by their last one.
    fn last_points(&self) -> BTreeMap<String, usize> {
        let reached: Vec<_> = self.replicas.iter().flat_map(Replica::reached).collect();
        let mut ends: BTreeMap<i32, String> = BTreeMap::new();
        ends.extend(reached.into_iter().map(|last| (last.pid, last.point)));
        let mut counts = BTreeMap::new();
        for point in ends.into_values() {
            *counts.entry(point).or_default() += 1;
        }
        counts
    }
}
