//! What is taken in, and what is not.

use std::collections::HashSet;

use bytes::Bytes;
use common::TenantKey;
use common::telemetry::{Telemetry, TelemetryConfig};
use contracts::ingest::v1::*;
use serde_json::json;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use webhook_ingest::SCHEMA;

use crate::world::{HOST, PATIENCE, SECRET, Webhook, World};

#[tokio::test]
async fn a_signed_webhook_is_durable_when_it_is_acknowledged() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let mut webhook = Webhook::push("d-1", 7);
    webhook.set("authorization", "Bearer canary");
    webhook.set(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    assert_eq!(world.send(&source.url, &webhook).await, 200);
    assert_eq!(world.stored().await, 1, "it is there before the answer is");

    let listed = world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    assert!(listed.body.is_empty(), "lists have no bodies");
    let request = GetEventRequest {
        tenant_id: world.tenant.to_string(),
        event_id: listed.event_id.clone(),
    };
    let event = world
        .events(&ingest)
        .get_event(request)
        .await
        .unwrap()
        .into_inner()
        .event
        .unwrap();
    assert_eq!(event.body, webhook.body);
    assert_eq!(
        (event.external_event_id.as_str(), event.event_type.as_str()),
        ("d-1", "push")
    );
    assert_eq!(
        (
            event.source_id.as_str(),
            event.routing_keys["account"].as_str()
        ),
        ("hooks", "7")
    );
    let kept: HashSet<_> = event.headers.keys().map(String::as_str).collect();
    assert_eq!(kept, HashSet::from(["x-github-delivery", "x-github-event"]));
    assert!(event.received_at.is_some());
}

#[tokio::test]
async fn an_event_keeps_the_trace_that_took_it_in_and_not_a_strangers() {
    const STRANGER: &str = "0af7651916cd43dd8448eb211c80319c";
    let sink = BoxMakeWriter::new(std::io::sink);
    let (_telemetry, traced) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
    tracing::dispatcher::set_global_default(traced).unwrap();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let mut webhook = Webhook::push("d", 7);
    webhook.set("traceparent", &format!("00-{STRANGER}-b7ad6b7169203331-01"));
    assert_eq!(world.send(&source.url, &webhook).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    let parts: Vec<_> = event.traceparent.split('-').collect();
    assert_eq!(
        parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2]
    );
    assert_ne!(
        parts[1], STRANGER,
        "a stranger does not decide what is sampled"
    );
}

#[tokio::test]
async fn what_is_not_the_providers_is_refused_without_a_hint_and_not_kept() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let good = Webhook::push("d", 7);
    let without = Webhook {
        headers: reqwest::header::HeaderMap::new(),
        ..good.clone()
    };
    let another_body = Webhook {
        body: b"{}".to_vec(),
        ..good.clone()
    };
    let another_secret = Webhook::push_with("not the secret", "d", 7);
    let mut old_digest = good.clone();
    old_digest.headers.remove("x-hub-signature-256");
    old_digest.set(
        "x-hub-signature",
        "sha1=0000000000000000000000000000000000000000",
    );
    for forged in [without, another_body, another_secret, old_digest] {
        let answer = world.send_to(&source.url, &forged).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.bytes().await.unwrap(), Bytes::new());
    }
    for elsewhere in ["", "x", &"A".repeat(46)] {
        let url = World::at(&format!("http://x/hooks/{elsewhere}"), &source.url);
        let answer = world.send_to(&url, &good).await.unwrap();
        assert_eq!(answer.status(), 404, "{url}");
        assert_eq!(answer.bytes().await.unwrap(), Bytes::new());
    }
    let looked_at = world.http.get(&source.url).send().await.unwrap();
    assert_eq!(looked_at.status(), 405);
    assert_eq!(world.stored().await, 0);
    assert_eq!(
        world.send(&source.url, &good).await,
        200,
        "and what is genuine is taken all the same"
    );
}

