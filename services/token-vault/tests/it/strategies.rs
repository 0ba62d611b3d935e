//! Grants that are renewed otherwise than by a refresh token, and clients that prove themselves otherwise than by one secret.

use std::collections::{BTreeMap, BTreeSet};

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::exchange_authorization_request::Authorization;
use contracts::vault::v1::*;
use provider_sim::config::{ClientAuth, ClientConfig as SimClient, RefreshTokens};
use provider_sim::{Fault, FaultRule};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use uuid::Uuid;

use crate::world::{Instance, World, get_at, token_of};

const APP: &str = "app@project.example";

/// A client whose key the simulator knows, under another id than the world's.
async fn with_key(world: &World, vault: &Instance, client: OAuthClient, pair: &KeyPair) {
    let known = SimClient {
        public_key: Some(pair.public_key_pem()),
        auth_methods: BTreeSet::from([ClientAuth::PrivateKeyJwt]),
        client_secrets: Vec::new(),
        service_user: Some("bob".into()),
        installations: BTreeMap::from([("42".into(), "carol".into())]),
        ..SimClient::confidential(APP, "", &[])
    };
    world
        .sim
        .control()
        .register_client("oidc", known)
        .await
        .unwrap();
    let client = OAuthClient {
        auth_method: ClientAuthMethod::PrivateKeyJwt as i32,
        client_id: APP.into(),
        client_secret: pair.serialize_pem(),
        ..client
    };
    put(world, vault, client).await.unwrap();
}

async fn put(world: &World, vault: &Instance, client: OAuthClient) -> Result<(), CallError> {
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    world.vault(vault).put_o_auth_client(request).await?;
    Ok(())
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()
}

async fn exchange(
    world: &World,
    vault: &Instance,
    authorization: Authorization,
    parameters: &[(&str, &str)],
) -> Result<Grant, CallError> {
    let parameters = parameters.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let request = ExchangeAuthorizationRequest {
        authorization: Some(authorization),
        parameters: parameters.collect(),
        ..world.exchange_request(
            world.tenant.new_id(&world.deps),
            AuthorizationCode::default(),
        )
    };
    let answer = world.vault(vault).exchange_authorization(request).await?;
    Ok(answer.into_inner().grant.unwrap())
}

