//! Incremental runs that somebody asks for.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::ConnectionState;
use contracts::scheduler::v1::*;
use futures::future::join_all;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn those_that_ask_before_it_begins_become_one_and_one_more_comes_after() {
    let world = World::new().await;
    let other = world.another().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    let asked = join_all((0..20).map(|index| {
        let mut syncs = world.syncs_at(if index % 2 == 0 { world.address } else { other }, INGEST);
        let request = TriggerSyncRequest {
            streams: texts(&["messages"]),
            source: TriggerSource::Webhook.into(),
            external_ids: vec![format!("record-{}", index % 5)],
            ..triggering(&connection)
        };
        async move {
            syncs
                .trigger_sync(request)
                .await
                .unwrap()
                .into_inner()
                .jobs
                .remove(0)
        }
    }))
    .await;
    assert!(
        asked.iter().all(|job| job.job_id == asked[0].job_id),
        "{asked:?}"
    );
    let first = world.lease_one("worker-1").await;
    assert_eq!(job_of(&first).job_id, asked[0].job_id);
    assert_eq!(job_of(&first).triggered_by(), TriggerSource::Webhook);
    assert_eq!(
        job_of(&first).external_ids,
        texts(&["record-0", "record-1", "record-2", "record-3", "record-4"])
    );

    // While it runs, one more, however many ask; and it waits for the first.
    let more = [
        world.trigger(&connection, "messages").await,
        world.trigger(&connection, "messages").await,
    ];
    assert_eq!(more[0].job_id, more[1].job_id);
    assert_ne!(more[0].job_id, asked[0].job_id);
    assert_eq!(world.lease("worker-2").await, []);
    assert_eq!(world.complete(&first, "\"narrow\"").await, NONE);
    assert_eq!(
        world.cursor(&connection, "messages").await,
        "\"mark\"",
        "it has seen some records only"
    );
    let second = world.lease_one("worker-2").await;
    assert_eq!(job_of(&second).job_id, more[0].job_id);
    assert_eq!(
        (
            job_of(&second).external_ids.len(),
            job_of(&second).cursor_json.as_slice()
        ),
        (0, &b"\"mark\""[..])
    );
}

#[tokio::test]
async fn without_a_cursor_it_starts_from_now() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    let now = world.deps.now().unix_timestamp();
    assert_eq!(job.window_start.unwrap().seconds, now);
    assert_eq!((job.window_end, job.cursor_json.len()), (None, 0));
    let leased = world.lease_one("worker-1").await;
    assert_eq!(job_of(&leased).window_start, job.window_start);
    assert_eq!(world.complete(&leased, "\"c1\"").await, NONE);
    let next = world.trigger(&connection, "messages").await;
    assert_eq!(next.window_start, None);
    assert_eq!(
        job_of(&world.lease_one("worker-1").await).cursor_json,
        b"\"c1\""
    );
    // Its history is still there to be read, once.
    world.begin(&connection, &[]).await.unwrap();
    assert!(!world.state(&connection).await.auto_sync_enabled);
}

#[tokio::test]
async fn while_history_is_read_it_waits_and_goes_on_from_the_mark() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    world.trigger(&connection, "messages").await;
    let initial = world.lease_one("worker-1").await;
    assert_eq!(job_of(&initial).kind(), JobKind::Initial);
    let retry_after = Some(prost_types::Duration {
        seconds: 600,
        nanos: 0,
    });
    let failure = JobFailure {
        retry_after,
        ..failing(&initial, FailureKind::Retry)
    };
    world
        .workers(WORKER)
        .fail_jobs(FailJobsRequest {
            failures: vec![failure],
        })
        .await
        .unwrap();
    assert_eq!(
        world.lease("worker-2").await,
        [],
        "the history waits for its next attempt, and the run for it"
    );
    world.hurry().await;
    let initial = world.lease_one("worker-1").await;
    assert_eq!(world.complete(&initial, "\"mark\"").await, NONE);
    let run = world.lease_one("worker-2").await;
    assert_eq!(
        (job_of(&run).kind(), job_of(&run).cursor_json.as_slice()),
        (JobKind::Incremental, &b"\"mark\""[..])
    );
    assert_eq!(job_of(&run).window_start, None);
}

#[tokio::test]
async fn a_repeated_trigger_has_its_first_answer() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let request = TriggerSyncRequest {
        request_id: "event-1".into(),
        streams: texts(&["messages"]),
        ..triggering(&connection)
    };
    let first = world
        .syncs(INGEST)
        .trigger_sync(request.clone())
        .await
        .unwrap()
        .into_inner();
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.complete(&leased, "1").await, NONE);
    world
        .broker
        .set_state(&connection.connection_id, ConnectionState::Disconnected);
    assert_eq!(
        world
            .syncs(INGEST)
            .trigger_sync(request)
            .await
            .unwrap()
            .into_inner(),
        first
    );
    assert_eq!(world.jobs(&connection).await.len(), 1);
    let fresh = world
        .syncs(INGEST)
        .trigger_sync(triggering(&connection))
        .await
        .map_err(CallError::from);
    assert_eq!(reason(fresh), Reason::ConnectionNotUsable);
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_so_is_refused() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let request = TriggerSyncRequest {
        streams: texts(&["archive"]),
        ..triggering(&connection)
    };
    let error = refusal(world.syncs(HOST).trigger_sync(request).await);
    assert!(
        error.fields[0].description.contains("messages, projects"),
        "{:?}",
        error.fields
    );
    let all = world
        .syncs(HOST)
        .trigger_sync(triggering(&connection))
        .await
        .unwrap()
        .into_inner()
        .jobs;
    let streams: Vec<_> = all.iter().map(|job| job.stream.as_str()).collect();
    assert_eq!(streams, ["messages", "projects"]);
    assert_eq!(all[0].run_id, all[1].run_id);
}

