//! Attempts that fail, jobs that wait for their connection, and jobs that are cancelled.

use std::time::Duration;

use common::Code;
use contracts::broker::v1::ConnectionState;
use contracts::scheduler::v1::*;
use testkit::{eventually, eventually_some};

use crate::world::*;

async fn cancel(world: &World, job: &Job) -> Job {
    let request = CancelJobRequest {
        tenant_id: job.tenant_id.clone(),
        job_id: job.job_id.clone(),
    };
    world
        .syncs(HOST)
        .cancel_job(request)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap()
}

#[tokio::test]
async fn attempts_without_progress_are_counted_and_the_fifth_is_the_last() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    let mut attempts = 0;
    let mut fail = async |checkpoint: bool| {
        world.hurry().await;
        let leased = world.lease_one("worker-1").await;
        attempts += 1;
        assert_eq!(job_of(&leased).attempt, attempts);
        if checkpoint {
            world
                .workers(WORKER)
                .checkpoint(checkpointing(&leased, 1, "\"half\""))
                .await
                .unwrap();
        }
        assert_eq!(world.fail(&leased, FailureKind::Retry).await, NONE);
        assert_eq!(
            world.fail(&leased, FailureKind::Retry).await,
            NONE,
            "a repeated call has the first answer"
        );
        world.job(&job).await
    };
    for _ in 0..4 {
        let failed = fail(false).await;
        assert_eq!(failed.state(), JobState::Retrying);
        assert!(
            failed.waiting_for.contains("the provider said no"),
            "{}",
            failed.waiting_for
        );
    }
    // Progress begins the count anew.
    assert_eq!(fail(true).await.state(), JobState::Retrying);
    for _ in 0..3 {
        assert_eq!(fail(false).await.state(), JobState::Retrying);
    }
    let failed = fail(false).await;
    assert_eq!(
        (failed.state(), failed.last_error.as_str()),
        (JobState::Failed, "the provider said no")
    );
    assert!(failed.finished_at.is_some() && failed.waiting_for.is_empty());
    assert_eq!(world.lease("worker-1").await, []);
}

#[tokio::test]
async fn a_limit_is_waited_for_and_not_counted() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    for _ in 0..6 {
        world.hurry().await;
        let leased = world.lease_one("worker-1").await;
        let retry_after = Some(prost_types::Duration {
            seconds: 600,
            nanos: 0,
        });
        let failure = JobFailure {
            retry_after,
            ..failing(&leased, FailureKind::Retry)
        };
        world
            .workers(WORKER)
            .fail_jobs(FailJobsRequest {
                failures: vec![failure],
            })
            .await
            .unwrap();
        assert_eq!(world.job(&job).await.state(), JobState::Retrying);
        assert_eq!(world.lease("worker-1").await, []);
    }
    let waits = "UPDATE scheduler.jobs SET due_at = due_at WHERE state = 3 AND due_at > now() + '590 s'::interval";
    assert_eq!(world.sql(waits).await, 1);
}

#[tokio::test]
async fn what_needs_the_user_is_parked_and_resumed_by_the_connection() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    let leased = world.lease_one("worker-1").await;
    world.broker.set_state(
        &connection.connection_id,
        ConnectionState::ReauthorizationRequired,
    );
    let failure = JobFailure {
        missing_scopes: texts(&["mail.read"]),
        ..failing(&leased, FailureKind::Park)
    };
    world
        .workers(WORKER)
        .fail_jobs(FailJobsRequest {
            failures: vec![failure],
        })
        .await
        .unwrap();
    let parked = world.job(&job).await;
    assert_eq!(parked.state(), JobState::Parked);
    assert!(
        parked.waiting_for.contains("mail.read"),
        "{}",
        parked.waiting_for
    );
    assert_eq!(world.lease("worker-1").await, []);
    let current = world.state(&connection).await.current_jobs;
    assert_eq!((current.len(), current[0].state()), (1, JobState::Parked));

    world
        .broker
        .set_state(&connection.connection_id, ConnectionState::Connected);
    eventually(Duration::from_secs(10), async || {
        world.job(&job).await.state() == JobState::Retrying
    })
    .await;
    let again = world.lease_one("worker-1").await;
    assert_eq!(job_of(&again).job_id, job.job_id);
    assert_eq!(job_of(&again).waiting_for, "");
}

#[tokio::test]
async fn parked_behind_the_event_that_would_resume_it_it_goes_on() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    let leased = world.lease_one("worker-1").await;
    // The user connects anew while the worker still works with what it got before.
    let later = world.deps.now().unix_timestamp() + 60;
    world
        .broker
        .change(&connection.connection_id, |connection| {
            connection.updated_at = Some(prost_types::Timestamp {
                seconds: later,
                nanos: 0,
            });
        });
    assert_eq!(world.fail(&leased, FailureKind::Park).await, NONE);
    assert_eq!(world.job(&job).await.state(), JobState::Retrying);
    world.clock.advance(Duration::from_mins(2));
    world.hurry().await;
    // With the connection as it is now, it is the worker's word that counts.
    let again = world.lease_one("worker-1").await;
    assert_eq!(world.fail(&again, FailureKind::Park).await, NONE);
    assert_eq!(world.job(&job).await.state(), JobState::Parked);
    // Another who asks joins it.
    assert_eq!(
        world.trigger(&connection, "messages").await.job_id,
        job.job_id
    );
}

