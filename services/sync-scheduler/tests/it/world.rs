//! A scheduler, or several on one database, those it calls, and those who call it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::identity::{Identity, IssuerConfig};
use common::lifecycle::Process;
use common::pg::PgConfig;
use common::rpc::{
    CallError, Channel, Client, ClientConfig, Guard, IdentityConfig, Server, ServerConfig,
};
use common::service::{Listeners, Runtime, Service as _};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Code, Deps, Reason, TenantKey};
use contracts::broker::v1::connection_service_server::ConnectionServiceServer;
use contracts::broker::v1::integration_service_server::IntegrationServiceServer;
use contracts::broker::v1::{Account, Connection, ConnectionState, Provider, StreamInfo};
use contracts::directory::v1::api_key_service_server::ApiKeyServiceServer;
use contracts::directory::v1::directory_service_server::DirectoryServiceServer;
use contracts::directory::v1::{Quotas, Tenant, TenantState};
use contracts::scheduler::v1::sync_permission_service_client::SyncPermissionServiceClient;
use contracts::scheduler::v1::sync_service_client::SyncServiceClient;
use contracts::scheduler::v1::worker_service_client::WorkerServiceClient;
use contracts::scheduler::v1::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sync_scheduler::{Config, SCHEMA, SyncScheduler};
use tempfile::TempDir;
use testkit::{MockClock, TestDatabase};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use uuid::Uuid;

use crate::broker::Broker;
use crate::directory::Directory;

pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/kim";
pub(crate) const HOST: &str = "spiffe://hawser/host/app";
pub(crate) const WORKER: &str = "spiffe://hawser/sync-worker";
pub(crate) const INGEST: &str = "spiffe://hawser/webhook-ingest";
pub(crate) const CONSOLE: &str = "spiffe://hawser/console";
/// A provider with the streams "messages" and "projects", hourly, and "archive", which is only ever read whole.
pub(crate) const PROVIDER: &str = "acme-mail";
/// A queue of the host application's own.
pub(crate) const OWN: &str = "own";
const ISSUER: &str = "https://app.example";
const AUDIENCE: &str = "hawser";

