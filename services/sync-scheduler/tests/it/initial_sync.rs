//! The one-time historical sync: its lock, its end, and what it refuses.

use std::collections::HashSet;
use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::{Account, ConnectionState};
use contracts::directory::v1::Quotas;
use contracts::scheduler::v1::*;
use futures::future::join_all;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn req_mailhistory_01_one_of_fifty_starts_and_the_others_are_told_why() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let other = world.another().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let starts = (0..50).map(|index| {
        let address = if index % 2 == 0 { world.address } else { other };
        let mut syncs = world.syncs_at(address, HOST);
        let request = StartInitialSyncRequest {
            request_id: format!("start-{index}"),
            ..starting(&connection)
        };
        async move {
            syncs
                .start_initial_sync(request)
                .await
                .map_err(CallError::from)
        }
    });
    let (started, refused): (Vec<_>, Vec<_>) =
        join_all(starts).await.into_iter().partition(Result::is_ok);
    assert_eq!((started.len(), refused.len()), (1, 49));
    let answer = started.into_iter().next().unwrap().unwrap().into_inner();
    assert!(answer.locked && !answer.override_used);
    assert_eq!(answer.backfill_days, 365);
    assert!(answer.message.contains("365 days"), "{}", answer.message);
    let streams: Vec<_> = answer.jobs.iter().map(|job| job.stream.as_str()).collect();
    assert_eq!(streams, ["archive", "messages", "projects"]);
    let started_at = answer.jobs[0].scheduled_at.unwrap();
    for error in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(
            (error.code, error.reason),
            (Code::FailedPrecondition, Some(Reason::SyncLocked)),
            "{error:?}"
        );
        assert!(
            error
                .message
                .contains("can be run only once; ask your operator"),
            "{}",
            error.message
        );
        assert!(
            error.metadata["locked_at"].starts_with("20"),
            "{:?}",
            error.metadata
        );
    }
    assert_eq!(world.jobs(&connection).await.len(), 3);

    let state = world.state(&connection).await;
    assert!(
        !state.can_start_initial_sync && !state.initial_sync_completed && !state.auto_sync_enabled
    );
    assert_eq!(state.initial_sync_state(), InitialSyncState::Running);
    assert_eq!(state.initial_sync_started_at, Some(started_at));
    assert!(
        state.lock_reason.contains("only once"),
        "{}",
        state.lock_reason
    );
    assert_eq!(
        (state.company_name.as_str(), state.user_email.as_str()),
        ("Acme", "ada@example.com")
    );
    drop(logs);
}

#[tokio::test]
async fn a_repeated_start_has_its_first_answer() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let request = StartInitialSyncRequest {
        request_id: "start".into(),
        ..starting(&connection)
    };
    let together = join_all((0..10).map(|_| {
        let (mut syncs, request) = (world.syncs(HOST), request.clone());
        async move {
            syncs
                .start_initial_sync(request)
                .await
                .unwrap()
                .into_inner()
        }
    }))
    .await;
    assert!(together.iter().all(|answer| *answer == together[0]));
    assert_eq!(world.jobs(&connection).await.len(), 3);

    // Whatever has changed since.
    world.broker.set_state(
        &connection.connection_id,
        ConnectionState::ReauthorizationRequired,
    );
    let again = world
        .syncs(HOST)
        .start_initial_sync(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, together[0]);
    let other = StartInitialSyncRequest {
        backfill_days: 7,
        ..request
    };
    let error = refusal(world.syncs(HOST).start_initial_sync(other).await);
    assert_eq!(
        (error.code, error.reason),
        (Code::AlreadyExists, Some(Reason::RequestIdReused))
    );
    let fresh = refusal(
        world
            .syncs(HOST)
            .start_initial_sync(starting(&connection))
            .await,
    );
    assert_eq!(fresh.reason, Some(Reason::ConnectionNotUsable));
    assert!(fresh.message.contains("connect again"), "{}", fresh.message);
}

