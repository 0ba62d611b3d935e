//! The server that every service starts.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tower::{Layer as _, Service};

use super::connection::{self, Peer};
use super::guard::{Guard, GuardLayer};
use super::telemetry::TelemetryLayer;
use crate::Deps;
use crate::config::{Problems, Validate};
use crate::identity::tls::{Tls, TlsConfig};
use crate::lifecycle::Shutdown;

/// How a service listens for gRPC.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Our certificate, and whom we believe.
    pub tls: TlsConfig,
    /// Calls in flight at most; further ones are answered UNAVAILABLE.
    pub max_in_flight: usize,
    /// The time that a call without a deadline of its own gets.
    #[serde(with = "humantime_serde")]
    pub default_deadline: Duration,
    /// The time that a call gets at most.
    #[serde(with = "humantime_serde")]
    pub max_deadline: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: TlsConfig::default(),
            max_in_flight: 1024,
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_mins(10),
        }
    }
}

impl Validate for ServerConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("tls", &self.tls);
        problems.check(
            self.max_in_flight > 0,
            "max_in_flight",
            "must be at least 1",
        );
        problems.check(
            !self.default_deadline.is_zero(),
            "default_deadline",
            "must be longer than nothing, as in \"30s\"",
        );
        problems.check(
            self.max_deadline >= self.default_deadline,
            "max_deadline",
            "must not be shorter than `default_deadline`",
        );
    }
}

/// Services being put together behind one listener.
pub struct Server {
    name: &'static str,
    config: ServerConfig,
    tls: Arc<Tls>,
    guard: Guard,
    deps: Deps,
    routes: RoutesBuilder,
    served: Vec<&'static str>,
    health: tonic_health::server::HealthReporter,
}

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Server {
    /// A server of the service `name`, with health and reflection (v1, and v1alpha for Python's grpcio).
    pub fn new(
        name: &'static str,
        config: ServerConfig,
        tls: Arc<Tls>,
        guard: Guard,
        deps: &Deps,
    ) -> Self {
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut routes = RoutesBuilder::default();
        routes.add_service(health_service);
        Self {
            name,
            config,
            tls,
            guard,
            deps: deps.clone(),
            routes,
            served: Vec::new(),
            health,
        }
    }

    /// Serves this too.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible, Response = http::Response<Body>>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.served.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Takes calls until a shutdown is requested, then lets those in flight end.
    ///
    /// # Errors
    /// None; it is what tasks return.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> Result<(), Infallible> {
        self.add_reflection();
        for name in std::iter::once("").chain(self.served.iter().copied()) {
            self.health
                .set_service_status(name, tonic_health::ServingStatus::Serving)
                .await;
        }
        let guard = GuardLayer::new(
            self.guard,
            self.config.default_deadline,
            self.config.max_deadline,
        );
        let telemetry = TelemetryLayer::new(self.name, self.config.max_in_flight, &self.deps);
        let service = telemetry.layer(guard.layer(self.routes.routes().prepare()));
        let connections = TaskTracker::new();
        let accepting = accept(&listener, &self.tls, &service, &connections, &shutdown);
        tokio::select! {
            never = accepting => match never {},
            () = shutdown.requested() => {}
        }
        // Whoever still comes is refused at once.
        drop(listener);
        self.health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        connections.close();
        connections.wait().await;
        Ok(())
    }

    fn add_reflection(&mut self) {
        let builder = || {
            let mut builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(contracts::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health");
            for name in &self.served {
                builder = builder.with_service_name(*name);
            }
            builder
        };
        let v1 = builder()
            .build_v1()
            .expect("the descriptor set was compiled with the contracts");
        let v1alpha = builder()
            .build_v1alpha()
            .expect("the descriptor set was compiled with the contracts");
        self.routes.add_service(v1);
        self.routes.add_service(v1alpha);
    }
}

/// Accepts connections, each for a task of its own, so that a slow client holds nobody up.
async fn accept<S>(
    listener: &TcpListener,
    tls: &Tls,
    service: &S,
    connections: &TaskTracker,
    shutdown: &Shutdown,
) -> Infallible
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files and the like: they pass when connections close.
                tracing::warn!(event = "accept_failed", %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let shaking = TlsAcceptor::from(tls.server()).accept(stream);
        let (service, shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, shaking) => shaken,
                () = shutdown.requested() => return,
            };
            match shaken {
                Ok(Ok(stream)) => {
                    let peer = Peer::of(&stream, address);
                    // However it ends, there is nobody left to be told.
                    let _ = connection::serve(stream, peer, service, shutdown).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(event = "tls_handshake_failed", peer = %address, %error, "a TLS handshake failed");
                }
                Err(_) => {
                    tracing::debug!(event = "tls_handshake_failed", peer = %address, "a TLS handshake took too long");
                }
            }
        });
    }
}