#[tokio::test]
async fn req_teamsync_05_jobs_say_which_tenant_and_who_asked() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let connection = world.connect(tenant, "ada");
    let asked = |streams: &[&str]| TriggerSyncRequest {
        streams: texts(streams),
        ..triggering(&connection)
    };
    let of = |answer: tonic::Response<TriggerSyncResponse>| answer.into_inner().jobs.remove(0);

    let request = world.signed(asked(&["messages"]), tenant, "root", &["admin"]);
    let by_admin = of(world.syncs(HOST).trigger_sync(request).await.unwrap());
    assert_eq!(
        (by_admin.user_id.as_str(), by_admin.triggered_by()),
        ("root", TriggerSource::User)
    );
    assert_eq!(
        (by_admin.tenant_id.as_str(), by_admin.connection_id.as_str()),
        (
            connection.tenant_id.as_str(),
            connection.connection_id.as_str()
        )
    );
    let named = TriggerSyncRequest {
        user_id: "bob".into(),
        ..asked(&["projects"])
    };
    let by_backend = of(world.syncs(HOST).trigger_sync(named).await.unwrap());
    assert_eq!(
        (by_backend.user_id.as_str(), by_backend.triggered_by()),
        ("bob", TriggerSource::User)
    );
    let leased = world.lease("worker-1").await;
    assert!(
        leased
            .iter()
            .all(|leased| job_of(leased).tenant_id == connection.tenant_id)
    );
    for leased in &leased {
        assert_eq!(world.complete(leased, "1").await, NONE);
    }

    let by_operator = of(world
        .syncs(OPERATOR)
        .trigger_sync(asked(&["messages"]))
        .await
        .unwrap());
    assert_eq!(
        (by_operator.user_id.as_str(), by_operator.triggered_by()),
        ("ada", TriggerSource::Operator)
    );
    let webhook = TriggerSyncRequest {
        source: TriggerSource::Webhook.into(),
        ..asked(&["projects"])
    };
    let by_webhook = of(world
        .syncs(INGEST)
        .trigger_sync(webhook.clone())
        .await
        .unwrap());
    assert_eq!(
        (by_webhook.user_id.as_str(), by_webhook.triggered_by()),
        ("ada", TriggerSource::Webhook)
    );
    // Nobody else is believed to be a webhook.
    assert_eq!(
        world
            .complete(&world.lease("worker-1").await.remove(1), "1")
            .await,
        NONE
    );
    let request = TriggerSyncRequest {
        streams: texts(&["messages", "projects"]),
        ..webhook
    };
    let fresh = world
        .syncs(HOST)
        .trigger_sync(request)
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert!(
        fresh
            .iter()
            .any(|job| job.triggered_by() == TriggerSource::User)
    );
    // A user names nobody but itself.
    let request = TriggerSyncRequest {
        user_id: "bob".into(),
        ..asked(&["messages"])
    };
    let request = world.signed(request, tenant, "ada", &[]);
    assert_eq!(
        code(world.syncs(HOST).trigger_sync(request).await),
        Code::NotFound
    );
}

#[tokio::test]
async fn req_teamsync_06_cursors_belong_to_tenant_user_and_connection() {
    let world = World::new().await;
    let (acme, brick) = (world.tenant("Acme"), world.tenant("Brick"));
    let connections = [(acme, "ada"), (acme, "bob"), (brick, "ada")]
        .map(|(tenant, user)| world.connect(tenant, user));
    for (index, connection) in connections.iter().enumerate() {
        world.trigger(connection, "messages").await;
        let leased = world.lease_one("worker-1").await;
        assert_eq!(
            job_of(&leased).cursor_json,
            b"",
            "nobody reads on from another's"
        );
        assert_eq!(world.complete(&leased, &index.to_string()).await, NONE);
    }
    for (index, connection) in connections.iter().enumerate() {
        assert_eq!(
            world.cursor(connection, "messages").await,
            index.to_string()
        );
        let request = ListCursorsRequest {
            tenant_id: connection.tenant_id.clone(),
            connection_id: connection.connection_id.clone(),
            ..ListCursorsRequest::default()
        };
        let cursors = world
            .syncs(HOST)
            .list_cursors(request)
            .await
            .unwrap()
            .into_inner()
            .cursors;
        assert_eq!(cursors.len(), 1);
        let cursor = &cursors[0];
        assert_eq!(
            (cursor.tenant_id.as_str(), cursor.user_id.as_str()),
            (connection.tenant_id.as_str(), connection.user_id.as_str())
        );
        assert_eq!(
            (cursor.connection_id.as_str(), cursor.version),
            (connection.connection_id.as_str(), 1)
        );
    }
}