#[tokio::test]
async fn the_lock_outlives_the_connection() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let first = world.connect(tenant, "ada");
    world.begin(&first, &[]).await.unwrap();
    world
        .broker
        .set_state(&first.connection_id, ConnectionState::Disconnected);
    let anew = world.connect(tenant, "ada");
    assert_ne!(anew.connection_id, first.connection_id);
    assert_eq!(reason(world.begin(&anew, &[]).await), Reason::SyncLocked);
    assert_eq!(
        reason(world.begin(&anew, &["messages"]).await),
        Reason::SyncLocked
    );
    let named = StartInitialSyncRequest {
        external_account_id: "inbox".into(),
        ..starting(&anew)
    };
    assert_eq!(
        refusal(world.syncs(HOST).start_initial_sync(named).await).reason,
        Some(Reason::SyncLocked)
    );
    // A queue of one's own has no lock of its own.
    let own = StartInitialSyncRequest {
        queue: OWN.into(),
        streams: texts(&["messages"]),
        ..starting(&anew)
    };
    assert_eq!(
        refusal(world.syncs(HOST).start_initial_sync(own).await).reason,
        Some(Reason::SyncLocked)
    );
    // Nor has an account that nobody has.
    let invented = StartInitialSyncRequest {
        external_account_id: "inbox ".into(),
        ..starting(&anew)
    };
    assert_eq!(
        violated(world.syncs(HOST).start_initial_sync(invented).await),
        ["external_account_id"]
    );
    assert_eq!(world.jobs(&anew).await, []);

    // Another account is another history, and so is another user's.
    world
        .broker
        .put_accounts(&anew.connection_id, &["inbox", "sales"]);
    let sales = StartInitialSyncRequest {
        external_account_id: "sales".into(),
        ..starting(&anew)
    };
    let answer = world
        .syncs(HOST)
        .start_initial_sync(sales)
        .await
        .unwrap()
        .into_inner();
    assert!(
        answer
            .jobs
            .iter()
            .all(|job| job.external_account_id == "sales")
    );
    world
        .begin(&world.connect(tenant, "bob"), &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_be_synced_is_refused_with_what_can() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let connection = world.connect(tenant, "ada");
    let error = world
        .begin(&connection, &["messages", "contacts", "calls"])
        .await
        .unwrap_err();
    assert_eq!((error.code, error.fields.len()), (Code::InvalidArgument, 2));
    for (violation, stream) in error.fields.iter().zip(["contacts", "calls"]) {
        assert_eq!(violation.field, "streams");
        assert!(violation.description.contains(stream), "{violation:?}");
        assert!(
            violation
                .description
                .contains("messages, projects, archive"),
            "{violation:?}"
        );
    }

    world.directory.change(tenant, |tenant| {
        tenant.quotas = Some(Quotas {
            max_backfill_days: 30,
            ..Quotas::default()
        });
    });
    let long = StartInitialSyncRequest {
        backfill_days: 31,
        ..starting(&connection)
    };
    let error = refusal(world.syncs(HOST).start_initial_sync(long).await);
    assert_eq!(error.fields[0].field, "backfill_days");
    assert!(
        error.fields[0].description.contains("30"),
        "{:?}",
        error.fields
    );

    let unselected = contracts::broker::v1::Connection {
        active_account: None,
        ..connection.clone()
    };
    world.broker.put(&unselected);
    let error = world.begin(&unselected, &[]).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::ConnectionNotUsable));
    assert!(error.message.contains("select one"), "{}", error.message);
    world.broker.put(&connection);

    world.directory.change(tenant, |tenant| {
        tenant.subscription = Some(contracts::directory::v1::Subscription::default());
    });
    assert_eq!(
        reason(world.begin(&connection, &[]).await),
        Reason::SubscriptionInactive
    );
    world
        .directory
        .change(tenant, |tenant| tenant.subscription = None);
    assert_eq!(world.jobs(&connection).await, []);

    // None of that has used the sync up. A stream that was never started can be started later.
    let answer = world.begin(&connection, &["messages"]).await.unwrap();
    assert_eq!(answer.backfill_days, 30);
    let window =
        answer.jobs[0].window_end.unwrap().seconds - answer.jobs[0].window_start.unwrap().seconds;
    assert_eq!(window, 30 * 86_400);
    assert_eq!(
        reason(world.begin(&connection, &["messages", "projects"]).await),
        Reason::SyncLocked
    );
    let rest = world.begin(&connection, &[]).await.unwrap();
    let streams: HashSet<_> = rest.jobs.iter().map(|job| job.stream.as_str()).collect();
    assert_eq!(streams, HashSet::from(["projects", "archive"]));
}

