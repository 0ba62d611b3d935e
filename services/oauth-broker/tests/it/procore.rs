//! One grant, several companies.

use std::collections::BTreeSet;

use common::Code;
use common::rpc::CallError;
use contracts::broker::v1::*;
use futures::future::join_all;

use crate::world::{World, parameter};

const FIRST: &str = "562949953500001";
const SECOND: &str = "562949953500002";

async fn select(
    world: &World,
    connection_id: &str,
    account: &str,
) -> Result<Connection, CallError> {
    let request = SelectAccountRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: connection_id.into(),
        external_account_id: account.into(),
    };
    Ok(world
        .connections()
        .select_account(request)
        .await?
        .into_inner()
        .connection
        .unwrap())
}

async fn connected(world: &World) -> (Integration, String) {
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    (integration, parameter(&end, "connection_id"))
}

#[tokio::test]
async fn req_procore_02_one_connection_per_user_with_all_that_the_tokens_said() {
    let world = World::new().await;
    let (integration, first) = connected(&world).await;
    let one = world.connection(&first).await;
    assert_eq!(one.token_type, "Bearer");
    let again = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    assert_eq!(
        parameter(&again, "connection_id"),
        first,
        "the same person's is the same connection"
    );
    let two = world.connection(&first).await;
    assert_ne!(one.grant_id, two.grant_id);
    assert_eq!(two.revision, one.revision + 1);
    let list = ListConnectionsRequest {
        tenant_id: world.tenant.to_string(),
        ..Default::default()
    };
    assert_eq!(
        world
            .connections()
            .list_connections(list)
            .await
            .unwrap()
            .into_inner()
            .connections
            .len(),
        1
    );
    let revoked = world.vault.with(|state| state.revocations.clone());
    assert_eq!(
        revoked,
        [(one.grant_id, contracts::vault::v1::RevocationMode::Local)],
        "the grant before it ends"
    );

    world.disconnect(&first).await.unwrap();
    let gone = world.connection(&first).await;
    assert_eq!(gone.state(), ConnectionState::Disconnected);
    assert!(
        gone.disconnected_at.is_some()
            && gone.token_type == "Bearer"
            && gone.scope_raw == two.scope_raw
    );
    testkit::eventually(std::time::Duration::from_secs(10), async || {
        world.connection(&first).await.revoked_at.is_some()
    })
    .await;
    let back = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    assert_eq!(
        parameter(&back, "connection_id"),
        first,
        "cursors and schedules go on"
    );
    let back = world.connection(&first).await;
    assert!(back.disconnected_at.is_none() && back.revoked_at.is_none());
}

#[tokio::test]
async fn req_procore_03_however_many_select_at_once_one_company_is_active() {
    let world = World::new().await;
    let (_, id) = connected(&world).await;
    let selections = (0..16).map(|n| select(&world, &id, if n % 2 == 0 { FIRST } else { SECOND }));
    let outcomes = join_all(selections).await;
    let selected: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    for connection in &selected {
        assert!(connection.active_account.as_ref().unwrap().active);
    }
    let revisions: BTreeSet<_> = selected
        .iter()
        .map(|connection| connection.revision)
        .collect();
    assert_eq!(revisions.len(), 16, "each one is a change of its own");
    let last = selected
        .iter()
        .max_by_key(|connection| connection.revision)
        .unwrap();
    let now = world.connection(&id).await;
    assert_eq!(now.active_account, last.active_account);
    let admin = world.database.admin().await;
    let active = admin
        .query_one("SELECT count(*) FROM broker.accounts WHERE active", &[])
        .await
        .unwrap();
    assert_eq!(active.get::<_, i64>(0), 1);
    // And the index says so, whatever code does.
    let second = admin
        .execute("UPDATE broker.accounts SET active = true", &[])
        .await
        .unwrap_err();
    assert_eq!(
        second.as_db_error().unwrap().constraint(),
        Some("accounts_one_active")
    );
}

#[tokio::test]
async fn req_procore_05_find_read_renew_select_delete() {
    let world = World::new().await;
    let (integration, id) = connected(&world).await;
    let active = world
        .status("u1", &integration.integration_id)
        .await
        .connection
        .unwrap();
    assert_eq!(active.connection_id, id);
    assert_eq!(
        select(&world, &id, SECOND)
            .await
            .unwrap()
            .active_account
            .unwrap()
            .external_account_id,
        SECOND
    );
    assert_eq!(
        select(&world, &id, "7").await.unwrap_err().code,
        Code::NotFound
    );
    world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    assert!(world.disconnect(&id).await.unwrap().revoked_at_provider);
    assert!(
        !world
            .status("u1", &integration.integration_id)
            .await
            .connected
    );
}

