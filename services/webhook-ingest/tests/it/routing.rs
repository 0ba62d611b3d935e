//! From an event to the syncs that it leads to.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use common::TenantKey;
use common::config::Duration as Setting;
use contracts::ingest::v1::*;
use contracts::scheduler::v1::TriggerSource;
use serde_json::json;
use webhook_ingest::{ProcessingConfig, SCHEMA};

use crate::world::{PATIENCE, SECRET, Webhook, World, keys};

#[tokio::test]
async fn an_event_triggers_the_syncs_of_its_connection_once() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let connection = world
        .others
        .connect(&world.deps, world.tenant, "github", &[("account", "7")]);
    world
        .others
        .connect(&world.deps, world.tenant, "github", &[("account", "8")]);
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!(event.connection_ids, [connection.to_string()]);
    assert_eq!(
        (event.job_ids.as_slice(), event.attempts),
        (["job-1".to_owned()].as_slice(), 1)
    );
    assert!(event.processed_at.is_some());
    let trigger = world.others.triggers.lock().unwrap()[0].clone();
    assert_eq!(trigger.source(), TriggerSource::Webhook);
    assert_eq!(
        (trigger.connection_id, trigger.streams),
        (connection.to_string(), vec!["commits".to_owned()])
    );
    assert!(trigger.external_ids.is_empty());

    // As if the process had died after its call and before it could say so.
    let again =
        "INSERT INTO ingest.event_queue (bucket, tenant_id, event_id, due_at, fence, attempts)
        SELECT bucket, tenant_id, event_id, now(), 1, 1 FROM ingest.events";
    world
        .database
        .admin()
        .await
        .execute(again, &[])
        .await
        .unwrap();
    let twice = async || world.others.triggers.lock().unwrap().len() == 2;
    testkit::eventually(PATIENCE, twice).await;
    let settled = async || world.count("SELECT count(*) FROM ingest.event_queue").await == 0;
    testkit::eventually(PATIENCE, settled).await;
    assert_eq!(world.others.jobs(), 1, "asked for twice, done once");
    assert_eq!(
        world
            .event_in(&ingest, world.tenant, EventState::Processed)
            .await
            .job_ids,
        ["job-1"]
    );

    // A type that nobody wants synced is routed, and no more.
    let star = Webhook::github(SECRET, "star", "d-2", &json!({"organization": {"id": 7}}));
    assert_eq!(world.send(&source.url, &star).await, 200);
    let processed = async || {
        world
            .count("SELECT count(*) FROM ingest.events WHERE state = 2")
            .await
            == 2
    };
    testkit::eventually(PATIENCE, processed).await;
    assert_eq!(world.others.jobs(), 1);
}

#[tokio::test]
async fn an_event_that_another_holds_is_left_alone_until_its_lease_ends() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    world
        .others
        .connect(&world.deps, world.tenant, "github", &[("account", "7")]);
    world.others.scheduler_down.store(true, Ordering::SeqCst);
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let tried = async || world.list_events(&ingest, world.tenant).await[0].attempts > 0;
    testkit::eventually(PATIENCE, tried).await;
    // Somebody else has claimed it, and is at it.
    let admin = world.database.admin().await;
    let claimed =
        "UPDATE ingest.event_queue SET fence = fence + 1, due_at = now() + '1 h'::interval";
    assert_eq!(admin.execute(claimed, &[]).await.unwrap(), 1);
    world.others.scheduler_down.store(false, Ordering::SeqCst);
    // Another event comes and goes meanwhile.
    assert_eq!(world.send(&source.url, &Webhook::push("d-2", 7)).await, 200);
    let gone = async || {
        world
            .count("SELECT count(*) FROM ingest.events WHERE state = 2")
            .await
            == 1
    };
    testkit::eventually(PATIENCE, gone).await;
    assert_eq!(
        world.count("SELECT count(*) FROM ingest.event_queue").await,
        1,
        "it is the other's to end"
    );
    admin
        .execute("UPDATE ingest.event_queue SET due_at = now()", &[])
        .await
        .unwrap();
    let both = async || {
        world
            .count("SELECT count(*) FROM ingest.events WHERE state = 2")
            .await
            == 2
    };
    testkit::eventually(PATIENCE, both).await;
}

#[tokio::test]
async fn records_that_the_event_names_are_synced_alone() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let options = json!({"routing_keys": {"record": ["json:/commits/*/id"]}});
    let fields = options
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), to_value(value)))
        .collect();
    let source = Source {
        scheme_options: Some(prost_types::Struct { fields }),
        ..world.source()
    };
    let source = world.create(&ingest, source).await.unwrap();
    world.others.connect(
        &world.deps,
        world.tenant,
        "github",
        &[("account", "7"), ("record", "c2")],
    );
    world
        .others
        .connect(&world.deps, world.tenant, "github", &[("record", "c1")]);
    let push = json!({"organization": {"id": 7}, "commits": [{"id": "c1"}, {"id": "c2"}]});
    assert_eq!(
        world
            .send(&source.url, &Webhook::github(SECRET, "push", "d", &push))
            .await,
        200
    );
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!(
        event.connection_ids.len(),
        1,
        "a record is nobody's address"
    );
    assert_eq!(keys(&event)["record"], "c1,c2");
    assert_eq!(
        world.others.triggers.lock().unwrap()[0].external_ids,
        ["c1", "c2"]
    );
}

