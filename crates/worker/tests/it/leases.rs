//! Getting jobs, and keeping them.

use std::time::Duration;

use common::Problem;
use worker::{Completion, Outcome, Progress, Stop};

use crate::support::{PATIENCE, lease_lost};
use crate::world::World;

fn done() -> Outcome {
    Outcome::Completed(Completion::default())
}

#[tokio::test]
async fn req_teamsync_05_a_job_is_worked_on_for_its_tenant_and_user() {
    let world = World::new().await;
    let job = world.give(|job| job.external_account_id = "7".to_owned());
    let running = world.start();
    let begun = running.begun().await;
    assert_eq!(begun.lease.job(), &job);
    assert_eq!(begun.lease.stream_epoch(), 17);
    begun.end.send(done()).unwrap();
    let completed = world.scheduler.log().wait("completed", 1).await.remove(0);
    let actor = &completed.detail["actor"];
    assert_eq!(actor["tenant"], job.tenant_id);
    assert_eq!(actor["user"], "ada");
    assert_eq!(actor["purpose"], format!("sync job {}", job.job_id));
    assert_eq!(actor["identity"], "spiffe://hawser/sync-worker");
    assert_eq!(
        (completed.job_id, completed.detail["token"].as_i64()),
        (job.job_id, Some(7))
    );
    running.stop().await;
}

#[tokio::test]
async fn no_more_jobs_are_taken_than_there_is_room_for() {
    let world = World::with(|config| worker::WorkerConfig {
        concurrency: 2,
        providers: vec!["procore".to_owned()],
        ..config
    })
    .await;
    for _ in 0..3 {
        world.give(|_| {});
    }
    let running = world.start();
    let (first, _second) = (running.begun().await, running.begun().await);
    let leased = world.scheduler.log().all("leased");
    assert_eq!(leased.len(), 2);
    assert_eq!(leased[0].detail["max"], 2);
    assert_eq!(leased[0].detail["providers"][0], "procore");
    first.end.send(done()).unwrap();
    let _third = running.begun().await;
    assert_eq!(world.scheduler.log().all("leased")[2].detail["max"], 1);
    running.stop().await;
    assert_eq!(world.scheduler.log().all("released").len(), 2);
}

#[tokio::test]
async fn leases_whose_answer_was_lost_are_asked_for_again() {
    let world = World::new().await;
    world.scheduler.failures().next(
        "lease_jobs",
        Problem::unavailable("away", Duration::from_millis(1)),
        true,
    );
    let job = world.give(|_| {});
    let running = world.start();
    assert_eq!(running.begun().await.lease.job().job_id, job.job_id);
    assert_eq!(
        world.scheduler.log().all("leased").len(),
        1,
        "it was given once"
    );
    running.stop().await;
}

#[tokio::test]
async fn checkpoints_count_up_and_survive_a_lost_answer() {
    let world = World::new().await;
    world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    let tell = async |at: &str| {
        begun
            .lease
            .checkpoint(at.as_bytes().to_vec(), Vec::new(), Progress::default())
            .await
    };
    tell("1").await.unwrap();
    world.scheduler.failures().next(
        "checkpoint",
        Problem::unavailable("away", Duration::from_millis(1)),
        true,
    );
    tell("2").await.unwrap();
    tell("3").await.unwrap();
    let numbers: Vec<_> = world
        .scheduler
        .log()
        .all("checkpoint")
        .iter()
        .map(|entry| entry.detail["number"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 2, 3], "the same number again, and no other");
    running.stop().await;
}

#[tokio::test]
async fn leases_are_extended_while_work_goes_on() {
    let world = World::new().await;
    let job = world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    // Longer than the lease.
    let beats = world.scheduler.log().wait("heartbeat", 4).await;
    assert!(beats.iter().all(|beat| beat.job_id == job.job_id));
    assert_eq!(begun.lease.stop(), None);
    running.stop().await;
}

