//! Instances of the ingest on one database, who calls them, and who sends them webhooks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::config::Duration as Setting;
use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::identity::{Identity, IssuerConfig};
use common::lifecycle::{Process, Shutdown};
use common::pg::PgConfig;
use common::rpc::{CallError, Channel, Client, ClientConfig, IdentityConfig, ServerConfig};
use common::service::{Listeners, Runtime, Service as _};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Deps, TenantKey};
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::ingest::v1::webhook_event_service_client::WebhookEventServiceClient;
use contracts::ingest::v1::webhook_source_service_client::WebhookSourceServiceClient;
use contracts::ingest::v1::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tempfile::TempDir;
use testkit::TestDatabase;
use tokio::net::TcpListener;
use tonic::Request;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use webhook_ingest::{Config, ProcessingConfig, SCHEMA, WebhookIngest};
use webhook_signatures::{github, standard_webhooks};

use crate::others::{Addresses, Others};

pub(crate) const HOST: &str = "spiffe://hawser/host/app";
pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/kim";
pub(crate) const WORKER: &str = "spiffe://hawser/sync-worker";
/// What GitHub signs with in these tests.
pub(crate) const SECRET: &str = "canary-It's a Secret to Everybody";
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) others: Arc<Others>,
    pub(crate) deps: Deps,
    pub(crate) tenant: TenantKey,
    pub(crate) http: reqwest::Client,
    authority: Authority,
    addresses: Addresses,
    shutdown: Shutdown,
    folder: TempDir,
    /// What the host application signs its users' tokens with.
    signing_key: EncodingKey,
}

/// An ingest in this process.
pub(crate) struct Instance {
    pub(crate) grpc: SocketAddr,
    pub(crate) process: Process,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.shutdown.request();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// A webhook that is ready to be sent, to any address.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl World {
    /// With an integration `github`, the tenant's own.
    pub(crate) async fn new() -> (Self, Instance) {
        let world = Self::without_ingest().await;
        let instance = world.start().await;
        (world, instance)
    }