#[tokio::test]
async fn a_body_is_never_read_further_than_the_scheme_allows() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = Source {
        scheme: "standard-webhooks".to_owned(),
        integration_id: String::new(),
        ..world.source()
    };
    let request = CreateSourceRequest {
        source: Some(source),
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
        ..CreateSourceRequest::default()
    };
    let created = world
        .sources(&ingest, HOST)
        .create_source(request)
        .await
        .unwrap()
        .into_inner();
    let url = created.source.unwrap().url;
    let sign = |length: usize| {
        let body = json!({"type": "x", "pad": "x".repeat(length)});
        Webhook::standard(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &format!("m{length}"),
            &world.deps,
            &body,
        )
    };
    assert_eq!(world.send(&url, &sign(1_000_000)).await, 200);
    assert_eq!(world.send(&url, &sign(1_048_576)).await, 413);
    // Without a length it is counted while it comes.
    let Webhook { headers, body } = sign(2_000_000);
    let chunks = futures::stream::iter(
        body.chunks(64 * 1024)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let streamed = world
        .http
        .post(&url)
        .headers(headers)
        .body(reqwest::Body::wrap_stream(chunks))
        .send()
        .await;
    // The connection is closed while the rest is on its way, which a sender may see before the answer.
    assert!(streamed.map_or(true, |answer| answer.status() == 413));
    assert_eq!(world.stored().await, 1);
}

#[tokio::test]
async fn repeats_that_race_to_two_processes_are_one_event() {
    let logs = testkit::logs::capture();
    // On a busy machine the database may not take a connection in time, and the provider sends it again.
    logs.expect("webhooks could not be written");
    logs.expect("a webhook is not known to be durable");
    let (world, ingest) = World::new().await;
    let other = world.start().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let elsewhere = world
        .create(
            &other,
            Source {
                source_id: "elsewhere".to_owned(),
                ..world.source()
            },
        )
        .await
        .unwrap();
    let urls = [source.url.clone(), World::at(&source.url, &elsewhere.url)];
    assert_ne!(urls[0], urls[1]);
    let sends = (0..30).flat_map(|number| {
        let webhook = Webhook::push(&format!("d-{number}"), 7);
        [0, 1, 0, 1].map(|which: usize| {
            let (world, webhook, url) = (&world, webhook.clone(), &urls[which]);
            async move {
                testkit::eventually(PATIENCE, async || match world.send(url, &webhook).await {
                    503 => false,
                    status => {
                        assert_eq!(status, 200, "a repeat is acknowledged too");
                        true
                    }
                })
                .await;
            }
        })
    });
    futures::future::join_all(sends).await;
    assert_eq!(world.stored().await, 30);
    assert_eq!(
        world
            .count("SELECT count(DISTINCT external_event_id) FROM ingest.events")
            .await,
        30
    );

    // The same id at another source is another event.
    assert_eq!(
        world.send(&elsewhere.url, &Webhook::push("d-0", 7)).await,
        200
    );
    assert_eq!(world.stored().await, 31);
}

#[tokio::test]
async fn repeats_are_known_over_a_turn_of_the_tables_and_forgotten_after_two() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let admin = world.database.admin().await;
    let turn = async |to: i64| {
        // The tables take turns after five days; whoever starts looks at once.
        admin
            .batch_execute("UPDATE ingest.calendar SET turned_at = turned_at - '6 d'::interval")
            .await
            .unwrap();
        let _another = world.start().await;
        let turned = async || {
            world
                .count("SELECT generation::bigint FROM ingest.calendar")
                .await
                == to
        };
        testkit::eventually(PATIENCE, turned).await;
    };
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    turn(1).await;
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    assert_eq!(world.stored().await, 1, "the other table is looked into");
    assert_eq!(
        world
            .count("SELECT count(*) FROM ingest.dedup_keys_1")
            .await,
        0,
        "a repeat leaves nothing"
    );
    turn(0).await;
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    assert_eq!(world.stored().await, 2, "by then no provider repeats it");
}

