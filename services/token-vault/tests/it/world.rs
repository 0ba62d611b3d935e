//! Vaults on one database, those who call them, and a provider.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::config::Duration as Setting;
use common::identity::Identity;
use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::lifecycle::Process;
use common::pg::PgConfig;
use common::rpc::{CallError, Channel, Client, ClientConfig, ServerConfig};
use common::service::{Listeners, Runtime, Service as _};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Deps, TenantKey};
use contracts::vault::v1::service_key_service_client::ServiceKeyServiceClient;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use contracts::vault::v1::vault_admin_service_client::VaultAdminServiceClient;
use contracts::vault::v1::*;
use oauth_client::Verifier;
use provider_sim::config::{ClientConfig as SimClient, Rotation};
use provider_sim::{SimConfig, Simulator};
use tempfile::TempDir;
use testkit::TestDatabase;
use token_vault::{Config, Environment, KeysConfig, SCHEMA, TasksConfig, TokenVault};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use uuid::Uuid;

pub(crate) const BROKER: &str = "spiffe://hawser/oauth-broker";
pub(crate) const INGEST: &str = "spiffe://hawser/webhook-ingest";
pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/kim";
const REDIRECT: &str = "http://127.0.0.1:1/callback";
const SECRET: &str = "s3cret & more";

pub(crate) type Vault = TokenVaultServiceClient<Channel>;

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) sim: Simulator,
    pub(crate) deps: Deps,
    pub(crate) tenant: TenantKey,
    pub(crate) client: Uuid,
    authority: Authority,
    folder: TempDir,
}

/// A vault in this process.
pub(crate) struct Instance {
    address: SocketAddr,
    process: Process,
}

impl Drop for Instance {
    /// Drains, so that the database is not taken away from under it.
    fn drop(&mut self) {
        self.process.shutdown.request();
        let drained = self.process.tasks.drained(Duration::from_secs(10));
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(drained));
    }
}

impl World {
    /// With an OAuth client at a provider that ends a grant whose refresh token is used twice.
    pub(crate) async fn new() -> (Self, Instance) {
        let world = Self::without_vault().await;
        let instance = world.start("a").await;
        world.put_client(&instance, SECRET).await.unwrap();
        (world, instance)
    }

