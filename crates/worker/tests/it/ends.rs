//! How jobs end.

use std::time::Duration;

use common::Problem;
use serde_json::json;
use worker::{Completion, Failure, FailureKind, Outcome, Progress};

use crate::world::World;

#[tokio::test]
async fn what_was_counted_goes_with_the_end() {
    let world = World::new().await;
    world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    let completion = Completion {
        cursor_json: b"{\"at\":2}".to_vec(),
        incremental_cursor_json: b"{\"mark\":1}".to_vec(),
        progress: Progress {
            records_read: 5,
            ..Progress::default()
        },
    };
    begun.end.send(Outcome::Completed(completion)).unwrap();
    let completed = world.scheduler.log().wait("completed", 1).await.remove(0);
    assert_eq!(completed.detail["cursor"], json!({"at": 2}));
    assert_eq!(completed.detail["mark"], json!({"mark": 1}));
    assert_eq!(completed.detail["progress"]["read"], 5);
    running.stop().await;
}

#[tokio::test]
async fn an_end_that_was_not_heard_is_told_again() {
    let world = World::new().await;
    world.scheduler.failures().next(
        "complete_jobs",
        Problem::unavailable("away", Duration::from_millis(1)),
        false,
    );
    world.scheduler.failures().next(
        "complete_jobs",
        Problem::unavailable("away", Duration::from_millis(1)),
        true,
    );
    world.give(|_| {});
    let running = world.start();
    running
        .begun()
        .await
        .end
        .send(Outcome::Completed(Completion::default()))
        .unwrap();
    world.scheduler.log().wait("completed", 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_failure_says_what_becomes_of_the_job() {
    let world = World::new().await;
    world.give(|_| {});
    let running = world.start();
    let failure = Failure {
        missing_scopes: vec!["Mail.Read".to_owned()],
        ..Failure::park("no permission").after(Some(Duration::from_secs(9)))
    };
    assert_eq!(failure.kind, FailureKind::Park);
    running
        .begun()
        .await
        .end
        .send(Outcome::Failed(failure))
        .unwrap();
    let failed = world
        .scheduler
        .log()
        .wait("failed", 1)
        .await
        .remove(0)
        .detail;
    assert_eq!(
        failed,
        json!({"kind": "FAILURE_KIND_PARK", "error": "no permission", "retry_after": 9, "missing_scopes": ["Mail.Read"], "token": 7})
    );
    running.stop().await;
}

#[tokio::test]
async fn code_that_panics_fails_its_job_and_no_other() {
    let world = World::new().await;
    let job = world.give(|_| {});
    let running = world.start();
    // The handler panics where nobody says how the work ends.
    drop(running.begun().await.end);
    let failed = world.scheduler.log().wait("failed", 1).await.remove(0);
    assert_eq!(
        (failed.job_id, failed.detail["kind"].as_str()),
        (job.job_id, Some("FAILURE_KIND_RETRY"))
    );
    world.give(|_| {});
    running
        .begun()
        .await
        .end
        .send(Outcome::Completed(Completion::default()))
        .unwrap();
    world.scheduler.log().wait("completed", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_ends_gives_its_jobs_back_at_once() {
    let world = World::new().await;
    let (one, two) = (world.give(|_| {}), world.give(|_| {}));
    let running = world.start();
    let begun = (running.begun().await, running.begun().await);
    running.stop().await;
    let mut released: Vec<_> = world
        .scheduler
        .log()
        .all("released")
        .into_iter()
        .map(|entry| entry.job_id)
        .collect();
    released.sort();
    let mut expected = vec![one.job_id, two.job_id];
    expected.sort();
    assert_eq!(released, expected);
    drop(begun);
}
