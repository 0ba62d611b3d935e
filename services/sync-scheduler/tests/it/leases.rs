//! Leases: one at a time for a stream, and nothing that an old holder says changes anything.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::{Code, Reason};
use contracts::scheduler::v1::*;
use futures::future::join_all;

use crate::world::*;

#[expect(clippy::unnecessary_wraps, reason = "as requests have it")]
fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_never_hold_one_stream() {
    let world = World::new().await;
    let other = world.another().await;
    let mut expected = HashSet::new();
    for company in ["Acme", "Brick", "Crane"] {
        let tenant = world.tenant(company);
        for user in ["ada", "bob"] {
            let connection = world.connect(tenant, user);
            let started = world.begin(&connection, &[]).await.unwrap();
            expected.extend(started.jobs.into_iter().map(|job| job.job_id));
            // One that waits for the same stream.
            world.trigger(&connection, "messages").await;
        }
    }
    let wait = LeaseJobsRequest {
        max_jobs: 2,
        max_wait: seconds(2),
        ..leasing("")
    };
    let workers = (0..20).map(|index| {
        let mut workers =
            world.workers_at(if index % 2 == 0 { world.address } else { other }, WORKER);
        let request = LeaseJobsRequest {
            worker_id: format!("worker-{index}"),
            ..wait.clone()
        };
        async move { workers.lease_jobs(request).await.unwrap().into_inner().jobs }
    });
    let leased: Vec<_> = join_all(workers).await.into_iter().flatten().collect();
    let jobs: Vec<_> = leased
        .iter()
        .map(|leased| job_of(leased).job_id.clone())
        .collect();
    assert_eq!(
        jobs.len(),
        expected.len(),
        "nothing is left, and nothing is leased twice"
    );
    assert_eq!(jobs.iter().cloned().collect::<HashSet<_>>(), expected);
    let mut streams = HashMap::new();
    for leased in &leased {
        let job = job_of(leased);
        *streams
            .entry((job.connection_id.clone(), job.stream.clone()))
            .or_insert(0) += 1;
        assert_eq!((leased.lease_token, leased.stream_epoch), (1, 1));
    }
    assert!(streams.values().all(|count| *count == 1));
}

#[tokio::test]
async fn an_old_holder_changes_nothing() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    world.trigger(&connection, "messages").await;
    let old = world.lease_one("frozen").await;
    let mut workers = world.workers(WORKER);
    workers
        .checkpoint(checkpointing(&old, 1, "\"half\""))
        .await
        .unwrap();
    assert_eq!(world.lease("other").await, []);
    world.expire(job_of(&old)).await;
    let new = world.lease_one("other").await;
    assert_eq!(job_of(&new).job_id, job_of(&old).job_id);
    assert_eq!(
        job_of(&new).cursor_json,
        b"\"half\"",
        "it goes on from the checkpoint"
    );
    assert_eq!(
        (new.lease_token, new.stream_epoch),
        (old.lease_token + 1, old.stream_epoch + 1)
    );
    let before = world.job(job_of(&new)).await;

    let error = refusal(
        workers
            .checkpoint(checkpointing(&old, 2, "\"stale\""))
            .await,
    );
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::LeaseLost))
    );
    let lost = [job_of(&old).job_id.clone()];
    assert_eq!(world.complete(&old, "\"stale\"").await, lost);
    for kind in [
        FailureKind::Retry,
        FailureKind::Park,
        FailureKind::Fatal,
        FailureKind::CursorLost,
    ] {
        assert_eq!(world.fail(&old, kind).await, lost);
    }
    let release = ReleaseJobsRequest {
        leases: vec![held(&old)],
    };
    assert_eq!(
        workers
            .release_jobs(release)
            .await
            .unwrap()
            .into_inner()
            .lost_job_ids,
        lost
    );
    let beat = HeartbeatRequest {
        leases: vec![held(&old)],
        ..HeartbeatRequest::default()
    };
    let answer = workers.heartbeat(beat).await.unwrap().into_inner();
    assert_eq!(
        (answer.lost_job_ids.as_slice(), answer.lease_expires_at),
        (&lost[..], None)
    );
    assert_eq!(world.job(job_of(&new)).await, before);
    assert_eq!(world.cursor(&connection, "messages").await, "\"mark\"");
    assert_eq!(world.complete(&new, "\"done\"").await, NONE);
    assert_eq!(world.cursor(&connection, "messages").await, "\"done\"");
    assert_eq!(world.complete(&old, "\"stale\"").await, lost);
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_lost_though_nobody_took_it() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let old = world.lease_one("slow").await;
    world.expire(job_of(&old)).await;
    let error = refusal(
        world
            .workers(WORKER)
            .checkpoint(checkpointing(&old, 1, "1"))
            .await,
    );
    assert_eq!(error.reason, Some(Reason::LeaseLost));
    assert_eq!(
        world.complete(&old, "1").await,
        [job_of(&old).job_id.clone()]
    );
    assert_eq!(
        world.lease_one("other").await.lease_token,
        old.lease_token + 1
    );
}

