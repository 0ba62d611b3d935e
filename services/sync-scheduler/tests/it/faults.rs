//! Requests that are wrong, and a database that is away.

use std::time::Duration;

use common::Code;
use common::rpc::CallError;
use contracts::scheduler::v1::*;
use sync_scheduler::SCHEMA;
use testkit::chaos::Proxy;
use testkit::{TestDatabase, eventually};

use crate::world::*;

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told from its beginning to its end"
)]
async fn a_request_with_every_field_wrong_is_told_of_each() {
    let world = World::new().await;
    let long = "x".repeat(600);
    let start = StartInitialSyncRequest {
        request_id: long.clone(),
        tenant_id: "acme".into(),
        connection_id: "42".into(),
        user_id: long.clone(),
        backfill_days: -1,
        streams: texts(&["", &long]),
        notify_email: long.clone(),
        external_account_id: long.clone(),
        queue: long.clone(),
    };
    let expected = [
        "backfill_days",
        "connection_id",
        "external_account_id",
        "notify_email",
        "queue",
        "request_id",
        "streams[0]",
        "streams[1]",
        "tenant_id",
        "user_id",
    ];
    assert_eq!(
        violated(world.syncs(HOST).start_initial_sync(start).await),
        expected
    );

    let trigger = TriggerSyncRequest {
        request_id: long.clone(),
        source: 99,
        streams: texts(&[""]),
        external_ids: vec!["x".into(); 1001],
        user_id: long.clone(),
        external_account_id: long.clone(),
        queue: long.clone(),
        ..TriggerSyncRequest::default()
    };
    let expected = [
        "connection_id",
        "external_account_id",
        "external_ids",
        "queue",
        "request_id",
        "source",
        "streams[0]",
        "tenant_id",
        "user_id",
    ];
    assert_eq!(
        violated(world.syncs(HOST).trigger_sync(trigger).await),
        expected
    );

    let list = ListJobsRequest {
        tenant_id: "1".into(),
        connection_id: "2".into(),
        state: 99,
        page_size: -1,
        page_token: "3".into(),
    };
    let expected = [
        "connection_id",
        "page_size",
        "page_token",
        "state",
        "tenant_id",
    ];
    assert_eq!(violated(world.syncs(HOST).list_jobs(list).await), expected);

    let grant = GrantOverrideRequest {
        connection_id: "2".into(),
        request_id: long.clone(),
        expires_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
        ..GrantOverrideRequest::default()
    };
    let expected = [
        "connection_id",
        "expires_at",
        "reason",
        "request_id",
        "tenant_id",
    ];
    assert_eq!(
        violated(world.permissions(OPERATOR).grant_override(grant).await),
        expected
    );
    let list = ListSyncLocksRequest {
        tenant_id: "1".into(),
        page_size: -1,
        page_token: "a.b.c".into(),
    };
    let outcome = world.permissions(OPERATOR).list_sync_locks(list).await;
    assert_eq!(violated(outcome), ["page_size", "page_token", "tenant_id"]);

    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let lease = LeaseJobsRequest {
        worker_id: String::new(),
        providers: texts(&[""]),
        max_jobs: -1,
        lease: span(3600),
        max_wait: span(-1),
        queues: texts(&[""]),
        request_id: long,
    };
    let expected = [
        "lease",
        "max_jobs",
        "max_wait",
        "providers[0]",
        "queues[0]",
        "request_id",
        "worker_id",
    ];
    assert_eq!(
        violated(world.workers(WORKER).lease_jobs(lease).await),
        expected
    );
}

#[tokio::test]
async fn a_wrong_word_about_a_lease_is_told_and_nothing_is_done() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let leased = world.lease_one("worker-1").await;
    let mut workers = world.workers(WORKER);
    let wrong = LeaseRef {
        tenant_id: "acme".into(),
        job_id: "1".into(),
        lease_token: 0,
    };
    let negative = Progress {
        records_read: -1,
        ..Progress::default()
    };
    let at = CheckpointRequest {
        lease: Some(wrong.clone()),
        cursor_json: "{".into(),
        incremental_cursor_json: vec![0xff],
        progress: Some(negative),
        checkpoint_number: 0,
    };
    let expected = [
        "checkpoint_number",
        "cursor_json",
        "incremental_cursor_json",
        "lease.job_id",
        "lease.lease_token",
        "lease.tenant_id",
        "progress",
    ];
    assert_eq!(violated(workers.checkpoint(at).await), expected);

    // The good one beside it is not done either.
    let good = JobCompletion {
        lease: Some(held(&leased)),
        ..JobCompletion::default()
    };
    let bad = JobCompletion {
        lease: Some(wrong.clone()),
        cursor_json: "{".into(),
        progress: Some(negative),
        ..JobCompletion::default()
    };
    let request = CompleteJobsRequest {
        completions: vec![good.clone(), bad, JobCompletion::default(), good.clone()],
    };
    let expected = [
        "completions[1].cursor_json",
        "completions[1].lease.job_id",
        "completions[1].lease.lease_token",
        "completions[1].lease.tenant_id",
        "completions[1].progress",
        "completions[2].lease.job_id",
        "completions[2].lease.lease_token",
        "completions[2].lease.tenant_id",
        "completions[3].lease.job_id",
    ];
    assert_eq!(violated(workers.complete_jobs(request).await), expected);
    let failure = JobFailure {
        lease: Some(held(&leased)),
        error: " ".into(),
        kind: 99,
        retry_after: Some(prost_types::Duration {
            seconds: -5,
            nanos: 0,
        }),
        ..JobFailure::default()
    };
    let outcome = workers
        .fail_jobs(FailJobsRequest {
            failures: vec![failure],
        })
        .await;
    assert_eq!(
        violated(outcome),
        [
            "failures[0].error",
            "failures[0].kind",
            "failures[0].retry_after"
        ]
    );
    let beat = HeartbeatRequest {
        leases: vec![held(&leased); 257],
        ..HeartbeatRequest::default()
    };
    assert!(violated(workers.heartbeat(beat).await).contains(&"leases".to_owned()));
    assert_eq!(world.job(job_of(&leased)).await.state(), JobState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_when_to_come_back() {
    let database = TestDatabase::create(&[&SCHEMA]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], database.port()).into()).await;
    let config = database.config_through(proxy.address().port(), SCHEMA.name);
    let world = World::on(database, config).await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let leased = world.lease_one("worker-1").await;
    assert!(
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .all(|check| check.ok)
    );

    proxy.cut();
    let errors = [
        CallError::from(
            world
                .syncs(HOST)
                .start_initial_sync(starting(&connection))
                .await
                .unwrap_err(),
        ),
        CallError::from(
            world
                .workers(WORKER)
                .lease_jobs(leasing("worker-2"))
                .await
                .unwrap_err(),
        ),
        CallError::from(
            world
                .workers(WORKER)
                .checkpoint(checkpointing(&leased, 1, "1"))
                .await
                .unwrap_err(),
        ),
    ];
    for error in errors {
        assert_eq!(error.code, Code::Unavailable, "{error:?}");
        assert!(error.retry_after.is_some(), "{error:?}");
    }
    assert!(
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .any(|check| !check.ok)
    );

    proxy.pass();
    eventually(Duration::from_secs(20), async || {
        world
            .workers(WORKER)
            .checkpoint(checkpointing(&leased, 1, "1"))
            .await
            .is_ok()
    })
    .await;
    assert_eq!(world.complete(&leased, "\"mark\"").await, NONE);
    assert!(world.state(&connection).await.initial_sync_completed);
    eventually(Duration::from_secs(20), async || {
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .all(|check| check.ok)
    })
    .await;
}
