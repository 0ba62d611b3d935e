//! Stand-ins for the vault, the broker, the scheduler and the directory: the methods that the ingest calls, and no others, over
//! mutual TLS and with the policy that Hawser ships.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "all handlers have one shape"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use common::identity::Identity;
use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::lifecycle::Shutdown;
use common::rpc::{ClientConfig, Guard, IdentityConfig, Server, ServerConfig};
use common::{Deps, Problem, TenantKey};
use contracts::broker::v1::*;
use contracts::directory::v1::{
    GetTenantRequest, GetTenantResponse, GetUserRequest, GetUserResponse, Quotas, Tenant, User,
};
use contracts::scheduler::v1::{Job, TriggerSyncRequest, TriggerSyncResponse};
use contracts::vault::v1::{GetServiceKeyRequest, GetServiceKeyResponse};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use uuid::Uuid;

/// What the other services know, and what they were asked.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub(crate) connections: Mutex<Vec<Connection>>,
    /// Whose an integration is, by its id.
    pub(crate) integrations: Mutex<BTreeMap<String, TenantKey>>,
    /// Every call, repeats too.
    pub(crate) triggers: Mutex<Vec<TriggerSyncRequest>>,
    jobs: Mutex<BTreeMap<String, String>>,
    /// The scheduler answers UNAVAILABLE.
    pub(crate) scheduler_down: AtomicBool,
    /// The vault answers UNAVAILABLE.
    pub(crate) vault_down: AtomicBool,
    /// How often the tenants' keys were rotated.
    pub(crate) rotations: AtomicI32,
    pub(crate) quota: AtomicI64,
}

/// Where they listen.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) vault: ClientConfig,
    pub(crate) broker: ClientConfig,
    pub(crate) scheduler: ClientConfig,
    pub(crate) directory: ClientConfig,
}

macro_rules! stand_in {
    ($name:ident, $service:literal, $($method:literal => $handler:ident: $request:ty => $response:ty),+) => {
        #[derive(Clone)]
        struct $name(Arc<Others>);

        impl NamedService for $name {
            const NAME: &'static str = $service;
        }

        impl tower::Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let others = Arc::clone(&self.0);
                Box::pin(async move {
                    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                    $(if method == $method {
                        let handler = tower::service_fn(move |request: Request<$request>| {
                            let answer = others.$handler(request.into_inner());
                            async move { answer.map(Response::new).map_err(Status::from) }
                        });
                        let codec = ProstCodec::<$response, $request>::default();
                        return Ok(tonic::server::Grpc::new(codec).unary(handler, request).await);
                    })+
                    panic!("the ingest was not thought to call {method}");
                })
            }
        }
    };
}

stand_in!(Keys, "hawser.vault.v1.ServiceKeyService", "GetServiceKey" => service_key: GetServiceKeyRequest => GetServiceKeyResponse);
stand_in!(Connections, "hawser.broker.v1.ConnectionService",
    "FindConnectionsByRoutingKey" => find: FindConnectionsByRoutingKeyRequest => FindConnectionsByRoutingKeyResponse,
    "ListConnections" => list: ListConnectionsRequest => ListConnectionsResponse);
stand_in!(Integrations, "hawser.broker.v1.IntegrationService", "GetIntegration" => integration: GetIntegrationRequest => GetIntegrationResponse);
stand_in!(Syncs, "hawser.scheduler.v1.SyncService", "TriggerSync" => trigger: TriggerSyncRequest => TriggerSyncResponse);
stand_in!(Directory, "hawser.directory.v1.DirectoryService",
    "GetTenant" => tenant: GetTenantRequest => GetTenantResponse,
    "GetUser" => user: GetUserRequest => GetUserResponse);

