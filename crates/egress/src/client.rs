//! The client: a request out, an answer back, within bounds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{Clock, Deps};
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use tokio::time::{Sleep, sleep, timeout};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use url::Url;

use crate::config::EgressConfig;
use crate::connect::{Connector, Origin};
use crate::error::{EgressError, Refusal};
use crate::pool::Pool;
use crate::request::Request;
use crate::resolve::{Resolve, SystemResolver};
use crate::response::Response;

/// The one outbound HTTP client. Cheap to clone; made once per process.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Inner>);

/// A connection that is open and has carried nothing yet: name resolved, address checked, TLS done.
///
/// For a request whose sending has to be decided at the last moment: what can fail before the first byte has failed or
/// succeeded already.
#[derive(Debug)]
pub struct Connection {
    egress: Egress,
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
}

#[derive(Debug)]
struct Inner {
    config: EgressConfig,
    user_agent: HeaderValue,
    connector: Connector,
    pool: Pool,
    clock: Arc<dyn Clock>,
    duration: Histogram<f64>,
}

impl Egress {
    /// Reads the trusted certificates; fails where a configured file cannot be used.
    pub fn new(config: EgressConfig, deps: &Deps) -> io::Result<Self> {
        Self::with_resolver(config, deps, Arc::new(SystemResolver))
    }

    /// As [`Egress::new`], with another way to find addresses.
    pub fn with_resolver(
        config: EgressConfig,
        deps: &Deps,
        resolver: Arc<dyn Resolve>,
    ) -> io::Result<Self> {
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the user agent is not a header value",
            )
        })?;
        let duration = deps
            .meter
            .f64_histogram("http.client.request.duration")
            .with_unit("s")
            .with_description("Time of outbound HTTP calls, connecting included")
            .build();
        Ok(Self(Arc::new(Inner {
            connector: Connector::new(&config, resolver)?,
            user_agent,
            pool: Pool::default(),
            clock: Arc::clone(&deps.clock),
            duration,
            config,
        })))
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`EgressError::delivery`] says whether the provider may have acted on it.
    pub async fn send(&self, request: Request) -> Result<Response, EgressError> {
        self.measured(&request, self.run(&request)).await
    }

    /// Opens a connection to the origin of `url`, ahead of a request.
    ///
    /// # Errors
    ///
    /// Always with [`crate::Delivery::NotSent`].
    pub async fn connect(&self, url: &Url) -> Result<Connection, EgressError> {
        let origin = Origin::of(url)?;
        let sender = self.open(&origin).await?;
        Ok(Connection {
            egress: self.clone(),
            origin,
            sender,
        })
    }

    async fn run(&self, request: &Request) -> Result<Response, EgressError> {
        let origin = Origin::of(&request.url)?;
        let prepared = self.prepare(request)?;
        let mut deadline = Box::pin(sleep(self.total(request)));
        if request.is_repeatable()
            && let Some(sender) = self.0.pool.take(&origin, self.0.clock.boottime())
        {
            match self
                .exchange(
                    sender,
                    &origin,
                    prepared.clone(),
                    request,
                    deadline.as_mut(),
                )
                .await
            {
                // It had died while it was idle.
                Err(EgressError::Closed { .. } | EgressError::Interrupted { status: None, .. }) => {
                }
                outcome => return outcome,
            }
        }
        let sender = tokio::select! {
            biased;
            () = deadline.as_mut() => return Err(EgressError::ConnectTimeout { host: origin.host() }),
            sender = self.open(&origin) => sender?,
        };
        self.exchange(sender, &origin, prepared, request, deadline.as_mut())
            .await
    }

    async fn open(&self, origin: &Origin) -> Result<SendRequest<Full<Bytes>>, EgressError> {
        timeout(self.0.config.connect_timeout, self.0.connector.open(origin))
            .await
            .unwrap_or_else(|_| {
                Err(EgressError::ConnectTimeout {
                    host: origin.host(),
                })
            })
    }

    fn total(&self, request: &Request) -> Duration {
        request.timeout.unwrap_or(self.0.config.total_timeout)
    }

    fn prepare(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, Refusal> {
        let mut prepared = request.prepare(&self.0.user_agent)?;
        common::telemetry::context::inject(prepared.headers_mut());
        Ok(prepared)
    }

    /// From the moment the request is given to the connection every failure counts as sent, unless the connection gives
    /// the request back untouched.
    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        origin: &Origin,
        prepared: http::Request<Full<Bytes>>,
        request: &Request,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<Response, EgressError> {
        let host = origin.host();
        // A reused connection may still be finishing with the answer before.
        tokio::select! {
            biased;
            ready = sender.ready() => if ready.is_err() {
                return Err(EgressError::Closed { host });
            },
            () = deadline.as_mut() => return Err(EgressError::ConnectTimeout { host }),
        }
        let answered = tokio::select! {
            biased;
            answered = sender.try_send_request(prepared) => answered,
            () = deadline.as_mut() => return Err(EgressError::AnswerTimeout { host, status: None }),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(mut failure) => {
                if failure.take_message().is_some() {
                    return Err(EgressError::Closed { host });
                }
                let error = failure.into_error();
                return Err(if error.is_parse() || error.is_parse_too_large() {
                    EgressError::Malformed {
                        host,
                        source: error.into(),
                    }
                } else {
                    EgressError::Interrupted {
                        host,
                        status: None,
                        source: error.into(),
                    }
                });
            }
        };
        let status = answer.status();
        let limit = request.body_limit.unwrap_or(self.0.config.body_limit);
        let response = tokio::select! {
            biased;
            response = read(answer, host, limit) => response?,
            () = deadline => {
                return Err(EgressError::AnswerTimeout { host: origin.host(), status: Some(status) });
            }
        };
        if !sender.is_closed() {
            self.0
                .pool
                .put(origin.clone(), sender, self.0.clock.boottime());
        }
        Ok(response)
    }

    /// One span and one measurement for a call, named by the semantic conventions; no query, header or body in either.
    async fn measured(
        &self,
        request: &Request,
        call: impl Future<Output = Result<Response, EgressError>>,
    ) -> Result<Response, EgressError> {
        let span = span_of(request);
        let started = self.0.clock.boottime();
        let outcome = call.instrument(span.clone()).await;
        let method = KeyValue::new("http.request.method", request.method.to_string());
        let result = match &outcome {
            Ok(response) => {
                span.record("http.response.status_code", response.status.as_u16());
                KeyValue::new(
                    "http.response.status_code",
                    i64::from(response.status.as_u16()),
                )
            }
            Err(error) => {
                span.record("error.type", error.kind());
                span.record("otel.status_code", "ERROR");
                if let Some(status) = error.status() {
                    span.record("http.response.status_code", status.as_u16());
                }
                KeyValue::new("error.type", error.kind())
            }
        };
        let elapsed = self.0.clock.boottime().saturating_sub(started);
        self.0
            .duration
            .record(elapsed.as_secs_f64(), &[method, result]);
        outcome
    }
}

