//! A directory, or several on one database, and those who call it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::identity::{Identity, IssuerConfig};
use common::lifecycle::Process;
use common::pg::PgConfig;
use common::rpc::{CallError, Channel, Client, ClientConfig, IdentityConfig, ServerConfig};
use common::service::{Listeners, Runtime, Service as _};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Code, Deps};
use contracts::directory::v1::api_key_service_client::ApiKeyServiceClient;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::*;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost_types::FieldMask;
use serde_json::json;
use tempfile::TempDir;
use tenant_directory::{Config, SCHEMA, TenantDirectory};
use testkit::{MockClock, TestDatabase};
use tokio::net::TcpListener;
use tonic::{Request, Status};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/kim";
pub(crate) const HOST: &str = "spiffe://hawser/host/app";
pub(crate) const SCHEDULER: &str = "spiffe://hawser/sync-scheduler";
pub(crate) const BROKER: &str = "spiffe://hawser/oauth-broker";
pub(crate) const INGEST: &str = "spiffe://hawser/webhook-ingest";
const ISSUER: &str = "https://app.example";
const AUDIENCE: &str = "hawser";

pub(crate) type Directory = DirectoryServiceClient<Channel>;
pub(crate) type ApiKeys = ApiKeyServiceClient<Channel>;

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) clock: Arc<MockClock>,
    pub(crate) process: Process,
    address: SocketAddr,
    authority: Authority,
    deps: Deps,
    key: EncodingKey,
    folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create(&[&SCHEMA]).await;
        let config = database.config(SCHEMA.name);
        Self::on(database, config).await
    }

    pub(crate) async fn on(database: TestDatabase, config: PgConfig) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let clock = MockClock::at(Deps::system("test").now());
        let deps = testkit::deps_at(&clock);
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        std::fs::write(folder.path().join("jwt.pem"), key_pair.public_key_pem()).unwrap();
        let key = EncodingKey::from_ed_pem(key_pair.serialize_pem().as_bytes()).unwrap();
        let sink = BoxMakeWriter::new(std::io::sink);
        let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
        let process = Process::new(telemetry);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = Self {
            database,
            clock,
            process,
            address,
            authority,
            deps,
            key,
            folder,
        };
        world.address = world.start(config).await;
        world
    }

    /// Starts another instance on the same database.
    pub(crate) async fn start(&self, database: PgConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = self
            .authority
            .issue(&Identity::service(TenantDirectory::NAME), &[])
            .unwrap();
        let issuer = IssuerConfig {
            issuer: ISSUER.into(),
            audience: AUDIENCE.into(),
            public_key_file: Some(self.folder.path().join("jwt.pem")),
            jwks_file: None,
            jwks_url: None,
            tenant_claim: "tenant_id".into(),
            roles_claim: "roles".into(),
        };
        let config = Config {
            grpc: ServerConfig {
                tls,
                ..ServerConfig::default()
            },
            identity: IdentityConfig {
                policy_file: None,
                issuers: vec![issuer],
            },
            database,
            ..Config::default()
        };
        let runtime = Runtime {
            deps: self.deps.clone(),
            ..Runtime::new(&self.process, TenantDirectory::NAME)
        };
        let listeners = Listeners {
            grpc: Some(listener),
            http: None,
        };
        TenantDirectory::start(config, listeners, runtime)
            .await
            .unwrap();
        address
    }

    fn channel(&self, address: SocketAddr, uri: &str) -> Channel {
        let identity = Identity::from_spiffe(uri).unwrap();
        let tls = self.authority.issue(&identity, &[]).unwrap();
        self.channel_with(address, Tls::load(&tls, self.deps.clock.clone()).unwrap())
    }

    fn channel_with(&self, address: SocketAddr, tls: Arc<Tls>) -> Channel {
        let config = ClientConfig {
            address: address.to_string(),
        };
        Client::new(tls, &self.deps)
            .channel("tenant-directory", &config)
            .unwrap()
    }

    pub(crate) fn directory(&self, uri: &str) -> Directory {
        self.directory_at(self.address, uri)
    }

    pub(crate) fn directory_at(&self, address: SocketAddr, uri: &str) -> Directory {
        DirectoryServiceClient::new(self.channel(address, uri))
    }

    pub(crate) fn api_keys(&self, uri: &str) -> ApiKeys {
        ApiKeyServiceClient::new(self.channel(self.address, uri))
    }

    pub(crate) fn operations(&self, uri: &str) -> OperationsServiceClient<Channel> {
        OperationsServiceClient::new(self.channel(self.address, uri))
    }

    /// The address of the first instance.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For callers without a certificate.
    pub(crate) fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The request with a user's token.
    pub(crate) fn signed<T>(
        &self,
        message: T,
        tenant: &str,
        user: &str,
        roles: &[&str],
    ) -> Request<T> {
        let expires = (self.deps.now() + Duration::from_mins(5)).unix_timestamp();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "exp": expires, "sub": user, "tenant_id": tenant, "roles": roles,
        });
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key).unwrap();
        bearer(message, &token)
    }

    pub(crate) async fn create(&self, company_name: &str, subdomain: &str) -> Tenant {
        let tenant = Tenant {
            company_name: company_name.into(),
            subdomain: subdomain.into(),
            ..Tenant::default()
        };
        self.create_tenant("", tenant).await.unwrap()
    }

    pub(crate) async fn create_tenant(
        &self,
        request_id: &str,
        tenant: Tenant,
    ) -> Result<Tenant, CallError> {
        create_at(&mut self.directory(OPERATOR), request_id, tenant).await
    }

    pub(crate) async fn get(&self, tenant_id: &str) -> Result<Tenant, CallError> {
        let request = GetTenantRequest {
            tenant_id: tenant_id.into(),
        };
        Ok(self
            .directory(OPERATOR)
            .get_tenant(request)
            .await?
            .into_inner()
            .tenant
            .unwrap())
    }

    pub(crate) async fn by_subdomain(&self, subdomain: &str) -> Result<Tenant, CallError> {
        let request = GetTenantBySubdomainRequest {
            subdomain: subdomain.into(),
        };
        Ok(self
            .directory(OPERATOR)
            .get_tenant_by_subdomain(request)
            .await?
            .into_inner()
            .tenant
            .unwrap())
    }

    pub(crate) async fn update(&self, tenant: Tenant, paths: &[&str]) -> Result<Tenant, CallError> {
        let request = UpdateTenantRequest {
            tenant: Some(tenant),
            update_mask: mask(paths),
        };
        Ok(self
            .directory(OPERATOR)
            .update_tenant(request)
            .await?
            .into_inner()
            .tenant
            .unwrap())
    }

    pub(crate) async fn ensure_user(&self, user: User) -> Result<(User, bool), CallError> {
        let request = EnsureUserRequest { user: Some(user) };
        let answer = self
            .directory(OPERATOR)
            .ensure_user(request)
            .await?
            .into_inner();
        Ok((answer.user.unwrap(), answer.created))
    }
}

pub(crate) fn bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub(crate) async fn create_at(
    directory: &mut Directory,
    request_id: &str,
    tenant: Tenant,
) -> Result<Tenant, CallError> {
    let request = CreateTenantRequest {
        request_id: request_id.into(),
        tenant: Some(tenant),
    };
    Ok(directory
        .create_tenant(request)
        .await?
        .into_inner()
        .tenant
        .unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "as requests have it")]
pub(crate) fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(ToString::to_string).collect(),
    })
}

pub(crate) fn user(tenant: &str, user_id: &str) -> User {
    User {
        tenant_id: tenant.into(),
        user_id: user_id.into(),
        ..User::default()
    }
}

pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    CallError::from(outcome.unwrap_err()).code
}

/// The fields that an INVALID_ARGUMENT names.
pub(crate) fn violated<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> Vec<String> {
    let error = outcome.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
    let mut fields: Vec<_> = error
        .fields
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    fields.sort();
    fields
}
