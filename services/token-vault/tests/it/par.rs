//! Pushed authorization requests (RFC 9126).

use std::collections::HashMap;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;
use oauth_client::Verifier;
use provider_sim::browser::Browser;
use provider_sim::{Fault, FaultRule};

use crate::world::{Instance, World, token_of};

const REDIRECT: &str = "http://127.0.0.1:1/callback";

/// With a provider that takes no other authorization requests, and says where they go itself.
async fn world(auth_method: ClientAuthMethod) -> (World, Instance) {
    let (world, vault) = World::new().await;
    let strict = world.sim.control().configure("oidc", |provider| {
        provider.require_pushed_requests = true;
    });
    strict.await.unwrap();
    let client = OAuthClient {
        provider: "oidc".into(),
        issuer: world.sim.base_url().into(),
        token_endpoint: String::new(),
        revocation_endpoint: String::new(),
        auth_method: auth_method as i32,
        ..world.oauth_client("s3cret & more")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    let put = world.vault(&vault).put_o_auth_client(request).await;
    put.unwrap();
    (world, vault)
}

fn push_request(world: &World, verifier: &Verifier) -> PushAuthorizationRequestRequest {
    let challenge = verifier.challenge();
    let params = [
        ("response_type", "code"),
        ("client_id", "vault"),
        ("redirect_uri", REDIRECT),
        ("scope", "openid offline_access"),
        ("state", "s"),
        ("nonce", "n"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    PushAuthorizationRequestRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: world.client.to_string(),
        authorization_params: params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..PushAuthorizationRequestRequest::default()
    }
}

async fn push(
    world: &World,
    vault: &Instance,
    request: PushAuthorizationRequestRequest,
) -> Result<PushAuthorizationRequestResponse, CallError> {
    let mut client = world.vault(vault);
    Ok(client
        .push_authorization_request(request)
        .await?
        .into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_request_leads_to_a_grant_with_either_secret_method() {
    let _logs = testkit::logs::capture();
    for method in [ClientAuthMethod::SecretBasic, ClientAuthMethod::SecretPost] {
        let (world, vault) = world(method).await;
        let verifier = Verifier::new(&world.deps);
        let pushed = push(&world, &vault, push_request(&world, &verifier))
            .await
            .unwrap();
        assert!(pushed.expires_at.unwrap().seconds > world.deps.now().unix_timestamp());
        let mut url =
            url::Url::parse(&format!("{}/oauth/authorize", world.sim.base_url())).unwrap();
        url.query_pairs_mut()
            .append_pair("client_id", "vault")
            .append_pair("request_uri", &pushed.request_uri);
        let page = Browser::new().consent(url.as_str(), "alice").await.unwrap();
        let code = AuthorizationCode {
            code: page.redirect_parameter("code").unwrap(),
            redirect_uri: REDIRECT.into(),
            code_verifier: verifier.secret().expose().clone(),
            nonce: "n".into(),
        };
        let grant = world.tenant.new_id(&world.deps);
        let request = world.exchange_request(grant, code);
        let mut client = world.vault(&vault);
        client.exchange_authorization(request).await.unwrap();
        let credential = world.get(&vault, grant).await.unwrap();
        assert!(world.works(&token_of(&credential)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_the_provider_refuses_is_the_clients_fault() {
    let logs = testkit::logs::capture();
    logs.expect("a provider does not take an authorization request");
    let (world, vault) = world(ClientAuthMethod::SecretBasic).await;
    let client = OAuthClient {
        provider: "oidc".into(),
        issuer: world.sim.base_url().into(),
        token_endpoint: String::new(),
        revocation_endpoint: String::new(),
        previous_client_secret: "wrong too".into(),
        previous_client_secret_expires_at: Some(prost_types::Timestamp {
            seconds: world.deps.now().unix_timestamp() + 3600,
            nanos: 0,
        }),
        ..world.oauth_client("wrong")
    };
    let request = |client: &OAuthClient| PutOAuthClientRequest {
        oauth_client: Some(client.clone()),
    };
    let mut stub = world.vault(&vault);
    stub.put_o_auth_client(request(&client)).await.unwrap();
    let verifier = Verifier::new(&world.deps);
    let error = push(&world, &vault, push_request(&world, &verifier))
        .await
        .expect_err("the secret is wrong");
    assert_eq!(
        (error.code, error.reason),
        (
            Code::FailedPrecondition,
            Some(Reason::IntegrationMisconfigured)
        )
    );
    let pushes = world.sim.control().counters().calls_to("par");
    assert_eq!(pushes, 2, "both secrets were tried");

    // The older one is the right one.
    let client = OAuthClient {
        previous_client_secret: "s3cret & more".into(),
        ..client
    };
    stub.put_o_auth_client(request(&client)).await.unwrap();
    push(&world, &vault, push_request(&world, &verifier))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_is_asked_later() {
    let logs = testkit::logs::capture();
    logs.expect("a provider does not take an authorization request");
    let (world, vault) = world(ClientAuthMethod::SecretBasic).await;
    world.sim.control().inject(FaultRule::once(
        "par",
        Fault::Status {
            status: 503,
            retry_after_seconds: Some(7),
        },
    ));
    let verifier = Verifier::new(&world.deps);
    let error = push(&world, &vault, push_request(&world, &verifier))
        .await
        .expect_err("it is down");
    assert_eq!(
        (error.code, error.reason),
        (Code::Unavailable, Some(Reason::ProviderUnavailable))
    );
    assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named_at_once() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world(ClientAuthMethod::SecretBasic).await;
    let params = ["client_secret", "client_assertion", "request_uri"];
    let request = PushAuthorizationRequestRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: "x".into(),
        authorization_params: params
            .iter()
            .map(|name| ((*name).to_owned(), "x".to_owned()))
            .collect::<HashMap<_, _>>(),
        ..PushAuthorizationRequestRequest::default()
    };
    let error = push(&world, &vault, request)
        .await
        .expect_err("all is wrong");
    let mut fields: Vec<_> = error.fields.iter().map(|wrong| &wrong.field).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "authorization_params.client_assertion",
            "authorization_params.client_secret",
            "authorization_params.request_uri",
            "authorization_params.response_type",
            "oauth_client_id",
        ]
    );
    assert_eq!(world.sim.control().counters().calls_to("par"), 0);
}