pub(crate) type Syncs = SyncServiceClient<Channel>;
pub(crate) type Workers = WorkerServiceClient<Channel>;
pub(crate) type Permissions = SyncPermissionServiceClient<Channel>;

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) clock: Arc<MockClock>,
    pub(crate) deps: Deps,
    pub(crate) process: Process,
    pub(crate) broker: Broker,
    pub(crate) directory: Directory,
    pub(crate) address: SocketAddr,
    broker_address: SocketAddr,
    directory_address: SocketAddr,
    authority: Authority,
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
        // Certificates are checked against the real time.
        let authority = Authority::open(folder.path(), &testkit::deps()).unwrap();
        let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        std::fs::write(folder.path().join("jwt.pem"), key_pair.public_key_pem()).unwrap();
        let key = EncodingKey::from_ed_pem(key_pair.serialize_pem().as_bytes()).unwrap();
        let sink = BoxMakeWriter::new(std::io::sink);
        let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = Self {
            database,
            clock,
            deps,
            process: Process::new(telemetry),
            broker: Broker::default(),
            directory: Directory::default(),
            address: nowhere,
            broker_address: nowhere,
            directory_address: nowhere,
            authority,
            key,
            folder,
        };
        world.broker.put_provider(provider());
        let broker = world.broker.clone();
        world.broker_address = world
            .serve("oauth-broker", |server| {
                server
                    .service(ConnectionServiceServer::new(broker.clone()))
                    .service(IntegrationServiceServer::new(broker))
            })
            .await;
        let directory = world.directory.clone();
        world.directory_address = world
            .serve("tenant-directory", |server| {
                server
                    .service(DirectoryServiceServer::new(directory.clone()))
                    .service(ApiKeyServiceServer::new(directory))
            })
            .await;
        world.address = world.start(config).await;
        world
    }

    /// Serves a stand-in.
    async fn serve(&self, name: &'static str, add: impl FnOnce(Server) -> Server) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = ServerConfig {
            tls: self.authority.issue(&Identity::service(name), &[]).unwrap(),
            ..ServerConfig::default()
        };
        let tls = Tls::load(&config.tls, self.deps.clock.clone()).unwrap();
        let guard = Guard::new(&IdentityConfig::default(), None, &self.deps).unwrap();
        let server = add(Server::new(name, config, tls, guard, &self.deps));
        self.process
            .tasks
            .spawn(name, server.serve(listener, self.process.shutdown.clone()));
        address
    }

    /// Starts another instance on the same database.
    pub(crate) async fn start(&self, database: PgConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = self
            .authority
            .issue(&Identity::service(SyncScheduler::NAME), &[])
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
            broker: ClientConfig {
                address: self.broker_address.to_string(),
            },
            directory: ClientConfig {
                address: self.directory_address.to_string(),
            },
            ..Config::default()
        };
        let runtime = Runtime {
            deps: self.deps.clone(),
            ..Runtime::new(&self.process, SyncScheduler::NAME)
        };
        let listeners = Listeners {
            grpc: Some(listener),
            http: None,
        };
        SyncScheduler::start(config, listeners, runtime)
            .await
            .unwrap();
        address
    }

    /// Another instance.
    pub(crate) async fn another(&self) -> SocketAddr {
        self.start(self.database.config(SCHEMA.name)).await
    }

    fn channel(&self, address: SocketAddr, uri: &str) -> Channel {
        let identity = Identity::from_spiffe(uri).unwrap();
        let tls = self.authority.issue(&identity, &[]).unwrap();
        let config = ClientConfig {
            address: address.to_string(),
        };
        let tls = Tls::load(&tls, self.deps.clock.clone()).unwrap();
        Client::new(tls, &self.deps)
            .channel(SyncScheduler::NAME, &config)
            .unwrap()
    }

    pub(crate) fn syncs(&self, uri: &str) -> Syncs {
        self.syncs_at(self.address, uri)
    }

    pub(crate) fn syncs_at(&self, address: SocketAddr, uri: &str) -> Syncs {
        SyncServiceClient::new(self.channel(address, uri))
    }

    pub(crate) fn workers(&self, uri: &str) -> Workers {
        self.workers_at(self.address, uri)
    }

    pub(crate) fn workers_at(&self, address: SocketAddr, uri: &str) -> Workers {
        WorkerServiceClient::new(self.channel(address, uri))
    }

    pub(crate) fn permissions(&self, uri: &str) -> Permissions {
        SyncPermissionServiceClient::new(self.channel(self.address, uri))
    }

    /// For callers without a certificate.
    pub(crate) fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The request with a user's token.
    pub(crate) fn signed<T>(
        &self,
        message: T,
        tenant: TenantKey,
        user: &str,
        roles: &[&str],
    ) -> Request<T> {
        let expires = (self.deps.now() + Duration::from_mins(5)).unix_timestamp();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "exp": expires, "sub": user, "tenant_id": tenant.to_string(), "roles": roles,
        });
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key).unwrap();
        bearer(message, &token)
    }

    /// A tenant that may sync.
    pub(crate) fn tenant(&self, company_name: &str) -> TenantKey {
        let tenant = TenantKey::new_tenant(&self.deps);
        self.put_tenant(tenant, company_name);
        tenant
    }

    /// A tenant in this bucket.
    pub(crate) fn tenant_in(&self, bucket: i16, company_name: &str) -> TenantKey {
        let mut id = *TenantKey::new_tenant(&self.deps).id().as_bytes();
        id[14..].copy_from_slice(&bucket.to_be_bytes());
        let tenant = TenantKey::from_id(Uuid::from_bytes(id)).unwrap();
        self.put_tenant(tenant, company_name);
        tenant
    }

    fn put_tenant(&self, tenant: TenantKey, company_name: &str) {
        self.directory.put(Tenant {
            tenant_id: tenant.to_string(),
            company_name: company_name.into(),
            state: TenantState::Active.into(),
            quotas: Some(Quotas {
                max_backfill_days: 365,
                ..Quotas::default()
            }),
            ..Tenant::default()
        });
    }

    /// A connection of this user's, to its account "inbox".
    pub(crate) fn connect(&self, tenant: TenantKey, user: &str) -> Connection {
        let connection = Connection {
            tenant_id: tenant.to_string(),
            connection_id: tenant.new_id(&self.deps).to_string(),
            integration_id: PROVIDER.into(),
            provider: PROVIDER.into(),
            user_id: user.into(),
            user_email: format!("{user}@example.com"),
            active_account: Some(Account {
                external_account_id: "inbox".into(),
                ..Account::default()
            }),
            state: ConnectionState::Connected.into(),
            revision: 1,
            ..Connection::default()
        };
        self.broker.put(&connection);
        connection
    }

    /// Starts the initial sync of these streams, as the host application; of all where none is named.
    pub(crate) async fn begin(
        &self,
        connection: &Connection,
        streams: &[&str],
    ) -> Result<StartInitialSyncResponse, CallError> {
        let request = StartInitialSyncRequest {
            streams: texts(streams),
            ..starting(connection)
        };
        Ok(self
            .syncs(HOST)
            .start_initial_sync(request)
            .await?
            .into_inner())
    }

    /// Asks for an incremental run of this stream, as the host application.
    pub(crate) async fn trigger(&self, connection: &Connection, stream: &str) -> Job {
        let request = TriggerSyncRequest {
            streams: texts(&[stream]),
            ..triggering(connection)
        };
        self.syncs(HOST)
            .trigger_sync(request)
            .await
            .unwrap()
            .into_inner()
            .jobs
            .remove(0)
    }

    /// Leases what there is, without waiting.
    pub(crate) async fn lease(&self, worker_id: &str) -> Vec<LeasedJob> {
        lease_from(&mut self.workers(WORKER), worker_id).await
    }

    /// Leases the one job that there is.
    pub(crate) async fn lease_one(&self, worker_id: &str) -> LeasedJob {
        let mut leased = self.lease(worker_id).await;
        assert_eq!(leased.len(), 1, "{leased:?}");
        leased.remove(0)
    }

    /// Ends the job well; tells which were lost.
    pub(crate) async fn complete(&self, leased: &LeasedJob, cursor: &str) -> Vec<String> {
        let completion = JobCompletion {
            lease: Some(held(leased)),
            cursor_json: cursor.into(),
            incremental_cursor_json: cursor.into(),
            ..JobCompletion::default()
        };
        let request = CompleteJobsRequest {
            completions: vec![completion],
        };
        self.workers(WORKER)
            .complete_jobs(request)
            .await
            .unwrap()
            .into_inner()
            .lost_job_ids
    }

    /// Fails an attempt; tells which were lost.
    pub(crate) async fn fail(&self, leased: &LeasedJob, kind: FailureKind) -> Vec<String> {
        let failure = failing(leased, kind);
        let request = FailJobsRequest {
            failures: vec![failure],
        };
        self.workers(WORKER)
            .fail_jobs(request)
            .await
            .unwrap()
            .into_inner()
            .lost_job_ids
    }

    /// Begins and ends the initial sync of these streams; their schedules run then, from the cursor `"mark"`.
    pub(crate) async fn backfill(&self, connection: &Connection, streams: &[&str]) {
        self.begin(connection, streams).await.unwrap();
        for leased in self.lease("backfiller").await {
            assert_eq!(self.complete(&leased, "\"mark\"").await, NONE);
        }
    }

    pub(crate) async fn job(&self, job: &Job) -> Job {
        let request = GetJobRequest {
            tenant_id: job.tenant_id.clone(),
            job_id: job.job_id.clone(),
        };
        self.syncs(OPERATOR)
            .get_job(request)
            .await
            .unwrap()
            .into_inner()
            .job
            .unwrap()
    }

    pub(crate) async fn state(&self, connection: &Connection) -> SyncState {
        let request = GetSyncStateRequest {
            tenant_id: connection.tenant_id.clone(),
            connection_id: connection.connection_id.clone(),
        };
        self.syncs(OPERATOR)
            .get_sync_state(request)
            .await
            .unwrap()
            .into_inner()
            .sync_state
            .unwrap()
    }

    pub(crate) async fn jobs(&self, connection: &Connection) -> Vec<Job> {
        let request = ListJobsRequest {
            tenant_id: connection.tenant_id.clone(),
            connection_id: connection.connection_id.clone(),
            ..ListJobsRequest::default()
        };
        self.syncs(OPERATOR)
            .list_jobs(request)
            .await
            .unwrap()
            .into_inner()
            .jobs
    }

    /// The cursor of a stream; empty where it has none.
    pub(crate) async fn cursor(&self, connection: &Connection, stream: &str) -> String {
        let request = ListCursorsRequest {
            tenant_id: connection.tenant_id.clone(),
            connection_id: connection.connection_id.clone(),
            ..ListCursorsRequest::default()
        };
        let cursors = self
            .syncs(OPERATOR)
            .list_cursors(request)
            .await
            .unwrap()
            .into_inner()
            .cursors;
        let found = cursors.into_iter().find(|cursor| cursor.stream == stream);
        found
            .map(|cursor| String::from_utf8(cursor.cursor_json).unwrap())
            .unwrap_or_default()
    }

    /// As an administrator of the database.
    pub(crate) async fn sql(&self, sql: &str) -> u64 {
        self.database.admin().await.execute(sql, &[]).await.unwrap()
    }

    /// The lease of the job ends now, with its stream's.
    pub(crate) async fn expire(&self, job: &Job) {
        let job_id: Uuid = job.job_id.parse().unwrap();
        let admin = self.database.admin().await;
        let jobs = "UPDATE scheduler.jobs SET due_at = now() - '1 s'::interval WHERE job_id = $1";
        let streams = "UPDATE scheduler.streams SET lease_until = now() - '1 s'::interval WHERE running_job_id = $1";
        assert_eq!(admin.execute(jobs, &[&job_id]).await.unwrap(), 1);
        assert_eq!(admin.execute(streams, &[&job_id]).await.unwrap(), 1);
    }

    /// What waits for its next attempt is due now.
    pub(crate) async fn hurry(&self) {
        self.sql("UPDATE scheduler.jobs SET due_at = now() WHERE state = 3")
            .await;
    }
}

