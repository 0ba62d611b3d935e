//! Everybody at once.

use std::collections::BTreeSet;

use common::config::Duration as Setting;
use futures::future::join_all;
use provider_sim::{Fault, FaultRule};
use testkit::eventually;

use crate::fleet::{all_due, ask, asked, expire_all, import, setting, until_fresh};
use crate::replica::{PATIENCE, Replica};
use crate::world::{World, token_of};

const PROCESSES: usize = 4;
const CALLERS: usize = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_procore_06_a_thousand_callers_in_four_processes_make_one_request() {
    let (world, maker) = World::new().await;
    let grant = import(&world, &maker, 1).await[0].id;
    let replicas = fleet(&world, |_| {});
    let _processes = join_all(replicas.iter().map(async |replica| {
        let process = replica.start("");
        let mut vault = replica.client(&world);
        eventually(PATIENCE, async || {
            ask(&world, &mut vault, grant, PATIENCE).await.is_ok()
        })
        .await;
        process
    }))
    .await;
    expire_all(&world).await;
    // So that all of them are there before the answer is.
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::Delay { millis: 1000 }));
    let answers = replicas.iter().flat_map(|replica| {
        let vault = replica.client(&world);
        let world = &world;
        (0..CALLERS).map(move |_| {
            let mut vault = vault.clone();
            async move { ask(world, &mut vault, grant, PATIENCE).await.unwrap() }
        })
    });
    let answers = join_all(answers).await;
    assert_eq!(answers.len(), PROCESSES * CALLERS);
    let tokens: BTreeSet<_> = answers.iter().map(token_of).collect();
    assert_eq!(tokens.len(), 1, "all have the same token");
    assert!(answers.iter().all(|answer| answer.version == 2));
    assert_eq!((asked(&world), world.refreshes()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_requests_as_grants_that_expire_in_one_moment() {
    let count = setting("FAULT_GRANTS").unwrap_or(200);
    let (world, maker) = World::new().await;
    import(&world, &maker, count as usize).await;
    drop(maker);
    assert_eq!(expire_all(&world).await, count);
    all_due(&world).await;
    let replicas = fleet(&world, |config| {
        config.tasks.sweep_every = Setting::from_millis(200);
    });
    let began = std::time::Instant::now();
    let processes: Vec<_> = replicas.iter().map(|replica| replica.start("")).collect();
    until_fresh(&world, count).await;
    eprintln!(
        "{count} grants were fresh again after {:?}",
        began.elapsed()
    );
    for process in processes {
        process.kill().await;
    }
    assert_eq!((asked(&world), world.refreshes()), (count, count));
}

fn fleet(world: &World, adjust: impl Fn(&mut token_vault::Config)) -> Vec<Replica> {
    (0..PROCESSES)
        .map(|number| Replica::new(world, &format!("vault-{number}"), &adjust))
        .collect()
}
