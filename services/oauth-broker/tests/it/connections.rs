//! Whose a connection is, what a settings page shows of it, and its end.

use common::rpc::CallError;
use common::{Code, Reason, TenantKey};
use contracts::broker::v1::*;
use contracts::vault::v1::{GrantEventKind, GrantState};

use crate::world::{OPERATOR, World, parameter};

#[tokio::test]
async fn req_teamsync_01_two_users_of_a_company_each_have_their_own() {
    let world = World::new().await;
    let integration = world.procore().await;
    world
        .directory
        .add_user(world.tenant, "kim", "kim@directory.example");
    let jo = world
        .connect_as(&integration.integration_id, "jo", "alice")
        .await;
    let mut request = world.session_request(&integration.integration_id, "kim");
    request.user_email = String::new();
    let kim = world.walk(request, "bob").await;
    let (jo, kim) = (
        parameter(&jo, "connection_id"),
        parameter(&kim, "connection_id"),
    );
    assert_ne!(jo, kim);
    let (jo, kim) = (world.connection(&jo).await, world.connection(&kim).await);
    assert_eq!(
        (jo.user_id.as_str(), jo.user_email.as_str()),
        ("jo", "jo@acme.example")
    );
    assert_eq!(
        (kim.user_id.as_str(), kim.user_email.as_str()),
        ("kim", "kim@directory.example")
    );
    assert_ne!(jo.external_user_id, kim.external_user_id);
    assert_ne!(jo.grant_id, kim.grant_id);
    assert!(jo.connected_at.is_some() && jo.provider == "procore");
    let (a, b) = (
        world.context(&jo.connection_id).await.unwrap(),
        world.context(&kim.connection_id).await.unwrap(),
    );
    assert_ne!(a.access_token, b.access_token);
    let list = |user: &str| ListConnectionsRequest {
        tenant_id: world.tenant.to_string(),
        user_id: user.into(),
        ..Default::default()
    };
    let found = world
        .connections()
        .list_connections(list("kim"))
        .await
        .unwrap()
        .into_inner()
        .connections;
    assert_eq!(
        found
            .iter()
            .map(|found| &found.connection_id)
            .collect::<Vec<_>>(),
        [&kim.connection_id]
    );
}

#[tokio::test]
async fn req_teamsync_02_user_and_company_come_from_the_token() {
    let world = World::new().await;
    let integration = world.procore().await;
    let jo = parameter(
        &world
            .connect_as(&integration.integration_id, "jo", "alice")
            .await,
        "connection_id",
    );
    let get = GetConnectionRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: jo.clone(),
    };
    let mut client = world.connections();
    let own = client
        .get_connection(world.as_user(world.tenant, "jo", get.clone()))
        .await
        .unwrap();
    assert_eq!(own.into_inner().connection.unwrap().user_id, "jo");

    let colleague = client
        .get_connection(world.as_user(world.tenant, "kim", get.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        CallError::from(colleague).code,
        Code::NotFound,
        "users of one company do not share connections"
    );
    let elsewhere = TenantKey::new_tenant(&world.deps);
    let stranger = client
        .get_connection(world.as_user(elsewhere, "jo", get))
        .await
        .unwrap_err();
    assert_eq!(CallError::from(stranger).code, Code::NotFound);

    let mut session = world.session_request(&integration.integration_id, "jo");
    session.user_id = String::new();
    let made = world
        .connect()
        .create_connect_session(world.as_user(world.tenant, "kim", session.clone()))
        .await;
    assert_eq!(
        made.unwrap().into_inner().session.unwrap().user_id,
        "kim",
        "the token says who it is for"
    );
    let nobody = CallError::from(
        world
            .connect()
            .create_connect_session(session.clone())
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (nobody.code, nobody.fields[0].field.as_str()),
        (Code::InvalidArgument, "user_id")
    );
    session.user_id = "jo".into();
    let other = world
        .connect()
        .create_connect_session(world.as_user(world.tenant, "kim", session))
        .await
        .unwrap_err();
    assert_eq!(CallError::from(other).code, Code::NotFound);
    let all = ListConnectionsRequest {
        tenant_id: world.tenant.to_string(),
        ..Default::default()
    };
    let seen = client
        .list_connections(world.as_user(world.tenant, "kim", all))
        .await
        .unwrap()
        .into_inner();
    assert!(seen.connections.is_empty());
}

