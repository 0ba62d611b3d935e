//! The schedule of a stream whose initial sync is complete.

use std::time::Duration;

use contracts::broker::v1::{Connection, ConnectionState};
use contracts::scheduler::v1::*;
use testkit::{eventually, eventually_some};

use crate::world::*;

/// Any new work rings the bell by which the scheduler looks at its schedules. How often it has looked is not told: what
/// must not be made is looked for behind what must.
async fn ring(world: &World) {
    let bell = world.connect(world.tenant("Bell"), "bell");
    world.trigger(&bell, "projects").await;
}

async fn scheduled(world: &World, connection: &Connection) -> Vec<Job> {
    let mut jobs = world.jobs(connection).await;
    jobs.retain(|job| job.kind() == JobKind::Incremental);
    jobs
}

async fn made(world: &World, connection: &Connection, count: usize) -> Vec<Job> {
    eventually_some(Duration::from_secs(10), async || {
        let jobs = scheduled(world, connection).await;
        (jobs.len() >= count).then_some(jobs)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_one_job_over_all_replicas_and_missed_ones_are_one() {
    let world = World::new().await;
    world.another().await;
    let (first, second) = (
        world.connect(world.tenant("Acme"), "ada"),
        world.connect(world.tenant("Brick"), "bob"),
    );
    for connection in [&first, &second] {
        world.backfill(connection, &["messages"]).await;
    }
    world.clock.advance(Duration::from_mins(59));
    ring(&world).await;
    assert_eq!(scheduled(&world, &first).await, [], "it is not due yet");

    // Three ticks are missed.
    world.clock.advance(Duration::from_mins(180 + 31));
    ring(&world).await;
    let jobs = made(&world, &first, 1).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].triggered_by(), TriggerSource::Schedule);
    made(&world, &second, 1).await;
    // The next tick is where it would have been; the run that waits is that tick's run too.
    let rows = world.database.admin().await;
    let sql = "SELECT count(DISTINCT extract(minute FROM next_run_at - created_at)), max(next_run_at) FROM scheduler.streams
        WHERE next_run_at IS NOT NULL";
    let row = rows.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    let next: time::OffsetDateTime = row.get(1);
    assert!(
        (1799..=1800).contains(&(next - world.deps.now()).whole_seconds()),
        "{next}"
    );
    world.clock.advance(Duration::from_mins(61));
    ring(&world).await;
    eventually(Duration::from_secs(10), async || {
        let sql = "SELECT count(*) FROM scheduler.streams WHERE next_run_at > $1";
        let now = world.deps.now();
        rows.query_one(sql, &[&now]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    assert_eq!(
        scheduled(&world, &first).await.len(),
        1,
        "one that is not over is enough"
    );
}

#[tokio::test]
async fn it_rests_while_the_connection_does_not_work() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    assert!(world.state(&connection).await.auto_sync_enabled);
    let id = &connection.connection_id;
    world
        .broker
        .set_state(id, ConnectionState::ReauthorizationRequired);
    eventually(Duration::from_secs(10), async || {
        !world.state(&connection).await.auto_sync_enabled
    })
    .await;
    world.clock.advance(Duration::from_hours(2));
    ring(&world).await;
    assert_eq!(scheduled(&world, &connection).await, []);
    // Once it works again it is brought up to date at once.
    world.broker.set_state(id, ConnectionState::Connected);
    let jobs = made(&world, &connection, 1).await;
    assert_eq!(jobs[0].triggered_by(), TriggerSource::Schedule);
    assert!(world.state(&connection).await.auto_sync_enabled);
}

#[tokio::test]
async fn a_queue_of_ones_own_serves_its_own_schedule() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    let request = StartInitialSyncRequest {
        queue: OWN.into(),
        streams: texts(&["invoices"]),
        ..starting(&connection)
    };
    world.syncs(HOST).start_initial_sync(request).await.unwrap();
    assert_eq!(world.lease("built-in").await, []);
    let mut own = world.workers(HOST);
    let leasing = LeaseJobsRequest {
        queues: texts(&[OWN]),
        ..leasing("own")
    };
    let leased = own.lease_jobs(leasing).await.unwrap().into_inner().jobs;
    let completion = JobCompletion {
        lease: Some(held(&leased[0])),
        ..JobCompletion::default()
    };
    let answer = own
        .complete_jobs(CompleteJobsRequest {
            completions: vec![completion],
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.lost_job_ids, NONE);
    world.clock.advance(Duration::from_mins(61));
    ring(&world).await;
    let jobs = made(&world, &connection, 1).await;
    assert_eq!(
        (jobs[0].queue.as_str(), jobs[0].stream.as_str()),
        (OWN, "invoices")
    );
}
