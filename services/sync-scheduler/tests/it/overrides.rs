//! Operators allow another initial sync.

use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::Connection;
use contracts::scheduler::v1::*;
use futures::future::join_all;
use prost_types::Timestamp;

use crate::world::*;

fn granting(connection: &Connection) -> GrantOverrideRequest {
    GrantOverrideRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        reason: "their mailbox was restored".into(),
        ..GrantOverrideRequest::default()
    }
}

async fn grant(world: &World, request: GrantOverrideRequest) -> Override {
    world
        .permissions(OPERATOR)
        .grant_override(request)
        .await
        .unwrap()
        .into_inner()
        .r#override
        .unwrap()
}

async fn overrides(world: &World, tenant_id: &str, include_used: bool) -> Vec<Override> {
    let request = ListOverridesRequest {
        tenant_id: tenant_id.into(),
        include_used,
        ..ListOverridesRequest::default()
    };
    world
        .permissions(OPERATOR)
        .list_overrides(request)
        .await
        .unwrap()
        .into_inner()
        .overrides
}

#[tokio::test(flavor = "multi_thread")]
async fn req_mailhistory_02_an_override_is_used_up_by_one_start() {
    let logs = testkit::logs::capture();
    let world = World::new().await;
    let other = world.another().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &[]).await;
    assert_eq!(
        reason(world.begin(&connection, &[]).await),
        Reason::SyncLocked
    );

    let request = GrantOverrideRequest {
        request_id: "grant".into(),
        ..granting(&connection)
    };
    let granted = grant(&world, request.clone()).await;
    assert_eq!(granted.granted_by, OPERATOR);
    assert_eq!(
        (granted.reason.as_str(), granted.company_name.as_str()),
        ("their mailbox was restored", "Acme")
    );
    assert_eq!(
        grant(&world, request).await,
        granted,
        "a repeated call has the first answer"
    );
    let state = world.state(&connection).await;
    assert!(state.can_start_initial_sync);
    assert_eq!(state.r#override, Some(granted.clone()));

    let starts = (0..20).map(|index| {
        let mut syncs = world.syncs_at(if index % 2 == 0 { world.address } else { other }, HOST);
        let request = starting(&connection);
        async move {
            syncs
                .start_initial_sync(request)
                .await
                .map_err(CallError::from)
        }
    });
    let (started, refused): (Vec<_>, Vec<_>) =
        join_all(starts).await.into_iter().partition(Result::is_ok);
    assert_eq!(started.len(), 1);
    assert!(
        refused
            .into_iter()
            .all(|error| error.unwrap_err().reason == Some(Reason::SyncLocked))
    );
    let answer = started.into_iter().next().unwrap().unwrap().into_inner();
    assert!(answer.override_used && answer.jobs.len() == 3);

    assert_eq!(overrides(&world, &connection.tenant_id, false).await, []);
    let history = overrides(&world, &connection.tenant_id, true).await;
    assert_eq!(history.len(), 1);
    assert!(history[0].used_at.is_some());
    assert_eq!(history[0].used_by_job_id, answer.jobs[0].job_id);
    let state = world.state(&connection).await;
    assert!(!state.can_start_initial_sync && state.r#override.is_none());
    let revoke = RevokeOverrideRequest {
        tenant_id: connection.tenant_id.clone(),
        override_id: granted.override_id,
        ..RevokeOverrideRequest::default()
    };
    assert_eq!(
        code(world.permissions(OPERATOR).revoke_override(revoke).await),
        Code::FailedPrecondition
    );
    drop(logs);
}

#[tokio::test]
async fn overrides_end_and_are_taken_back() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.backfill(&connection, &["messages"]).await;
    let now = world.deps.now().unix_timestamp();
    let short = GrantOverrideRequest {
        expires_at: Some(Timestamp {
            seconds: now + 3600,
            nanos: 0,
        }),
        ..granting(&connection)
    };
    grant(&world, short.clone()).await;
    assert_eq!(overrides(&world, "", false).await.len(), 1);
    world.clock.advance(Duration::from_hours(2));
    assert_eq!(overrides(&world, "", false).await, []);
    assert_eq!(overrides(&world, "", true).await.len(), 1);
    assert_eq!(
        reason(world.begin(&connection, &["messages"]).await),
        Reason::SyncLocked
    );
    assert_eq!(
        violated(world.permissions(OPERATOR).grant_override(short).await),
        ["expires_at"]
    );

    let granted = grant(&world, granting(&connection)).await;
    let revoke = RevokeOverrideRequest {
        tenant_id: connection.tenant_id.clone(),
        override_id: granted.override_id,
        reason: "a mistake".into(),
    };
    world
        .permissions(OPERATOR)
        .revoke_override(revoke.clone())
        .await
        .unwrap();
    world
        .permissions(OPERATOR)
        .revoke_override(revoke)
        .await
        .unwrap();
    assert_eq!(
        reason(world.begin(&connection, &["messages"]).await),
        Reason::SyncLocked
    );
    let revoked = overrides(&world, &connection.tenant_id, true).await;
    assert_eq!(
        revoked
            .iter()
            .filter(|found| found.revoked_at.is_some())
            .count(),
        1
    );
}