pub(crate) const NONE: [String; 0] = [];

fn provider() -> Provider {
    let stream = |name: &str, incremental, backfill| StreamInfo {
        stream: name.into(),
        incremental,
        backfill,
        default_cadence: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..StreamInfo::default()
    };
    Provider {
        provider: PROVIDER.into(),
        multiple_accounts: true,
        streams: vec![
            stream("messages", true, true),
            stream("projects", true, true),
            stream("archive", false, true),
        ],
        ..Provider::default()
    }
}

pub(crate) fn starting(connection: &Connection) -> StartInitialSyncRequest {
    StartInitialSyncRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        ..StartInitialSyncRequest::default()
    }
}

pub(crate) fn triggering(connection: &Connection) -> TriggerSyncRequest {
    TriggerSyncRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        ..TriggerSyncRequest::default()
    }
}

pub(crate) fn leasing(worker_id: &str) -> LeaseJobsRequest {
    LeaseJobsRequest {
        worker_id: worker_id.into(),
        max_jobs: 64,
        ..LeaseJobsRequest::default()
    }
}

pub(crate) async fn lease_from(workers: &mut Workers, worker_id: &str) -> Vec<LeasedJob> {
    workers
        .lease_jobs(leasing(worker_id))
        .await
        .unwrap()
        .into_inner()
        .jobs
}

