//! The first tokens.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};
use serde_json::Value;

use crate::world::{World, token_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_becomes_a_grant_whose_token_the_provider_takes() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;

    let credential = world.get(&vault, grant).await.unwrap();
    assert!(world.works(&token_of(&credential)).await);
    assert_eq!(credential.version, 1);

    let described = world.describe(&vault, grant).await;
    assert_eq!(described.state(), GrantState::Active);
    assert_eq!(described.token_type, "Bearer");
    assert!(described.has_refresh_token);
    assert!(described.scopes.contains(&"records.read".to_owned()));
    assert!(described.scope_raw.contains("records.read"));
    assert!(described.next_refresh_at.unwrap().seconds < described.expires_at.unwrap().seconds);
    let raw = described.raw_json;
    assert!(
        !raw.contains(&token_of(&credential)),
        "the rest of the answer holds no secret"
    );
    assert!(
        !raw.contains("refresh_token"),
        "the rest of the answer holds no secret"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_gets_the_grant_of_the_first() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let request = world.exchange_request(world.tenant.new_id(&world.deps), world.code("n").await);
    let calls = (0..8).map(|_| {
        let (mut client, request) = (world.vault(&vault), request.clone());
        async move {
            client
                .exchange_authorization(request)
                .await
                .unwrap()
                .into_inner()
                .grant
                .unwrap()
        }
    });
    let grants = futures::future::join_all(calls).await;
    assert!(
        grants
            .iter()
            .all(|grant| grant.version == 1 && grant.grant_id == request.grant_id)
    );
    assert_eq!(world.sim.control().counters().calls_to("token"), 1);

    let other = world.exchange_request(request.grant_id.parse().unwrap(), world.code("n").await);
    let status = world
        .vault(&vault)
        .exchange_authorization(other)
        .await
        .expect_err("the id is taken");
    assert_eq!(CallError::from(status).code, Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_is_refused_is_not_sent_again() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = World::new().await;
    let mut code = world.code("n").await;
    code.code = "wrong".into();
    let request = world.exchange_request(world.tenant.new_id(&world.deps), code);
    for _ in 0..2 {
        let status = world
            .vault(&vault)
            .exchange_authorization(request.clone())
            .await
            .expect_err("it is refused");
        let error = CallError::from(status);
        assert_eq!(
            (error.code, error.reason),
            (Code::FailedPrecondition, Some(Reason::AuthorizationExpired))
        );
    }
    assert_eq!(world.sim.control().counters().calls_to("token"), 1);
    let request = DescribeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: request.grant_id,
    };
    let status = world
        .vault(&vault)
        .describe_grant(request)
        .await
        .expect_err("nobody sees it");
    assert_eq!(CallError::from(status).code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_was_down_takes_the_code_later() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = World::new().await;
    world.sim.control().inject(FaultRule::once(
        "token",
        Fault::Status {
            status: 503,
            retry_after_seconds: Some(7),
        },
    ));
    let request = world.exchange_request(world.tenant.new_id(&world.deps), world.code("n").await);
    let status = world
        .vault(&vault)
        .exchange_authorization(request.clone())
        .await
        .expect_err("it is down");
    let error = CallError::from(status);
    assert_eq!(
        (error.code, error.reason),
        (Code::Unavailable, Some(Reason::ProviderUnavailable))
    );
    assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(7)));
    world
        .vault(&vault)
        .exchange_authorization(request)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_token_is_verified_and_its_claims_are_told() {
    let logs = testkit::logs::capture();
    logs.expect("an id_token is not believed");
    let (world, vault) = World::new().await;
    let client = OAuthClient {
        provider: "oidc".into(),
        issuer: world.sim.base_url().into(),
        token_endpoint: String::new(),
        revocation_endpoint: String::new(),
        ..world.oauth_client("s3cret & more")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    world
        .vault(&vault)
        .put_o_auth_client(request)
        .await
        .unwrap();

    let request = world.exchange_request(
        world.tenant.new_id(&world.deps),
        world.code("nonce-1").await,
    );
    let grant = world
        .vault(&vault)
        .exchange_authorization(request)
        .await
        .unwrap()
        .into_inner()
        .grant
        .unwrap();
    let raw: Value = serde_json::from_str(&grant.raw_json).unwrap();
    assert_eq!(raw["id_token"]["email"], "alice@example.com");
    assert_eq!(raw["id_token"]["iss"], world.sim.base_url());

    let mut code = world.code("nonce-2").await;
    code.nonce = "another".into();
    let request = world.exchange_request(world.tenant.new_id(&world.deps), code);
    let status = world
        .vault(&vault)
        .exchange_authorization(request)
        .await
        .expect_err("it is somebody else's");
    assert_eq!(
        CallError::from(status).reason,
        Some(Reason::IntegrationMisconfigured)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_puts_new_tokens_into_the_grant() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let before = token_of(&world.get(&vault, grant).await.unwrap());

    let again = ExchangeAuthorizationRequest {
        expected_version: 1,
        ..world.exchange_request(grant, world.code("n").await)
    };
    for _ in 0..2 {
        let found = world
            .vault(&vault)
            .exchange_authorization(again.clone())
            .await
            .unwrap()
            .into_inner()
            .grant
            .unwrap();
        assert_eq!((found.version, found.state()), (2, GrantState::Active));
    }
    let after = token_of(&world.get(&vault, grant).await.unwrap());
    assert_ne!(before, after);
    assert!(world.works(&after).await);

    let stale = ExchangeAuthorizationRequest {
        expected_version: 1,
        ..world.exchange_request(grant, world.code("n").await)
    };
    let status = world
        .vault(&vault)
        .exchange_authorization(stale)
        .await
        .expect_err("the version is another");
    let error = CallError::from(status);
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::EtagMismatch))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_credentials_are_minted_again() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.tenant.new_id(&world.deps);
    let asked = ClientCredentials {
        scopes: vec!["records.read".into()],
    };
    let request = ExchangeAuthorizationRequest {
        authorization: Some(
            exchange_authorization_request::Authorization::ClientCredentials(asked),
        ),
        ..world.exchange_request(grant, AuthorizationCode::default())
    };
    let made = world
        .vault(&vault)
        .exchange_authorization(request)
        .await
        .unwrap()
        .into_inner()
        .grant
        .unwrap();
    assert!(!made.has_refresh_token);
    world.expire(grant).await;
    let credential = world.get(&vault, grant).await.unwrap();
    assert_eq!(credential.version, 2);
    assert!(world.works(&token_of(&credential)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named_at_once() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let request = ExchangeAuthorizationRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: "x".into(),
        grant_id: "y".into(),
        expected_version: -1,
        ..ExchangeAuthorizationRequest::default()
    };
    let error = CallError::from(
        world
            .vault(&vault)
            .exchange_authorization(request)
            .await
            .expect_err("all is wrong"),
    );
    let mut fields: Vec<_> = error
        .fields
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "authorization",
            "expected_version",
            "grant_id",
            "oauth_client_id"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_cannot_be_bent_without_the_secret() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let bent = OAuthClient {
        token_endpoint: "https://evil.example/token".into(),
        ..world.oauth_client("")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(bent),
    };
    let error = CallError::from(
        world
            .vault(&vault)
            .put_o_auth_client(request)
            .await
            .expect_err("the secret is missing"),
    );
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.fields[0].field, "oauth_client.client_secret");
    // What does not say where the secret goes may change.
    let kept = OAuthClient {
        refresh_margin: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..world.oauth_client("")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(kept),
    };
    world
        .vault(&vault)
        .put_o_auth_client(request)
        .await
        .unwrap();
    world.connect(&vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_a_password_are_kept_and_handed_out() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let put = |grant: uuid::Uuid, credential| PutCredentialRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        credential: Some(credential),
        ..PutCredentialRequest::default()
    };
    let (key, basic) = (
        world.tenant.new_id(&world.deps),
        world.tenant.new_id(&world.deps),
    );
    let request = put(
        key,
        put_credential_request::Credential::ApiKey(ApiKey {
            value: "k-1".into(),
        }),
    );
    let first = world
        .vault(&vault)
        .put_credential(request.clone())
        .await
        .unwrap()
        .into_inner()
        .grant
        .unwrap();
    let again = world
        .vault(&vault)
        .put_credential(request)
        .await
        .unwrap()
        .into_inner()
        .grant
        .unwrap();
    assert_eq!((first.version, first.state()), (1, GrantState::Unconfirmed));
    assert_eq!(again, first);
    let request = put(
        key,
        put_credential_request::Credential::ApiKey(ApiKey {
            value: "k-2".into(),
        }),
    );
    let error = CallError::from(
        world
            .vault(&vault)
            .put_credential(request.clone())
            .await
            .expect_err("the id is taken"),
    );
    assert_eq!(error.code, Code::AlreadyExists);
    let replaced = PutCredentialRequest {
        expected_version: 1,
        ..request
    };
    world.vault(&vault).put_credential(replaced).await.unwrap();
    let credential = world.get(&vault, key).await.unwrap();
    assert_eq!(
        credential.secret,
        Some(credential::Secret::ApiKey(ApiKey {
            value: "k-2".into()
        }))
    );

    let user = BasicAuth {
        username: "ada".into(),
        password: "p:w".into(),
    };
    let request = put(
        basic,
        put_credential_request::Credential::Basic(user.clone()),
    );
    world.vault(&vault).put_credential(request).await.unwrap();
    let credential = world.get(&vault, basic).await.unwrap();
    assert_eq!(credential.secret, Some(credential::Secret::Basic(user)));
}
