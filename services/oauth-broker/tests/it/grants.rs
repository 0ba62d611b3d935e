//! What the vault tells moves connections, and is told on.

use std::time::Duration;

use contracts::broker::v1::ConnectionEventKind as Kind;
use contracts::broker::v1::*;
use contracts::vault::v1::{
    GrantEventKind, GrantState, ReauthorizationCause, WatchGrantEventsResponse,
};
use futures::StreamExt as _;

use crate::world::{INGEST, World, parameter};

async fn state(world: &World, id: &str, wanted: ConnectionState) -> Connection {
    testkit::eventually_some(Duration::from_secs(10), async || {
        Some(world.connection(id).await).filter(|connection| connection.state() == wanted)
    })
    .await
}

/// What is told, up to the first of this kind.
async fn heard(
    events: &mut tonic::Streaming<WatchConnectionEventsResponse>,
    last: Kind,
) -> Vec<WatchConnectionEventsResponse> {
    let mut heard: Vec<WatchConnectionEventsResponse> = Vec::new();
    while heard.last().is_none_or(|event| event.kind() != last) {
        let next = tokio::time::timeout(Duration::from_secs(10), events.next());
        let event = next.await.unwrap().unwrap().unwrap();
        // A bookmark tells of nothing.
        if event.connection.is_some() {
            heard.push(event);
        }
    }
    heard
}

#[tokio::test]
async fn a_connection_follows_its_grant_and_consumers_hear_of_it() {
    let world = World::new().await;
    let integration = world.procore().await;
    let request = WatchConnectionEventsRequest::default();
    let mut events = world
        .connections_as(INGEST)
        .watch_connection_events(request)
        .await
        .unwrap()
        .into_inner();
    let end = world
        .connect_as(&integration.integration_id, "u1", "carol")
        .await;
    let id = parameter(&end, "connection_id");
    let grant = world.connection(&id).await.grant_id;

    world
        .vault
        .change(&grant, GrantEventKind::RefreshFailing, |grant| {
            grant.set_state(GrantState::RefreshFailing);
            grant.last_error = "server_error".into();
        });
    let degraded = state(&world, &id, ConnectionState::Degraded).await;
    assert_eq!(degraded.last_error, "server_error");
    assert!(
        world.context(&id).await.is_ok(),
        "a degraded one still works"
    );
    world
        .vault
        .change(&grant, GrantEventKind::ReauthorizationRequired, |grant| {
            grant.set_state(GrantState::ReauthorizationRequired);
            grant.set_reauthorization_cause(ReauthorizationCause::LostRotation);
        });
    let ended = state(&world, &id, ConnectionState::ReauthorizationRequired).await;
    assert_eq!(ended.reauthorization_cause, "LOST_ROTATION");
    let error = world.context(&id).await.unwrap_err();
    assert_eq!(error.reason, Some(common::Reason::ReauthorizationRequired));
    world
        .vault
        .change(&grant, GrantEventKind::Recovered, |grant| {
            grant.set_state(GrantState::Active);
            grant.reauthorization_cause = 0;
        });
    let back = state(&world, &id, ConnectionState::Connected).await;
    // An old one, seen late, changes nothing.
    let old = world.vault.with(|state| {
        let mut grant = state.grants[&grant].grant.clone();
        grant.revision -= 1;
        grant.set_state(GrantState::ReauthorizationRequired);
        grant
    });
    world.vault.tell(WatchGrantEventsResponse {
        grant: Some(old),
        ..Default::default()
    });
    world
        .vault
        .change(&grant, GrantEventKind::ReauthorizationDue, |_| {});

    let heard = heard(&mut events, Kind::ReauthorizationDue).await;
    let kinds: Vec<_> = heard
        .iter()
        .map(WatchConnectionEventsResponse::kind)
        .collect();
    assert_eq!(
        kinds,
        [
            Kind::Connected,
            Kind::StateChanged,
            Kind::ReauthorizationRequired,
            Kind::Recovered,
            Kind::ReauthorizationDue
        ]
    );
    assert_eq!(heard[0].session_id, parameter(&end, "session_id"));
    for event in &heard {
        let connection = event.connection.as_ref().unwrap();
        assert_eq!(connection.connection_id, id);
        assert_eq!(event.tenant_external_id, "ext-Acme <b>Ltd</b>");
        let account = connection.active_account.as_ref().unwrap();
        assert_eq!(account.external_account_id, "562949953500003");
    }
    assert!(heard.is_sorted_by_key(|event| event.connection.as_ref().unwrap().revision));
    assert_eq!(world.connection(&id).await.revision, back.revision);
}