#[tokio::test]
async fn one_for_a_connection_is_its_own_and_one_for_the_tenant_whoevers_comes_first() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let (ada, bob) = (world.connect(tenant, "ada"), world.connect(tenant, "bob"));
    for connection in [&ada, &bob] {
        world.backfill(connection, &["messages"]).await;
    }
    grant(&world, granting(&ada)).await;
    assert_eq!(
        reason(world.begin(&bob, &["messages"]).await),
        Reason::SyncLocked
    );
    let stranger = world.connect(world.tenant("Other"), "eve");
    world.backfill(&stranger, &["messages"]).await;
    grant(
        &world,
        GrantOverrideRequest {
            connection_id: String::new(),
            ..granting(&ada)
        },
    )
    .await;
    assert_eq!(
        reason(world.begin(&stranger, &["messages"]).await),
        Reason::SyncLocked
    );

    // Ada's own comes before the tenant's, which is left for Bob.
    assert!(
        world
            .begin(&ada, &["messages"])
            .await
            .unwrap()
            .override_used
    );
    assert!(
        world
            .begin(&bob, &["messages"])
            .await
            .unwrap()
            .override_used
    );
    assert_eq!(
        reason(world.begin(&ada, &["messages"]).await),
        Reason::SyncLocked
    );
    // An unstarted stream needs none, and uses none up.
    grant(&world, granting(&ada)).await;
    assert!(
        !world
            .begin(&ada, &["projects"])
            .await
            .unwrap()
            .override_used
    );
    assert_eq!(overrides(&world, &ada.tenant_id, false).await.len(), 1);
}

#[tokio::test]
async fn what_runs_still_is_superseded() {
    let world = World::new().await;
    let connection = world.connect(world.tenant("Acme"), "ada");
    world.begin(&connection, &["messages"]).await.unwrap();
    let old = world.lease_one("worker-1").await;
    grant(&world, granting(&connection)).await;
    let new = world.begin(&connection, &["messages"]).await.unwrap();
    assert!(new.override_used);
    let beat = HeartbeatRequest {
        leases: vec![held(&old)],
        ..HeartbeatRequest::default()
    };
    let answer = world
        .workers(WORKER)
        .heartbeat(beat)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.cancelled_job_ids, [job_of(&old).job_id.clone()]);
    assert_eq!(world.lease("worker-2").await, [], "one lease for a stream");

    // It may still come to its end, but not in the name of the new one.
    assert_eq!(world.complete(&old, "\"old\"").await, NONE);
    let state = world.state(&connection).await;
    assert_eq!(state.initial_sync_state(), InitialSyncState::Running);
    assert!(!state.auto_sync_enabled);
    assert_eq!(world.cursor(&connection, "messages").await, "");
    let leased = world.lease_one("worker-2").await;
    assert_eq!(job_of(&leased).job_id, new.jobs[0].job_id);
    assert_eq!(leased.stream_epoch, old.stream_epoch + 1);
    assert_eq!(world.complete(&leased, "\"new\"").await, NONE);
    assert!(world.state(&connection).await.initial_sync_completed);
    assert_eq!(world.cursor(&connection, "messages").await, "\"new\"");
}