#[tokio::test]
async fn another_job_of_the_stream_ends_a_lease_too() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    let first = world.trigger(&connection, "messages").await;
    let old = world.lease_one("frozen").await;
    let second = world.trigger(&connection, "messages").await;
    assert_ne!(first.job_id, second.job_id);
    // The stream is free again, and the one that waits is the one that is taken, as it comes first.
    world.expire(&first).await;
    world
        .sql("UPDATE scheduler.jobs SET priority = 1 WHERE state = 1")
        .await;
    let new = world.lease_one("other").await;
    assert_eq!(job_of(&new).job_id, second.job_id);
    // Though the old one's own row says nothing against it: it holds a token that is its job's last one.
    world
        .sql("UPDATE scheduler.jobs SET due_at = now() + '30 s'::interval WHERE state = 2")
        .await;
    assert_eq!(
        world.complete(&old, "\"stale\"").await,
        std::slice::from_ref(&first.job_id)
    );
    let beat = HeartbeatRequest {
        leases: vec![held(&old), held(&new)],
        ..HeartbeatRequest::default()
    };
    let answer = world
        .workers(WORKER)
        .heartbeat(beat)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.lost_job_ids, [first.job_id]);
    assert_eq!(world.complete(&new, "\"done\"").await, NONE);
    assert_eq!(world.cursor(&connection, "messages").await, "\"done\"");
}

#[tokio::test]
async fn an_attempt_that_another_run_has_overtaken_begins_anew() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    world.trigger(&connection, "messages").await;
    let slow = world.lease_one("worker-1").await;
    world
        .workers(WORKER)
        .checkpoint(checkpointing(&slow, 1, "\"half\""))
        .await
        .unwrap();
    assert_eq!(world.fail(&slow, FailureKind::Retry).await, NONE);
    world
        .sql("UPDATE scheduler.jobs SET due_at = now() + '1 h'::interval WHERE state = 3")
        .await;
    world.trigger(&connection, "messages").await;
    let quick = world.lease_one("worker-2").await;
    assert_eq!(job_of(&quick).cursor_json, b"\"mark\"");
    assert_eq!(world.complete(&quick, "\"further\"").await, NONE);
    world.hurry().await;
    let again = world.lease_one("worker-1").await;
    assert_eq!(job_of(&again).job_id, job_of(&slow).job_id);
    assert_eq!(
        job_of(&again).cursor_json,
        b"\"further\"",
        "not from where it was itself"
    );
}

#[tokio::test]
async fn repeated_calls_get_their_first_answer() {
    let world = World::new().await;
    let tenants = [
        world.tenant_in(7, "Acme"),
        world.tenant_in(7, "Brick"),
        world.tenant_in(8, "Crane"),
    ];
    let connections = tenants.map(|tenant| world.connect(tenant, "ada"));
    for connection in &connections {
        world.begin(connection, &["messages"]).await.unwrap();
    }
    let mut workers = world.workers(WORKER);
    let request = LeaseJobsRequest {
        request_id: "lease-1".into(),
        ..leasing("worker-1")
    };
    let leased = workers
        .lease_jobs(request.clone())
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(leased.len(), 3);
    let sorted = |mut jobs: Vec<LeasedJob>| {
        jobs.sort_by_key(|leased| job_of(leased).job_id.clone());
        jobs
    };
    let again = workers.lease_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!(sorted(again), sorted(leased.clone()));
    let other = LeaseJobsRequest {
        request_id: "lease-1".into(),
        ..leasing("worker-2")
    };
    assert_eq!(
        workers.lease_jobs(other).await.unwrap().into_inner().jobs,
        []
    );

    // One call for jobs of several tenants and buckets, one of them lost.
    let mut completions: Vec<_> = leased
        .iter()
        .map(|leased| JobCompletion {
            lease: Some(held(leased)),
            incremental_cursor_json: "\"mark\"".into(),
            ..JobCompletion::default()
        })
        .collect();
    completions[1].lease.as_mut().unwrap().lease_token += 1;
    let request = CompleteJobsRequest { completions };
    for _ in 0..2 {
        let answer = workers
            .complete_jobs(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.lost_job_ids, [job_of(&leased[1]).job_id.clone()]);
    }
    let mut completed = 0;
    for connection in &connections {
        completed += usize::from(world.state(connection).await.initial_sync_completed);
    }
    assert_eq!(completed, 2);
    let versions = "UPDATE scheduler.cursor_versions SET created_at = created_at";
    assert_eq!(world.sql(versions).await, 2, "the cursors moved once each");
}