    pub(crate) async fn without_ingest() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let database = TestDatabase::create(&[&SCHEMA]).await;
        let folder = tempfile::tempdir().unwrap();
        let deps = Deps::system("test");
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        std::fs::write(folder.path().join("jwt.pem"), key_pair.public_key_pem()).unwrap();
        let signing_key = EncodingKey::from_ed_pem(key_pair.serialize_pem().as_bytes()).unwrap();
        let (others, shutdown) = (Arc::new(Others::default()), Shutdown::new());
        let addresses = others
            .serve(&authority, folder.path(), &deps, &shutdown)
            .await;
        let tenant = TenantKey::new_tenant(&deps);
        others
            .integrations
            .lock()
            .unwrap()
            .insert("github".to_owned(), tenant);
        #[expect(
            clippy::disallowed_methods,
            reason = "a provider is no part of Hawser, and nobody guards it"
        )]
        let http = reqwest::Client::new();
        Self {
            database,
            others,
            deps,
            tenant,
            http,
            authority,
            addresses,
            shutdown,
            folder,
            signing_key,
        }
    }

    /// Another ingest on the same database.
    pub(crate) async fn start(&self) -> Instance {
        self.start_with(self.config(self.database.config(SCHEMA.name)))
            .await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Instance {
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind(config.http.listen).await.unwrap();
        let address = grpc.local_addr().unwrap();
        let sink = BoxMakeWriter::new(std::io::sink);
        let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
        let process = Process::new(telemetry);
        let runtime = Runtime {
            deps: self.deps.clone(),
            ..Runtime::new(&process, WebhookIngest::NAME)
        };
        let listeners = Listeners {
            grpc: Some(grpc),
            http: Some(http),
        };
        WebhookIngest::start(config, listeners, runtime)
            .await
            .unwrap();
        process.readiness.set_serving();
        Instance {
            grpc: address,
            process,
        }
    }

    pub(crate) fn config(&self, database: PgConfig) -> Config {
        Config {
            grpc: ServerConfig {
                tls: self
                    .authority
                    .issue(&Identity::service("webhook-ingest"), &[])
                    .unwrap(),
                ..ServerConfig::default()
            },
            identity: self.identity(),
            processing: ProcessingConfig {
                poll_interval: Setting::from_millis(50),
                first_pause: Setting::from_millis(20),
                longest_pause: Setting::from_millis(40),
                ..ProcessingConfig::default()
            },
            database,
            vault: self.addresses.vault.clone(),
            broker: self.addresses.broker.clone(),
            scheduler: self.addresses.scheduler.clone(),
            directory: self.addresses.directory.clone(),
            ..Config::default()
        }
    }

    fn identity(&self) -> IdentityConfig {
        let issuer = IssuerConfig {
            issuer: "https://app.example".to_owned(),
            audience: "hawser".to_owned(),
            public_key_file: Some(self.folder().join("jwt.pem")),
            jwks_file: None,
            jwks_url: None,
            tenant_claim: "tenant_id".to_owned(),
            roles_claim: "roles".to_owned(),
        };
        IdentityConfig {
            policy_file: None,
            issuers: vec![issuer],
        }
    }

    /// A request of the host application's on behalf of this user.
    pub(crate) fn on_behalf<T>(&self, user: &str, role: &str, request: T) -> Request<T> {
        let claims = serde_json::json!({
            "iss": "https://app.example",
            "aud": "hawser",
            "exp": self.deps.now().unix_timestamp() + 600,
            "sub": user,
            "tenant_id": self.tenant.to_string(),
            "roles": [role],
        });
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing_key)
                .unwrap();
        let mut request = Request::new(request);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn channel(&self, address: SocketAddr, uri: &str) -> Channel {
        let tls = self
            .authority
            .issue(&Identity::from_spiffe(uri).unwrap(), &[])
            .unwrap();
        let tls = Tls::load(&tls, Arc::clone(&self.deps.clock)).unwrap();
        Client::new(tls, &self.deps)
            .channel(
                "webhook-ingest",
                &ClientConfig {
                    address: address.to_string(),
                },
            )
            .unwrap()
    }

    pub(crate) fn sources(
        &self,
        instance: &Instance,
        uri: &str,
    ) -> WebhookSourceServiceClient<Channel> {
        WebhookSourceServiceClient::new(self.channel(instance.grpc, uri))
    }

    pub(crate) fn events(&self, instance: &Instance) -> WebhookEventServiceClient<Channel> {
        WebhookEventServiceClient::new(self.channel(instance.grpc, HOST))
    }

    pub(crate) fn documents(
        &self,
        instance: &Instance,
        uri: &str,
    ) -> DocumentServiceClient<Channel> {
        DocumentServiceClient::new(self.channel(instance.grpc, uri))
    }

    /// A source that GitHub sends to, for the integration `github`, whose pushes sync `commits`.
    pub(crate) fn source(&self) -> Source {
        Source {
            tenant_id: self.tenant.to_string(),
            source_id: "hooks".to_owned(),
            integration_id: "github".to_owned(),
            scheme: "github".to_owned(),
            trigger_streams: [("push".to_owned(), "commits".to_owned())].into(),
            ..Source::default()
        }
    }

    pub(crate) async fn create(
        &self,
        instance: &Instance,
        source: Source,
    ) -> Result<Source, CallError> {
        let request = CreateSourceRequest {
            source: Some(source),
            secret: SECRET.to_owned(),
            ..CreateSourceRequest::default()
        };
        Ok(self
            .sources(instance, OPERATOR)
            .create_source(request)
            .await?
            .into_inner()
            .source
            .unwrap())
    }

    /// Sends to an address, and gives the status.
    pub(crate) async fn send(&self, url: &str, webhook: &Webhook) -> u16 {
        self.send_to(url, webhook).await.unwrap().status().as_u16()
    }

    pub(crate) async fn send_to(
        &self,
        url: &str,
        webhook: &Webhook,
    ) -> reqwest::Result<reqwest::Response> {
        self.http
            .post(url)
            .headers(webhook.headers.clone())
            .body(webhook.body.clone())
            .send()
            .await
    }

    /// The same path at another instance.
    pub(crate) fn at(url: &str, other: &str) -> String {
        let path = url.split("/hooks/").nth(1).unwrap();
        let origin = other.split("/hooks/").next().unwrap();
        format!("{origin}/hooks/{path}")
    }

    pub(crate) async fn list_events(&self, instance: &Instance, tenant: TenantKey) -> Vec<Event> {
        let request = ListEventsRequest {
            tenant_id: tenant.to_string(),
            page_size: 1000,
            ..ListEventsRequest::default()
        };
        // The operator sees the platform's too.
        let mut client = WebhookEventServiceClient::new(self.channel(instance.grpc, OPERATOR));
        client
            .list_events(request)
            .await
            .unwrap()
            .into_inner()
            .events
    }

    /// The tenant's only event, once it has come to this state.
    pub(crate) async fn event_in(
        &self,
        instance: &Instance,
        tenant: TenantKey,
        state: EventState,
    ) -> Event {
        testkit::eventually_some(PATIENCE, async || {
            let mut events = self.list_events(instance, tenant).await;
            assert!(events.len() <= 1, "there is but one: {events:?}");
            events.pop().filter(|event| event.state() == state)
        })
        .await
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.database
            .admin()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0)
    }

    pub(crate) async fn stored(&self) -> i64 {
        self.count("SELECT count(*) FROM ingest.events").await
    }
}

impl Webhook {
    /// As GitHub sends it.
    pub(crate) fn github(
        secret: &str,
        event_type: &str,
        delivery: &str,
        body: &serde_json::Value,
    ) -> Self {
        let body = body.to_string().into_bytes();
        let mut webhook = Self {
            headers: HeaderMap::new(),
            body,
        };
        webhook.set(
            github::SIGNATURE.as_str(),
            &github::sign(secret.as_bytes(), &webhook.body),
        );
        webhook.set(github::EVENT.as_str(), event_type);
        if !delivery.is_empty() {
            webhook.set(github::DELIVERY.as_str(), delivery);
        }
        webhook
    }

    /// A push to a repository of this owner's.
    pub(crate) fn push(delivery: &str, account: u64) -> Self {
        Self::push_with(SECRET, delivery, account)
    }

    pub(crate) fn push_with(secret: &str, delivery: &str, account: u64) -> Self {
        let body = serde_json::json!({"ref": "refs/heads/main", "organization": {"id": account}});
        Self::github(secret, "push", delivery, &body)
    }

    /// As Standard Webhooks has it.
    pub(crate) fn standard(secret: &str, id: &str, deps: &Deps, body: &serde_json::Value) -> Self {
        let body = body.to_string().into_bytes();
        let headers =
            standard_webhooks::headers(&[secret.as_bytes()], id, deps.now(), &body).unwrap();
        Self { headers, body }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::try_from(name).unwrap();
        self.headers
            .insert(name, HeaderValue::from_str(value).unwrap());
    }
}

/// Routing keys as the contract has them.
pub(crate) fn keys(event: &Event) -> BTreeMap<&str, &str> {
    event
        .routing_keys
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