pub(crate) fn held(leased: &LeasedJob) -> LeaseRef {
    let job = leased.job.as_ref().unwrap();
    LeaseRef {
        tenant_id: job.tenant_id.clone(),
        job_id: job.job_id.clone(),
        lease_token: leased.lease_token,
    }
}

pub(crate) fn job_of(leased: &LeasedJob) -> &Job {
    leased.job.as_ref().unwrap()
}

pub(crate) fn failing(leased: &LeasedJob, kind: FailureKind) -> JobFailure {
    JobFailure {
        lease: Some(held(leased)),
        error: "the provider said no".into(),
        kind: kind.into(),
        ..JobFailure::default()
    }
}

pub(crate) fn checkpointing(leased: &LeasedJob, number: i64, cursor: &str) -> CheckpointRequest {
    CheckpointRequest {
        lease: Some(held(leased)),
        cursor_json: cursor.into(),
        checkpoint_number: number,
        ..CheckpointRequest::default()
    }
}

pub(crate) fn bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> CallError {
    CallError::from(outcome.unwrap_err())
}

pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> Code {
    refusal(outcome).code
}

pub(crate) fn reason<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> Reason {
    outcome.unwrap_err().reason.unwrap()
}

/// The fields that an INVALID_ARGUMENT names.
pub(crate) fn violated<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> Vec<String> {
    let error = refusal(outcome);
    assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
    let mut fields: Vec<_> = error
        .fields
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    fields.sort();
    fields
}