#[tokio::test]
async fn req_mailhistory_04_locks_and_overrides_are_listed_with_company_names() {
    let world = World::new().await;
    let (acme, brick) = (world.tenant("Acme"), world.tenant("Brick & Sons"));
    let mut connections = Vec::new();
    for (tenant, user) in [(acme, "ada"), (acme, "bob"), (brick, "cat")] {
        let connection = world.connect(tenant, user);
        world.begin(&connection, &[]).await.unwrap();
        connections.push(connection);
    }
    for leased in world.lease("worker-1").await {
        if job_of(&leased).user_id == "ada" {
            assert_eq!(world.complete(&leased, "\"mark\"").await, NONE);
        }
    }
    grant(&world, granting(&connections[2])).await;

    let list = async |tenant_id: &str, page_size, page_token: &str| {
        let request = ListSyncLocksRequest {
            tenant_id: tenant_id.into(),
            page_size,
            page_token: page_token.into(),
        };
        world
            .permissions(OPERATOR)
            .list_sync_locks(request)
            .await
            .unwrap()
            .into_inner()
    };
    let all = list("", 0, "").await;
    let shown = |states: &[SyncState]| {
        let mut shown: Vec<_> = states
            .iter()
            .map(|state| (state.company_name.clone(), state.user_id.clone()))
            .collect();
        shown.sort();
        shown
    };
    let expected = [("Acme", "ada"), ("Acme", "bob"), ("Brick & Sons", "cat")];
    assert_eq!(
        shown(&all.sync_states),
        expected.map(|(company, user)| (company.to_owned(), user.to_owned()))
    );
    assert_eq!(all.next_page_token, "");
    for state in &all.sync_states {
        assert!(state.lock_reason.contains("only once") && state.initial_sync_started_at.is_some());
        assert_eq!(state.external_account_id, "inbox");
        assert_eq!(state.can_start_initial_sync, state.user_id == "cat");
    }
    // Page by page, and of one tenant.
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let page = list("", 2, &token).await;
        paged.extend(page.sync_states);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(shown(&paged), shown(&all.sync_states));
    assert_eq!(list(&acme.to_string(), 0, "").await.sync_states.len(), 2);

    let in_force = overrides(&world, "", false).await;
    assert_eq!(in_force.len(), 1);
    assert_eq!(in_force[0].company_name, "Brick & Sons");
    // A connection that is gone keeps its lock.
    world.sql("DELETE FROM scheduler.streams").await;
    assert_eq!(list("", 0, "").await.sync_states.len(), 3);
}

#[tokio::test]
async fn only_operators_have_a_say() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let connection = world.connect(tenant, "ada");
    let mut host = world.permissions(HOST);
    assert_eq!(
        code(host.grant_override(granting(&connection)).await),
        Code::PermissionDenied
    );
    // A customer's administrator is none, though the console speaks for it.
    let mut console = world.permissions(CONSOLE);
    let admin = ["admin"];
    let request = world.signed(granting(&connection), tenant, "ada", &admin);
    assert_eq!(
        code(console.grant_override(request).await),
        Code::PermissionDenied
    );
    let tenant_id = tenant.to_string();
    let list = ListOverridesRequest {
        tenant_id: tenant_id.clone(),
        ..ListOverridesRequest::default()
    };
    assert_eq!(
        code(
            console
                .list_overrides(world.signed(list, tenant, "ada", &admin))
                .await
        ),
        Code::PermissionDenied
    );
    let list = ListSyncLocksRequest {
        tenant_id,
        ..ListSyncLocksRequest::default()
    };
    assert_eq!(
        code(
            console
                .list_sync_locks(world.signed(list, tenant, "ada", &admin))
                .await
        ),
        Code::PermissionDenied
    );
    let unknown = GrantOverrideRequest {
        connection_id: tenant.new_id(&world.deps).to_string(),
        ..granting(&connection)
    };
    assert_eq!(
        code(world.permissions(OPERATOR).grant_override(unknown).await),
        Code::NotFound
    );
}