#[tokio::test]
async fn a_cancelled_job_is_let_go_at_the_next_heartbeat() {
    let world = World::new().await;
    let job = world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    world.scheduler.cancel(&job.job_id);
    assert!(
        tokio::time::timeout(PATIENCE, begun.dropped)
            .await
            .unwrap()
            .is_err(),
        "the work is dropped"
    );
    assert_eq!(begun.lease.stop(), Some(Stop::Cancelled));
    assert_eq!(
        world.scheduler.log().wait("released", 1).await[0].job_id,
        job.job_id
    );
    running.stop().await;
}

#[tokio::test]
async fn a_cancelled_job_is_let_go_at_its_checkpoint() {
    let world = World::with(|config| worker::WorkerConfig {
        lease: Duration::from_mins(10).into(),
        ..config
    })
    .await;
    let job = world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    world.scheduler.cancel(&job.job_id);
    let told = begun
        .lease
        .checkpoint(b"{}".to_vec(), Vec::new(), Progress::default())
        .await;
    assert_eq!(told, Err(Stop::Cancelled));
    world.scheduler.log().wait("released", 1).await;
    assert_eq!(
        world.scheduler.log().whats(),
        ["leased", "checkpoint", "released"]
    );
    running.stop().await;
}

#[tokio::test]
async fn a_lost_lease_is_dropped_without_a_word() {
    for by_heartbeat in [true, false] {
        let world = World::new().await;
        let job = world.give(|_| {});
        let running = world.start();
        let begun = running.begun().await;
        world.scheduler.lose(&job.job_id);
        if !by_heartbeat {
            let told = begun
                .lease
                .checkpoint(b"{}".to_vec(), Vec::new(), Progress::default())
                .await;
            assert_eq!(told, Err(Stop::Lost));
        }
        assert!(
            tokio::time::timeout(PATIENCE, begun.dropped)
                .await
                .unwrap()
                .is_err(),
            "the work is dropped"
        );
        assert_eq!(begun.lease.stop(), Some(Stop::Lost));
        running.stop().await;
        let mut whats = world.scheduler.log().whats();
        whats.retain(|what| *what != "heartbeat");
        assert_eq!(whats, ["leased"]);
    }
}

#[tokio::test]
async fn a_worker_that_cannot_be_heard_stops_when_its_lease_is_over() {
    let world = World::new().await;
    world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    for _ in 0..100 {
        world.scheduler.failures().next(
            "heartbeat",
            Problem::unavailable("away", Duration::from_secs(1)),
            false,
        );
    }
    assert!(
        tokio::time::timeout(PATIENCE, begun.dropped)
            .await
            .unwrap()
            .is_err(),
        "the work is dropped"
    );
    assert_eq!(begun.lease.stop(), Some(Stop::Lost));
    let told = begun
        .lease
        .checkpoint(b"{}".to_vec(), Vec::new(), Progress::default())
        .await;
    assert_eq!(told, Err(Stop::Lost), "nothing more is said");
    assert_eq!(world.scheduler.log().all("checkpoint").len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn another_service_may_be_the_first_to_know_that_a_lease_is_lost() {
    let world = World::new().await;
    world.give(|_| {});
    let running = world.start();
    let begun = running.begun().await;
    begun.lease.declare_lost();
    assert!(
        tokio::time::timeout(PATIENCE, begun.dropped)
            .await
            .unwrap()
            .is_err()
    );
    running.stop().await;
    assert_eq!(world.scheduler.log().whats(), ["leased"]);
    assert!(lease_lost().reason.is_some());
}

#[tokio::test]
async fn each_process_is_a_worker_of_its_own() {
    let world = World::new().await;
    world.give(|_| {});
    let first = world.start();
    let begun = first.begun().await;
    world.scheduler.bury_workers();
    let job = world.give(|_| {});
    let second = world.start();
    assert_eq!(second.begun().await.lease.job().job_id, job.job_id);
    first.stop().await;
    second.stop().await;
    drop(begun);
}