#[tokio::test]
async fn an_event_without_an_id_is_never_taken_for_a_repeat() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.send(&source.url, &Webhook::push("", 7)).await, 200);
    }
    assert_eq!(world.stored().await, 3);
    assert_eq!(
        world.count("SELECT count(*) FROM ingest.dedup_keys").await,
        0
    );
}

#[tokio::test]
async fn a_handshake_is_answered_and_leads_to_nothing() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let ping = Webhook::github(
        SECRET,
        "ping",
        "d",
        &json!({"zen": "Keep it logically awesome."}),
    );
    assert_eq!(world.send(&source.url, &ping).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!(event.attempts, 0);
    assert_eq!(
        world.count("SELECT count(*) FROM ingest.event_queue").await,
        0
    );
}

#[tokio::test]
async fn old_and_new_secret_are_good_while_one_replaces_the_other() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let other = world.start().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let elsewhere = world
        .create(
            &other,
            Source {
                source_id: "elsewhere".to_owned(),
                ..world.source()
            },
        )
        .await
        .unwrap();
    let far = World::at(&source.url, &elsewhere.url);
    // Both have the old secret at hand.
    for url in [&source.url, &far] {
        assert_eq!(world.send(url, &Webhook::push("", 7)).await, 200);
    }
    let rotate = async |secret: &str, seconds| {
        let request = RotateSourceSecretRequest {
            tenant_id: world.tenant.to_string(),
            source_id: "hooks".to_owned(),
            new_secret: secret.to_owned(),
            overlap: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        world
            .sources(&ingest, HOST)
            .rotate_source_secret(request)
            .await
            .unwrap();
    };
    rotate("the second secret", 3600).await;
    for url in [&source.url, &far] {
        // A process that has read the source within the last tenth of a second does not read it again at once.
        let taken = async || {
            world
                .send(url, &Webhook::push_with("the second secret", "", 7))
                .await
                == 200
        };
        testkit::eventually(PATIENCE, taken).await;
        assert_eq!(
            world.send(url, &Webhook::push(SECRET, 7)).await,
            200,
            "the old one is good still"
        );
    }
    rotate("the third secret", 0).await;
    for url in [&source.url, &far] {
        let refused = async || {
            world
                .send(url, &Webhook::push_with("the second secret", "", 7))
                .await
                == 401
        };
        testkit::eventually(PATIENCE, refused).await;
        assert_eq!(
            world
                .send(url, &Webhook::push_with("the third secret", "", 7))
                .await,
            200
        );
        assert_eq!(world.send(url, &Webhook::push(SECRET, 7)).await, 401);
    }
}

