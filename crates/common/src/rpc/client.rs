//! Channels to other services: mutual TLS with the service's identity checked, the actor, the trace and the deadline
//! passed on, and idempotent calls tried again while the deadline lasts.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use tracing::Instrument as _;

use super::guard::ACTOR_HEADER;
use crate::Deps;
use crate::config::{Problems, Validate};
use crate::identity::{Identity, current, tls};

/// What the generated clients are built on; cheap to clone.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, ChannelError>;

/// A call that got no answer. Generated clients turn it into a status.
#[derive(Debug, thiserror::Error)]
#[error("no answer came")]
pub struct ChannelError(#[source] BoxError);

/// Where another service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Host and port: `token-vault:7000`.
    pub address: String,
}

impl Validate for ClientConfig {
    fn validate(&self, problems: &mut Problems) {
        let port = self
            .address
            .rsplit_once(':')
            .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
        problems.check(port.is_some(), "address", "name the service as host:port");
    }
}

/// Makes channels.
#[derive(Clone, Debug)]
pub struct Client {
    tls: Arc<tls::Tls>,
    deps: Deps,
}

/// The address of another service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is no address of a service; write it as host:port")]
pub struct AddressError {
    address: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Methods that change nothing by their names, whose calls may be repeated.
const IDEMPOTENT: [&str; 6] = [
    "Get",
    "List",
    "BatchGet",
    "Find",
    "Describe",
    "Authenticate",
];

impl Client {
    /// Channels that present our certificate.
    pub fn new(tls: Arc<tls::Tls>, deps: &Deps) -> Self {
        Self {
            tls,
            deps: deps.clone(),
        }
    }

    /// A channel to the service `name`; it connects when it is first used, and again whenever it has to.
    ///
    /// # Errors
    /// [`AddressError`] where the address is none.
    pub fn channel(&self, name: &str, config: &ClientConfig) -> Result<Channel, AddressError> {
        let unusable = || AddressError {
            address: config.address.clone(),
        };
        let uri: Uri = format!("http://{}", config.address)
            .parse()
            .map_err(|_| unusable())?;
        if uri.port_u16().is_none() {
            return Err(unusable());
        }
        let connector = Connector {
            tls: self.tls.clone(),
            address: config.address.clone(),
            expected: Identity::service(name),
        };
        let channel = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                connector.clone().connect()
            }));
        Ok(BoxCloneSyncService::new(Outgoing {
            inner: channel,
            target: name.into(),
            deps: self.deps.clone(),
        }))
    }
}

#[derive(Clone)]
struct Connector {
    tls: Arc<tls::Tls>,
    address: String,
    expected: Identity,
}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(self.address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(io::Error::other)?;
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.tls.client())
            .connect(name, stream)
            .await?;
        let presented = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(tls::identity_of);
        if presented.as_ref() == Some(&self.expected) {
            Ok(TokioIo::new(stream))
        } else {
            let presented = presented.map_or_else(
                || "no identity of Hawser's".to_owned(),
                |identity| identity.to_string(),
            );
            Err(io::Error::other(format!(
                "{} answers as {presented}, not as {}",
                self.address, self.expected
            )))
        }
    }
}

/// What is done to each outgoing call.
#[derive(Clone)]
struct Outgoing {
    inner: tonic::transport::Channel,
    target: Arc<str>,
    deps: Deps,
}

impl Service<Request<Body>> for Outgoing {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<Body>, ChannelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        // Each attempt waits for a connection of its own accord.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.clone();
        let path = request.uri().path().to_owned();
        let (service, method) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or(("", ""));
        let short = service.rsplit('.').next().unwrap_or(service);
        let span = tracing::info_span!(
            "rpc.client",
            otel.name = format!("{short}/{method}"),
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            server.address = &*self.target,
        );
        let idempotent = IDEMPOTENT.iter().any(|prefix| method.starts_with(prefix));
        Box::pin(
            async move { call.run(request, idempotent).await.map_err(ChannelError) }
                .instrument(span),
        )
    }
}

impl Outgoing {
    async fn run(
        self,
        request: Request<Body>,
        idempotent: bool,
    ) -> Result<Response<Body>, BoxError> {
        let streams = request.uri().path().contains("/Watch");
        let caller = current();
        let deadline = match caller.as_ref().and_then(|caller| caller.deadline) {
            _ if streams => None,
            Some(deadline) => Some(deadline),
            None => {
                let asked = super::guard::grpc_timeout(request.headers());
                Some(Instant::now() + asked.unwrap_or(DEFAULT_DEADLINE))
            }
        };
        let (mut parts, body) = request.into_parts();
        if let Some(caller) = &caller {
            let actor = STANDARD_NO_PAD.encode(caller.actor.encode_to_vec());
            parts
                .headers
                .insert(ACTOR_HEADER, HeaderValue::try_from(actor)?);
            if let Ok(request_id) = HeaderValue::try_from(&caller.request_id) {
                parts.headers.insert("x-request-id", request_id);
            }
        }
        crate::telemetry::context::inject(&mut parts.headers);
        if !idempotent {
            return self.attempt(parts, body, deadline).await;
        }
        let body = body.collect().await?.to_bytes();
        self.repeat(&parts, body, deadline).await
    }

    async fn repeat(
        &self,
        parts: &http::request::Parts,
        body: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, BoxError> {
        let mut attempt = 1;
        loop {
            let outcome = self
                .attempt(parts.clone(), Body::new(Full::new(body.clone())), deadline)
                .await;
            let said = match &outcome {
                Ok(response) if !is_unavailable(response.headers()) => return outcome,
                Ok(response) => Status::from_header_map(response.headers())
                    .and_then(|status| super::CallError::from(status).retry_after),
                Err(_) => None,
            };
            let pause = said.unwrap_or_else(|| self.backoff(attempt));
            let too_late = deadline.is_some_and(|deadline| Instant::now() + pause >= deadline);
            if attempt == ATTEMPTS || too_late || pause > LONGEST_BACKOFF {
                return outcome;
            }
            tracing::debug!(event = "call_repeated", rpc.path = %parts.uri.path(), attempt, "a call is tried again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        mut parts: http::request::Parts,
        body: Body,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, BoxError> {
        let mut channel = self.inner.clone();
        let Some(deadline) = deadline else {
            let request = Request::from_parts(parts, body);
            return Ok(channel.ready().await?.call(request).await?);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        parts.headers.insert("grpc-timeout", grpc_timeout(left));
        let request = Request::from_parts(parts, body);
        let answered = async { Ok(channel.ready().await?.call(request).await?) };
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Box::new(Status::deadline_exceeded(format!(
                "{} did not answer in time",
                self.target
            )))),
        }
    }

    /// Full jitter over a span that doubles.
    fn backoff(&self, attempt: u32) -> Duration {
        let span = FIRST_BACKOFF * 2_u32.pow(attempt - 1);
        let part = f64::from(u32::from_be_bytes(self.deps.random())) / f64::from(u32::MAX);
        span.min(LONGEST_BACKOFF).mul_f64(part)
    }
}

fn is_unavailable(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code == "14")
}

/// Whole milliseconds where they fit into the eight digits that the protocol allows, else seconds.
fn grpc_timeout(left: Duration) -> HeaderValue {
    let millis = left.as_millis();
    let text = if millis <= 99_999_999 {
        format!("{millis}m")
    } else {
        format!("{}S", left.as_secs().min(99_999_999))
    };
    HeaderValue::try_from(text).expect("digits and a letter are a header's value")
}