fn to_value(value: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        serde_json::Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), to_value(value)))
                .collect();
            Kind::StructValue(prost_types::Struct { fields })
        }
        other => panic!("no option of ours is {other}"),
    };
    prost_types::Value { kind: Some(kind) }
}

#[tokio::test]
async fn an_event_that_names_nobody_is_about_all_connections_of_its_own_tenant() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let mine = [(); 3].map(|()| {
        world
            .others
            .connect(&world.deps, world.tenant, "github", &[])
            .to_string()
    });
    world.others.connect(
        &world.deps,
        TenantKey::new_tenant(&world.deps),
        "github",
        &[],
    );
    let push = Webhook::github(SECRET, "push", "d", &json!({"ref": "refs/heads/main"}));
    assert_eq!(world.send(&source.url, &push).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!(
        event.connection_ids.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(mine)
    );
    assert_eq!(world.others.jobs(), 3);
}

#[tokio::test]
async fn what_nobody_is_connected_for_is_kept_and_can_be_routed_later() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    assert_eq!(world.others.jobs(), 0);
    world
        .others
        .connect(&world.deps, world.tenant, "github", &[("account", "7")]);
    let replay = async |ids: Vec<String>| {
        let request = ReplayEventsRequest {
            tenant_id: world.tenant.to_string(),
            event_ids: ids,
            ..ReplayEventsRequest::default()
        };
        world
            .events(&ingest)
            .replay_events(request)
            .await
            .unwrap()
            .into_inner()
            .events_replayed
    };
    let unknown = world.tenant.new_id(&world.deps).to_string();
    assert_eq!(replay(vec![event.event_id.clone(), unknown]).await, 1);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!(event.job_ids, ["job-1"]);
    // A replay is meant: it leads to another sync.
    assert_eq!(replay(vec![event.event_id]).await, 1);
    let again = async || world.others.jobs() == 2;
    testkit::eventually(PATIENCE, again).await;
}

#[tokio::test]
async fn req_teamsync_09_a_tenants_own_source_reaches_its_own_connections_whatever_it_claims() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    world
        .others
        .integrations
        .lock()
        .unwrap()
        .insert("shared".to_owned(), TenantKey::PLATFORM);
    let victim = TenantKey::new_tenant(&world.deps);
    world
        .others
        .connect(&world.deps, victim, "shared", &[("account", "7")]);
    let source = Source {
        integration_id: "shared".to_owned(),
        ..world.source()
    };
    let source = world.create(&ingest, source).await.unwrap();
    assert_eq!(
        world.send(&source.url, &Webhook::push("forged", 7)).await,
        200
    );
    world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    assert_eq!(world.others.jobs(), 0);
    assert!(world.list_events(&ingest, victim).await.is_empty());
}

#[tokio::test]
async fn req_teamsync_09_an_event_of_the_platforms_source_is_split_by_tenant() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    world
        .others
        .integrations
        .lock()
        .unwrap()
        .insert("shared".to_owned(), TenantKey::PLATFORM);
    let (one, two) = (world.tenant, TenantKey::new_tenant(&world.deps));
    let ours = world
        .others
        .connect(&world.deps, one, "shared", &[("account", "7")]);
    let theirs = world
        .others
        .connect(&world.deps, two, "shared", &[("repository", "9")]);
    let source = Source {
        tenant_id: TenantKey::PLATFORM.to_string(),
        integration_id: "shared".to_owned(),
        sealed_bodies: true,
        ..world.source()
    };
    let source = world.create(&ingest, source).await.unwrap();

    // About both, so what it says besides is for neither.
    let both = json!({"organization": {"id": 7}, "repository": {"id": 9}});
    assert_eq!(
        world
            .send(&source.url, &Webhook::github(SECRET, "push", "both", &both))
            .await,
        200
    );
    let inbound = world
        .event_in(&ingest, TenantKey::PLATFORM, EventState::Processed)
        .await;
    assert!(inbound.connection_ids.is_empty());
    for (tenant, connection, key) in [
        (one, ours, ("account", "7")),
        (two, theirs, ("repository", "9")),
    ] {
        let event = world.event_in(&ingest, tenant, EventState::Processed).await;
        assert_eq!(event.connection_ids, [connection.to_string()]);
        assert_eq!(event.inbound_event_id, inbound.event_id);
        assert_eq!(keys(&event).into_iter().collect::<Vec<_>>(), [key]);
        assert_eq!(event.job_ids.len(), 1);
        let request = GetEventRequest {
            tenant_id: tenant.to_string(),
            event_id: event.event_id.clone(),
        };
        let whole = world
            .events(&ingest)
            .get_event(request)
            .await
            .unwrap()
            .into_inner()
            .event
            .unwrap();
        assert!(whole.body.is_empty());
        let foreign = if tenant == one { two } else { one };
        let request = GetEventRequest {
            tenant_id: foreign.to_string(),
            event_id: event.event_id,
        };
        let refused = world
            .events(&ingest)
            .get_event(request)
            .await
            .expect_err("it is another's");
        assert_eq!(
            common::rpc::CallError::from(refused).code,
            common::Code::NotFound
        );
    }
    assert_eq!(world.others.jobs(), 2);
}