impl Connection {
    /// Whether the peer has not closed it; the answer may be old by the time it is read.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends one request on this connection and no other; `request` must go to the origin it was opened to.
    ///
    /// # Errors
    ///
    /// [`EgressError::delivery`] says whether the provider may have acted on it.
    pub async fn send(self, request: Request) -> Result<Response, EgressError> {
        let Self {
            egress,
            origin,
            sender,
        } = self;
        let call = async {
            if Origin::of(&request.url)? != origin {
                return Err(Refusal::Origin.into());
            }
            let prepared = egress.prepare(&request)?;
            let mut deadline = Box::pin(sleep(egress.total(&request)));
            egress
                .exchange(sender, &origin, prepared, &request, deadline.as_mut())
                .await
        };
        egress.measured(&request, call).await
    }
}

/// Reads a body of at most `limit` bytes.
async fn read(
    answer: http::Response<Incoming>,
    host: String,
    limit: usize,
) -> Result<Response, EgressError> {
    let (head, mut incoming) = answer.into_parts();
    let status = head.status;
    let encoding = head.headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(EgressError::Encoded { host, status });
    }
    if incoming.size_hint().lower() > limit as u64 {
        return Err(EgressError::TooLarge {
            host,
            status,
            limit,
        });
    }
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(source) => {
                return Err(EgressError::Interrupted {
                    host,
                    status: Some(status),
                    source: source.into(),
                });
            }
        };
        // Trailers say nothing that we read.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > limit {
            return Err(EgressError::TooLarge {
                host,
                status,
                limit,
            });
        }
        body.extend_from_slice(&data);
    }
    Ok(Response {
        status,
        headers: head.headers,
        body: body.freeze(),
    })
}

fn span_of(request: &Request) -> Span {
    info_span!(
        "http.client",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = %request.method,
        server.address = request.url.host_str().unwrap_or_default(),
        server.port = request.url.port_or_known_default(),
        url.path = request.url.path(),
        http.response.status_code = Empty,
        "error.type" = Empty,
    )
}
