//! The server and the client together, over real mutual TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::identity::authority::Authority;
use common::identity::tls::Tls;
use common::identity::{Identity, IssuerConfig};
use common::lifecycle::Shutdown;
use common::rpc::{
    CallError, Channel, Client, ClientConfig, Guard, IdentityConfig, Server, ServerConfig,
};
use common::{Code, Deps, Problem, Reason, TenantKey};
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::operations_service_server::{
    OperationsService, OperationsServiceServer,
};
use contracts::operations::v1::{
    AuditEvent, GetStatisticsRequest, GetStatisticsResponse, ListAuditEventsRequest,
    ListAuditEventsResponse,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// Answers with what it was told of its caller, or misbehaves as `resource` asks.
#[derive(Clone, Default)]
struct Probe {
    calls: Arc<AtomicU32>,
    hold: Arc<tokio::sync::Notify>,
}

#[tonic::async_trait]
impl OperationsService for Probe {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let caller = common::rpc::caller(&request)?;
        let asked = request.into_inner();
        match asked.resource.as_str() {
            "panic" => panic!("as asked"),
            "hold" => self.hold.notified().await,
            "unavailable-twice" if call < 2 => {
                return Err(Problem::unavailable("not yet", Duration::from_millis(1)).into());
            }
            "tenant" => drop(caller.tenant(&asked.tenant_id)?),
            _ => {}
        }
        let event = AuditEvent {
            actor: caller.actor().identity.clone(),
            actor_user_id: caller.user_id().to_owned(),
            action: format!("{:?}", caller.acting),
            resource: caller.request_id,
            ..AuditEvent::default()
        };
        Ok(Response::new(ListAuditEventsResponse {
            audit_events: vec![event],
            next_page_token: String::new(),
        }))
    }

    async fn get_statistics(
        &self,
        _: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        Err(common::rpc::unimplemented(
            "OperationsService/GetStatistics",
        ))
    }
}

/// A server that answers as the token vault, and the authority that everyone is issued by.
struct World {
    folder: TempDir,
    deps: Deps,
    authority: Authority,
    address: SocketAddr,
    probe: Probe,
    shutdown: Shutdown,
    key: EncodingKey,
}

const ISSUER: &str = "https://app.example";
const AUDIENCE: &str = "hawser";

impl World {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    async fn with(adjust: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let deps = Deps::system("test");
        let authority = Authority::open(folder.path(), &deps).expect("an authority");
        let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        std::fs::write(folder.path().join("jwt.pem"), key_pair.public_key_pem()).expect("written");
        let key = EncodingKey::from_ed_pem(key_pair.serialize_pem().as_bytes()).expect("a key");
        let config = ServerConfig {
            tls: authority
                .issue(&Identity::service("token-vault"), &[])
                .expect("issued"),
            ..ServerConfig::default()
        };
        let config = adjust(config);
        let identity = IdentityConfig {
            policy_file: None,
            issuers: vec![IssuerConfig {
                issuer: ISSUER.into(),
                audience: AUDIENCE.into(),
                public_key_file: Some(folder.path().join("jwt.pem")),
                jwks_file: None,
                jwks_url: None,
                tenant_claim: "tenant_id".into(),
                roles_claim: "roles".into(),
            }],
        };
        let guard = Guard::new(&identity, None, &deps).expect("a guard");
        let tls = Tls::load(&config.tls, deps.clock.clone()).expect("certificates");
        let listener = TcpListener::bind(config.listen).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let probe = Probe::default();
        let shutdown = Shutdown::new();
        let server = Server::new("token-vault", config, tls, guard, &deps)
            .service(OperationsServiceServer::new(probe.clone()));
        tokio::spawn(server.serve(listener, shutdown.clone()));
        Self {
            folder,
            deps,
            authority,
            address,
            probe,
            shutdown,
            key,
        }
    }

    fn channel(&self, uri: &str) -> Channel {
        self.channel_to("token-vault", uri)
    }

    fn channel_to(&self, service: &str, uri: &str) -> Channel {
        let identity = Identity::from_spiffe(uri).expect("an identity");
        let tls = self.authority.issue(&identity, &[]).expect("issued");
        let tls = Tls::load(&tls, self.deps.clock.clone()).expect("certificates");
        let config = ClientConfig {
            address: self.address.to_string(),
        };
        Client::new(tls, &self.deps)
            .channel(service, &config)
            .expect("an address")
    }

    async fn list(
        &self,
        uri: &str,
        request: ListAuditEventsRequest,
    ) -> Result<AuditEvent, CallError> {
        self.list_with(uri, Request::new(request)).await
    }

    async fn list_with(
        &self,
        uri: &str,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<AuditEvent, CallError> {
        let answer = OperationsServiceClient::new(self.channel(uri))
            .list_audit_events(request)
            .await?;
        Ok(answer.into_inner().audit_events.remove(0))
    }

    fn token(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &self.key).expect("signed")
    }