#[tokio::test]
async fn an_event_of_the_platforms_that_is_about_one_tenant_goes_there_whole_and_once() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    world
        .others
        .integrations
        .lock()
        .unwrap()
        .insert("shared".to_owned(), TenantKey::PLATFORM);
    world
        .others
        .connect(&world.deps, world.tenant, "shared", &[("repository", "9")]);
    let source = Source {
        tenant_id: TenantKey::PLATFORM.to_string(),
        integration_id: "shared".to_owned(),
        sealed_bodies: true,
        ..world.source()
    };
    let source = world.create(&ingest, source).await.unwrap();
    let webhook = Webhook::github(
        SECRET,
        "push",
        "alone",
        &json!({"repository": {"id": 9}, "text": "for one"}),
    );
    assert_eq!(world.send(&source.url, &webhook).await, 200);
    world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    let again = "INSERT INTO ingest.event_queue (bucket, tenant_id, event_id, due_at)
        SELECT bucket, tenant_id, event_id, now() FROM ingest.events WHERE external_event_id = 'alone'";
    assert_eq!(
        world
            .database
            .admin()
            .await
            .execute(again, &[])
            .await
            .unwrap(),
        1
    );
    let settled = async || world.count("SELECT count(*) FROM ingest.event_queue").await == 0;
    testkit::eventually(PATIENCE, settled).await;
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    let request = GetEventRequest {
        tenant_id: world.tenant.to_string(),
        event_id: event.event_id,
    };
    let whole = world
        .events(&ingest)
        .get_event(request)
        .await
        .unwrap()
        .into_inner()
        .event
        .unwrap();
    assert_eq!(whole.body, webhook.body);
    assert_eq!(world.others.jobs(), 1);
}

#[tokio::test]
async fn what_fails_is_tried_again_and_what_fails_too_often_is_dead_and_kept() {
    let logs = testkit::logs::capture();
    logs.expect("a webhook could not be processed and is kept");
    let world = World::without_ingest().await;
    let config = world.config(world.database.config(SCHEMA.name));
    let processing = ProcessingConfig {
        max_attempts: 3,
        first_pause: Setting::from_millis(1),
        ..config.processing.clone()
    };
    let ingest = world
        .start_with(webhook_ingest::Config {
            processing,
            ..config
        })
        .await;
    world
        .others
        .connect(&world.deps, world.tenant, "github", &[("account", "7")]);
    let source = world.create(&ingest, world.source()).await.unwrap();
    world.others.scheduler_down.store(true, Ordering::SeqCst);
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Dead)
        .await;
    assert_eq!(event.attempts, 3);
    assert!(
        event.last_error.contains("sync scheduler"),
        "{}",
        event.last_error
    );

    world.others.scheduler_down.store(false, Ordering::SeqCst);
    let request = ReplayEventsRequest {
        tenant_id: world.tenant.to_string(),
        event_ids: vec![event.event_id],
        ..ReplayEventsRequest::default()
    };
    assert_eq!(
        world
            .events(&ingest)
            .replay_events(request)
            .await
            .unwrap()
            .into_inner()
            .events_replayed,
        1
    );
    let event = world
        .event_in(&ingest, world.tenant, EventState::Processed)
        .await;
    assert_eq!((event.attempts, event.last_error.as_str()), (1, ""));
}

#[tokio::test]
async fn req_teamsync_07_each_step_is_in_the_audit_trail_or_the_log_with_its_tenant() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    assert_eq!(world.send(&source.url, &Webhook::push("d", 7)).await, 200);
    let event = world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    let request = ReplayEventsRequest {
        tenant_id: world.tenant.to_string(),
        event_ids: vec![event.event_id.clone()],
        ..ReplayEventsRequest::default()
    };
    world.events(&ingest).replay_events(request).await.unwrap();
    let rows = world
        .database
        .admin()
        .await
        .query("SELECT tenant_id::text, actor, action, resource FROM ingest.audit_events ORDER BY occurred_at", &[])
        .await
        .unwrap();
    let trail: Vec<[String; 4]> = rows
        .iter()
        .map(|row| [0, 1, 2, 3].map(|column| row.get(column)))
        .collect();
    let line = |actor: &str, action: &str, resource: String| {
        [
            world.tenant.to_string(),
            actor.to_owned(),
            action.to_owned(),
            resource,
        ]
    };
    assert_eq!(
        trail,
        [
            line(
                crate::world::OPERATOR,
                "WebhookSourceService/CreateSource",
                "sources/hooks".to_owned()
            ),
            line(
                crate::world::HOST,
                "WebhookEventService/ReplayEvents",
                format!("events/{}", event.event_id)
            ),
        ]
    );
}
