//! Secrets that would be known again, planted wherever there are any: nobody finds them where they are kept or told of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::TenantKey;
use common::identity::Identity;
use contracts::broker::v1 as broker;
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::import_connection_request::Credential;
use contracts::directory::v1 as directory;
use contracts::directory::v1::api_key_service_client::ApiKeyServiceClient;
use contracts::ingest::v1 as ingest;
use contracts::ingest::v1::webhook_source_service_client::WebhookSourceServiceClient;
use contracts::vault::v1 as vault;
use contracts::vault::v1::exchange_authorization_request::Authorization;
use contracts::vault::v1::service_key_service_client::ServiceKeyServiceClient;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use e2e::Home;
use http::Method;
use prost_types::Timestamp;
use provider_sim::browser::Browser;
use serde_json::json;
use tokio_postgres::NoTls;
use tonic::Status;

use crate::calls;
use crate::descriptors::Contracts;
use crate::path::{self, USER};
use crate::sink::Sink;
use crate::system::{System, request};
use crate::webhooks;

/// Secrets, by what they are.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

/// Where they must not be, by what it is.
#[derive(Default)]
struct Places(Vec<(String, Vec<u8>)>);

/// What is no secret of length, or said by itself in many places.
const SHORTEST: usize = 12;

impl Canaries {
    /// A secret of one's own choice.
    fn make(&mut self, system: &System, what: &str) -> String {
        let secret = format!("canary-{}-{}", system.unique(), system.unique());
        self.keep(what, &secret);
        secret
    }

    /// A secret that was made elsewhere.
    fn keep(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= SHORTEST, "{what} is too short to be known");
        self.0.insert(what.to_owned(), secret.to_owned());
    }

    /// Each as it is, and as it is often written.
    fn forms(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.0.iter().map(|(what, secret)| {
            let forms = vec![
                secret.clone(),
                hex::encode(secret),
                STANDARD_NO_PAD.encode(secret),
                URL_SAFE_NO_PAD.encode(secret),
                url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            ];
            (what.as_str(), forms)
        })
    }
}

impl Places {
    fn add(&mut self, place: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.push((place.into(), content.into()));
    }

    fn refusal(&mut self, what: &str, status: &Status) {
        let told = format!("{status:?} {}", status.message());
        self.add(what, [told.as_bytes(), status.details()].concat());
    }

