//! The database or the vault away: nothing is acknowledged that is not durable, and all is well again by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::Code;
use common::rpc::CallError;
use contracts::ingest::v1::*;
use testkit::chaos::Proxy;
use webhook_ingest::SCHEMA;

use crate::world::{HOST, PATIENCE, Webhook, World};

#[tokio::test]
async fn req_teamsync_09_without_its_database_it_says_503_and_recovers() {
    let logs = testkit::logs::capture();
    for expected in [
        "its provider is told to send it again",
        "their providers are told to send them again",
        "the queue of webhooks cannot be read",
        "events cannot be numbered",
        "because the database was not available",
        "how a webhook's processing went could not be written",
        "old webhooks cannot be removed",
        "Connection could not be recycled",
    ] {
        logs.expect(expected);
    }
    let world = World::without_ingest().await;
    let proxy = Proxy::start(SocketAddr::from((
        Ipv4Addr::LOCALHOST,
        world.database.port(),
    )))
    .await;
    let config = world.config(
        world
            .database
            .config_through(proxy.address().port(), SCHEMA.name),
    );
    let ingest = world.start_with(config).await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d-0", 7)).await, 200);
    assert!(ingest.process.readiness.check().await.ready);

    for (number, fault) in [Proxy::cut, Proxy::reset, Proxy::stall]
        .into_iter()
        .enumerate()
    {
        fault(&proxy);
        let webhook = Webhook::push(&format!("d-{}", number + 1), 7);
        // The first may still find the source in memory, the next has to read it.
        for _ in 0..2 {
            let began = Instant::now();
            let answer = world.send_to(&source.url, &webhook).await.unwrap();
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("retry-after"));
            assert!(
                began.elapsed() < Duration::from_millis(3500),
                "{:?}",
                began.elapsed()
            );
        }
        let request = ListEventsRequest {
            tenant_id: world.tenant.to_string(),
            ..ListEventsRequest::default()
        };
        if number == 0 {
            let error = CallError::from(
                world
                    .events(&ingest)
                    .list_events(request)
                    .await
                    .expect_err("it is away"),
            );
            assert_eq!(error.code, Code::Unavailable);
            assert!(error.retry_after.is_some());
        }
        assert!(!ingest.process.readiness.check().await.ready);
        proxy.pass();
        let taken = async || world.send(&source.url, &webhook).await == 200;
        testkit::eventually(PATIENCE, taken).await;
        let ready = async || ingest.process.readiness.check().await.ready;
        testkit::eventually(PATIENCE, ready).await;
    }
    assert_eq!(
        world.stored().await,
        4,
        "each once, however often it was sent"
    );
    // An event that was claimed when the database went is another's after its lease.
    world
        .database
        .admin()
        .await
        .batch_execute("UPDATE ingest.event_queue SET due_at = now()")
        .await
        .unwrap();
    let processed = async || {
        world
            .count("SELECT count(*) FROM ingest.events WHERE state = 3")
            .await
            == 4
    };
    testkit::eventually(PATIENCE, processed).await;
}

#[tokio::test]
async fn without_the_vault_known_sources_go_on_and_new_ones_wait() {
    let logs = testkit::logs::capture();
    logs.expect("another service cannot be had");
    logs.expect("a webhook's source cannot be read");
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d-1", 7)).await, 200);
    world.others.vault_down.store(true, Ordering::SeqCst);
    assert_eq!(
        world.send(&source.url, &Webhook::push("d-2", 7)).await,
        200,
        "its key is in memory"
    );

    // A process without the key cannot verify, and does not.
    let other = world.start().await;
    let request = CreateSourceRequest {
        source: Some(Source {
            source_id: "new".to_owned(),
            ..world.source()
        }),
        secret: "a secret that is long".to_owned(),
        ..CreateSourceRequest::default()
    };
    let error = CallError::from(
        world
            .sources(&other, HOST)
            .create_source(request.clone())
            .await
            .expect_err("it is away"),
    );
    assert_eq!(error.code, Code::Unavailable);
    world.others.vault_down.store(false, Ordering::SeqCst);
    let elsewhere = world
        .sources(&other, HOST)
        .create_source(request)
        .await
        .unwrap()
        .into_inner()
        .source
        .unwrap();
    let far = World::at(&source.url, &elsewhere.url);
    assert_eq!(world.send(&far, &Webhook::push("d-2", 7)).await, 200);
    assert_eq!(world.stored().await, 2);
}
