//! The broker with everything around it.

use std::net::SocketAddr;

use common::identity::authority::Authority;
use common::identity::tls::{Tls, TlsConfig};
use common::identity::{Identity, IssuerConfig};
use common::lifecycle::{Process, Shutdown};
use common::rpc::{
    CallError, Channel, Client, ClientConfig, Guard, IdentityConfig, Server, ServerConfig,
};
use common::service::{Listeners, Runtime, Service as _};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Deps, TenantKey};
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::broker::v1::*;
use contracts::directory::v1::directory_service_server::DirectoryServiceServer;
use contracts::vault::v1::service_key_service_server::ServiceKeyServiceServer;
use contracts::vault::v1::token_vault_service_server::TokenVaultServiceServer;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use oauth_broker::{Config, OauthBroker, SCHEMA};
use provider_sim::browser::{Browser, Page};
use provider_sim::config::{ClientAuth, ClientConfig as SimClient};
use provider_sim::{SimConfig, Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::TestDatabase;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use url::Url;

use crate::directory::Directory;
use crate::vault::Vault;

pub(crate) const HOST: &str = "spiffe://hawser/host/app";
pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/kim";
pub(crate) const INGEST: &str = "spiffe://hawser/webhook-ingest";
pub(crate) const APP: &str = "https://app.example.com";

pub(crate) struct World {
    pub(crate) deps: Deps,
    pub(crate) database: TestDatabase,
    pub(crate) vault: Vault,
    pub(crate) directory: Directory,
    pub(crate) sim: Simulator,
    pub(crate) tenant: TenantKey,
    pub(crate) base: String,
    pub(crate) process: Process,
    authority: Authority,
    grpc: SocketAddr,
    key: EncodingKey,
    stand_ins: Shutdown,
    _folder: TempDir,
    logs: testkit::logs::Logs,
}

impl World {
    pub(crate) async fn new() -> Self {
        let logs = testkit::logs::capture();
        for expected in [
            "a user could not be connected",
            "failed; trying again",
            "another service cannot be had",
            "a page could not be shown",
        ] {
            logs.expect(expected);
        }
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let deps = testkit::deps();
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let database = TestDatabase::create(&[&SCHEMA]).await;
        let stand_ins = Shutdown::new();
        let vault = Vault::new(&deps);
        let directory = Directory::default();
        let vault_at = stand_in("token-vault", &authority, &deps, &stand_ins, |server| {
            let keys = ServiceKeyServiceServer::new(vault.clone());
            server
                .service(TokenVaultServiceServer::new(vault.clone()))
                .service(keys)
        })
        .await;
        let directory_at = stand_in(
            "tenant-directory",
            &authority,
            &deps,
            &stand_ins,
            |server| server.service(DirectoryServiceServer::new(directory.clone())),
        )
        .await;

        let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public_key = folder.path().join("jwt.pem");
        std::fs::write(&public_key, key_pair.public_key_pem()).unwrap();
        let key = EncodingKey::from_ed_pem(key_pair.serialize_pem().as_bytes()).unwrap();
        let tls = authority
            .issue(&Identity::service("oauth-broker"), &[])
            .unwrap();
        let mut config = Config {
            grpc: ServerConfig {
                tls,
                ..ServerConfig::default()
            },
            identity: issuers(public_key),
            database: database.config("broker"),
            vault: ClientConfig {
                address: vault_at.to_string(),
            },
            directory: ClientConfig {
                address: directory_at.to_string(),
            },
            ..Config::default()
        };
        config.egress.allow_loopback_http = true;
        config.upkeep.interval = common::config::Duration::from_millis(200);
        config.pages.product_name = "Plumbline <&> Co".into();
        config.pages.action_url = "https://app.example.com/{action}/{integration_id}".into();

        let sink = BoxMakeWriter::new(std::io::sink);
        let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
        let process = Process::new(telemetry);
        let runtime = Runtime {
            deps: deps.clone(),
            ..Runtime::new(&process, OauthBroker::NAME)
        };
        let (grpc, http) = (listener().await, listener().await);
        let (grpc_at, base) = (
            grpc.local_addr().unwrap(),
            format!("http://{}", http.local_addr().unwrap()),
        );
        let listeners = Listeners {
            grpc: Some(grpc),
            http: Some(http),
        };
        OauthBroker::start(config, listeners, runtime)
            .await
            .unwrap();

        let sim = Simulator::start(SimConfig::default(), listener().await)
            .await
            .unwrap();
        let tenant = TenantKey::new_tenant(&deps);
        directory.add(tenant, "Acme <b>Ltd</b>", &[APP]);
        Self {
            deps,
            database,
            vault,
            directory,
            sim,
            tenant,
            base,
            process,
            authority,
            grpc: grpc_at,
            key,
            stand_ins,
            _folder: folder,
            logs,
        }
    }

    pub(crate) fn expect_log(&self, text: &str) {
        self.logs.expect(text);
    }

    fn channel(&self, identity: &str) -> Channel {
        let identity = Identity::from_spiffe(identity).unwrap();
        let tls = self.authority.issue(&identity, &[]).unwrap();
        let tls = Tls::load(&tls, self.deps.clock.clone()).unwrap();
        let config = ClientConfig {
            address: self.grpc.to_string(),
        };
        Client::new(tls, &self.deps)
            .channel("oauth-broker", &config)
            .unwrap()
    }

    pub(crate) fn integrations(&self) -> IntegrationServiceClient<Channel> {
        IntegrationServiceClient::new(self.channel(OPERATOR))
    }

    pub(crate) fn connect(&self) -> ConnectServiceClient<Channel> {
        ConnectServiceClient::new(self.channel(HOST))
    }

    pub(crate) fn connections(&self) -> ConnectionServiceClient<Channel> {
        self.connections_as(HOST)
    }

    pub(crate) fn connections_as(&self, identity: &str) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel(identity))
    }

    /// A request that bears the token of a user.
    pub(crate) fn as_user<T>(
        &self,
        tenant: TenantKey,
        user: &str,
        request: T,
    ) -> tonic::Request<T> {
        let exp = self.deps.now().unix_timestamp() + 600;
        let claims = json!({"iss": "https://app.example", "aud": "hawser", "exp": exp, "sub": user, "tenant_id": tenant.to_string()});
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key).unwrap();
        let mut request = tonic::Request::new(request);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    /// An integration with the simulated provider, whose client knows the redirect URI.
    pub(crate) async fn integration(
        &self,
        provider: &str,
        slug: &str,
        change: impl FnOnce(&mut Integration),
    ) -> Integration {
        let mut wanted = Integration {
            tenant_id: self.tenant.to_string(),
            integration_id: format!("my-{provider}"),
            provider: provider.into(),
            client_id: "client".into(),
            client_secret: "s3cret".into(),
            overrides: Some(structure(&overrides(
                &self.sim.control().issuer(slug).unwrap(),
                provider,
            ))),
            ..Integration::default()
        };
        change(&mut wanted);
        let redirect_uri = format!("{}/oauth/callback/{}", self.base, wanted.integration_id);
        let mut client = SimClient::confidential(&wanted.client_id, "s3cret", &[&redirect_uri]);
        client.auth_methods = [ClientAuth::ClientSecretBasic, ClientAuth::ClientSecretPost].into();
        client.service_user = Some("alice".into());
        if !wanted.client_id.is_empty() {
            self.sim
                .control()
                .register_client(slug, client)
                .await
                .unwrap();
        }
        let request = CreateIntegrationRequest {
            request_id: String::new(),
            integration: Some(wanted),
        };
        let made = self
            .integrations()
            .create_integration(request)
            .await
            .unwrap()
            .into_inner()
            .integration
            .unwrap();
        assert_eq!(made.redirect_uri, redirect_uri);
        made
    }

    pub(crate) async fn procore(&self) -> Integration {
        self.integration("procore", "procore", |_| {}).await
    }

    pub(crate) async fn oidc(&self) -> Integration {
        self.integration("oidc", "oidc", |_| {}).await
    }

    pub(crate) fn session_request(
        &self,
        integration_id: &str,
        user: &str,
    ) -> CreateConnectSessionRequest {
        CreateConnectSessionRequest {
            tenant_id: self.tenant.to_string(),
            user_id: user.into(),
            user_email: format!("{user}@acme.example"),
            integration_id: integration_id.into(),
            return_url: format!("{APP}/done?keep=1"),
            ..CreateConnectSessionRequest::default()
        }
    }

    pub(crate) async fn session(
        &self,
        request: CreateConnectSessionRequest,
    ) -> CreateConnectSessionResponse {
        self.connect()
            .create_connect_session(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn session_state(&self, session: &ConnectSession) -> ConnectSession {
        self.session_in(&session.tenant_id, &session.session_id)
            .await
    }

    pub(crate) async fn session_in(&self, tenant_id: &str, session_id: &str) -> ConnectSession {
        let request = GetConnectSessionRequest {
            tenant_id: tenant_id.into(),
            session_id: session_id.into(),
        };
        self.connect()
            .get_connect_session(request)
            .await
            .unwrap()
            .into_inner()
            .session
            .unwrap()
    }

    /// Goes all the way, as `user` at ours and `person` at the provider, and gives the address at the end.
    pub(crate) async fn connect_as(&self, integration_id: &str, user: &str, person: &str) -> Url {
        self.walk(self.session_request(integration_id, user), person)
            .await
    }

    pub(crate) async fn walk(&self, request: CreateConnectSessionRequest, person: &str) -> Url {
        let made = self.session(request).await;
        let mut browser = Browser::new();
        let callback = self
            .to_callback(&mut browser, &made.connect_url, person)
            .await;
        let back = browser.get(callback.as_str()).await.unwrap();
        back.redirect().unwrap_or_else(|| {
            panic!(
                "no redirect but {}: {}",
                back.answer.status,
                back.answer.text()
            )
        })
    }

    /// From the link to the address that the provider sends the browser back to.
    pub(crate) async fn to_callback(
        &self,
        browser: &mut Browser,
        connect_url: &str,
        person: &str,
    ) -> Url {
        let sent = self.to_provider(browser, connect_url).await;
        let consented = browser
            .consent(sent.redirect().unwrap().as_str(), person)
            .await
            .unwrap();
        consented
            .redirect()
            .unwrap_or_else(|| panic!("no redirect but {}", consented.answer.text()))
    }

    /// From the link to the redirect to the provider.
    pub(crate) async fn to_provider(&self, browser: &mut Browser, connect_url: &str) -> Page {
        let page = browser.open(connect_url).await.unwrap();
        assert_eq!(page.answer.status, 200, "{}", page.answer.text());
        let sent = browser.submit(&page.form().unwrap(), &[]).await.unwrap();
        assert_eq!(sent.answer.status, 303, "{}", sent.answer.text());
        sent
    }

    pub(crate) async fn connection(&self, connection_id: &str) -> Connection {
        self.connection_of(self.tenant, connection_id)
            .await
            .unwrap()
    }

    pub(crate) async fn connection_of(
        &self,
        tenant: TenantKey,
        connection_id: &str,
    ) -> Result<Connection, CallError> {
        let request = GetConnectionRequest {
            tenant_id: tenant.to_string(),
            connection_id: connection_id.into(),
        };
        Ok(self
            .connections()
            .get_connection(request)
            .await?
            .into_inner()
            .connection
            .unwrap())
    }

    pub(crate) async fn status(
        &self,
        user: &str,
        integration_id: &str,
    ) -> GetConnectionStatusResponse {
        let request = GetConnectionStatusRequest {
            tenant_id: self.tenant.to_string(),
            user_id: user.into(),
            integration_id: integration_id.into(),
        };
        self.connections()
            .get_connection_status(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn disconnect(
        &self,
        connection_id: &str,
    ) -> Result<DisconnectResponse, CallError> {
        let request = DisconnectRequest {
            tenant_id: self.tenant.to_string(),
            connection_id: connection_id.into(),
            delete_documents: false,
        };
        Ok(self.connections().disconnect(request).await?.into_inner())
    }

    pub(crate) async fn context(
        &self,
        connection_id: &str,
    ) -> Result<GetRequestContextResponse, CallError> {
        let request = GetRequestContextRequest {
            tenant_id: self.tenant.to_string(),
            connection_id: connection_id.into(),
            purpose: "test".into(),
            ..GetRequestContextRequest::default()
        };
        Ok(self
            .connections()
            .get_request_context(request)
            .await?
            .into_inner())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.shutdown.request();
        self.stand_ins.request();
    }
}

/// A parameter of an address.
pub(crate) fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// What an integration with the simulator replaces.
fn overrides(issuer: &str, provider: &str) -> Value {
    let endpoints = json!({
        "authorization": format!("{issuer}/oauth/authorize"),
        "token": format!("{issuer}/oauth/token"),
    });
    match provider {
        "oidc" => json!({"issuer": issuer}),
        "procore" => json!({"endpoints": endpoints, "api": {"base_url": issuer}}),
        _ => json!({
            "endpoints": endpoints,
            "api": {"base_url": issuer},
            "identity": {"endpoint": "/me"},
        }),
    }
}

/// JSON as requests have it.
pub(crate) fn structure(value: &Value) -> prost_types::Struct {
    use prost_types::value::Kind;
    fn inner(value: &Value) -> prost_types::Value {
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(flag) => Kind::BoolValue(*flag),
            Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(items) => Kind::ListValue(prost_types::ListValue {
                values: items.iter().map(inner).collect(),
            }),
            Value::Object(_) => Kind::StructValue(structure(value)),
        };
        prost_types::Value { kind: Some(kind) }
    }
    let fields = value
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), inner(value)))
        .collect();
    prost_types::Struct { fields }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn stand_in(
    name: &'static str,
    authority: &Authority,
    deps: &Deps,
    shutdown: &Shutdown,
    services: impl FnOnce(Server) -> Server,
) -> SocketAddr {
    let tls: TlsConfig = authority.issue(&Identity::service(name), &[]).unwrap();
    let config = ServerConfig {
        tls,
        ..ServerConfig::default()
    };
    let tls = Tls::load(&config.tls, deps.clock.clone()).unwrap();
    let guard = Guard::new(&IdentityConfig::default(), None, deps).unwrap();
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let server = services(Server::new(name, config, tls, guard, deps));
    tokio::spawn(server.serve(listener, shutdown.clone()));
    address
}

fn issuers(public_key: std::path::PathBuf) -> IdentityConfig {
    IdentityConfig {
        policy_file: None,
        issuers: vec![IssuerConfig {
            issuer: "https://app.example".into(),
            audience: "hawser".into(),
            public_key_file: Some(public_key),
            jwks_file: None,
            jwks_url: None,
            tenant_claim: "tenant_id".into(),
            roles_claim: "roles".into(),
        }],
    }
}