#[tokio::test]
async fn req_basecamp_01_connecting_again_replaces_the_users_one_account() {
    let world = World::new().await;
    let integration = world
        .integration("procore", "procore", |wanted| {
            wanted.exclusive_accounts = true;
        })
        .await;
    // Carol has one company, which Bob has too.
    let first = world
        .connect_as(&integration.integration_id, "u1", "carol")
        .await;
    let id = parameter(&first, "connection_id");
    assert_eq!(parameter(&first, "external_account_id"), "562949953500003");
    let choose = async |user: &str, person: &str, account: &str| {
        let made = world
            .session(world.session_request(&integration.integration_id, user))
            .await;
        let mut browser = provider_sim::browser::Browser::new();
        let callback = world
            .to_callback(&mut browser, &made.connect_url, person)
            .await;
        let page = browser.open(callback.as_str()).await.unwrap();
        browser
            .submit(&page.form().unwrap(), &[("account", account)])
            .await
            .unwrap()
            .redirect()
            .unwrap()
    };
    let taken = choose("u2", "bob", "562949953500003").await;
    assert_eq!(
        parameter(&taken, "error_reason"),
        "ACCOUNT_ALREADY_CONNECTED"
    );
    let other = choose("u2", "bob", "562949953500002").await;
    assert!(!parameter(&other, "connection_id").is_empty(), "{other}");
    let replaced = choose("u1", "alice", "562949953500001").await;
    assert_eq!(
        parameter(&replaced, "connection_id"),
        id,
        "another account in place of the first, under its id"
    );
    let connection = world.connection(&id).await;
    assert_eq!(connection.external_user_id, "562949953421001");
    let freed = choose("u2", "bob", "562949953500003").await;
    assert_eq!(
        parameter(&freed, "connection_id"),
        parameter(&other, "connection_id"),
        "what was let go is free"
    );
}

#[tokio::test]
async fn req_basecamp_02_status_for_a_settings_page() {
    let world = World::new().await;
    let integration = world.procore().await;
    let none = world.status("u1", &integration.integration_id).await;
    assert!(!none.connected && !none.authenticated && !none.has_refresh && none.configured);
    assert_eq!(none.actions, ["connect"]);
    assert_eq!(
        none.action_url,
        "https://app.example.com/connect/my-procore"
    );
    let end = world
        .connect_as(&integration.integration_id, "u1", "carol")
        .await;
    let started = std::time::Instant::now();
    let status = world.status("u1", &integration.integration_id).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
    assert!(
        status.connected && status.authenticated && status.has_refresh && status.configured,
        "{status:?}"
    );
    assert_eq!(
        (status.state(), status.warning.as_str()),
        (ConnectionState::Connected, "")
    );
    assert_eq!(status.actions, ["disconnect"]);

    let grant = world
        .connection(&parameter(&end, "connection_id"))
        .await
        .grant_id;
    world
        .vault
        .change(&grant, GrantEventKind::ReauthorizationRequired, |grant| {
            grant.set_state(GrantState::ReauthorizationRequired);
            grant.set_reauthorization_cause(contracts::vault::v1::ReauthorizationCause::Expired);
        });
    testkit::eventually(std::time::Duration::from_secs(10), async || {
        world
            .status("u1", &integration.integration_id)
            .await
            .state()
            == ConnectionState::ReauthorizationRequired
    })
    .await;
    let status = world.status("u1", &integration.integration_id).await;
    assert!(status.connected && !status.authenticated);
    assert!(
        status.warning.contains("Connect again"),
        "{}",
        status.warning
    );
    assert_eq!(status.actions, ["reconnect", "disconnect"]);
    let unknown = GetConnectionStatusRequest {
        tenant_id: world.tenant.to_string(),
        user_id: "u1".into(),
        integration_id: "nothing".into(),
    };
    let error = CallError::from(
        world
            .connections()
            .get_connection_status(unknown)
            .await
            .unwrap_err(),
    );
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn req_basecamp_04_disconnecting_twice_is_an_error_and_everything_is_written_down() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    let id = parameter(&end, "connection_id");
    assert!(world.disconnect(&id).await.unwrap().revoked_at_provider);
    assert_eq!(
        world.disconnect(&id).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(
        world.context(&id).await.unwrap_err().reason,
        Some(Reason::ConnectionNotUsable)
    );
    let grant = world.connection(&id).await.grant_id;
    assert_eq!(
        world.vault.with(|state| state.revocations.clone()),
        [(grant, contracts::vault::v1::RevocationMode::Provider)]
    );
    let admin = world.database.admin().await;
    let resource = format!("connections/{id}");
    let sql =
        "SELECT action FROM broker.audit_events WHERE resource = $1 ORDER BY occurred_at, event_id";
    let rows = admin.query(sql, &[&resource]).await.unwrap();
    let actions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        actions,
        ["ConnectService/Callback", "ConnectionService/Disconnect"]
    );
    let missing = world
        .disconnect(&world.tenant.new_id(&world.deps).to_string())
        .await
        .unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
}

