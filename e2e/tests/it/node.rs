//! What others wrote in JavaScript: a certified OpenID provider, and the signers of webhooks.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use contracts::broker::v1 as broker;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use e2e::{Home, Process};
use http::{Method, StatusCode};
use provider_sim::browser::Browser;
use serde_json::{Value, json};
use testkit::eventually;

use crate::path::{self, PATIENCE};
use crate::readme;
use crate::system::{System, request};
use crate::webhooks;

const INTEGRATION: &str = "openid-provider";
const STARTED: Duration = Duration::from_secs(30);

/// A program of `e2e/node`, with the packages that lie beside it.
fn node(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command
        .arg(e2e::root().join("e2e/node").join(program))
        .args(arguments);
    command
}

/// A signature made by the package of a scheme's authors.
fn sign(arguments: &[&str], body: &str) -> String {
    let mut child = node("sign.mjs", arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(body.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "the signer ended with {}",
        output.status
    );
    String::from_utf8(output.stdout).expect("a signature is ASCII")
}

/// What the OpenID provider has told so far.
fn told(provider: &Process) -> Vec<Value> {
    provider
        .stdout()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn tokens(provider: &Process, grant_type: &str) -> Vec<Value> {
    told(provider)
        .into_iter()
        .filter(|event| event["event"] == "token" && event["grant_type"] == grant_type)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_integration() {
    readme::first_integration(async |folder| {
        let packages = e2e::root().join("e2e/node_modules");
        std::os::unix::fs::symlink(&packages, folder.join("node_modules")).expect("a link");
        std::fs::write(folder.join("package.json"), r#"{"type": "module"}"#).expect("written");
        std::fs::write(folder.join("main.ts"), readme::program("ts")).expect("written");
        let compiled = Command::new(packages.join(".bin/tsc"))
            .args(["--strict", "--target", "es2022", "--module", "nodenext"])
            .args(["--types", "node", "main.ts"])
            .current_dir(folder)
            .output()
            .expect("tsc runs");
        assert!(compiled.status.success(), "{compiled:?}");
        let mut node = tokio::process::Command::new("node");
        node.arg("main.js");
        node
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oidc_provider() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let tenant = path::tenant(&system, "openid").await;

    // The redirect URI is known before the integration is: discovery needs the provider to be there.
    let redirect_uri = format!("{}/oauth/callback/{INTEGRATION}", system.http("broker"));
    let command = node("openid-provider.mjs", &[&redirect_uri]);
    let provider = Process::start("openid-provider", command, home.path()).expect("node runs");
    let ready = provider
        .line("ready", STARTED)
        .await
        .expect("it becomes ready");
    let issuer = ready.trim_start_matches("ready ");

    integrate(&system, &tenant, issuer, &redirect_uri).await;
    let connection = authorize(&system, &provider, &tenant, issuer).await;
    refresh(&system, &provider, &connection, issuer).await;
    revoke(&system, &provider, &connection).await;
    let refused: Vec<_> = told(&provider)
        .into_iter()
        .filter(|event| event["event"] == "refused")
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    system.hawser.finish().await;
}

/// The issuer alone, as the catalogue's entry promises.
async fn integrate(system: &System, tenant: &str, issuer: &str, redirect_uri: &str) {
    let integration = broker::Integration {
        tenant_id: tenant.to_owned(),
        integration_id: INTEGRATION.to_owned(),
        provider: "oidc".to_owned(),
        display_name: "A certified provider".to_owned(),
        client_id: "hawser".to_owned(),
        client_secret: "a-client-secret-of-the-openid-provider".to_owned(),
        overrides: Some(path::to_struct(&json!({"issuer": issuer}))),
        ..broker::Integration::default()
    };
    let request = broker::CreateIntegrationRequest {
        request_id: system.unique(),
        integration: Some(integration),
    };
    let made = IntegrationServiceClient::new(system.to("broker"))
        .create_integration(request)
        .await
        .expect("an integration by its issuer alone")
        .into_inner();
    let made = made.integration.expect("the answer has it");
    assert_eq!(made.redirect_uri, redirect_uri);
}

/// Through the provider's own login and consent pages.
async fn authorize(
    system: &System,
    provider: &Process,
    tenant: &str,
    issuer: &str,
) -> broker::Connection {
    let session = path::session(system, tenant, INTEGRATION).await;
    let mut browser = Browser::new();
    let authorize = path::begin(&mut browser, &session.connect_url).await;
    assert!(authorize.as_str().starts_with(issuer), "{authorize}");
    let login = browser
        .open(authorize.as_str())
        .await
        .expect("a login page");
    let form = login.form().expect("a login form");
    let sent = browser
        .submit(&form, &[("login", "erin"), ("password", "any")])
        .await
        .expect("an answer");
    let consent = browser.follow(sent).await.expect("a consent page");
    let form = consent.form().expect("a consent form");
    let mut back = browser.submit(&form, &[]).await.expect("an answer");
    while let Some(next) = back
        .redirect()
        .filter(|next| next.as_str().starts_with(issuer))
    {
        back = browser
            .get(next.as_str())
            .await
            .expect("the provider answers");
    }
    path::arrive(system, &mut browser, back).await;
    let connection = path::succeeded(system, &session).await;

    assert_eq!(connection.external_user_id, "erin");
    assert_eq!(connection.state(), broker::ConnectionState::Connected);
    let scopes = &connection.scopes;
    assert!(scopes.contains(&"openid".to_owned()), "{scopes:?}");
    let authorized = json!({"event": "authorized", "pkce": "S256"});
    let said = told(provider);
    assert!(said.contains(&authorized), "{said:?}");
    let exchanged = tokens(provider, "authorization_code");
    let [exchanged] = exchanged.as_slice() else {
        panic!("the code was exchanged {} times", exchanged.len());
    };
    assert_eq!(exchanged["verified"], true, "PKCE's verifier came with it");
    assert_eq!(exchanged["refresh_token"], true, "access that lasts");
    connection
}

/// The token is good, and so is each one that a refresh gives; the provider ends the grant where an old refresh token
/// is used again.
async fn refresh(
    system: &System,
    provider: &Process,
    connection: &broker::Connection,
    issuer: &str,
) {
    let mut context = path::request_context(system, connection, 0).await;
    for refreshes in 1..=3 {
        let before = context.access_token.clone();
        context = path::request_context(system, connection, context.credential_version).await;
        assert_ne!(context.access_token, before, "a refused one is replaced");
        assert_eq!(tokens(provider, "refresh_token").len(), refreshes);
        let authorization = format!("Bearer {}", context.access_token);
        let headers = [("authorization", authorization.as_str())];
        let url = format!("{issuer}/me");
        let me = request(Method::GET, &url, &headers, Bytes::new()).await;
        assert_eq!(me.status, StatusCode::OK, "{}", me.text());
        assert_eq!(me.json().expect("it is JSON")["sub"], "erin");
    }
}

async fn revoke(system: &System, provider: &Process, connection: &broker::Connection) {
    let request = broker::DisconnectRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        delete_documents: false,
    };
    let ended = ConnectionServiceClient::new(system.to("broker"))
        .disconnect(request)
        .await
        .expect("the connection ends");
    assert!(ended.into_inner().revoked_at_provider);
    let revoked = json!({"event": "revoked"});
    eventually(PATIENCE, async || told(provider).contains(&revoked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standardwebhooks_and_octokit() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let connected = path::connected(&system, "webhooks").await;
    path::initial_sync(&system, &connected).await;
    let account = connected
        .connection
        .active_account
        .as_ref()
        .expect("it has one")
        .external_account_id
        .clone();
    standardwebhooks(&system, &connected, &account).await;
    octokit(&system, &connected, &account).await;
    system.hawser.finish().await;
}

async fn standardwebhooks(system: &System, connected: &path::Connected, account: &str) {
    let source = path::source(
        system,
        connected,
        "standard-webhooks",
        webhooks::SECRET,
        &["projects"],
    )
    .await;
    let body = webhooks::body(account, 1);
    let now = system.deps.now().unix_timestamp();
    let id = "msg_of_standardwebhooks";
    let signature = sign(
        &["standard-webhooks", webhooks::SECRET, id, &now.to_string()],
        &body,
    );
    let forged = body.replace("\"number\":1", "\"number\":2");
    assert_ne!(forged, body);
    let refused = webhooks::send_signed(&source, id, now, &signature, &forged).await;
    assert!(
        refused.is_client_error(),
        "a forged webhook is answered {refused}"
    );
    // Sent again, as who got no answer does.
    for _ in 0..2 {
        let taken = webhooks::send_signed(&source, id, now, &signature, &body).await;
        assert!(taken.is_success(), "{taken}");
    }
    path::synced(system, &source, id).await;
    assert_eq!(
        path::events(system, &source).await.len(),
        1,
        "a repeat is none"
    );
}

async fn octokit(system: &System, connected: &path::Connected, account: &str) {
    let secret = "a-secret-of-a-github-app";
    let source = path::source(system, connected, "github", secret, &["projects"]).await;
    let account: u64 = account.parse().expect("Procore's ids are numbers");
    let body =
        json!({"action": "edited", "organization": {"id": account, "login": "acme"}}).to_string();
    let signature = sign(&["github", secret], &body);
    let delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let send = async |signature: &str, delivery: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/e2e"),
            ("x-github-event", "repository"),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", signature),
        ];
        let body = Bytes::from(body.clone());
        let answer = request(Method::POST, &source.url, &headers, body).await;
        answer.status
    };
    let forged = sign(&["github", "another-secret"], &body);
    let refused = send(&forged, "72d3162e-cc78-11e3-81ab-000000000000").await;
    assert!(
        refused.is_client_error(),
        "a forged webhook is answered {refused}"
    );
    for _ in 0..2 {
        let taken = send(&signature, delivery).await;
        assert!(taken.is_success(), "{taken}");
    }
    path::synced(system, &source, delivery).await;
    let events = path::events(system, &source).await;
    let [event] = events.as_slice() else {
        panic!("there are {} events of one delivery", events.len());
    };
    assert_eq!(event.event_type, "repository");
}