#[tokio::test]
async fn a_refused_client_is_the_integrations_trouble_and_no_connections() {
    let world = World::new().await;
    let integration = world.procore().await;
    let id = parameter(
        &world
            .connect_as(&integration.integration_id, "u1", "carol")
            .await,
        "connection_id",
    );
    let client = world
        .vault
        .with(|state| state.clients.keys().next().unwrap().clone());
    let tell = |kind: GrantEventKind, error: &str| {
        world.vault.tell(WatchGrantEventsResponse {
            tenant_id: world.tenant.to_string(),
            oauth_client_id: client.clone(),
            kind: kind.into(),
            error: error.into(),
            ..Default::default()
        });
    };
    tell(GrantEventKind::ClientRefused, "invalid_client");
    testkit::eventually(Duration::from_secs(10), async || {
        !world.status("u1", "my-procore").await.configured
    })
    .await;
    let status = world.status("u1", "my-procore").await;
    assert!(
        status.warning.contains("administrator") && status.connected,
        "{status:?}"
    );
    assert_eq!(
        world.connection(&id).await.state(),
        ConnectionState::Connected
    );
    tell(GrantEventKind::ClientAccepted, "");
    testkit::eventually(Duration::from_secs(10), async || {
        world.status("u1", "my-procore").await.configured
    })
    .await;
}

#[tokio::test]
async fn a_place_that_is_no_longer_kept_leads_to_a_look_at_every_grant() {
    let world = World::new().await;
    let integration = world.procore().await;
    let id = parameter(
        &world
            .connect_as(&integration.integration_id, "u1", "carol")
            .await,
        "connection_id",
    );
    let grant = world.connection(&id).await.grant_id;
    // The stream is cut by giving its lease to nobody and its place to the past; the next session finds it too old.
    let admin = world.database.admin().await;
    admin.execute("UPDATE broker.consumers SET cursor = 'too-old', lease_until = 'epoch', fence = fence + 1", &[]).await.unwrap();
    world.expect_log("the stored place is no longer kept");
    world.vault.with(|state| {
        let grant = &mut state.grants.get_mut(&grant).unwrap().grant;
        grant.set_state(GrantState::ReauthorizationRequired);
        grant.revision += 1;
    });
    // An event of no grant makes the old holder store its place, and find that it has lost it.
    world.vault.tell(WatchGrantEventsResponse::default());
    testkit::eventually(Duration::from_secs(30), async || {
        world.connection(&id).await.state() == ConnectionState::ReauthorizationRequired
    })
    .await;
}

#[tokio::test]
async fn a_grant_is_confirmed_although_the_vault_was_away() {
    let world = World::new().await;
    let integration = world.procore().await;
    world.vault.with(|state| state.failures = 1);
    let id = parameter(
        &world
            .connect_as(&integration.integration_id, "u1", "carol")
            .await,
        "connection_id",
    );
    let grant = world.connection(&id).await.grant_id;
    assert!(!world.vault.with(|state| state.grants[&grant].confirmed));
    testkit::eventually(Duration::from_secs(20), async || {
        world.vault.with(|state| state.grants[&grant].confirmed)
    })
    .await;
}
