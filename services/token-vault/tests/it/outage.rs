//! The database away.

use std::net::SocketAddr;
use std::time::Duration;

use common::Code;
use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};
use testkit::chaos::Proxy;
use token_vault::SCHEMA;

use crate::world::{Instance, World};

async fn behind_a_proxy(world: &World) -> (Instance, Proxy) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], world.database.port()))).await;
    let database = world
        .database
        .config_through(proxy.address().port(), SCHEMA.name);
    let vault = world
        .start_with(world.config("proxied", database), world.deps.clone())
        .await;
    (vault, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_nothing_is_handed_out_and_it_recovers_by_itself() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let (world, _other) = World::new().await;
    let (vault, proxy) = behind_a_proxy(&world).await;
    let grant = world.connect(&vault).await;
    world.get(&vault, grant).await.unwrap();
    proxy.cut();
    let error = world
        .get(&vault, grant)
        .await
        .expect_err("the database is away");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.retry_after.is_some());
    proxy.pass();
    testkit::eventually(Duration::from_secs(20), async || {
        world.get(&vault, grant).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_waits_in_the_spool_until_the_database_is_back() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let (world, other) = World::new().await;
    let (vault, proxy) = behind_a_proxy(&world).await;
    let grant = world.connect(&vault).await;
    world.expire(grant).await;
    // The provider takes its time, so that the database can go while the request is under way.
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::Delay { millis: 1500 }));
    let (mut client, request) = (world.vault(&vault), world.get_request(grant));
    let reader = tokio::spawn(async move { client.get_credential(request).await });
    let admin = world.database.admin().await;
    testkit::eventually(Duration::from_secs(10), async || {
        let sql = "SELECT intent_sent_at IS NOT NULL FROM vault.grants WHERE grant_id = $1";
        admin.query_one(sql, &[&grant]).await.unwrap().get(0)
    })
    .await;
    proxy.cut();
    testkit::eventually(Duration::from_secs(10), async || world.refreshes() == 1).await;
    assert_eq!(world.describe(&other, grant).await.version, 1);
    proxy.pass();
    testkit::eventually(Duration::from_secs(20), async || {
        world.describe(&other, grant).await.version == 2
    })
    .await;
    drop(reader);
    assert_eq!(
        world.describe(&other, grant).await.state(),
        GrantState::Active
    );
    assert_eq!(world.get(&other, grant).await.unwrap().version, 2);
    assert_eq!(
        (
            world.refreshes(),
            world.sim.control().counters().reuse_refused()
        ),
        (1, 0)
    );
}
