//! A replica that is stopped in the middle of a refresh, and goes on later as if nothing had been.

use common::config::Duration as Setting;
use contracts::vault::v1::Credential;
use nix::sys::signal::Signal;
use testkit::{Process, eventually, eventually_by};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::fleet::{Both, ask, asked, expire_all, import, rotate};
use crate::replica::{PATIENCE, Replica};
use crate::world::{World, get_at, token_of};

/// A replica that has stopped itself while somebody waits for its answer.
struct Frozen {
    replica: Replica,
    process: Process,
    caller: JoinHandle<Credential>,
}

async fn expired(window: u32) -> (World, Both) {
    let (world, maker) = World::new().await;
    rotate(&world, window).await;
    let both = import(&world, &maker, 1).await.remove(0);
    expire_all(&world).await;
    (world, both)
}

impl Frozen {
    /// At this point of the grant's refresh.
    async fn at(point: &str, world: &World, replica: Replica, grant: Uuid) -> Self {
        let process = replica.start(&format!("{point}=stop"));
        let vault = replica.client(world);
        let request = world.get_request(grant);
        // At first it is not up yet; later it is away for longer than a caller waits.
        let caller = tokio::spawn(eventually_by(PATIENCE, move || {
            let (mut vault, request) = (vault.clone(), request.clone());
            async move { get_at(&mut vault, request).await.ok() }
        }));
        replica.reaches(grant, point).await;
        Self {
            replica,
            process,
            caller,
        }
    }

    fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thawed_after_another_has_taken_over_it_sends_nothing() {
    for point in ["claimed", "slot_in_hand", "connected"] {
        let (world, both) = expired(0).await;
        let first = Replica::new(&world, "first", |_| {});
        let frozen = Frozen::at(point, &world, first, both.id).await;
        let second = world.start("second").await;
        let credential = world.get(&second, both.id).await.unwrap();
        assert_eq!((credential.version, asked(&world)), (2, 1), "{point}");
        frozen.thaw();
        let late = frozen.caller.await.unwrap();
        assert_eq!(token_of(&late), token_of(&credential), "{point}");
        assert_eq!(frozen.replica.spooled(), 0, "{point}");
        assert_eq!((asked(&world), world.refreshes()), (1, 1), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thawed_after_its_lease_has_ended_it_sends_nothing() {
    let (world, both) = expired(0).await;
    let replica = Replica::new(&world, "frozen", |config| {
        config.refresh.provider_timeout = Setting::from_secs(1);
    });
    let frozen = Frozen::at("slot_in_hand", &world, replica, both.id).await;
    // Nobody else wants the grant, and the row says that there is time: only the process itself can know better.
    let admin = world.database.admin().await;
    let prolong =
        "UPDATE vault.grants SET lease_until = now() + interval '1 h' WHERE grant_id = $1";
    assert_eq!(admin.execute(prolong, &[&both.id]).await.unwrap(), 1);
    eventually(PATIENCE, async || {
        let sql =
            "SELECT now() - intent_at > interval '16500 ms' FROM vault.grants WHERE grant_id = $1";
        admin.query_one(sql, &[&both.id]).await.unwrap().get(0)
    })
    .await;
    frozen.thaw();
    frozen.replica.reaches(both.id, "connected").await;
    // It has let go of its slot, so it has made up its mind.
    eventually(PATIENCE, async || frozen.replica.slots() == 0).await;
    assert_eq!(asked(&world), 0);
    let end = "UPDATE vault.grants SET lease_until = now() - interval '1 s' WHERE grant_id = $1";
    assert_eq!(admin.execute(end, &[&both.id]).await.unwrap(), 1);
    let credential = frozen.caller.await.unwrap();
    assert_eq!((credential.version, asked(&world)), (2, 1));
}

/// Between the last look and the first byte nothing can stop it: the microseconds that the protocol leaves open. Where the
/// provider takes a token again, they do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_behind_the_last_look_it_repeats_the_request_within_the_window() {
    let (world, both) = expired(60).await;
    let [first, second] =
        ["first", "second"].map(|name| Replica::new(&world, name, |_| {}).with_replay_window(60));
    let frozen = Frozen::at("before_send", &world, first, both.id).await;
    let _second = second.start("");
    let mut vault = second.client(&world);
    let mut credential = None;
    eventually(PATIENCE, async || {
        credential = ask(&world, &mut vault, both.id, PATIENCE).await.ok();
        credential.is_some()
    })
    .await;
    frozen.thaw();
    let late = frozen.caller.await.unwrap();
    assert_eq!(token_of(&late), token_of(&credential.unwrap()));
    frozen.replica.reaches(both.id, "removed").await;
    let counters = world.sim.control().counters();
    assert_eq!(
        (
            asked(&world),
            counters.refreshes(),
            counters.reuse_refused()
        ),
        (2, 1, 0)
    );
    // And the token that both were given is the one that goes on.
    expire_all(&world).await;
    let credential = ask(&world, &mut vault, both.id, PATIENCE).await.unwrap();
    assert_eq!(credential.version, 3);
    assert!(world.works(&token_of(&credential)).await);
}
