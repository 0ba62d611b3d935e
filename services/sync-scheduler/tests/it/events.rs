//! What others are told.

use common::Code;
use contracts::scheduler::v1::*;
use futures::StreamExt as _;

use crate::world::*;

/// The events until there are as many, bookmarks left out.
async fn watch(
    world: &World,
    request: WatchSyncEventsRequest,
    count: usize,
) -> Vec<WatchSyncEventsResponse> {
    let events = world
        .syncs(HOST)
        .watch_sync_events(request)
        .await
        .unwrap()
        .into_inner();
    let told = events
        .map(Result::unwrap)
        .filter(|event| std::future::ready(event.job.is_some()))
        .take(count);
    tokio::time::timeout(std::time::Duration::from_secs(20), told.collect())
        .await
        .unwrap()
}

fn kinds(events: &[WatchSyncEventsResponse]) -> Vec<SyncEventKind> {
    events.iter().map(WatchSyncEventsResponse::kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told from its beginning to its end"
)]
async fn what_became_of_a_sync_is_told_in_order() {
    use SyncEventKind as Kind;
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let connection = world.connect(tenant, "ada");
    let started = world
        .begin(&connection, &["messages"])
        .await
        .unwrap()
        .jobs
        .remove(0);
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.fail(&leased, FailureKind::Retry).await, NONE);
    world.hurry().await;
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.complete(&leased, "\"mark\"").await, NONE);
    let run = world.trigger(&connection, "messages").await;
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.fail(&leased, FailureKind::Park).await, NONE);
    let cancel = CancelJobRequest {
        tenant_id: run.tenant_id.clone(),
        job_id: run.job_id.clone(),
    };
    world.syncs(HOST).cancel_job(cancel).await.unwrap();
    let grant = GrantOverrideRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        reason: "once more".into(),
        ..GrantOverrideRequest::default()
    };
    world
        .permissions(OPERATOR)
        .grant_override(grant)
        .await
        .unwrap();
    world.begin(&connection, &["messages"]).await.unwrap();
    let leased = world.lease_one("worker-1").await;
    assert_eq!(world.fail(&leased, FailureKind::Fatal).await, NONE);

    let expected = [
        Kind::InitialSyncStarted,
        Kind::JobStarted,
        Kind::JobSucceeded,
        Kind::InitialSyncCompleted,
        Kind::JobStarted,
        Kind::JobParked,
        Kind::JobCancelled,
        Kind::OverrideGranted,
        Kind::InitialSyncStarted,
        Kind::OverrideUsed,
        Kind::JobStarted,
        Kind::JobFailed,
        Kind::InitialSyncFailed,
    ];
    let events = watch(&world, WatchSyncEventsRequest::default(), expected.len()).await;
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0].job.as_ref().unwrap().job_id, started.job_id);
    assert_eq!(events[5].job.as_ref().unwrap().job_id, run.job_id);
    assert!(events.iter().all(|event| event.occurred_at.is_some()));
    assert!(
        events
            .iter()
            .all(|event| event.job.as_ref().unwrap().tenant_id == connection.tenant_id)
    );
    let revisions: Vec<_> = events[1..3]
        .iter()
        .map(|event| event.job.as_ref().unwrap().revision)
        .collect();
    assert!(revisions[0] < revisions[1], "{revisions:?}");

    // Behind any cursor come those that came behind it, and no others.
    for at in [0, 4, 11] {
        let request = WatchSyncEventsRequest {
            after_cursor: events[at].cursor.clone(),
            ..WatchSyncEventsRequest::default()
        };
        let rest = watch(&world, request, expected.len() - at - 1).await;
        assert_eq!(rest, events[at + 1..]);
    }
    let stranger = world.tenant("Other");
    world
        .begin(&world.connect(stranger, "eve"), &["messages"])
        .await
        .unwrap();
    let request = WatchSyncEventsRequest {
        tenant_id: stranger.to_string(),
        ..WatchSyncEventsRequest::default()
    };
    assert_eq!(
        kinds(&watch(&world, request, 1).await),
        [Kind::InitialSyncStarted]
    );
    let request = WatchSyncEventsRequest {
        after_cursor: "nonsense".into(),
        ..WatchSyncEventsRequest::default()
    };
    assert_eq!(
        code(
            world
                .syncs(HOST)
                .watch_sync_events(request)
                .await
                .map(|_| tonic::Response::new(()))
        ),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn an_administrator_sees_the_events_of_its_own_tenant_alone() {
    let world = World::new().await;
    let (acme, brick) = (world.tenant("Acme"), world.tenant("Brick"));
    world
        .begin(&world.connect(brick, "bob"), &["messages"])
        .await
        .unwrap();
    let mut console = world.syncs(CONSOLE);
    for tenant_id in [String::new(), brick.to_string()] {
        let request = WatchSyncEventsRequest {
            tenant_id,
            ..WatchSyncEventsRequest::default()
        };
        let request = world.signed(request, acme, "ada", &["admin"]);
        let refused = console
            .watch_sync_events(request)
            .await
            .map(|_| tonic::Response::new(()));
        assert!(matches!(
            code(refused),
            Code::NotFound | Code::InvalidArgument
        ));
    }
}