#[tokio::test]
async fn req_procore_07_the_company_header_follows_the_selected_company() {
    let world = World::new().await;
    let (_, id) = connected(&world).await;
    let context = world.context(&id).await.unwrap();
    assert_eq!(context.headers["Procore-Company-Id"], FIRST);
    assert_eq!(
        context.headers["Authorization"],
        format!("Bearer {}", context.access_token)
    );
    assert_eq!(
        context.base_url,
        world.sim.control().issuer("procore").unwrap()
    );
    assert_eq!(context.credential_version, 1);
    assert!(context.expires_at.is_some());
    select(&world, &id, SECOND).await.unwrap();
    assert_eq!(
        world.context(&id).await.unwrap().headers["Procore-Company-Id"],
        SECOND
    );

    let request = GetRequestContextRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id.clone(),
        external_account_id: FIRST.into(),
        ..Default::default()
    };
    let once = world
        .connections()
        .get_request_context(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        once.headers["Procore-Company-Id"], FIRST,
        "for this call alone"
    );
    assert_eq!(
        world.context(&id).await.unwrap().headers["Procore-Company-Id"],
        SECOND
    );
    let unknown = GetRequestContextRequest {
        external_account_id: "7".into(),
        ..request
    };
    let error = CallError::from(
        world
            .connections()
            .get_request_context(unknown)
            .await
            .unwrap_err(),
    );
    assert_eq!(error.code, Code::NotFound);

    let url = format!(
        "{}/rest/v1.0/projects?company_id={SECOND}",
        context.base_url
    );
    let context = world.context(&id).await.unwrap();
    let headers: Vec<_> = context
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let timeout = std::time::Duration::from_secs(10);
    let answer = provider_sim::http_client::send(
        http::Method::GET,
        &url,
        &headers,
        bytes::Bytes::new(),
        timeout,
    )
    .await;
    assert_eq!(answer.unwrap().status, 200, "and the provider takes it");
}

#[tokio::test]
async fn req_procore_08_companies_are_listed_selected_and_told_of() {
    let world = World::new().await;
    let (integration, id) = connected(&world).await;
    let status = world.status("u1", &integration.integration_id).await;
    assert_eq!(status.actions, ["select_account", "disconnect"]);
    assert_eq!(
        status.action_url,
        "https://app.example.com/select_account/my-procore"
    );
    let mut request = ListAccountsRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id.clone(),
        page_size: 1,
        ..Default::default()
    };
    let page = world
        .connections()
        .list_accounts(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            page.accounts.len(),
            page.accounts[0].external_account_id.as_str()
        ),
        (1, FIRST)
    );
    request.page_token = page.next_page_token;
    let page = world
        .connections()
        .list_accounts(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            page.accounts[0].external_account_id.as_str(),
            page.next_page_token.as_str()
        ),
        (SECOND, "")
    );
    let request = RefreshAccountsRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id.clone(),
    };
    let refreshed = world
        .connections()
        .refresh_accounts(request)
        .await
        .unwrap()
        .into_inner()
        .accounts;
    assert_eq!(refreshed.iter().filter(|account| account.active).count(), 1);
    assert_eq!(refreshed.len(), 2);

    let request = DisconnectAccountRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id.clone(),
        external_account_id: FIRST.into(),
    };
    let left = world
        .connections()
        .disconnect_account(request.clone())
        .await
        .unwrap()
        .into_inner()
        .connection
        .unwrap();
    assert_eq!(left.active_account.unwrap().external_account_id, SECOND);
    let twice = CallError::from(
        world
            .connections()
            .disconnect_account(request)
            .await
            .unwrap_err(),
    );
    assert_eq!(twice.code, Code::NotFound);
    let error = select(&world, &id, FIRST).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    let status = world.status("u1", &integration.integration_id).await;
    assert_eq!(
        status.actions,
        ["disconnect"],
        "there is nothing left to choose among"
    );
}

#[tokio::test]
async fn a_refused_token_is_refreshed_and_the_next_request_has_the_new_one() {
    let world = World::new().await;
    let (_, id) = connected(&world).await;
    let before = world.context(&id).await.unwrap();
    let request = GetRequestContextRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id.clone(),
        refused_credential_version: before.credential_version,
        ..Default::default()
    };
    let after = world
        .connections()
        .get_request_context(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(after.credential_version, before.credential_version + 1);
    assert_ne!(after.access_token, before.access_token);
    assert_eq!(
        world.context(&id).await.unwrap().access_token,
        after.access_token
    );
    let test = TestConnectionRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: id,
    };
    let tested = world
        .connections()
        .test_connection(test)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((tested.accepted, tested.http_status), (true, 200));
}