impl Others {
    /// Serves all of them until shutdown.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        authority: &Authority,
        folder: &Path,
        deps: &Deps,
        shutdown: &Shutdown,
    ) -> Addresses {
        let policy_file = Some(folder.join("policy.toml"));
        std::fs::write(folder.join("policy.toml"), policy()).unwrap();
        let identity = IdentityConfig {
            policy_file,
            ..IdentityConfig::default()
        };
        let open = async |name: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address: SocketAddr = listener.local_addr().unwrap();
            let tls = authority.issue(&Identity::service(name), &[]).unwrap();
            let config = ServerConfig {
                tls,
                ..ServerConfig::default()
            };
            let guard = Guard::new(&identity, None, deps).unwrap();
            let tls = Tls::load(&config.tls, deps.clock.clone()).unwrap();
            let server = Server::new(name, config, tls, guard, deps);
            (
                server,
                listener,
                ClientConfig {
                    address: address.to_string(),
                },
            )
        };
        let run = |server: Server, listener| {
            tokio::spawn(server.serve(listener, shutdown.clone()));
        };
        let (server, listener, vault) = open("token-vault").await;
        run(server.service(Keys(self.clone())), listener);
        let (server, listener, broker) = open("oauth-broker").await;
        run(
            server
                .service(Connections(self.clone()))
                .service(Integrations(self.clone())),
            listener,
        );
        let (server, listener, scheduler) = open("sync-scheduler").await;
        run(server.service(Syncs(self.clone())), listener);
        let (server, listener, directory) = open("tenant-directory").await;
        run(server.service(Directory(self.clone())), listener);
        Addresses {
            vault,
            broker,
            scheduler,
            directory,
        }
    }

    /// A connection of `tenant` with the integration, known by these keys.
    pub(crate) fn connect(
        &self,
        deps: &Deps,
        tenant: TenantKey,
        integration_id: &str,
        keys: &[(&str, &str)],
    ) -> Uuid {
        let connection_id = tenant.new_id(deps);
        let owner = self.integrations.lock().unwrap()[integration_id];
        self.connections.lock().unwrap().push(Connection {
            tenant_id: tenant.to_string(),
            connection_id: connection_id.to_string(),
            integration_id: integration_id.to_owned(),
            integration_tenant_id: owner.to_string(),
            state: ConnectionState::Connected.into(),
            routing_keys: keys
                .iter()
                .map(|(name, value)| RoutingKey {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            ..Connection::default()
        });
        connection_id
    }

    /// Jobs that were made, each once.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }

    fn service_key(&self, request: GetServiceKeyRequest) -> Result<GetServiceKeyResponse, Problem> {
        if self.vault_down.load(Ordering::SeqCst) {
            return Err(Problem::unavailable("away", Duration::from_secs(9)));
        }
        let key_version = match request.key_version {
            0 => 1 + self.rotations.load(Ordering::SeqCst),
            version => version,
        };
        let of = format!("{} {key_version}", request.tenant_id);
        Ok(GetServiceKeyResponse {
            key_version,
            key: digest(&SHA256, of.as_bytes()).as_ref().to_vec(),
            cache_for: Some(prost_types::Duration {
                seconds: 300,
                nanos: 0,
            }),
        })
    }

    fn find(
        &self,
        request: FindConnectionsByRoutingKeyRequest,
    ) -> Result<FindConnectionsByRoutingKeyResponse, Problem> {
        let connections = self.connections.lock().unwrap();
        let found = connections.iter().filter(|connection| {
            connection.integration_id == request.integration_id
                && connection.integration_tenant_id == request.integration_tenant_id
                && (request.tenant_id.is_empty() || connection.tenant_id == request.tenant_id)
                && connection
                    .routing_keys
                    .iter()
                    .any(|key| request.routing_keys.contains(key))
        });
        let connections = found.cloned().collect();
        Ok(FindConnectionsByRoutingKeyResponse {
            connections,
            next_page_token: String::new(),
        })
    }

    fn list(&self, request: ListConnectionsRequest) -> Result<ListConnectionsResponse, Problem> {
        let connections = self.connections.lock().unwrap();
        let found = connections.iter().filter(|connection| {
            connection.tenant_id == request.tenant_id
                && connection.integration_id == request.integration_id
        });
        Ok(ListConnectionsResponse {
            connections: found.cloned().collect(),
            next_page_token: String::new(),
        })
    }

    fn integration(
        &self,
        request: GetIntegrationRequest,
    ) -> Result<GetIntegrationResponse, Problem> {
        let integrations = self.integrations.lock().unwrap();
        let owner = integrations.get(&request.integration_id);
        let owner =
            owner.filter(|owner| owner.is_platform() || owner.to_string() == request.tenant_id);
        let owner = owner.ok_or_else(|| Problem::not_found("integration"))?;
        let integration = Integration {
            tenant_id: owner.to_string(),
            integration_id: request.integration_id,
            ..Integration::default()
        };
        Ok(GetIntegrationResponse {
            integration: Some(integration),
        })
    }

    fn trigger(&self, request: TriggerSyncRequest) -> Result<TriggerSyncResponse, Problem> {
        if self.scheduler_down.load(Ordering::SeqCst) {
            return Err(Problem::unavailable("away", Duration::from_secs(9)));
        }
        let mut jobs = self.jobs.lock().unwrap();
        let next = format!("job-{}", jobs.len() + 1);
        let job_id = jobs
            .entry(request.request_id.clone())
            .or_insert(next)
            .clone();
        self.triggers.lock().unwrap().push(request);
        Ok(TriggerSyncResponse {
            jobs: vec![Job {
                job_id,
                ..Job::default()
            }],
        })
    }

    fn tenant(&self, request: GetTenantRequest) -> Result<GetTenantResponse, Problem> {
        let quotas = Quotas {
            documents_per_user_per_day: self.quota.load(Ordering::SeqCst),
            ..Quotas::default()
        };
        let tenant = Tenant {
            tenant_id: request.tenant_id,
            quotas: Some(quotas),
            ..Tenant::default()
        };
        Ok(GetTenantResponse {
            tenant: Some(tenant),
        })
    }

    fn user(&self, request: GetUserRequest) -> Result<GetUserResponse, Problem> {
        let email = format!("{}@directory.example", request.user_id);
        let user = User {
            tenant_id: request.tenant_id,
            user_id: request.user_id,
            email,
            ..User::default()
        };
        Ok(GetUserResponse { user: Some(user) })
    }
}

/// The policy that Hawser ships, with the broker's list of a tenant's connections open to the ingest.
fn policy() -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/policy.toml");
    let row = "\n[[allow]]\ncallers = [\"spiffe://hawser/webhook-ingest\"]\nmethods = [\"hawser.broker.v1.ConnectionService/ListConnections\"]\nacting = \"service\"\n";
    std::fs::read_to_string(shipped).unwrap() + row
}
