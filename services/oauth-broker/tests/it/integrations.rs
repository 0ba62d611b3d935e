//! Integrations: what is refused, what is kept, what goes to the vault.

use common::rpc::CallError;
use common::{Code, Reason, TenantKey};
use contracts::broker::v1::*;
use contracts::vault::v1::ClientAuthMethod;
use serde_json::json;

use crate::world::{World, structure};

async fn create(
    world: &World,
    integration: Integration,
    request_id: &str,
) -> Result<Integration, CallError> {
    let request = CreateIntegrationRequest {
        request_id: request_id.into(),
        integration: Some(integration),
    };
    Ok(world
        .integrations()
        .create_integration(request)
        .await?
        .into_inner()
        .integration
        .unwrap())
}

fn plain(world: &World, id: &str) -> Integration {
    Integration {
        tenant_id: world.tenant.to_string(),
        integration_id: id.into(),
        provider: "procore".into(),
        client_id: "client".into(),
        client_secret: "s3cret".into(),
        ..Integration::default()
    }
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let world = World::new().await;
    let overrides =
        json!({"issuer": "http://insecure.example", "endpoints": {"token": 7}, "nonsense": 1});
    let wrong = Integration {
        tenant_id: world.tenant.to_string(),
        integration_id: "no/slashes".into(),
        provider: "oidc".into(),
        scopes: vec!["two words".into()],
        cardinality: 99,
        overrides: Some(structure(&overrides)),
        allowed_origins: vec!["https://app.example.com/path".into()],
        auth_mode: AuthMode::ApiKey.into(),
        ..Integration::default()
    };
    let error = create(&world, wrong, &"x".repeat(200)).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason),
        (Code::InvalidArgument, Some(Reason::InvalidField))
    );
    let named: Vec<_> = error
        .fields
        .iter()
        .map(|field| field.field.as_str())
        .collect();
    for field in [
        "request_id",
        "integration.integration_id",
        "integration.scopes",
        "integration.cardinality",
        "integration.allowed_origins",
        "integration.auth_mode",
        "integration.overrides.issuer",
        "integration.overrides.endpoints.token",
        "integration.overrides.nonsense",
    ] {
        assert!(named.contains(&field), "{field} is missing in {named:?}");
    }
    let error = create(
        &world,
        Integration {
            provider: "nowhere".into(),
            ..Integration::default()
        },
        "",
    )
    .await
    .unwrap_err();
    let named: Vec<_> = error
        .fields
        .iter()
        .map(|field| field.field.as_str())
        .collect();
    assert_eq!(named, ["integration.tenant_id", "integration.provider"]);

    let session = CreateConnectSessionRequest {
        tenant_id: "nonsense".into(),
        return_url: "x".repeat(3000),
        ttl: Some(prost_types::Duration {
            seconds: 7200,
            nanos: 0,
        }),
        reconnect_connection_id: "x".into(),
        scopes: vec!["a b".into()],
        labels: [(String::new(), "x".to_owned())].into(),
        ..CreateConnectSessionRequest::default()
    };
    let error = CallError::from(
        world
            .connect()
            .create_connect_session(session)
            .await
            .unwrap_err(),
    );
    let named: Vec<_> = error
        .fields
        .iter()
        .map(|field| field.field.as_str())
        .collect();
    assert_eq!(
        named,
        [
            "tenant_id",
            "user_id",
            "return_url",
            "integration_id",
            "reconnect_connection_id",
            "ttl",
            "labels",
            "scopes"
        ]
    );
}

#[tokio::test]
async fn the_secret_goes_to_the_vault_and_is_never_told_again() {
    let world = World::new().await;
    let made = create(&world, plain(&world, "mine"), "r1").await.unwrap();
    assert_eq!(
        (made.client_secret.as_str(), made.display_name.as_str()),
        ("", "Procore")
    );
    assert_eq!(made.auth_mode(), AuthMode::Oauth2Code);
    assert_eq!(made.cardinality(), Cardinality::PerUser);
    let clients = world
        .vault
        .with(|state| state.clients.values().cloned().collect::<Vec<_>>());
    assert_eq!(clients.len(), 1);
    let client = &clients[0];
    assert_eq!(
        (client.client_secret.as_str(), client.provider.as_str()),
        ("s3cret", "procore")
    );
    assert_eq!(
        client.auth_method(),
        ClientAuthMethod::SecretPost,
        "as the catalogue says"
    );
    assert_eq!(
        client.token_endpoint, "",
        "what is the catalogue's is not repeated"
    );

    let again = create(&world, plain(&world, "mine"), "r1").await.unwrap();
    assert_eq!(again, made);
    let other = Integration {
        client_secret: "another".into(),
        ..plain(&world, "mine")
    };
    assert_eq!(
        create(&world, other, "r1").await.unwrap_err().reason,
        Some(Reason::RequestIdReused)
    );
    let twice = Integration {
        client_secret: "evil".into(),
        ..plain(&world, "mine")
    };
    assert_eq!(
        create(&world, twice, "r2").await.unwrap_err().code,
        Code::AlreadyExists
    );
    let clients = world
        .vault
        .with(|state| state.clients.values().cloned().collect::<Vec<_>>());
    assert_eq!(clients.len(), 1, "whoever loses leaves nothing behind");
    assert_eq!(clients[0].client_secret, "s3cret");
}

