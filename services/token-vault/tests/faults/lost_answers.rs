//! Answers that do not arrive, or not in time.

use provider_sim::{Fault, FaultRule};
use testkit::{eventually, eventually_by};

use crate::fleet::{ask, asked, expire_all, import, outcome, rotate};
use crate::replica::{PATIENCE, Replica};
use crate::world::{World, token_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_after_the_rotation_costs_nothing_within_the_window() {
    for fault in [Fault::Drop, Fault::CutBody { bytes: None }] {
        let (world, maker) = World::new().await;
        rotate(&world, 60).await;
        let both = import(&world, &maker, 1).await.remove(0);
        expire_all(&world).await;
        world
            .sim
            .control()
            .inject(FaultRule::once("token", fault).after_work());
        let replica = Replica::new(&world, "vault", |_| {}).with_replay_window(60);
        let _process = replica.start("");
        assert!(outcome(&world, &replica.client(&world), both.id).await);
        let counters = world.sim.control().counters();
        assert_eq!((counters.refreshes(), counters.reuse_refused()), (1, 0));
        assert_eq!(asked(&world), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_the_lease_was_taken_over_takes_nothing_away() {
    let (world, maker) = World::new().await;
    rotate(&world, 60).await;
    let both = import(&world, &maker, 1).await.remove(0);
    drop(maker);
    expire_all(&world).await;
    let [slow, quick] =
        ["slow", "quick"].map(|name| Replica::new(&world, name, |_| {}).with_replay_window(60));
    let late = Fault::Delay { millis: 4000 };
    world
        .sim
        .control()
        .inject(FaultRule::once("token", late).after_work());
    let _processes = [slow.start(""), quick.start("")];
    let vault = slow.client(&world);
    let request = world.get_request(both.id);
    let first = tokio::spawn(eventually_by(PATIENCE, move || {
        let (mut vault, request) = (vault.clone(), request.clone());
        async move {
            vault
                .get_credential(request)
                .await
                .ok()?
                .into_inner()
                .credential
        }
    }));
    eventually(PATIENCE, async || world.refreshes() == 1).await;
    // It lives, and its lease has run out.
    let admin = world.database.admin().await;
    let sql = "UPDATE vault.grants SET lease_until = now() - interval '5 s' WHERE grant_id = $1 AND intent_sent_at IS NOT NULL";
    assert_eq!(admin.execute(sql, &[&both.id]).await.unwrap(), 1);
    let mut vault = quick.client(&world);
    let mut credential = None;
    eventually(PATIENCE, async || {
        credential = ask(&world, &mut vault, both.id, PATIENCE).await.ok();
        credential.is_some()
    })
    .await;
    let credential = credential.unwrap();
    slow.reaches(both.id, "removed").await;
    assert_eq!(first.await.unwrap().version, 2);
    assert_eq!(credential.version, 2);
    assert!(world.works(&token_of(&credential)).await);
    let counters = world.sim.control().counters();
    assert_eq!(
        (
            asked(&world),
            counters.refreshes(),
            counters.reuse_refused()
        ),
        (2, 1, 0)
    );
    expire_all(&world).await;
    let credential = ask(&world, &mut vault, both.id, PATIENCE).await.unwrap();
    assert_eq!(credential.version, 3);
    assert!(world.works(&token_of(&credential)).await);
}
