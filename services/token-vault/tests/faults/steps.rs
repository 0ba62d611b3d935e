//! The process killed at each step of a refresh, a grant for each.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use futures::StreamExt as _;
use testkit::{Process, eventually, eventually_some};

use crate::fleet::{Both, ask, asked, expire_all, import, outcome, rotate};
use crate::replica::{PATIENCE, Replica};
use crate::world::World;

/// Processes at a time.
const ABREAST: usize = 4;
/// Before anything has left.
const UNSENT: [&str; 6] = [
    "claimed",
    "key_in_hand",
    "tokens_in_hand",
    "slot_in_hand",
    "connected",
    "before_send",
];
/// The provider has rotated, and nothing here knows the new token but the process.
const IN_MEMORY: [&str; 2] = ["answered", "sealed"];
/// The answer lies on the disk; what was not yet fsync'd outlives the process, if not the machine.
const ON_DISK: [&str; 4] = ["written", "spooled", "committed", "removed"];

/// Reads until the vault dies of its failpoint.
async fn read_until_killed(world: &World, replica: &Replica, process: &Process, both: &Both) {
    let mut vault = replica.client(world);
    let status = eventually_some(PATIENCE, async || {
        let _ = ask(world, &mut vault, both.id, Duration::from_secs(2)).await;
        process.status()
    });
    assert_eq!(
        status.await.signal(),
        Some(9),
        "it was killed, and did not end otherwise"
    );
}

/// What became of a grant whose vault was killed at this point of its refresh, and came back.
struct Outcome {
    point: &'static str,
    is_lost: bool,
    /// Requests that came to the provider, and refreshes that it made.
    asked: u64,
    refreshed: u64,
}

async fn killed_at(points: &[&'static str], window: u32) -> Vec<Outcome> {
    // A database each: vaults take over what others have left. All are made before and dropped after, since neither goes
    // well with somebody else who is just connecting.
    let mut grounds = Vec::new();
    for point in points {
        let (world, maker) = World::new().await;
        rotate(&world, window).await;
        let both = import(&world, &maker, 1).await.remove(0);
        drop(maker);
        expire_all(&world).await;
        grounds.push((*point, world, both));
    }
    let outcomes = futures::stream::iter(&grounds).map(async |(point, world, both)| {
        let replica = Replica::new(world, "vault", |_| {}).with_replay_window(window);
        let process = replica.start(point);
        read_until_killed(world, &replica, &process, both).await;
        let _again = replica.start("");
        let is_good = outcome(world, &replica.client(world), both.id).await;
        // The spool is empty again, a moment after the commit.
        eventually(PATIENCE, async || replica.spooled() == 0).await;
        Outcome {
            point,
            is_lost: !is_good,
            asked: asked(world),
            refreshed: world.refreshes(),
        }
    });
    outcomes.buffered(ABREAST).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_procore_01_without_a_window_a_grant_is_lost_between_answer_and_disk_alone() {
    let points = [&UNSENT[..], &IN_MEMORY, &ON_DISK].concat();
    for outcome in killed_at(&points, 0).await {
        let point = outcome.point;
        let is_in_memory = IN_MEMORY.contains(&point);
        assert_eq!(outcome.is_lost, is_in_memory, "{point}");
        // Nothing else was asked for twice.
        let asked = if is_in_memory { 2 } else { 1 };
        assert_eq!((outcome.asked, outcome.refreshed), (asked, 1), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_window_no_step_loses_a_grant() {
    let points = [&IN_MEMORY[..], &ON_DISK].concat();
    for outcome in killed_at(&points, 60).await {
        assert!(!outcome.is_lost, "{}", outcome.point);
        assert_eq!(outcome.refreshed, 1, "{}", outcome.point);
    }
}
