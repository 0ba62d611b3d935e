//! A tenant with much to do does not keep the others from theirs.

use contracts::scheduler::v1::*;

use crate::world::*;

/// Starts `count` streams on the queue of the host application's own.
async fn flood(world: &World, tenant: common::TenantKey, count: usize) {
    let connection = world.connect(tenant, "ada");
    let streams = (0..count).map(|index| format!("stream-{index}")).collect();
    let request = StartInitialSyncRequest {
        queue: OWN.into(),
        streams,
        ..starting(&connection)
    };
    assert_eq!(
        world
            .syncs(HOST)
            .start_initial_sync(request)
            .await
            .unwrap()
            .into_inner()
            .jobs
            .len(),
        count
    );
}

/// Takes up to so many, and ends them; tells whose they were.
async fn work(world: &World, most: i32) -> Vec<String> {
    let mut workers = world.workers(HOST);
    let request = LeaseJobsRequest {
        max_jobs: most,
        queues: texts(&[OWN]),
        ..leasing("own")
    };
    let leased = workers.lease_jobs(request).await.unwrap().into_inner().jobs;
    let completion = |leased| JobCompletion {
        lease: Some(held(leased)),
        ..JobCompletion::default()
    };
    let completions = leased.iter().map(completion).collect();
    workers
        .complete_jobs(CompleteJobsRequest { completions })
        .await
        .unwrap();
    leased
        .iter()
        .map(|leased| job_of(leased).tenant_id.clone())
        .collect()
}

#[tokio::test]
async fn tenants_take_turns_in_one_bucket_and_over_all() {
    let world = World::new().await;
    for buckets in [[7, 7], [11, 12], [22, 21]] {
        let big = world.tenant_in(buckets[0], "Big");
        let small = world.tenant_in(buckets[1], "Small");
        flood(&world, big, 40).await;
        flood(&world, small, 3).await;
        // One at a time: whoever comes first, the small one is through with its third turn.
        let mut served = Vec::new();
        for _ in 0..6 {
            served.extend(work(&world, 1).await);
        }
        let small_served = served
            .iter()
            .filter(|tenant| **tenant == small.to_string())
            .count();
        assert_eq!((served.len(), small_served), (6, 3), "buckets {buckets:?}");
        // Many at a time: everybody has some of each batch.
        let third = world.tenant_in(buckets[1], "Third");
        flood(&world, third, 4).await;
        let batch = work(&world, 8).await;
        assert_eq!(batch.len(), 8);
        assert_eq!(
            batch
                .iter()
                .filter(|tenant| **tenant == third.to_string())
                .count(),
            4,
            "buckets {buckets:?}"
        );
        while !work(&world, 64).await.is_empty() {}
    }
}
