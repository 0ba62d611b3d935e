//! Workers that die, jobs that are cancelled, leases that are lost.

use std::time::Duration;

use provider_sim::Fault;
use worker::{Job, JobKind};

use crate::support::lease_lost;
use crate::world::{COMPANY, World, stop};

#[tokio::test]
async fn a_killed_workers_job_goes_on_from_its_last_checkpoint() {
    let world = World::procore(1000).await;
    let job = world.job(JobKind::Initial);
    world.inject(
        "api.procore.projects",
        3,
        None,
        Fault::Delay { millis: 60_000 },
    );
    // A runtime of its own, which is gone in an instant with everything in it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let process = {
        let _entered = runtime.enter();
        world.start()
    };
    world.scheduler.give(job.clone(), 1);
    world.log().wait("checkpoint", 4).await;
    world.scheduler.bury_workers();
    let killed =
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
    killed.await.unwrap();
    drop(process);
    world.control().clear_faults();
    assert_eq!(world.recorded().len(), 300);

    let last = world.log().all("checkpoint").pop().unwrap().detail;
    let again = Job {
        cursor_json: last["cursor"].to_string().into_bytes(),
        attempt: 2,
        ..job
    };
    let calls = world.control().counters().calls_to("api.procore.projects");
    let process = world.start();
    world.scheduler.give(again, 2);
    let completed = world.log().wait("completed", 1).await.remove(0).detail;
    stop(&process).await;
    assert_eq!(world.recorded(), world.ids(COMPANY));
    assert_eq!(
        world.control().counters().calls_to("api.procore.projects") - calls,
        7,
        "no page is read again"
    );
    assert_eq!(
        completed["mark"], last["mark"],
        "the mark is the first worker's"
    );
    assert_eq!(
        world.log().all("documents").last().unwrap().detail["epoch"],
        12
    );
    let first = world.log().all("checkpoint")[4].detail["number"].as_i64();
    assert_eq!(first, Some(1), "numbers count within a lease");
}

#[tokio::test]
async fn a_cancelled_job_stops_at_its_checkpoint() {
    let world = World::procore(1000).await;
    let job = world.job(JobKind::Initial);
    world.scheduler.cancel(&job.job_id);
    let ended = world.work(job).await;
    assert_eq!(ended.what, "released");
    assert_eq!(world.log().all("checkpoint").len(), 1);
    assert_eq!(world.log().all("documents").len(), 0);
}

#[tokio::test]
async fn a_worker_whose_lease_the_ledger_refuses_writes_nothing_further() {
    let world = World::procore(1000).await;
    world
        .ledger
        .failures()
        .next("record_documents", lease_lost(), false);
    let process = world.start();
    world.scheduler.give(world.job(JobKind::Initial), 1);
    world.log().wait("checkpoint", 1).await;
    testkit::eventually(crate::support::PATIENCE, async || {
        world.control().counters().calls_to("api.procore.projects") >= 1
    })
    .await;
    // The next job is worked on, and the lost one is not mentioned again.
    let next = world.job(JobKind::Incremental);
    world.work_on(&process, next.clone()).await.completed();
    stop(&process).await;
    let of_lost = |what: &str| {
        world
            .log()
            .all(what)
            .into_iter()
            .filter(|entry| entry.job_id != next.job_id)
            .count()
    };
    assert_eq!(
        [
            of_lost("documents"),
            of_lost("checkpoint"),
            of_lost("completed"),
            of_lost("failed"),
            of_lost("released")
        ],
        [0, 1, 0, 0, 0]
    );
}

#[tokio::test]
async fn a_worker_whose_lease_is_lost_at_a_checkpoint_writes_nothing_further() {
    let world = World::procore(1000).await;
    let job = world.job(JobKind::Initial);
    let process = world.start();
    world.inject(
        "api.procore.projects",
        2,
        Some(1),
        Fault::Delay { millis: 300 },
    );
    world.scheduler.give(job.clone(), 1);
    world.log().wait("documents", 1).await;
    world.scheduler.lose(&job.job_id);
    let next = world.job(JobKind::Incremental);
    world.work_on(&process, next).await.completed();
    stop(&process).await;
    let told = ["completed", "failed", "released"].map(|what| {
        world
            .log()
            .all(what)
            .iter()
            .filter(|entry| entry.job_id == job.job_id)
            .count()
    });
    assert_eq!(told, [0, 0, 0]);
    assert!(world.recorded().len() < 500);
}

#[tokio::test]
async fn a_worker_that_ends_gives_its_job_back_at_once() {
    let world = World::procore(1000).await;
    world.inject(
        "api.procore.projects",
        2,
        None,
        Fault::Delay { millis: 60_000 },
    );
    let job = world.job(JobKind::Initial);
    let process = world.start();
    world.scheduler.give(job.clone(), 1);
    world.log().wait("checkpoint", 3).await;
    process.shutdown.request();
    let unfinished = process.tasks.drained(Duration::from_secs(5)).await;
    assert_eq!(unfinished, Vec::<String>::new(), "within five seconds");
    assert_eq!(world.log().all("released")[0].job_id, job.job_id);
}
