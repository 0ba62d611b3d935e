//! The server that every service starts.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tower::Service;

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

/// The server stopped for a reason that is not a shutdown.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server stopped")]
pub struct ServeError(#[from] tonic::transport::Error);

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
const KEEPALIVE: Duration = Duration::from_secs(30);

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
    /// [`ServeError`] where the server stops for another reason.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        self.add_reflection();
        for name in std::iter::once("").chain(self.served.iter().copied()) {
            self.health
                .set_service_status(name, tonic_health::ServingStatus::Serving)
                .await;
        }
        let (connections, incoming) = mpsc::channel(64);
        let accepting = tokio::spawn(accept(listener, self.tls, connections));
        let health = self.health;
        let until = async move {
            shutdown.requested().await;
            health
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
            accepting.abort();
        };
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .layer(TelemetryLayer::new(
                self.name,
                self.config.max_in_flight,
                &self.deps,
            ))
            .layer(GuardLayer::new(
                self.guard,
                self.config.default_deadline,
                self.config.max_deadline,
            ))
            .add_routes(self.routes.routes())
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), until)
            .await;
        Ok(served?)
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

/// Accepts connections and shakes hands, each in a task of its own, so that a slow client holds nobody up.
async fn accept(
    listener: TcpListener,
    tls: Arc<Tls>,
    connections: mpsc::Sender<Result<TlsStream<TcpStream>, std::io::Error>>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files and the like: they pass when connections close.
                tracing::warn!(event = "accept_failed", %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(tls.server());
        let connections = connections.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // The server is gone where nobody takes the connection.
                Ok(Ok(stream)) => drop(connections.send(Ok(stream)).await),
                Ok(Err(error)) => {
                    tracing::debug!(event = "tls_handshake_failed", %peer, %error, "a TLS handshake failed");
                }
                Err(_) => {
                    tracing::debug!(event = "tls_handshake_failed", %peer, "a TLS handshake took too long");
                }
            }
        });
    }
}