fn jwt_bearer(subject: &str, scopes: &[&str]) -> Authorization {
    Authorization::JwtBearer(JwtBearer {
        subject: subject.into(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
    })
}

fn id_of(grant: &Grant) -> Uuid {
    grant.grant_id.parse().unwrap()
}

/// Whose token it is, as the provider says.
async fn owner(world: &World, token: &str) -> String {
    let grants = world.sim.control().grants();
    assert!(world.works(token).await, "the provider takes the token");
    grants.last().unwrap().user.clone()
}

/// The grant's next token, after the present one has ended.
async fn renewed(world: &World, vault: &Instance, grant: Uuid) -> Credential {
    world.expire(grant).await;
    world.get(vault, grant).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_acts_for_its_subject_and_signs_again() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let client = OAuthClient {
        provider: "google-service-account".into(),
        key_id: "k1".into(),
        ..world.oauth_client("")
    };
    with_key(&world, &vault, client, &key()).await;

    let scopes = ["records.read", "email"];
    let made = exchange(
        &world,
        &vault,
        jwt_bearer("alice@example.com", &scopes),
        &[],
    )
    .await
    .unwrap();
    assert!(!made.has_refresh_token);
    assert_eq!(made.scopes, scopes);
    assert!(!made.raw_json.contains("hawser-renewal"));
    for version in 2..4 {
        let credential = renewed(&world, &vault, id_of(&made)).await;
        assert_eq!(credential.version, version);
        assert_eq!(owner(&world, &token_of(&credential)).await, "alice");
    }
    let grants = world.sim.control().grants();
    assert!(grants.iter().all(|grant| grant.scope == scopes));

    // Without a subject it acts for itself.
    let own = exchange(&world, &vault, jwt_bearer("", &scopes), &[])
        .await
        .unwrap();
    let credential = world.get(&vault, id_of(&own)).await.unwrap();
    assert_eq!(owner(&world, &token_of(&credential)).await, "bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_the_provider_demands_is_asked_for() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = World::new().await;
    let client = OAuthClient {
        provider: "salesforce-jwt".into(),
        ..world.oauth_client("")
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    with_key(&world, &vault, client, &pair).await;
    let parameters = [("instance", "acme.my.salesforce.com")];

    let error = exchange(&world, &vault, jwt_bearer("", &[]), &parameters)
        .await
        .expect_err("the subject is missing");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.fields[0].field, "jwt_bearer.subject");

    let error = exchange(&world, &vault, jwt_bearer("nobody", &[]), &parameters)
        .await
        .expect_err("there is no such user");
    assert_eq!(error.reason, Some(Reason::AuthorizationExpired));

    let made = exchange(&world, &vault, jwt_bearer("carol", &[]), &parameters)
        .await
        .unwrap();
    let credential = renewed(&world, &vault, id_of(&made)).await;
    assert_eq!(owner(&world, &token_of(&credential)).await, "carol");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_needs_a_client_with_a_key() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let error = exchange(&world, &vault, jwt_bearer("alice", &[]), &[])
        .await
        .expect_err("the client has a secret and no key");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.fields[0].field, "jwt_bearer");
    assert_eq!(world.sim.control().counters().calls_to("token"), 0);
}

fn github(world: &World) -> OAuthClient {
    let installations = "app/installations/{installation_id}/access_tokens";
    OAuthClient {
        provider: "github-app".into(),
        token_endpoint: format!("{}/{installations}", world.sim.base_url()),
        ..world.oauth_client("")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_github_app_gets_tokens_of_its_installation_until_it_is_uninstalled() {
    let logs = testkit::logs::capture();
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = World::new().await;
    let pair = key();
    with_key(&world, &vault, github(&world), &pair).await;

    let made = exchange(
        &world,
        &vault,
        jwt_bearer("", &[]),
        &[("installation_id", "42")],
    )
    .await
    .unwrap();
    assert!(made.expires_at.is_some());
    assert!(made.raw_json.contains("repository_selection"));
    let credential = renewed(&world, &vault, id_of(&made)).await;
    assert_eq!(owner(&world, &token_of(&credential)).await, "carol");
    let counters = world.sim.control().counters();
    assert_eq!(counters.calls_to("installation_token"), 2);
    assert_eq!(counters.calls_to("token"), 0);

    let uninstalled = SimClient {
        public_key: Some(pair.public_key_pem()),
        auth_methods: BTreeSet::from([ClientAuth::PrivateKeyJwt]),
        client_secrets: Vec::new(),
        ..SimClient::confidential(APP, "", &[])
    };
    world
        .sim
        .control()
        .register_client("oidc", uninstalled)
        .await
        .unwrap();
    world.expire(id_of(&made)).await;
    let error = world
        .get(&vault, id_of(&made))
        .await
        .expect_err("there is no installation any more");
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_cannot_be_bent_to_another_installation() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    with_key(&world, &vault, github(&world), &key()).await;
    let made = exchange(
        &world,
        &vault,
        jwt_bearer("", &[]),
        &[("installation_id", "42")],
    )
    .await
    .unwrap();
    let sql =
        "UPDATE vault.grants SET parameters = '{\"installation_id\": \"43\"}' WHERE grant_id = $1";
    let admin = world.database.admin().await;
    admin.execute(sql, &[&id_of(&made)]).await.unwrap();
    world.expire(id_of(&made)).await;
    let error = world
        .get(&vault, id_of(&made))
        .await
        .expect_err("the installation is another");
    assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
    let counters = world.sim.control().counters();
    assert_eq!(counters.calls_to("installation_token"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_mint_whose_answer_is_lost_is_sent_again() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, vault) = World::new().await;
    let client = OAuthClient {
        provider: "google-service-account".into(),
        ..world.oauth_client("")
    };
    with_key(&world, &vault, client, &key()).await;
    let made = exchange(&world, &vault, jwt_bearer("alice", &[]), &[])
        .await
        .unwrap();
    world.expire(id_of(&made)).await;
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::CutBody { bytes: Some(3) }));
    // The caller's own retries may come late enough.
    let credential = match world.get(&vault, id_of(&made)).await {
        Ok(credential) => credential,
        Err(error) => {
            assert_eq!(error.reason, Some(Reason::ProviderUnavailable));
            world.forget_waits().await;
            world.get(&vault, id_of(&made)).await.unwrap()
        }
    };
    assert_eq!(credential.version, 2);
    assert!(world.works(&token_of(&credential)).await);
    assert_eq!(world.sim.control().counters().calls_to("token"), 3);
    let described = world.describe(&vault, id_of(&made)).await;
    assert_ne!(described.state(), GrantState::ReauthorizationRequired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_whose_answer_is_lost_is_made_again_unless_it_was_for_a_code() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = World::new().await;
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::CutBody { bytes: Some(3) }));
    let asked = Authorization::ClientCredentials(ClientCredentials {
        scopes: vec!["records.read".into()],
    });
    let request = ExchangeAuthorizationRequest {
        authorization: Some(asked),
        ..world.exchange_request(
            world.tenant.new_id(&world.deps),
            AuthorizationCode::default(),
        )
    };
    let mut client = world.vault(&vault);
    let error = CallError::from(
        client
            .exchange_authorization(request.clone())
            .await
            .expect_err("the answer was lost"),
    );
    assert_eq!(error.reason, Some(Reason::ProviderUnavailable));
    let made = client.exchange_authorization(request).await.unwrap();
    assert_eq!(made.into_inner().grant.unwrap().version, 1);
}

async fn facebook(world: &World, vault: &Instance) {
    let unrefreshable = world.sim.control().configure("oidc", |provider| {
        provider.refresh_tokens = RefreshTokens::Never;
    });
    unrefreshable.await.unwrap();
    let client = OAuthClient {
        provider: "facebook".into(),
        token_endpoint: format!("{}/oauth/access_token", world.sim.base_url()),
        auth_method: ClientAuthMethod::SecretPost as i32,
        ..world.oauth_client("s3cret & more")
    };
    put(world, vault, client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_is_traded_for_the_next_one_while_it_lives() {
    let logs = testkit::logs::capture();
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = World::new().await;
    facebook(&world, &vault).await;
    let grant = world.connect(&vault).await;
    let first = world.describe(&vault, grant).await;
    assert!(!first.has_refresh_token);
    assert_eq!(first.version, 1);
    // It is due at once: the first token lives for an hour only.
    assert!(first.next_refresh_at.unwrap().seconds <= first.refreshed_at.unwrap().seconds);
    let before = token_of(&world.get(&vault, grant).await.unwrap());

    for refused_version in 1..3 {
        let request = RefreshGrantRequest {
            tenant_id: world.tenant.to_string(),
            grant_id: grant.to_string(),
            refused_version,
        };
        let mut client = world.vault(&vault);
        client.refresh_grant(request).await.unwrap();
    }
    let credential = world.get(&vault, grant).await.unwrap();
    assert_eq!(credential.version, 3);
    assert_ne!(token_of(&credential), before);
    assert!(world.works(&token_of(&credential)).await);
    let trades = world.sim.control().counters();
    let trades = trades.count(|call| call.grant_type.as_deref() == Some("fb_exchange_token"));
    assert_eq!(trades, 2);

    // What has ended cannot be traded any more.
    let held = world.sim.control().grants().last().unwrap().id.clone();
    world
        .sim
        .control()
        .expire_access_tokens(&held)
        .await
        .unwrap();
    world.expire(grant).await;
    let error = world
        .get(&vault, grant)
        .await
        .expect_err("the token has ended");
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_access_token_is_traded_too() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    facebook(&world, &vault).await;
    let issued = world
        .sim
        .control()
        .issue_grant("oidc", "vault", "alice")
        .await
        .unwrap();
    let grant = world.tenant.new_id(&world.deps);
    let tokens = OAuth2Tokens {
        access_token: issued.access_token.clone(),
        expires_at: Some(prost_types::Timestamp {
            seconds: world.deps.now().unix_timestamp() + 3600,
            nanos: 0,
        }),
        ..OAuth2Tokens::default()
    };
    let request = PutCredentialRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        oauth_client_id: world.client.to_string(),
        credential: Some(put_credential_request::Credential::Oauth2(tokens)),
        ..PutCredentialRequest::default()
    };
    world.vault(&vault).put_credential(request).await.unwrap();
    let credential = renewed(&world, &vault, grant).await;
    assert_eq!(credential.version, 2);
    assert_ne!(token_of(&credential), issued.access_token);
    assert!(world.works(&token_of(&credential)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_renewed_ends_with_its_token() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let never = world.sim.control().configure("oidc", |provider| {
        provider.refresh_tokens = RefreshTokens::Never;
    });
    never.await.unwrap();
    let grant = world.connect(&vault).await;
    assert!(!world.describe(&vault, grant).await.has_refresh_token);
    world.expire(grant).await;
    let error = world
        .get(&vault, grant)
        .await
        .expect_err("nothing renews it");
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
    let described = world.describe(&vault, grant).await;
    assert_eq!(
        described.reauthorization_cause(),
        ReauthorizationCause::Expired
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_proves_itself_with_a_key_in_the_code_flow_too() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let known = SimClient {
        public_key: Some(pair.public_key_pem()),
        auth_methods: BTreeSet::from([ClientAuth::PrivateKeyJwt]),
        client_secrets: Vec::new(),
        ..SimClient::confidential("vault", "", &["http://127.0.0.1:1/callback"])
    };
    let registered = world.sim.control().register_client("oidc", known);
    registered.await.unwrap();
    let client = OAuthClient {
        auth_method: ClientAuthMethod::PrivateKeyJwt as i32,
        client_secret: pair.serialize_pem(),
        ..world.oauth_client("")
    };
    put(&world, &vault, client).await.unwrap();
    let grant = world.connect(&vault).await;
    let credential = renewed(&world, &vault, grant).await;
    assert!(world.works(&token_of(&credential)).await);
}

/// The provider's side of a rotation: which secrets it takes.
async fn takes(world: &World, secrets: &[&str]) {
    let known = SimClient {
        client_secrets: secrets.iter().map(ToString::to_string).collect(),
        ..SimClient::confidential("vault", "", &["http://127.0.0.1:1/callback"])
    };
    let registered = world.sim.control().register_client("oidc", known);
    registered.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_are_tried_during_a_rotation_and_the_older_one_ends() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let rotating = |ends_in: i64| OAuthClient {
        previous_client_secret: "s3cret & more".into(),
        previous_client_secret_expires_at: Some(prost_types::Timestamp {
            seconds: world.deps.now().unix_timestamp() + ends_in,
            nanos: 0,
        }),
        ..world.oauth_client("the new one")
    };
    put(&world, &vault, rotating(3600)).await.unwrap();
    // The provider knows the older one, then both, then the newer one.
    for (version, secrets) in [
        (2, &["s3cret & more"][..]),
        (3, &["s3cret & more", "the new one"]),
        (4, &["the new one"]),
    ] {
        takes(&world, secrets).await;
        let credential = renewed(&world, &vault, grant).await;
        assert_eq!(credential.version, version);
    }
    let described = world.describe(&vault, grant).await;
    assert_eq!(described.consecutive_failures, 0);

    takes(&world, &["s3cret & more"]).await;
    put(&world, &vault, rotating(-1)).await.unwrap();
    world.expire(grant).await;
    let request = world.get_request(grant);
    let error = get_at(&mut world.vault(&vault), request)
        .await
        .expect_err("the older secret has ended");
    assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
    let described = world.describe(&vault, grant).await;
    assert_eq!(described.state(), GrantState::Active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_tokens_are_sent_to_be_revoked() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let asked = Authorization::ClientCredentials(ClientCredentials {
        scopes: vec!["records.read".into()],
    });
    let made = exchange(&world, &vault, asked, &[]).await.unwrap();
    let token = token_of(&world.get(&vault, id_of(&made)).await.unwrap());
    let request = RevokeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: made.grant_id,
        ..RevokeGrantRequest::default()
    };
    let answer = world.vault(&vault).revoke_grant(request).await.unwrap();
    assert!(answer.into_inner().revoked_at_provider);
    assert_eq!(world.sim.control().counters().calls_to("revoke"), 1);
    assert!(!world.works(&token).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_would_prove_itself_twice_or_not_at_all_is_refused() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let twice = ["client_secret", "client_assertion"];
    let client = OAuthClient {
        token_params: twice.map(|name| (name.to_owned(), "x".to_owned())).into(),
        ..world.oauth_client("s")
    };
    let error = put(&world, &vault, client).await.expect_err("twice");
    let mut fields: Vec<_> = error.fields.iter().map(|wrong| &wrong.field).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "oauth_client.token_params.client_assertion",
            "oauth_client.token_params.client_secret"
        ]
    );
    let client = OAuthClient {
        auth_method: ClientAuthMethod::PrivateKeyJwt as i32,
        previous_client_secret: "no key".into(),
        previous_client_secret_expires_at: Some(prost_types::Timestamp {
            seconds: world.deps.now().unix_timestamp() + 3600,
            nanos: 0,
        }),
        ..world.oauth_client("no key either")
    };
    let error = put(&world, &vault, client).await.expect_err("no keys");
    let fields: Vec<_> = error.fields.iter().map(|wrong| &wrong.field).collect();
    assert_eq!(
        fields,
        [
            "oauth_client.client_secret",
            "oauth_client.previous_client_secret"
        ]
    );
}
