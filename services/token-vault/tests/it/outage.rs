//! The database away.

use std::net::SocketAddr;
use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;
use provider_sim::config::{Replay, Rotation};
use provider_sim::{Fault, FaultRule};
use testkit::chaos::Proxy;
use token_vault::SCHEMA;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::{Instance, World, get_at, token_of};

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

/// A vault that has sent its request and is cut off from the database before the answer is there, for so long that another
/// one may take over.
async fn cut_off_while_sending(
    world: &World,
    vault: &Instance,
    proxy: &Proxy,
    grant: Uuid,
) -> JoinHandle<Result<Credential, CallError>> {
    world.expire(grant).await;
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::Delay { millis: 1500 }));
    let (mut client, request) = (world.vault(vault), world.get_request(grant));
    let reader = tokio::spawn(async move { get_at(&mut client, request).await });
    let admin = world.database.admin().await;
    testkit::eventually(Duration::from_secs(10), async || {
        let sql = "SELECT intent_sent_at IS NOT NULL FROM vault.grants WHERE grant_id = $1";
        admin.query_one(sql, &[&grant]).await.unwrap().get(0)
    })
    .await;
    proxy.cut();
    let moved = "UPDATE vault.grants SET intent_at = now() - interval '2 min', intent_sent_at = now() - interval '2 min',
        lease_until = now() - interval '90 s' WHERE grant_id = $1";
    admin.execute(moved, &[&grant]).await.unwrap();
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_another_is_kept_and_tried_when_the_other_is_refused() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let (world, other) = World::new().await;
    let control = world.sim.control();
    let with_grace = control.configure("oidc", |provider| {
        provider.rotation = Rotation::Grace {
            window_seconds: 60,
            replay: Replay::New,
        };
    });
    with_grace.await.unwrap();
    let (vault, proxy) = behind_a_proxy(&world).await;
    let grant = world.connect(&vault).await;
    let reader = cut_off_while_sending(&world, &vault, &proxy, grant).await;
    assert_eq!(world.get(&other, grant).await.unwrap().version, 2);
    testkit::eventually(Duration::from_secs(10), async || {
        control.counters().calls_to("token") == 3
    })
    .await;
    proxy.pass();
    let admin = world.database.admin().await;
    testkit::eventually(Duration::from_secs(20), async || {
        let sql =
            "SELECT alternate_version = 2 AND version = 2 FROM vault.grants WHERE grant_id = $1";
        admin
            .query_one(sql, &[&grant])
            .await
            .unwrap()
            .get::<_, Option<bool>>(0)
            == Some(true)
    })
    .await;
    drop(reader);
    world.expire(grant).await;
    control.inject(FaultRule::once(
        "token",
        Fault::OauthError {
            error: "invalid_grant".into(),
            status: None,
        },
    ));
    let credential = world.get(&other, grant).await.unwrap();
    assert_eq!(credential.version, 3);
    assert!(world.works(&token_of(&credential)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_the_spool_overrides_the_verdict_that_it_was_lost() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let (world, other) = World::new().await;
    let control = world.sim.control();
    let (vault, proxy) = behind_a_proxy(&world).await;
    let grant = world.connect(&vault).await;
    let reader = cut_off_while_sending(&world, &vault, &proxy, grant).await;
    // What a provider says to a token that was used, without ending the grant for it.
    testkit::eventually(Duration::from_secs(10), async || world.refreshes() == 1).await;
    control.inject(FaultRule::once(
        "token",
        Fault::OauthError {
            error: "invalid_grant".into(),
            status: None,
        },
    ));
    let error = world
        .get(&other, grant)
        .await
        .expect_err("the answer is lost, as far as anybody knows");
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
    assert_eq!(error.metadata["cause"], "LOST_ROTATION");
    proxy.pass();
    testkit::eventually(Duration::from_secs(20), async || {
        world.describe(&other, grant).await.state() == GrantState::Active
    })
    .await;
    drop(reader);
    let credential = world.get(&other, grant).await.unwrap();
    assert_eq!(credential.version, 2);
    assert!(world.works(&token_of(&credential)).await);
    assert_eq!(control.counters().reuse_refused(), 0);
}