    fn claims(&self, tenant: TenantKey, user: &str) -> Value {
        let exp = self.deps.now().unix_timestamp() + 600;
        json!({"iss": ISSUER, "aud": AUDIENCE, "exp": exp, "sub": user, "tenant_id": tenant.to_string(), "roles": ["editor"]})
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

fn about(resource: &str) -> ListAuditEventsRequest {
    ListAuditEventsRequest {
        resource: resource.into(),
        ..ListAuditEventsRequest::default()
    }
}

fn bearing(token: &str, request: ListAuditEventsRequest) -> Request<ListAuditEventsRequest> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(
        "authorization",
        format!("Bearer {token}").parse().expect("ASCII"),
    );
    request
}

const OPERATOR: &str = "spiffe://hawser/operator/kim";
const HOST: &str = "spiffe://hawser/host/app";
const CONSOLE: &str = "spiffe://hawser/console";

/// The console, with an operator behind it who waits so long.
fn patient_for(patience: Duration) -> common::identity::Caller {
    let mut caller = common::identity::Caller::service("console");
    caller.actor.identity = OPERATOR.into();
    caller.deadline = Some(tokio::time::Instant::now() + patience);
    caller
}

#[tokio::test]
async fn an_operator_is_known_by_its_certificate() {
    let world = World::new().await;
    let event = world
        .list(OPERATOR, about(""))
        .await
        .expect("it is allowed");
    assert_eq!(
        (event.actor.as_str(), event.action.as_str()),
        (OPERATOR, "Operator")
    );
}

#[tokio::test]
async fn nobody_is_refused_before_the_handler_runs() {
    let world = World::new().await;
    let ca = std::fs::read(world.folder.path().join("ca.pem")).expect("read");
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(ca))
        .domain_name("localhost");
    #[expect(
        clippy::disallowed_methods,
        reason = "a client without a certificate is what is tested"
    )]
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", world.address))
        .expect("an address");
    let channel = endpoint
        .tls_config(tls)
        .expect("usable")
        .connect()
        .await
        .expect("connected");
    let status = OperationsServiceClient::new(channel)
        .list_audit_events(about(""))
        .await
        .expect_err("nobody calls");
    let error = CallError::from(status);
    assert_eq!(
        (error.code, error.reason),
        (Code::Unauthenticated, Some(Reason::IdentityMissing))
    );
    assert_eq!(world.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn whoever_the_policy_does_not_list_is_refused() {
    let world = World::new().await;
    let error = world
        .list("spiffe://hawser/sync-worker", about(""))
        .await
        .expect_err("it is not listed");
    assert_eq!(
        (error.code, error.reason),
        (Code::PermissionDenied, Some(Reason::NotAuthorized))
    );
    assert_eq!(world.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_users_token_narrows_a_host_to_the_users_tenant() {
    let world = World::new().await;
    let (mine, other) = (
        TenantKey::new_tenant(&world.deps),
        TenantKey::new_tenant(&world.deps),
    );
    let token = world.token(&world.claims(mine, "ada"));
    let ask = |tenant: TenantKey| ListAuditEventsRequest {
        tenant_id: tenant.to_string(),
        ..about("tenant")
    };

    let event = world
        .list_with(HOST, bearing(&token, ask(mine)))
        .await
        .expect("her own tenant");
    assert_eq!(
        (event.actor_user_id.as_str(), event.action.as_str()),
        ("ada", "Own")
    );
    let error = world
        .list_with(HOST, bearing(&token, ask(other)))
        .await
        .expect_err("another's");
    assert_eq!(error.code, Code::NotFound);
    world
        .list(HOST, ask(other))
        .await
        .expect("without a user it speaks for every tenant");
}

#[tokio::test]
async fn tokens_that_are_not_in_order_are_refused() {
    let world = World::new().await;
    let tenant = TenantKey::new_tenant(&world.deps);
    let good = world.claims(tenant, "ada");
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        world.token(&claims)
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(key);
        world.token(&claims)
    };
    let unsigned = {
        let token = world.token(&good);
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        format!("{signed}.AAAA")
    };
    let symmetric = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &good,
        &EncodingKey::from_secret(b"guess"),
    )
    .expect("signed");
    let refused = [
        ("expired", with("exp", json!(1_000_000))),
        ("no end", without("exp")),
        ("not yet valid", with("nbf", json!(9_000_000_000_u64))),
        ("other audience", with("aud", json!("someone-else"))),
        ("unknown issuer", with("iss", json!("https://evil.example"))),
        ("no user", without("sub")),
        ("no tenant", without("tenant_id")),
        ("unknown tenant", with("tenant_id", json!("acme"))),
        ("no signature", unsigned),
        ("symmetric", symmetric),
        ("nonsense", "nonsense".to_owned()),
    ];
    for (what, token) in refused {
        let error = world
            .list_with(HOST, bearing(&token, about("")))
            .await
            .expect_err(what);
        assert_eq!(
            (error.code, error.reason),
            (Code::Unauthenticated, Some(Reason::IdentityMissing)),
            "{what}"
        );
        assert!(
            !error.message.contains(&token),
            "{what}: the token must not be repeated"
        );
    }
    assert_eq!(world.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_actor_is_passed_on_by_forwarders_alone() {
    let world = World::new().await;
    let tenant = TenantKey::new_tenant(&world.deps);
    let mut actor = common::identity::Caller::service("console");
    actor.actor.identity = OPERATOR.into();
    actor.actor.tenant_id = tenant.to_string();
    actor.actor.user_id = "ada".into();

    let event = common::identity::scope(actor.clone(), world.list(CONSOLE, about("")))
        .await
        .expect("the console forwards");
    assert_eq!(
        (event.actor.as_str(), event.action.as_str()),
        (OPERATOR, "Operator")
    );
    let error = common::identity::scope(actor, world.list(HOST, about("")))
        .await
        .expect_err("a host does not");
    assert_eq!(error.code, Code::PermissionDenied);
    let error = world
        .list(CONSOLE, about(""))
        .await
        .expect_err("the console needs a person");
    assert_eq!(error.code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_panic_is_internal_and_the_server_lives() {
    let world = World::new().await;
    let status = OperationsServiceClient::new(world.channel(OPERATOR))
        .list_audit_events(about("panic"))
        .await
        .expect_err("it panics");
    assert_eq!(status.code(), tonic::Code::Internal);
    assert!(!status.message().contains("as asked"));
    world.list(OPERATOR, about("")).await.expect("it goes on");
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let world = World::new().await;
    let call = world.list(CONSOLE, about("hold"));
    let error = common::identity::scope(patient_for(Duration::from_millis(500)), call)
        .await
        .expect_err("it is held");
    assert_eq!(error.code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn idempotent_calls_are_tried_again() {
    let world = World::new().await;
    world
        .list(OPERATOR, about("unavailable-twice"))
        .await
        .expect("the third attempt");
    assert_eq!(world.probe.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn more_calls_than_fit_are_shed() {
    let world = World::with(|config| ServerConfig {
        max_in_flight: 1,
        ..config
    })
    .await;
    let mut client = OperationsServiceClient::new(world.channel(CONSOLE));
    let mut other = client.clone();
    let held = tokio::spawn(common::identity::scope(
        patient_for(Duration::from_mins(1)),
        async move { client.list_audit_events(about("hold")).await },
    ));
    testkit::eventually(Duration::from_secs(10), async || {
        world.probe.calls.load(Ordering::SeqCst) == 1
    })
    .await;
    let call = other.list_audit_events(about(""));
    let status = common::identity::scope(patient_for(Duration::from_millis(300)), call)
        .await
        .expect_err("there is no room");
    let error = CallError::from(status);
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.retry_after.is_some());
    world.probe.hold.notify_one();
    held.await
        .expect("no panic")
        .expect("the one that was let in is answered");
}

#[tokio::test]
async fn hundreds_of_calls_share_a_connection() {
    let world = World::new().await;
    let client = OperationsServiceClient::new(world.channel(CONSOLE));
    let calls = (0..500).map(|_| {
        let mut client = client.clone();
        common::identity::scope(patient_for(Duration::from_secs(20)), async move {
            client.list_audit_events(about("")).await
        })
    });
    for answer in futures::future::join_all(calls).await {
        answer.expect("each is answered");
    }
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_spoken_to() {
    let world = World::new().await;
    let channel = world.channel_to("oauth-broker", CONSOLE);
    let call = async {
        OperationsServiceClient::new(channel)
            .list_audit_events(about(""))
            .await
    };
    let status = common::identity::scope(patient_for(Duration::from_secs(1)), call)
        .await
        .expect_err("it is the vault");
    let error = CallError::from(status);
    assert_eq!(error.code, Code::Unavailable);
    assert!(
        error
            .message
            .contains("answers as spiffe://hawser/token-vault"),
        "{error}"
    );
    assert_eq!(world.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_known_caller_may_ask_for_health_and_reflection() {
    let world = World::new().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(
        world.channel("spiffe://hawser/sync-worker"),
    );
    let answer = health
        .check(tonic_health::pb::HealthCheckRequest {
            service: String::new(),
        })
        .await
        .expect("it is known");
    assert_eq!(
        answer.into_inner().status,
        tonic_health::pb::health_check_response::ServingStatus::Serving as i32
    );
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let world = World::new().await;
    let mut request = Request::new(about(""));
    request
        .metadata_mut()
        .insert("x-request-id", "my-request-7".parse().expect("ASCII"));
    assert_eq!(
        world
            .list_with(OPERATOR, request)
            .await
            .expect("allowed")
            .resource,
        "my-request-7"
    );
    assert_eq!(
        world
            .list(OPERATOR, about(""))
            .await
            .expect("allowed")
            .resource
            .len(),
        32
    );
}
