//! Connecting without a browser.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::import_connection_request::Credential;
use contracts::broker::v1::*;
use serde_json::json;

use crate::world::{World, parameter, structure};

fn request(
    world: &World,
    integration: &Integration,
    credential: Credential,
) -> ImportConnectionRequest {
    ImportConnectionRequest {
        request_id: "import-1".into(),
        tenant_id: world.tenant.to_string(),
        user_id: "u1".into(),
        user_email: "u1@acme.example".into(),
        integration_id: integration.integration_id.clone(),
        credential: Some(credential),
        ..Default::default()
    }
}

async fn import(world: &World, request: &ImportConnectionRequest) -> Result<Connection, CallError> {
    Ok(world
        .connect()
        .import_connection(request.clone())
        .await?
        .into_inner()
        .connection
        .unwrap())
}

#[tokio::test]
async fn a_key_is_imported_once_and_goes_where_the_provider_wants_it() {
    let world = World::new().await;
    let place = json!({
        "api": {
            "base_url": "https://api.example.com/v2/",
            "headers": {"X-Client": "hawser"},
            "credential": {"placement": "query", "name": "api_key"},
        }
    });
    let mut place = place;
    place["api"]["credential"]["format"] = json!("{secret}");
    let integration = world
        .integration("api-key", "oidc", |wanted| {
            wanted.client_id = String::new();
            wanted.client_secret = String::new();
            wanted.overrides = Some(structure(&place));
        })
        .await;
    let wanted = request(&world, &integration, Credential::ApiKey("k3y".into()));
    let made = import(&world, &wanted).await.unwrap();
    let again = import(&world, &wanted).await.unwrap();
    assert_eq!(made, again);
    assert_eq!(world.vault.with(|state| state.grants.len()), 1);
    let mut other = wanted.clone();
    other.credential = Some(Credential::ApiKey("another".into()));
    assert_eq!(
        import(&world, &other).await.unwrap_err().reason,
        Some(Reason::RequestIdReused)
    );
    let context = world.context(&made.connection_id).await.unwrap();
    assert_eq!(context.query_params["api_key"], "k3y");
    assert_eq!(context.base_url, "https://api.example.com/v2");
    assert_eq!(
        context.headers.into_iter().collect::<Vec<_>>(),
        [("X-Client".to_owned(), "hawser".to_owned())]
    );
    let mut wrong = wanted;
    wrong.request_id = String::new();
    wrong.credential = Some(Credential::ClientCredentials(true));
    let error = import(&world, &wrong).await.unwrap_err();
    assert_eq!(
        (error.code, error.fields[0].field.as_str()),
        (Code::InvalidArgument, "api_key")
    );
}

#[tokio::test]
async fn a_password_that_the_provider_refuses_is_not_kept() {
    let world = World::new().await;
    let issuer = world.sim.control().issuer("oidc").unwrap();
    let place = json!({"api": {"base_url": issuer}, "verify": {"endpoint": "/me"}});
    let integration = world
        .integration("basic", "oidc", |wanted| {
            wanted.client_id = String::new();
            wanted.client_secret = String::new();
            wanted.overrides = Some(structure(&place));
        })
        .await;
    let pair = ImportedPassword {
        username: "me".into(),
        password: "wrong".into(),
    };
    let error = import(
        &world,
        &request(&world, &integration, Credential::Password(pair)),
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.reason,
        Some(Reason::IntegrationMisconfigured),
        "{error}"
    );
    assert!(
        !world
            .status("u1", &integration.integration_id)
            .await
            .connected
    );
    let revoked = world.vault.with(|state| state.revocations.clone());
    assert_eq!(revoked.len(), 1);
    assert_eq!(
        revoked[0].1,
        contracts::vault::v1::RevocationMode::Local,
        "nothing is ended at the provider"
    );
}

#[tokio::test]
async fn tokens_from_another_system_are_looked_at_before_they_are_taken() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "jo", "alice")
        .await;
    let context = world
        .context(&parameter(&end, "connection_id"))
        .await
        .unwrap();
    let tokens = ImportedTokens {
        access_token: context.access_token,
        ..Default::default()
    };
    let made = import(
        &world,
        &request(&world, &integration, Credential::Tokens(tokens)),
    )
    .await
    .unwrap();
    assert_eq!(
        (made.user_id.as_str(), made.external_user_id.as_str()),
        ("u1", "562949953421001")
    );
    assert_eq!(
        made.active_account.unwrap().external_account_id,
        "562949953500001"
    );
    let bad = ImportedTokens {
        access_token: "nonsense".into(),
        ..Default::default()
    };
    let mut refused = request(&world, &integration, Credential::Tokens(bad));
    refused.request_id = "import-2".into();
    refused.user_id = "u2".into();
    assert_eq!(
        import(&world, &refused).await.unwrap_err().code,
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn the_clients_own_credentials_make_a_connection() {
    let world = World::new().await;
    let integration = world
        .integration("procore", "procore", |wanted| {
            wanted.set_auth_mode(AuthMode::Oauth2ClientCredentials);
        })
        .await;
    let made = import(
        &world,
        &request(&world, &integration, Credential::ClientCredentials(true)),
    )
    .await
    .unwrap();
    assert_eq!(made.state(), ConnectionState::Connected);
    assert!(
        world.context(&made.connection_id).await.unwrap().headers["Authorization"]
            .starts_with("Bearer ")
    );
}

#[tokio::test]
async fn a_connection_without_a_user_is_kept_and_claimed_by_connecting_in_its_place() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "jo", "alice")
        .await;
    let context = world
        .context(&parameter(&end, "connection_id"))
        .await
        .unwrap();
    let tokens = ImportedTokens {
        access_token: context.access_token,
        ..Default::default()
    };
    let mut wanted = request(&world, &integration, Credential::Tokens(tokens));
    wanted.user_id = String::new();
    let unclaimed = import(&world, &wanted).await.unwrap();
    assert_eq!(unclaimed.state(), ConnectionState::Unclaimed);
    let refused = world.context(&unclaimed.connection_id).await.unwrap_err();
    assert_eq!(
        refused.reason,
        Some(Reason::ConnectionNotUsable),
        "used by nobody"
    );
    let mut session = world.session_request(&integration.integration_id, "kim");
    session.reconnect_connection_id = unclaimed.connection_id.clone();
    let end = world.walk(session, "alice").await;
    assert_eq!(parameter(&end, "connection_id"), unclaimed.connection_id);
    let claimed = world.connection(&unclaimed.connection_id).await;
    assert_eq!(
        (claimed.state(), claimed.user_id.as_str()),
        (ConnectionState::Connected, "kim")
    );
}