#[tokio::test]
async fn no_secret_lies_in_the_database_in_the_clear() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world
        .create(
            &ingest,
            Source {
                sealed_bodies: true,
                ..world.source()
            },
        )
        .await
        .unwrap();
    let webhook = Webhook::github(
        SECRET,
        "push",
        "d",
        &json!({"organization": {"id": 7}, "text": "canary-body"}),
    );
    assert_eq!(world.send(&source.url, &webhook).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    let request = GetEventRequest {
        tenant_id: world.tenant.to_string(),
        event_id: event.event_id,
    };
    let event = world
        .events(&ingest)
        .get_event(request)
        .await
        .unwrap()
        .into_inner()
        .event
        .unwrap();
    assert_eq!(event.body, webhook.body, "whoever may read it can");

    let token = source.url.split("/hooks/").nth(1).unwrap();
    let admin = world.database.admin().await;
    for table in [
        "sources",
        "events",
        "event_queue",
        "dedup_keys",
        "request_ids",
        "audit_events",
        "outbox",
    ] {
        let rows = admin
            .query(
                &format!("SELECT t::text, encode(t::text::bytea, 'escape') FROM ingest.{table} t"),
                &[],
            )
            .await;
        for row in rows.unwrap() {
            let text: String = row.get(0);
            for canary in ["canary-It", "canary-body", token] {
                let hex = hex::encode(canary);
                assert!(
                    !text.contains(canary) && !text.contains(&hex),
                    "{canary} is in {table}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_sealed_secret_is_good_in_its_own_place_alone() {
    let logs = testkit::logs::capture();
    logs.expect("a webhook's source cannot be read");
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    world
        .create(
            &ingest,
            Source {
                source_id: "mine".to_owned(),
                ..world.source()
            },
        )
        .await
        .unwrap();
    // A writer in the database puts a secret that he knows in the place of another.
    let admin = world.database.admin().await;
    let moved = "UPDATE ingest.sources SET secret_sealed = (SELECT secret_sealed FROM ingest.sources WHERE source_id = 'mine') WHERE source_id = 'hooks'";
    assert_eq!(admin.execute(moved, &[]).await.unwrap(), 1);
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 503);
    assert_eq!(world.stored().await, 0);
}

#[tokio::test]
async fn old_events_are_removed_and_new_ones_are_not() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("new", 7)).await, 200);
    world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    let admin = world.database.admin().await;
    // As if nobody had looked for a day, and as if there were an event of the last round in each partition.
    let old = "INSERT INTO ingest.events (bucket, tenant_id, event_id, slot, source_tenant_id, source_id, source_key, external_event_id,
            event_type, routing_keys, headers, body, body_form, state, traceparent, received_at)
        SELECT bucket, tenant_id, gen_random_uuid(), s, source_tenant_id, 'old', source_key, '', '', '[]', '{}', '', 0, 2, '',
            received_at - '30 d'::interval
        FROM ingest.events, generate_series(0, 31) s";
    assert_eq!(admin.execute(old, &[]).await.unwrap(), 32);
    admin
        .batch_execute("UPDATE ingest.calendar SET emptied_to = emptied_to - 2")
        .await
        .unwrap();
    let _another = world.start().await;
    let emptied = async || {
        let today = world
            .count("SELECT floor(extract(epoch FROM now()) / 86400)::bigint")
            .await;
        world
            .count("SELECT emptied_to::bigint FROM ingest.calendar")
            .await
            == today + 2
    };
    testkit::eventually(PATIENCE, emptied).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM ingest.events WHERE source_id = 'hooks'")
            .await,
        1
    );
    let left = world
        .count("SELECT count(*) FROM ingest.events WHERE source_id = 'old'")
        .await;
    assert_eq!(
        left, 29,
        "tomorrow's, the day's after, and the one that is no longer kept are empty"
    );
}

#[tokio::test]
async fn row_level_security_shows_a_tenant_its_own_rows_alone() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let admin = world.database.admin().await;
    let seen = async |tenant: Option<TenantKey>, table: &str| {
        let setting = tenant.map_or(String::new(), |tenant| {
            format!("SET LOCAL hawser.tenant = '{tenant}';")
        });
        admin
            .batch_execute(&format!(
                "BEGIN; SET LOCAL ROLE hawser_ingest_tenant; {setting}"
            ))
            .await
            .unwrap();
        // A statement that forgets the tenant.
        let row = admin
            .query_one(&format!("SELECT count(*) FROM ingest.{table}"), &[])
            .await
            .unwrap();
        admin.batch_execute("ROLLBACK").await.unwrap();
        row.get::<_, i64>(0)
    };
    for table in ["sources", "events", "dedup_keys"] {
        assert_eq!(seen(Some(world.tenant), table).await, 1, "{table}");
        assert_eq!(
            seen(Some(TenantKey::new_tenant(&world.deps)), table).await,
            0,
            "{table}"
        );
        assert_eq!(seen(None, table).await, 0, "{table}");
    }
    let direct = "BEGIN; SET LOCAL ROLE hawser_ingest_tenant; SELECT * FROM ingest.events_00";
    let refused = admin
        .batch_execute(direct)
        .await
        .expect_err("a partition is no way round");
    assert_eq!(refused.code().unwrap().code(), "42501");
    assert_eq!(SCHEMA.name, "ingest");
}