    fn search(&self, canaries: &Canaries) -> Vec<String> {
        let mut found = Vec::new();
        for (place, content) in &self.0 {
            let content = String::from_utf8_lossy(content);
            for (what, forms) in canaries.forms() {
                if forms.iter().any(|form| content.contains(form.as_str())) {
                    found.push(format!("{what} is in {place}"));
                }
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_where_it_does_not_belong() {
    let sink = Sink::default();
    let endpoint = format!("http://{}", sink.serve().await);
    let home = Home::new().expect("a folder");
    let up = home
        .up()
        .set("telemetry.otlp.endpoint", &endpoint)
        .set("telemetry.otlp.interval", "1s")
        .set("telemetry.log_filter", "debug")
        // A client that the provider refuses is something to look at.
        .expect("refresh_failed")
        .expect("exchange_failed")
        .expect("authorization_request_failed");
    let system = System::of(up.start().await.expect("hawser up becomes ready"));
    let mut canaries = Canaries::default();
    let mut places = Places::default();
    let tenant = path::tenant(&system, "canary").await;
    connect(&system, &tenant, &mut canaries).await;
    import(&system, &tenant, &mut canaries, &mut places).await;
    hooks(&system, &tenant, &mut canaries, &mut places).await;
    callers(&system, &tenant, &mut canaries, &mut places).await;
    vault(&system, &tenant, &mut canaries, &mut places).await;
    for entry in fs::read_dir(system.data_dir().join("keys")).expect("hawser up made it") {
        let path = entry.expect("it can be listed").path();
        if !path.to_string_lossy().ends_with(".pub.pem") {
            let secret = fs::read_to_string(&path).expect("it is text");
            // Of a key in PEM what lies between its lines' ends.
            let secret = secret.lines().nth(1).unwrap_or(secret.trim());
            canaries.keep(&path.display().to_string(), secret);
        }
    }

    let metrics = format!("{}/metrics", system.admin_url());
    let metrics = request(Method::GET, &metrics, &[], Bytes::new()).await;
    places.add("the metrics", metrics.body);
    dump(&system, &mut places).await;
    let data_dir = system.data_dir().to_owned();
    places.add("the log", system.process().stderr());
    let process_out = system.process().stdout();
    system.hawser.finish().await;
    places.add("what it prints", process_out);
    for (kind, content) in sink.signals() {
        places.add(format!("the exported {kind}"), content);
    }
    for file in ["hawser.json", "postgres/postgres.log"] {
        let content = fs::read(data_dir.join(file)).expect("hawser up wrote it");
        places.add(file, content);
    }
    files(&data_dir.join("spool"), &mut places);
    assert!(sink.signals().len() > 3, "nothing was exported");
    let found = places.search(&canaries);
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
}

/// The way of a browser, with everything secret that is on it.
async fn connect(system: &System, tenant: &str, canaries: &mut Canaries) {
    let integration = path::procore(system, tenant).await;
    canaries.keep("the client's secret", path::CLIENT_SECRET);
    let session = path::session(system, tenant, &integration).await;
    let token = session.connect_url.rsplit('/').next();
    canaries.keep("the connect link's token", token.expect("a URL has a path"));
    let mut browser = Browser::new();
    let consent = path::begin(&mut browser, &session.connect_url).await;
    let back = browser
        .consent(consent.as_str(), "alice")
        .await
        .expect("the provider's consent page");
    for parameter in ["code", "state"] {
        let value = back.redirect_parameter(parameter).expect("it is sent back");
        canaries.keep(&format!("the authorization's {parameter}"), &value);
    }
    path::arrive(system, &mut browser, back).await;
    let connection = path::succeeded(system, &session).await;
    let first = path::request_context(system, &connection, 0).await;
    let second = path::request_context(system, &connection, first.credential_version).await;
    canaries.keep("an access token", &first.access_token);
    canaries.keep("a refreshed access token", &second.access_token);
}

/// Credentials that come from elsewhere; one of them the provider refuses.
async fn import(system: &System, tenant: &str, canaries: &mut Canaries, places: &mut Places) {
    let mut client = ConnectServiceClient::new(system.to("broker"));
    let request = |integration: &str, user: &str, credential| broker::ImportConnectionRequest {
        request_id: system.unique(),
        tenant_id: tenant.to_owned(),
        user_id: user.to_owned(),
        user_email: format!("{user}@app.example"),
        integration_id: integration.to_owned(),
        credential: Some(credential),
        ..broker::ImportConnectionRequest::default()
    };
    let made = path::integration(system, tenant, "api-key", "", &json!({})).await;
    let key = Credential::ApiKey(canaries.make(system, "an imported key"));
    let asked = request(&made.integration_id, "key-user", key);
    client
        .import_connection(asked)
        .await
        .expect("a key is kept");

    let made = path::integration(system, tenant, "basic", "", &json!({})).await;
    let password = Credential::Password(broker::ImportedPassword {
        username: "somebody".to_owned(),
        password: canaries.make(system, "an imported password"),
    });
    let asked = request(&made.integration_id, "password-user", password);
    client
        .import_connection(asked)
        .await
        .expect("a password is kept");

    let sim = format!("{}/procore/oauth", system.http("provider_sim"));
    let overrides = json!({"endpoints": {
        "authorization": format!("{sim}/authorize"),
        "token": format!("{sim}/token"),
    }});
    let secret = canaries.make(system, "another client's secret");
    let made = path::integration(system, tenant, "oauth2", &secret, &overrides).await;
    let tokens = Credential::Tokens(broker::ImportedTokens {
        access_token: canaries.make(system, "an imported access token"),
        refresh_token: canaries.make(system, "an imported refresh token"),
        expires_at: Some(in_an_hour(system)),
        scopes: Vec::new(),
    });
    let asked = request(&made.integration_id, "token-user", tokens);
    let imported = client
        .import_connection(asked)
        .await
        .expect("tokens are kept");
    let connection = imported.into_inner().connection.expect("the answer has it");
    // The provider knows neither the client nor the token.
    let request = broker::GetRequestContextRequest {
        tenant_id: tenant.to_owned(),
        connection_id: connection.connection_id,
        refused_credential_version: 1,
        ..broker::GetRequestContextRequest::default()
    };
    let refused = ConnectionServiceClient::new(system.to("broker"))
        .get_request_context(request)
        .await
        .expect_err("it cannot be refreshed");
    places.refusal("the error of a refresh", &refused);
}

/// Webhooks: good ones, forged ones, and a secret that is none.
async fn hooks(system: &System, tenant: &str, canaries: &mut Canaries, places: &mut Places) {
    let integration = path::integration(system, tenant, "api-key", "", &json!({})).await;
    let mut client = WebhookSourceServiceClient::new(system.to("ingest"));
    let request = |secret: &str| ingest::CreateSourceRequest {
        request_id: system.unique(),
        source: Some(ingest::Source {
            tenant_id: tenant.to_owned(),
            integration_id: integration.integration_id.clone(),
            scheme: "standard-webhooks".to_owned(),
            ..ingest::Source::default()
        }),
        secret: secret.to_owned(),
    };
    let none = format!(
        "whsec_{}",
        canaries.make(system, "a webhook secret of no form")
    );
    let refused = client
        .create_source(request(&none))
        .await
        .expect_err("it is not base64");
    places.refusal("the error of a webhook secret", &refused);

    canaries.keep(
        "a webhook secret",
        webhooks::SECRET.trim_start_matches("whsec_"),
    );
    let made = client.create_source(request(webhooks::SECRET)).await;
    let source = made.expect("a webhook source").into_inner();
    let source = source.source.expect("the answer has it");
    let token = source.url.rsplit('/').next().expect("a URL has a path");
    canaries.keep("a source's token", token);
    let body = webhooks::body("0", 1);
    let sent = webhooks::send(system, &source, "msg_canary", &body).await;
    assert!(sent.is_success(), "{sent}");
    let forged = canaries.make(system, "a forged signature");
    let now = system.deps.now().unix_timestamp();
    let refused = webhooks::send_signed(&source, "msg_forged", now, &forged, &body).await;
    assert!(refused.is_client_error(), "{refused}");
}

/// What callers prove themselves with, good and bad.
async fn callers(system: &System, tenant: &str, canaries: &mut Canaries, places: &mut Places) {
    let key = directory::ApiKey {
        display_name: "a canary".to_owned(),
        tenant_ids: vec![tenant.to_owned()],
        role: "host".to_owned(),
        ..directory::ApiKey::default()
    };
    let request = directory::CreateApiKeyRequest {
        request_id: system.unique(),
        api_key: Some(key),
    };
    let made = ApiKeyServiceClient::new(system.to("directory"))
        .create_api_key(request)
        .await
        .expect("an API key")
        .into_inner();
    canaries.keep("an API key", &made.secret);
    let token = system.user_token(tenant, USER, &[]).expect("it is minted");
    canaries.keep("a user's token", &token);
    let (_, signature) = token.rsplit_once('.').expect("a token has three parts");
    canaries.keep("a user's token's signature", signature);
    let unknown = format!(
        "hk_{}",
        canaries.make(system, "an API key that nobody made")
    );
    let none = canaries.make(system, "a token that is none");

    let contracts = Contracts::load();
    let method = contracts.method("ConnectionService/ListConnections");
    for bearer in [made.secret, token, unknown, none] {
        let caller = system.anonymous().with_token("a canary", &bearer);
        for service in ["broker", "directory"] {
            let connection = system.connect(&caller, service);
            if let Err(status) = calls::call(&connection, method, Bytes::new()).await {
                places.refusal("what a caller is told", &status);
            }
        }
    }
}

/// What the vault alone is told: keys that sign, secrets that take turns, codes, and keys that it derives.
async fn vault(system: &System, tenant: &str, canaries: &mut Canaries, places: &mut Places) {
    let tenant_key = TenantKey::parse(tenant).expect("an id");
    let broker = system.certified(Identity::Service("oauth-broker".to_owned()));
    let channel = system.connect(&broker, "vault");
    let mut client = TokenVaultServiceClient::new(channel.clone());
    let signing = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    canaries.keep("a signing key", signing.lines().nth(1).expect("a line"));
    let sim = system.http("provider_sim").to_owned();
    let oauth_client = vault::OAuthClient {
        tenant_id: tenant.to_owned(),
        oauth_client_id: tenant_key.new_id(&system.deps).to_string(),
        provider: "oauth2".to_owned(),
        token_endpoint: format!("{sim}/oauth/token"),
        pushed_authorization_request_endpoint: format!("{sim}/oauth/par"),
        device_authorization_endpoint: format!("{sim}/oauth/device_authorization"),
        client_id: "sim-oidc".to_owned(),
        ..vault::OAuthClient::default()
    };
    let of_a_secret = vault::OAuthClient {
        auth_method: vault::ClientAuthMethod::SecretPost.into(),
        client_secret: canaries.make(system, "a client's new secret"),
        previous_client_secret: canaries.make(system, "a client's secret of before"),
        previous_client_secret_expires_at: Some(in_an_hour(system)),
        ..oauth_client.clone()
    };
    let of_a_key = vault::OAuthClient {
        oauth_client_id: tenant_key.new_id(&system.deps).to_string(),
        auth_method: vault::ClientAuthMethod::PrivateKeyJwt.into(),
        client_secret: signing,
        ..oauth_client
    };
    for kept in [&of_a_secret, &of_a_key] {
        let request = vault::PutOAuthClientRequest {
            oauth_client: Some(kept.clone()),
        };
        client.put_o_auth_client(request).await.expect("it is kept");
        // The provider knows neither, and says so.
        let request = vault::ExchangeAuthorizationRequest {
            tenant_id: tenant.to_owned(),
            oauth_client_id: kept.oauth_client_id.clone(),
            grant_id: tenant_key.new_id(&system.deps).to_string(),
            authorization: Some(Authorization::AuthorizationCode(vault::AuthorizationCode {
                code: canaries.make(system, "a code that is none"),
                redirect_uri: "https://app.example/callback".to_owned(),
                code_verifier: canaries.make(system, "a verifier") + &"v".repeat(43),
                nonce: String::new(),
            })),
            ..vault::ExchangeAuthorizationRequest::default()
        };
        let refused = client.exchange_authorization(request).await;
        places.refusal("the error of an exchange", &refused.expect_err("unknown"));
        let request = vault::PushAuthorizationRequestRequest {
            tenant_id: tenant.to_owned(),
            oauth_client_id: kept.oauth_client_id.clone(),
            ..vault::PushAuthorizationRequestRequest::default()
        };
        let refused = client.push_authorization_request(request).await;
        places.refusal("the error of a push", &refused.expect_err("unknown"));
        let request = vault::StartDeviceAuthorizationRequest {
            tenant_id: tenant.to_owned(),
            oauth_client_id: kept.oauth_client_id.clone(),
            ..vault::StartDeviceAuthorizationRequest::default()
        };
        let refused = client.start_device_authorization(request).await;
        places.refusal("the error of a device", &refused.expect_err("unknown"));
    }
    let request = vault::GetServiceKeyRequest {
        tenant_id: tenant.to_owned(),
        key_version: 0,
    };
    let key = ServiceKeyServiceClient::new(channel)
        .get_service_key(request)
        .await
        .expect("a key")
        .into_inner();
    canaries.keep("a service's key", &hex::encode(&key.key));
    canaries.keep(
        "a service's key in base64",
        &STANDARD_NO_PAD.encode(&key.key),
    );
}

fn in_an_hour(system: &System) -> Timestamp {
    Timestamp {
        seconds: system.deps.now().unix_timestamp() + 3600,
        nanos: 0,
    }
}

/// Every row of every table, as the superuser sees it.
async fn dump(system: &System, places: &mut Places) {
    let password = fs::read_to_string(&system.instance.database_password_file).expect("a file");
    let mut config: tokio_postgres::Config = system.instance.database_url.parse().expect("a URL");
    config.password(password.trim());
    let (client, connection) = config.connect(NoTls).await.expect("the superuser is taken");
    tokio::spawn(connection);
    let sql = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let tables = client.query(sql, &[]).await.expect("a list");
    assert!(tables.len() > 30, "there are only {} tables", tables.len());
    for table in tables {
        let table: String = table.get(0);
        let rows = client
            .query(&format!("SELECT t::text FROM {table} t"), &[])
            .await
            .expect("its rows");
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        places.add(format!("the table {table}"), rows.join("\n"));
    }
}

fn files(folder: &Path, places: &mut Places) {
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            files(&path, places);
        } else {
            let content = fs::read(&path).expect("it can be read");
            places.add(path.display().to_string(), content);
        }
    }
}

#[test]
fn a_secret_is_found_in_every_form() {
    let mut canaries = Canaries::default();
    canaries.keep("a secret", "canary/with signs");
    for form in [
        "a canary/with signs",
        "\\x63616e6172792f77697468207369676e73",
        "\"Y2FuYXJ5L3dpdGggc2lnbnM=\"",
        "?a=canary%2Fwith+signs",
    ] {
        let mut places = Places::default();
        places.add("a place", form);
        assert_eq!(
            places.search(&canaries),
            ["a secret is in a place"],
            "{form}"
        );
    }
}