#[tokio::test]
async fn req_mailhistory_03_afterwards_the_sync_goes_on_by_itself() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world
        .begin(&connection, &["messages", "archive"])
        .await
        .unwrap();
    let leased = world.lease("worker-1").await;
    assert_eq!(leased.len(), 2);
    let archive = leased
        .iter()
        .find(|leased| job_of(leased).stream == "archive")
        .unwrap();
    let messages = leased
        .iter()
        .find(|leased| job_of(leased).stream == "messages")
        .unwrap();
    assert_eq!(job_of(messages).kind(), JobKind::Initial);
    assert_eq!(job_of(messages).state(), JobState::Running);
    assert_eq!(messages.field_mappings_json, r#"{"amount":"Betrag__c"}"#);
    assert!(messages.stream_epoch == 1 && messages.lease_token == 1);

    // Page by page; the mark was taken before the first one.
    let mut workers = world.workers(WORKER);
    let read = Progress {
        records_read: 40,
        records_written: 30,
        records_unchanged: 10,
        api_calls: 2,
        ..Progress::default()
    };
    let page = CheckpointRequest {
        progress: Some(read),
        incremental_cursor_json: "\"mark\"".into(),
        ..checkpointing(messages, 1, "{\"page\":2}")
    };
    assert!(
        !workers
            .checkpoint(page)
            .await
            .unwrap()
            .into_inner()
            .cancelled
    );
    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_progress.unwrap().records_read, 40);
    assert_eq!(state.current_jobs.len(), 2);

    assert_eq!(world.complete(archive, "").await, NONE);
    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_state(), InitialSyncState::Running);
    assert!(!state.initial_sync_completed && state.initial_sync_completed_at.is_none());
    let last = JobCompletion {
        lease: Some(held(messages)),
        progress: Some(Progress {
            records_read: 55,
            ..read
        }),
        ..JobCompletion::default()
    };
    let answer = workers
        .complete_jobs(CompleteJobsRequest {
            completions: vec![last],
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.lost_job_ids, NONE);

    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_state(), InitialSyncState::Completed);
    assert!(
        state.initial_sync_completed && state.auto_sync_enabled && !state.can_start_initial_sync
    );
    assert!(state.initial_sync_completed_at.is_some());
    assert_eq!(state.initial_sync_progress.unwrap().records_read, 55);
    assert_eq!(state.last_job.unwrap().state(), JobState::Succeeded);
    assert_eq!(world.cursor(&connection, "messages").await, "\"mark\"");
    assert_eq!(
        reason(world.begin(&connection, &["messages"]).await),
        Reason::SyncLocked
    );

    // What is read whole only has no schedule; the other one goes on from the mark.
    world.clock.advance(Duration::from_mins(61));
    world
        .trigger(&world.connect(world.tenant("Other"), "eve"), "projects")
        .await;
    let made = testkit::eventually_some(Duration::from_secs(10), async || {
        let jobs = world.jobs(&connection).await;
        (jobs.len() > 2).then_some(jobs)
    })
    .await;
    let made: Vec<_> = made
        .into_iter()
        .filter(|job| job.kind() == JobKind::Incremental)
        .collect();
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].stream.as_str(), made[0].triggered_by()),
        ("messages", TriggerSource::Schedule)
    );
    assert_eq!(made[0].user_id, "ada");
    drop(logs);
}

#[tokio::test]
async fn one_that_failed_for_good_says_why_and_can_be_taken_up_again() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world
        .begin(&connection, &["messages", "projects"])
        .await
        .unwrap();
    let leased = world.lease("worker-1").await;
    assert_eq!(world.complete(&leased[0], "\"mark\"").await, NONE);
    assert_eq!(world.fail(&leased[1], FailureKind::Fatal).await, NONE);
    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_state(), InitialSyncState::Partial);
    assert!(!state.can_start_initial_sync && !state.initial_sync_completed);
    assert_eq!(
        reason(
            world
                .begin(&connection, &[job_of(&leased[1]).stream.as_str()])
                .await
        ),
        Reason::SyncLocked
    );
    let error = world
        .begin(&connection, &[job_of(&leased[1]).stream.as_str()])
        .await
        .unwrap_err();
    assert!(
        error.message.contains("the provider said no"),
        "{}",
        error.message
    );

    let failed = world.job(job_of(&leased[1])).await;
    assert_eq!(
        (failed.state(), failed.last_error.as_str()),
        (JobState::Failed, "the provider said no")
    );
    let request = RetryJobRequest {
        tenant_id: failed.tenant_id.clone(),
        job_id: failed.job_id.clone(),
    };
    let retried = world
        .syncs(HOST)
        .retry_job(request)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(retried.state(), JobState::Retrying);
    assert_eq!(
        world.state(&connection).await.initial_sync_state(),
        InitialSyncState::Running
    );
    let again = world.lease_one("worker-2").await;
    assert_eq!(job_of(&again).job_id, failed.job_id);
    // Those who failed it before have nothing to say any more.
    assert_eq!(
        world.complete(&leased[1], "\"old\"").await,
        std::slice::from_ref(&failed.job_id)
    );
    assert_eq!(world.complete(&again, "\"mark\"").await, NONE);
    assert!(world.state(&connection).await.initial_sync_completed);
    let over = RetryJobRequest {
        tenant_id: failed.tenant_id,
        job_id: failed.job_id,
    };
    assert_eq!(
        code(world.syncs(HOST).retry_job(over).await),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn a_cancelled_one_stays_locked() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let started = world
        .begin(&connection, &["messages"])
        .await
        .unwrap()
        .jobs
        .remove(0);
    let cancel = CancelJobRequest {
        tenant_id: started.tenant_id.clone(),
        job_id: started.job_id.clone(),
    };
    let cancelled = world
        .syncs(HOST)
        .cancel_job(cancel)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(cancelled.state(), JobState::Cancelled);
    assert_eq!(world.lease("worker-1").await, []);
    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_state(), InitialSyncState::Failed);
    assert!(
        state.lock_reason.contains("cancelled"),
        "{}",
        state.lock_reason
    );
    assert_eq!(
        reason(world.begin(&connection, &["messages"]).await),
        Reason::SyncLocked
    );
    let account = Account {
        external_account_id: "inbox".into(),
        ..Account::default()
    };
    assert_eq!(connection.active_account, Some(account));
}