#[tokio::test]
async fn an_issuer_is_looked_up_once_and_its_endpoints_go_to_the_vault() {
    let world = World::new().await;
    let issuer = world.sim.control().issuer("oidc").unwrap();
    world.oidc().await;
    let client = world
        .vault
        .with(|state| state.clients.values().next().unwrap().clone());
    assert_eq!(client.token_endpoint, format!("{issuer}/oauth/token"));
    assert_eq!(client.revocation_endpoint, format!("{issuer}/oauth/revoke"));
    assert_eq!(
        (client.issuer, client.jwks_uri),
        (issuer.clone(), format!("{issuer}/jwks"))
    );
    let wrong = Integration {
        integration_id: "wrong".into(),
        provider: "oidc".into(),
        overrides: Some(structure(&json!({"issuer": format!("{issuer}/elsewhere")}))),
        ..plain(&world, "wrong")
    };
    let error = create(&world, wrong, "").await.unwrap_err();
    assert_eq!(
        (error.code, error.fields[0].field.as_str()),
        (Code::InvalidArgument, "integration.overrides.issuer")
    );
}

#[tokio::test]
async fn the_platforms_client_is_never_bent_and_a_tenants_own_comes_first() {
    let world = World::new().await;
    let platform = TenantKey::PLATFORM.to_string();
    let bent = Integration {
        tenant_id: platform.clone(),
        overrides: Some(structure(
            &json!({"endpoints": {"token": "https://evil.example/token"}}),
        )),
        ..plain(&world, "shared")
    };
    let error = create(&world, bent, "").await.unwrap_err();
    assert_eq!(error.fields[0].field, "integration.overrides");
    let shared = Integration {
        tenant_id: platform.clone(),
        display_name: "Shared".into(),
        ..plain(&world, "shared")
    };
    create(&world, shared.clone(), "").await.unwrap();
    let get = GetIntegrationRequest {
        tenant_id: world.tenant.to_string(),
        integration_id: "shared".into(),
    };
    let found = world
        .integrations()
        .get_integration(get.clone())
        .await
        .unwrap()
        .into_inner()
        .integration
        .unwrap();
    assert_eq!(
        (found.tenant_id.as_str(), found.display_name.as_str()),
        (platform.as_str(), "Shared")
    );

    let delete = DeleteIntegrationRequest {
        tenant_id: world.tenant.to_string(),
        integration_id: "shared".into(),
        disconnect_all: true,
    };
    let error = CallError::from(
        world
            .integrations()
            .delete_integration(delete)
            .await
            .unwrap_err(),
    );
    assert_eq!(
        error.code,
        Code::NotFound,
        "tenants never change the platform's"
    );
    let own = Integration {
        display_name: "Own".into(),
        ..plain(&world, "shared")
    };
    create(&world, own, "").await.unwrap();
    create(&world, plain(&world, "another"), "").await.unwrap();
    let found = world
        .integrations()
        .get_integration(get)
        .await
        .unwrap()
        .into_inner()
        .integration
        .unwrap();
    assert_eq!(found.display_name, "Own");
    let list = ListIntegrationsRequest {
        tenant_id: world.tenant.to_string(),
        page_size: 2,
        ..Default::default()
    };
    let page = world
        .integrations()
        .list_integrations(list)
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = page
        .integrations
        .iter()
        .map(|found| found.display_name.as_str())
        .collect();
    assert_eq!(
        (names.as_slice(), page.next_page_token.as_str()),
        (["Procore", "Own"].as_slice(), "")
    );
}