#[tokio::test]
async fn a_checkpoint_that_comes_late_changes_nothing() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let leased = world.lease_one("worker-1").await;
    let mut workers = world.workers(WORKER);
    let second = CheckpointRequest {
        progress: Some(Progress {
            records_read: 20,
            ..Progress::default()
        }),
        ..checkpointing(&leased, 2, "\"second\"")
    };
    workers.checkpoint(second).await.unwrap();
    let late = CheckpointRequest {
        progress: Some(Progress {
            records_read: 10,
            ..Progress::default()
        }),
        ..checkpointing(&leased, 1, "\"first\"")
    };
    workers.checkpoint(late.clone()).await.unwrap();
    workers
        .checkpoint(CheckpointRequest {
            checkpoint_number: 2,
            ..late
        })
        .await
        .unwrap();
    let job = world.job(job_of(&leased)).await;
    assert_eq!(
        (
            job.cursor_json.as_slice(),
            job.progress.unwrap().records_read
        ),
        (&b"\"second\""[..], 20)
    );
    // Counts alone leave the cursor as it is.
    workers
        .checkpoint(checkpointing(&leased, 3, ""))
        .await
        .unwrap();
    assert_eq!(world.job(job_of(&leased)).await.cursor_json, b"\"second\"");
}

#[tokio::test]
async fn a_heartbeat_extends_what_is_held() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world
        .begin(&connection, &["messages", "projects"])
        .await
        .unwrap();
    let leased = world.lease("worker-1").await;
    let beat = HeartbeatRequest {
        worker_id: "worker-1".into(),
        leases: leased.iter().map(held).collect(),
        lease: seconds(300),
    };
    let answer = world
        .workers(WORKER)
        .heartbeat(beat)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.lost_job_ids.len(), answer.cancelled_job_ids.len()),
        (0, 0)
    );
    let extended =
        answer.lease_expires_at.unwrap().seconds - leased[0].lease_expires_at.unwrap().seconds;
    assert!((265..=300).contains(&extended), "{extended}");
    let both = "UPDATE scheduler.streams SET updated_at = updated_at WHERE lease_until > now() + '290 s'::interval";
    assert_eq!(world.sql(both).await, 2);
}

#[tokio::test]
async fn what_is_given_back_runs_again_at_once_and_counts_no_attempt() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let first = world.lease_one("worker-1").await;
    assert_eq!(job_of(&first).attempt, 1);
    let mut workers = world.workers(WORKER);
    workers
        .checkpoint(checkpointing(&first, 1, "\"half\""))
        .await
        .unwrap();
    let release = ReleaseJobsRequest {
        leases: vec![held(&first)],
    };
    for _ in 0..2 {
        let answer = workers
            .release_jobs(release.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            answer.lost_job_ids, NONE,
            "a repeated call has the first answer"
        );
    }
    let second = world.lease_one("worker-2").await;
    assert_eq!(job_of(&second).attempt, 1);
    assert_eq!(job_of(&second).cursor_json, b"\"half\"");
    assert_eq!(job_of(&second).started_at, job_of(&first).started_at);
    let answer = workers.release_jobs(release).await.unwrap().into_inner();
    assert_eq!(answer.lost_job_ids, [job_of(&first).job_id.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_woken_by_new_work() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let mut workers = world.workers(WORKER);
    let none = LeaseJobsRequest {
        max_wait: seconds(1),
        ..leasing("worker-1")
    };
    assert_eq!(
        workers.lease_jobs(none).await.unwrap().into_inner().jobs,
        []
    );
    // Whoever only looks every two seconds waits for one in the middle.
    let mut waited = Duration::ZERO;
    for user in ["ada", "bob", "cat", "dan", "eve"] {
        let connection = world.connect(tenant, user);
        let wait = LeaseJobsRequest {
            max_wait: seconds(15),
            ..leasing("worker-1")
        };
        let mut workers = workers.clone();
        let waiting = tokio::spawn(async move {
            (
                workers
                    .lease_jobs(wait)
                    .await
                    .unwrap()
                    .into_inner()
                    .jobs
                    .len(),
                Instant::now(),
            )
        });
        world.begin(&connection, &["messages"]).await.unwrap();
        let begun = Instant::now();
        let (leased, at) = waiting.await.unwrap();
        assert_eq!(leased, 1);
        waited += at.saturating_duration_since(begun);
    }
    assert!(waited < Duration::from_millis(2500), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_job_runs_again_within_the_lease_and_two_seconds() {
    let world = World::new().await;
    let other = world.another().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let dying = LeaseJobsRequest {
        lease: seconds(3),
        ..leasing("dying")
    };
    let dead = world
        .workers(WORKER)
        .lease_jobs(dying)
        .await
        .unwrap()
        .into_inner()
        .jobs
        .remove(0);
    // It is never heard of again, and the one that waits is at another replica, which nobody wakes.
    let wait = LeaseJobsRequest {
        lease: seconds(30),
        max_wait: seconds(15),
        ..leasing("other")
    };
    let taken = world
        .workers_at(other, WORKER)
        .lease_jobs(wait)
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].lease_token, dead.lease_token + 1);
    // By the database's clock.
    let late =
        taken[0].lease_expires_at.unwrap().seconds - 30 - dead.lease_expires_at.unwrap().seconds;
    assert!((0..=2).contains(&late), "{late} s");
}