#[tokio::test]
async fn a_vault_that_is_away_does_not_keep_anybody_connected() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    let id = parameter(&end, "connection_id");
    world.vault.with(|state| state.failures = 1);
    assert!(!world.disconnect(&id).await.unwrap().revoked_at_provider);
    assert_eq!(
        world.connection(&id).await.state(),
        ConnectionState::Disconnected
    );
    testkit::eventually(std::time::Duration::from_secs(20), async || {
        world.vault.with(|state| state.revocations.len()) == 1
    })
    .await;
}

#[tokio::test]
async fn reconnecting_takes_the_same_person_and_nobody_else() {
    let world = World::new().await;
    let integration = world.procore().await;
    let id = parameter(
        &world
            .connect_as(&integration.integration_id, "u1", "alice")
            .await,
        "connection_id",
    );
    let before = world.connection(&id).await;
    let mut request = world.session_request(&integration.integration_id, "u1");
    request.reconnect_connection_id = id.clone();
    let other = world.walk(request.clone(), "bob").await;
    assert_eq!(parameter(&other, "error"), "other_account");
    assert_eq!(parameter(&other, "error_reason"), "OTHER_ACCOUNT");
    let untouched = world.connection(&id).await;
    assert_eq!(
        (&untouched.grant_id, untouched.revision),
        (&before.grant_id, before.revision)
    );
    let same = world.walk(request.clone(), "alice").await;
    assert_eq!(parameter(&same, "connection_id"), id);
    assert_ne!(world.connection(&id).await.grant_id, before.grant_id);
    request.user_id = "u2".into();
    let error = CallError::from(
        world
            .connect()
            .create_connect_session(request)
            .await
            .unwrap_err(),
    );
    assert_eq!(
        error.code,
        Code::NotFound,
        "another user's connection is not there"
    );
}

#[tokio::test]
async fn cardinality_decides_which_connections_are_the_same() {
    let world = World::new().await;
    let per = async |id: &str, cardinality: Cardinality| {
        world
            .integration("procore", "procore", |wanted| {
                wanted.integration_id = id.into();
                wanted.set_cardinality(cardinality);
                wanted.client_id = format!("client-{id}");
            })
            .await
            .integration_id
    };
    let per_account = per("per-account", Cardinality::PerAccount).await;
    let one = world.connect_as(&per_account, "u1", "carol").await;
    let second = world.connect_as(&per_account, "u1", "carol").await;
    assert_eq!(
        parameter(&one, "connection_id"),
        parameter(&second, "connection_id")
    );
    let other = world.connect_as(&per_account, "u2", "carol").await;
    assert_eq!(
        parameter(&other, "error_reason"),
        "ACCOUNT_ALREADY_CONNECTED"
    );

    let per_tenant = per("per-tenant", Cardinality::PerTenant).await;
    let one = world.connect_as(&per_tenant, "u1", "carol").await;
    assert!(!parameter(&one, "connection_id").is_empty());
    assert!(
        world.status("u2", &per_tenant).await.connected,
        "it is the whole company's"
    );
    let other = world.connect_as(&per_tenant, "u2", "carol").await;
    assert_eq!(
        parameter(&other, "error_reason"),
        "ACCOUNT_ALREADY_CONNECTED"
    );

    let both = per("per-both", Cardinality::PerUserAndAccount).await;
    let one = world.connect_as(&both, "u1", "carol").await;
    let other = world.connect_as(&both, "u2", "carol").await;
    assert_ne!(
        parameter(&one, "connection_id"),
        parameter(&other, "connection_id")
    );
}