    pub(crate) async fn without_vault() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let database = TestDatabase::create(&[&SCHEMA]).await;
        let folder = tempfile::tempdir().unwrap();
        let deps = Deps::system("test");
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Simulator::start(SimConfig::default(), listener)
            .await
            .unwrap();
        let sim_client = SimClient {
            service_user: Some("alice".into()),
            ..SimClient::confidential("vault", SECRET, &[REDIRECT])
        };
        sim.control()
            .register_client("oidc", sim_client)
            .await
            .unwrap();
        let strict = sim.control().configure("oidc", |provider| {
            provider.auto_consent = true;
            provider.rotation = Rotation::Strict;
        });
        strict.await.unwrap();
        let tenant = TenantKey::new_tenant(&deps);
        let client = tenant.new_id(&deps);
        Self {
            database,
            sim,
            deps,
            tenant,
            client,
            authority,
            folder,
        }
    }

    /// Another vault on the same database, with a disk of its own.
    pub(crate) async fn start(&self, name: &str) -> Instance {
        let config = self.config(name, self.database.config(SCHEMA.name));
        self.start_with(config, self.deps.clone()).await
    }

    pub(crate) fn config(&self, name: &str, database: PgConfig) -> Config {
        Config {
            environment: Environment::Development,
            keys: KeysConfig {
                development_file: self.folder.path().join("kek"),
                ..KeysConfig::default()
            },
            spool_dir: self.folder.path().join(format!("spool-{name}")),
            tasks: TasksConfig {
                // Only a test that is about the sweeper wants it.
                sweep_every: Setting::from_secs(3600),
                revoke_every: Setting::from_millis(100),
                reap_every: Setting::from_millis(100),
            },
            egress: egress::EgressConfig {
                allow_loopback_http: true,
                ..egress::EgressConfig::default()
            },
            grpc: ServerConfig {
                tls: self.tls("token-vault"),
                ..ServerConfig::default()
            },
            database,
            ..Config::default()
        }
    }

    pub(crate) async fn start_with(&self, config: Config, deps: Deps) -> Instance {
        self.try_start(config, deps).await.unwrap()
    }

    pub(crate) async fn try_start(&self, config: Config, deps: Deps) -> Result<Instance, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sink = BoxMakeWriter::new(std::io::sink);
        let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
        let process = Process::new(telemetry);
        let runtime = Runtime {
            deps,
            ..Runtime::new(&process, TokenVault::NAME)
        };
        let listeners = Listeners {
            grpc: Some(listener),
            http: None,
        };
        let started = TokenVault::start(config, listeners, runtime).await;
        started.map_err(|error| common::problem::Chain(error.as_ref()).to_string())?;
        Ok(Instance { address, process })
    }

    fn tls(&self, service: &str) -> common::identity::tls::TlsConfig {
        self.authority
            .issue(&Identity::service(service), &[])
            .unwrap()
    }

    pub(crate) fn channel(&self, address: SocketAddr, uri: &str) -> Channel {
        let tls = self
            .authority
            .issue(&Identity::from_spiffe(uri).unwrap(), &[])
            .unwrap();
        let tls = Tls::load(&tls, Arc::clone(&self.deps.clock)).unwrap();
        Client::new(tls, &self.deps)
            .channel(
                "token-vault",
                &ClientConfig {
                    address: address.to_string(),
                },
            )
            .unwrap()
    }

    pub(crate) fn vault(&self, instance: &Instance) -> Vault {
        self.vault_at(instance.address)
    }

    pub(crate) fn vault_at(&self, address: SocketAddr) -> Vault {
        TokenVaultServiceClient::new(self.channel(address, BROKER))
    }

    pub(crate) fn admin(&self, instance: &Instance) -> VaultAdminServiceClient<Channel> {
        VaultAdminServiceClient::new(self.channel(instance.address, OPERATOR))
    }

    pub(crate) fn vault_as(&self, instance: &Instance, uri: &str) -> Vault {
        TokenVaultServiceClient::new(self.channel(instance.address, uri))
    }

    pub(crate) fn admin_as(
        &self,
        instance: &Instance,
        uri: &str,
    ) -> VaultAdminServiceClient<Channel> {
        VaultAdminServiceClient::new(self.channel(instance.address, uri))
    }

    pub(crate) fn service_keys(
        &self,
        instance: &Instance,
        uri: &str,
    ) -> ServiceKeyServiceClient<Channel> {
        ServiceKeyServiceClient::new(self.channel(instance.address, uri))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the owner says of the client.
    pub(crate) fn oauth_client(&self, secret: &str) -> OAuthClient {
        let base = self.sim.base_url();
        OAuthClient {
            tenant_id: self.tenant.to_string(),
            oauth_client_id: self.client.to_string(),
            provider: "oauth2".into(),
            token_endpoint: format!("{base}/oauth/token"),
            revocation_endpoint: format!("{base}/oauth/revoke"),
            auth_method: ClientAuthMethod::SecretBasic as i32,
            client_id: "vault".into(),
            client_secret: secret.into(),
            ..OAuthClient::default()
        }
    }

    pub(crate) async fn put_client(
        &self,
        instance: &Instance,
        secret: &str,
    ) -> Result<(), CallError> {
        let request = PutOAuthClientRequest {
            oauth_client: Some(self.oauth_client(secret)),
        };
        self.vault(instance).put_o_auth_client(request).await?;
        Ok(())
    }

    pub(crate) async fn put_right_client(&self, instance: &Instance) {
        self.put_client(instance, SECRET).await.unwrap();
    }

    /// An authorization code of the user's, and its verifier.
    pub(crate) async fn code(&self, nonce: &str) -> AuthorizationCode {
        let verifier = Verifier::new(&self.deps);
        let mut url = url::Url::parse(&format!("{}/oauth/authorize", self.sim.base_url())).unwrap();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", "vault")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("scope", "openid email offline_access records.read")
            .append_pair("state", "s")
            .append_pair("nonce", nonce)
            .append_pair("code_challenge", &verifier.challenge())
            .append_pair("code_challenge_method", "S256");
        let page = provider_sim::browser::Browser::new()
            .consent(url.as_str(), "alice")
            .await
            .unwrap();
        AuthorizationCode {
            code: page
                .redirect_parameter("code")
                .expect("the user has consented"),
            redirect_uri: REDIRECT.into(),
            code_verifier: verifier.secret().expose().clone(),
            nonce: nonce.into(),
        }
    }

    pub(crate) fn exchange_request(
        &self,
        grant_id: Uuid,
        code: AuthorizationCode,
    ) -> ExchangeAuthorizationRequest {
        ExchangeAuthorizationRequest {
            tenant_id: self.tenant.to_string(),
            oauth_client_id: self.client.to_string(),
            grant_id: grant_id.to_string(),
            authorization: Some(
                exchange_authorization_request::Authorization::AuthorizationCode(code),
            ),
            ..ExchangeAuthorizationRequest::default()
        }
    }

    /// A grant that is connected and confirmed.
    pub(crate) async fn connect(&self, instance: &Instance) -> Uuid {
        let id = self.tenant.new_id(&self.deps);
        let mut vault = self.vault(instance);
        let request = self.exchange_request(id, self.code("n").await);
        vault.exchange_authorization(request).await.unwrap();
        let request = ConfirmGrantRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: id.to_string(),
        };
        vault.confirm_grant(request).await.unwrap();
        id
    }

    /// The token is not valid any more, and nobody but the database says so.
    pub(crate) async fn expire(&self, grant: Uuid) {
        let sql = "UPDATE vault.grants SET issued_at = now() - interval '1 h', expires_at = now() - interval '1 s' WHERE grant_id = $1";
        assert_eq!(
            self.database
                .admin()
                .await
                .execute(sql, &[&grant])
                .await
                .unwrap(),
            1
        );
    }

    /// The token is valid, and near its end.
    pub(crate) async fn near_end(&self, grant: Uuid) {
        let sql = "UPDATE vault.grants SET issued_at = now() - interval '1 h', expires_at = now() + interval '1 min', next_refresh_at = now() WHERE grant_id = $1";
        assert_eq!(
            self.database
                .admin()
                .await
                .execute(sql, &[&grant])
                .await
                .unwrap(),
            1
        );
    }

    /// Neither backoff nor a refused client keep the vault from trying at once.
    pub(crate) async fn forget_waits(&self) {
        let admin = self.database.admin().await;
        admin.batch_execute("UPDATE vault.grants SET retry_at = NULL, next_refresh_at = now() WHERE retry_at > now(); UPDATE vault.oauth_clients SET refused_until = now()").await.unwrap();
    }

    pub(crate) fn get_request(&self, grant: Uuid) -> GetCredentialRequest {
        GetCredentialRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: grant.to_string(),
            purpose: "test".into(),
            ..GetCredentialRequest::default()
        }
    }

    pub(crate) async fn get(
        &self,
        instance: &Instance,
        grant: Uuid,
    ) -> Result<Credential, CallError> {
        get_at(&mut self.vault(instance), self.get_request(grant)).await
    }

    /// Asks for new tokens, once: this call is not repeated where the answer says that it may be.
    pub(crate) async fn refresh(&self, instance: &Instance, grant: Uuid) -> Result<i64, CallError> {
        let request = RefreshGrantRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: grant.to_string(),
            refused_version: self.describe(instance, grant).await.version,
        };
        let refreshed = self.vault(instance).refresh_grant(request).await?;
        Ok(refreshed.into_inner().grant.unwrap().version)
    }

    pub(crate) async fn describe(&self, instance: &Instance, grant: Uuid) -> Grant {
        let request = DescribeGrantRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: grant.to_string(),
        };
        self.vault(instance)
            .describe_grant(request)
            .await
            .unwrap()
            .into_inner()
            .grant
            .unwrap()
    }

    /// Whether the provider takes the access token.
    pub(crate) async fn works(&self, token: &str) -> bool {
        let url = format!("{}/me", self.sim.base_url());
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let answer = provider_sim::http_client::send(
            egress::Method::GET,
            &url,
            &headers,
            bytes::Bytes::new(),
            Duration::from_secs(5),
        )
        .await
        .unwrap();
        answer.status.is_success()
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.sim.control().counters().refreshes()
    }

    pub(crate) async fn access_records(&self) -> i64 {
        let row = self
            .database
            .admin()
            .await
            .query_one("SELECT count(*) FROM vault.access_records", &[])
            .await
            .unwrap();
        row.get(0)
    }
}

pub(crate) async fn get_at(
    vault: &mut Vault,
    request: GetCredentialRequest,
) -> Result<Credential, CallError> {
    Ok(vault
        .get_credential(request)
        .await?
        .into_inner()
        .credential
        .unwrap())
}

pub(crate) fn token_of(credential: &Credential) -> String {
    match credential.secret.as_ref().unwrap() {
        credential::Secret::AccessToken(token) => token.value.clone(),
        other => panic!("an access token is expected, and not {other:?}"),
    }
}