#[tokio::test]
async fn a_lost_cursor_is_followed_by_a_full_pass_as_far_as_the_backfill_went() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let started = world
        .begin(&connection, &["messages"])
        .await
        .unwrap()
        .jobs
        .remove(0);
    assert_eq!(
        world
            .complete(&world.lease_one("worker-1").await, "\"mark\"")
            .await,
        NONE
    );
    let run = world.trigger(&connection, "messages").await;
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.fail(&leased, FailureKind::CursorLost).await, NONE);
    assert_eq!(world.job(&run).await.state(), JobState::Failed);
    world.trigger(&connection, "messages").await;
    let full = world.lease_one("worker-1").await;
    assert_eq!(
        (job_of(&full).kind(), job_of(&full).cursor_json.len()),
        (JobKind::Full, 0)
    );
    assert_eq!(
        job_of(&full).window_start,
        started.window_start,
        "not further back than the tenant was allowed"
    );
    assert_eq!(world.complete(&full, "\"fresh\"").await, NONE);
    assert_eq!(
        job_of(&world.lease_one("worker-1").await).cursor_json,
        b"\"fresh\""
    );
    assert_eq!(
        world.state(&connection).await.initial_sync_state(),
        InitialSyncState::Completed
    );
}

#[tokio::test]
async fn without_a_backfill_a_lost_cursor_leads_to_no_history() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let first = world.trigger(&connection, "messages").await;
    assert_eq!(
        world
            .complete(&world.lease_one("worker-1").await, "\"c1\"")
            .await,
        NONE
    );
    world.clock.advance(Duration::from_secs(5));
    let second = world.trigger(&connection, "messages").await;
    world
        .sql("UPDATE scheduler.jobs SET due_at = now() WHERE state = 1")
        .await;
    let leased = world.lease_one("worker-1").await;
    assert_eq!(job_of(&leased).cursor_json, b"\"c1\"");
    assert_eq!(world.fail(&leased, FailureKind::CursorLost).await, NONE);
    world.hurry().await;
    let again = world.lease_one("worker-1").await;
    assert_eq!(
        (job_of(&again).job_id.as_str(), job_of(&again).kind()),
        (second.job_id.as_str(), JobKind::Incremental)
    );
    assert_eq!(job_of(&again).cursor_json, b"");
    assert!(
        job_of(&again).window_start.unwrap().seconds >= first.window_start.unwrap().seconds + 5
    );
}

#[tokio::test]
async fn cancelling_reaches_the_worker_at_its_next_word() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    let leased = world.lease_one("worker-1").await;
    assert_eq!(cancel(&world, &job).await.state(), JobState::Cancelling);
    assert_eq!(cancel(&world, &job).await.state(), JobState::Cancelling);
    let beat = HeartbeatRequest {
        leases: vec![held(&leased)],
        ..HeartbeatRequest::default()
    };
    let answer = world
        .workers(WORKER)
        .heartbeat(beat)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.cancelled_job_ids, answer.lost_job_ids),
        (vec![job.job_id.clone()], Vec::new())
    );
    let answer = world
        .workers(WORKER)
        .checkpoint(checkpointing(&leased, 1, "1"))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.cancelled);
    // The stream is free when the worker lets go.
    let next = world.trigger(&connection, "messages").await;
    assert_eq!(world.lease("worker-2").await, []);
    let release = ReleaseJobsRequest {
        leases: vec![held(&leased)],
    };
    assert_eq!(
        world
            .workers(WORKER)
            .release_jobs(release)
            .await
            .unwrap()
            .into_inner()
            .lost_job_ids,
        NONE
    );
    let cancelled = world.job(&job).await;
    assert_eq!(cancelled.state(), JobState::Cancelled);
    assert!(cancelled.finished_at.is_some());
    let leased = world.lease_one("worker-2").await;
    assert_eq!(job_of(&leased).job_id, next.job_id);

    // Or when its lease ends: then it has nothing more to say.
    cancel(&world, &next).await;
    world.expire(&next).await;
    let third = world.trigger(&connection, "messages").await;
    let taken = eventually_some(Duration::from_secs(5), async || {
        world.lease("worker-3").await.pop()
    })
    .await;
    assert_eq!(job_of(&taken).job_id, third.job_id);
    assert_eq!(world.job(&next).await.state(), JobState::Cancelled);
    assert_eq!(
        world.complete(&leased, "\"late\"").await,
        std::slice::from_ref(&next.job_id)
    );
    assert_eq!(world.cursor(&connection, "messages").await, "");
    let over = CancelJobRequest {
        tenant_id: next.tenant_id,
        job_id: next.job_id,
    };
    assert_eq!(
        code(world.syncs(HOST).cancel_job(over).await),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_can_be_tried_again() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let job = world.trigger(&connection, "messages").await;
    assert_eq!(cancel(&world, &job).await.state(), JobState::Cancelled);
    assert_eq!(world.lease("worker-1").await, []);
    let retry = RetryJobRequest {
        tenant_id: job.tenant_id.clone(),
        job_id: job.job_id.clone(),
    };
    let retried = world
        .syncs(HOST)
        .retry_job(retry)
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!(
        (retried.state(), retried.finished_at),
        (JobState::Retrying, None)
    );
    assert_eq!(
        job_of(&world.lease_one("worker-1").await).job_id,
        job.job_id
    );
}