#[tokio::test]
async fn lists_page_by_page_and_over_all_tenants_for_operators() {
    let world = World::new().await;
    let integration = world.procore().await;
    for user in ["u1", "u2", "u3"] {
        world
            .connect_as(&integration.integration_id, user, "carol")
            .await;
    }
    let mut seen = Vec::new();
    let mut request = ListConnectionsRequest {
        tenant_id: world.tenant.to_string(),
        page_size: 2,
        ..Default::default()
    };
    loop {
        let page = world
            .connections()
            .list_connections(request.clone())
            .await
            .unwrap()
            .into_inner();
        seen.extend(
            page.connections
                .into_iter()
                .map(|connection| connection.user_id),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    seen.sort();
    assert_eq!(seen, ["u1", "u2", "u3"]);
    request.user_id = "u1".into();
    let error = CallError::from(
        world
            .connections()
            .list_connections(request)
            .await
            .unwrap_err(),
    );
    assert_eq!(
        error.fields[0].field, "page_token",
        "a token is good for its own list alone"
    );
    let all = ListConnectionsRequest {
        external_account_id: "562949953500003".into(),
        ..Default::default()
    };
    let refused = CallError::from(
        world
            .connections()
            .list_connections(all.clone())
            .await
            .unwrap_err(),
    );
    assert_eq!(refused.code, Code::PermissionDenied);
    let found = world
        .connections_as(OPERATOR)
        .list_connections(all)
        .await
        .unwrap()
        .into_inner()
        .connections;
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn contexts_come_in_batches_each_with_its_own_outcome() {
    let world = World::new().await;
    let integration = world.procore().await;
    let one = parameter(
        &world
            .connect_as(&integration.integration_id, "u1", "alice")
            .await,
        "connection_id",
    );
    let two = parameter(
        &world
            .connect_as(&integration.integration_id, "u2", "bob")
            .await,
        "connection_id",
    );
    world.disconnect(&two).await.unwrap();
    let missing = world.tenant.new_id(&world.deps).to_string();
    let request = BatchGetRequestContextsRequest {
        tenant_id: world.tenant.to_string(),
        connection_ids: vec![two.clone(), one.clone(), missing.clone()],
        purpose: "test".into(),
    };
    let results = world
        .connections()
        .batch_get_request_contexts(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let outcome = |index: usize| results[index].result.clone().unwrap();
    let request_context_result::Result::Error(gone) = outcome(0) else {
        panic!("{:?}", outcome(0))
    };
    assert_eq!(
        (gone.id, gone.reason.as_str()),
        (two, "CONNECTION_NOT_USABLE")
    );
    let request_context_result::Result::Context(context) = outcome(1) else {
        panic!("{:?}", outcome(1))
    };
    assert_eq!(context, world.context(&one).await.unwrap());
    let request_context_result::Result::Error(unknown) = outcome(2) else {
        panic!("{:?}", outcome(2))
    };
    assert_eq!((unknown.id, unknown.code), (missing, 5));
}

#[tokio::test]
async fn two_flows_of_one_user_at_once_end_in_one_connection_and_one_grant() {
    let world = World::new().await;
    let integration = world.procore().await;
    let mut flows = Vec::new();
    for _ in 0..4 {
        let made = world
            .session(world.session_request(&integration.integration_id, "u1"))
            .await;
        let mut browser = provider_sim::browser::Browser::new();
        let callback = world
            .to_callback(&mut browser, &made.connect_url, "alice")
            .await;
        flows.push(async move {
            browser
                .get(callback.as_str())
                .await
                .unwrap()
                .redirect()
                .unwrap()
        });
    }
    let ends = futures::future::join_all(flows).await;
    let ids: std::collections::BTreeSet<_> = ends
        .iter()
        .map(|end| parameter(end, "connection_id"))
        .collect();
    assert_eq!(ids.len(), 1, "{ends:?}");
    let id = ids.first().unwrap();
    assert!(!id.is_empty());
    let alive = world.connection(id).await.grant_id;
    testkit::eventually(std::time::Duration::from_secs(20), async || {
        world.vault.with(|state| {
            let revoked = |grant: &String| state.revocations.iter().any(|(id, _)| id == grant);
            state
                .grants
                .keys()
                .all(|grant| revoked(grant) != (*grant == alive))
        })
    })
    .await;
}