#[tokio::test]
async fn what_leads_a_secret_elsewhere_needs_the_secret() {
    let world = World::new().await;
    let made = create(&world, plain(&world, "mine"), "").await.unwrap();
    let update = async |change: &dyn Fn(&mut Integration), paths: &[&str]| {
        let mut integration = Integration {
            client_secret: String::new(),
            ..plain(&world, "mine")
        };
        change(&mut integration);
        let update_mask = Some(prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        });
        let request = UpdateIntegrationRequest {
            integration: Some(integration),
            update_mask,
        };
        let answer = world
            .integrations()
            .update_integration(request)
            .await
            .map_err(CallError::from)?;
        Ok::<_, CallError>(answer.into_inner().integration.unwrap())
    };
    let renamed = update(
        &|wanted| wanted.display_name = "New".into(),
        &["display_name"],
    )
    .await
    .unwrap();
    assert_eq!(renamed.display_name, "New");
    assert_ne!(renamed.etag, made.etag);
    let stale = update(
        &|wanted| wanted.etag.clone_from(&made.etag),
        &["display_name"],
    )
    .await
    .unwrap_err();
    assert_eq!(stale.reason, Some(Reason::EtagMismatch));
    let bend = |wanted: &mut Integration| {
        wanted.overrides = Some(structure(
            &json!({"endpoints": {"token": "https://sandbox.procore.com/oauth/token"}}),
        ));
    };
    let error = update(&bend, &["overrides"]).await.unwrap_err();
    assert_eq!(error.fields[0].field, "integration.client_secret");
    let with_secret = |wanted: &mut Integration| {
        bend(wanted);
        wanted.client_secret = "new".into();
    };
    update(&with_secret, &["overrides", "client_secret"])
        .await
        .unwrap();
    let client = world
        .vault
        .with(|state| state.clients.values().next().unwrap().clone());
    assert_eq!(
        (
            client.token_endpoint.as_str(),
            client.client_secret.as_str()
        ),
        ("https://sandbox.procore.com/oauth/token", "new")
    );
    let fixed = update(
        &|wanted| wanted.set_cardinality(Cardinality::PerTenant),
        &["cardinality", "nonsense"],
    )
    .await
    .unwrap_err();
    assert_eq!(fixed.fields.len(), 2);
}

#[tokio::test]
async fn an_integration_with_connections_is_deleted_only_knowingly() {
    let world = World::new().await;
    let integration = world.procore().await;
    world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    let mut delete = DeleteIntegrationRequest {
        tenant_id: world.tenant.to_string(),
        integration_id: integration.integration_id.clone(),
        disconnect_all: false,
    };
    let error = CallError::from(
        world
            .integrations()
            .delete_integration(delete.clone())
            .await
            .unwrap_err(),
    );
    assert_eq!(error.code, Code::FailedPrecondition);
    delete.disconnect_all = true;
    world
        .integrations()
        .delete_integration(delete.clone())
        .await
        .unwrap();
    let (clients, revoked) = world
        .vault
        .with(|state| (state.clients.len(), state.revocations.len()));
    assert_eq!((clients, revoked), (0, 1));
    let error = CallError::from(
        world
            .integrations()
            .delete_integration(delete)
            .await
            .unwrap_err(),
    );
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn the_catalogue_can_be_looked_through() {
    let world = World::new().await;
    let list = ListProvidersRequest {
        page_size: 2,
        ..Default::default()
    };
    let page = world
        .integrations()
        .list_providers(list.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.providers.len(), 2);
    let next = ListProvidersRequest {
        page_token: page.next_page_token,
        ..list
    };
    let rest = world
        .integrations()
        .list_providers(next)
        .await
        .unwrap()
        .into_inner();
    assert!(rest.providers[0].provider > page.providers[1].provider);
    let found = ListProvidersRequest {
        search: "CONSTRUCTION".into(),
        ..Default::default()
    };
    let found = world
        .integrations()
        .list_providers(found)
        .await
        .unwrap()
        .into_inner()
        .providers;
    assert_eq!(
        found
            .iter()
            .map(|found| found.provider.as_str())
            .collect::<Vec<_>>(),
        ["procore"]
    );
    assert!(found[0].multiple_accounts && found[0].supports_revocation && found[0].supports_pkce);
    let error = world
        .integrations()
        .get_provider(GetProviderRequest {
            provider: "nowhere".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(CallError::from(error).code, Code::NotFound);
}
