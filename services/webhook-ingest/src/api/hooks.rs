//! `POST /hooks/{source_token}`: where providers send their webhooks.
//!
//! Whoever is refused is told nothing: an address that there is not is 404, a signature that does not fit an empty 401.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use common::lifecycle::Shutdown;
use common::problem::Chain;
use common::telemetry::context;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::Instrument as _;
use webhook_signatures::{Refused, Scheme};

use crate::config::IntakeConfig;
use crate::receive_webhook::{Incoming, Intake, Reception};

const KIB: usize = 1024;
/// After how many seconds a provider may try again.
const PAUSE: &str = "5";

/// The public listener's state.
#[derive(Clone)]
pub(crate) struct Hooks(Arc<Inner>);

struct Inner {
    intake: Intake,
    /// What addresses begin with.
    public_url: String,
    budget: Duration,
    body_timeout: Duration,
    /// KiB of bodies that may be in memory.
    memory: Semaphore,
    answers: Counter<u64>,
    durations: Histogram<f64>,
}

impl Hooks {
    /// Takes webhooks in through `intake`.
    pub(crate) fn new(intake: Intake, config: &IntakeConfig, public_url: String) -> Self {
        let meter = intake.deps.meter.clone();
        Self(Arc::new(Inner {
            intake,
            public_url,
            budget: config.budget.get(),
            body_timeout: config.body_timeout.get(),
            memory: Semaphore::new(config.body_memory_mib * KIB),
            answers: meter
                .u64_counter("hawser.webhooks.received")
                .with_unit("{webhook}")
                .with_description("Webhooks by scheme and by the status of the answer")
                .build(),
            durations: meter
                .f64_histogram("hawser.webhooks.duration")
                .with_unit("s")
                .with_description("From a webhook's last byte to its answer")
                .build(),
        }))
    }

    /// Serves until a shutdown is requested, then lets those in flight end.
    ///
    /// # Errors
    /// None while the listener lives.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> Result<(), std::io::Error> {
        let router: Router = Router::new()
            .route("/hooks/{source_token}", post(receive))
            .with_state(self);
        let until = async move { shutdown.requested().await };
        axum::serve(listener, router)
            .with_graceful_shutdown(until)
            .await
    }
}

async fn receive(
    State(hooks): State<Hooks>,
    token: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response, Infallible> {
    let Ok(Path(token)) = token else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let span = tracing::info_span!(
        "webhook.received",
        otel.kind = "server",
        http.request.method = "POST",
        http.route = "/hooks/{source_token}",
        http.response.status_code = tracing::field::Empty,
        tenant.id = tracing::field::Empty,
        source_id = tracing::field::Empty,
    );
    // A stranger's trace is linked to, not continued: it does not decide what is sampled.
    if let Some(traceparent) = request.headers().get(context::TRACEPARENT) {
        context::link_to(&span, traceparent.to_str().unwrap_or_default());
    }
    let answer = hooks.0.answer(&token, request).instrument(span.clone());
    let (scheme, response) = answer.await;
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let labels = [
        KeyValue::new("scheme", scheme.unwrap_or("unknown")),
        KeyValue::new("http.response.status_code", i64::from(status)),
    ];
    hooks.0.answers.add(1, &labels);
    Ok(response)
}

impl Inner {
    async fn answer(&self, token: &str, request: Request) -> (Option<&'static str>, Response) {
        let found = match timeout(self.budget, self.intake.source(token)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(event = "webhook_postponed", error = %Chain(&error), "a webhook's source cannot be read; its provider is told to send it again");
                return (None, unavailable());
            }
            Err(_) => {
                tracing::warn!(
                    event = "webhook_postponed",
                    "a webhook's source could not be read in time; its provider is told to send it again"
                );
                return (None, unavailable());
            }
        };
        let Some((hash, source)) = found else {
            return (None, empty(StatusCode::NOT_FOUND));
        };
        let scheme = source.scheme;
        let span = tracing::Span::current();
        span.record("tenant.id", source.source.tenant.to_string());
        span.record("source_id", &source.source.source_id);
        tracing::info!(
            event = "webhook_received",
            tenant.id = %source.source.tenant,
            source_id = source.source.source_id,
            scheme = scheme.key,
            "a webhook came in"
        );
        let (parts, body) = request.into_parts();
        let Some(_memory) = self.reserve(scheme, &parts.headers) else {
            tracing::warn!(
                event = "webhook_postponed",
                tenant.id = %source.source.tenant,
                source_id = source.source.source_id,
                "too many bodies are in memory; a webhook's provider is told to send it again"
            );
            return (Some(&scheme.key), unavailable());
        };
        let body = match self.body(scheme, &parts.headers, body).await {
            Ok(body) => body,
            Err(status) => {
                tracing::info!(
                    event = "webhook_refused",
                    tenant.id = %source.source.tenant,
                    source_id = source.source.source_id,
                    scheme = scheme.key,
                    status = status.as_u16(),
                    "a webhook's body was not taken"
                );
                return (Some(&scheme.key), empty(status));
            }
        };
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let url = format!("{}{path}", self.public_url);
        let incoming = Incoming {
            method: &parts.method,
            url: &url,
            headers: &parts.headers,
            body: &body,
        };
        let began = self.intake.deps.clock.boottime();
        let received = timeout(self.budget, self.intake.receive(hash, &source, incoming)).await;
        let took = self.intake.deps.clock.boottime().saturating_sub(began);
        self.durations.record(
            took.as_secs_f64(),
            &[KeyValue::new("scheme", scheme.key.as_str())],
        );
        let response = match received {
            Ok(Ok(Reception::Taken(_))) => acknowledged(scheme),
            Ok(Ok(Reception::Refused(Refused::BodyTooLarge))) => {
                empty(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Ok(Ok(Reception::Refused(_))) => empty(StatusCode::UNAUTHORIZED),
            outcome => {
                let cause = match &outcome {
                    Ok(Err(error)) => Chain(error).to_string(),
                    _ => "it took too long".to_owned(),
                };
                tracing::warn!(
                    event = "webhook_postponed",
                    tenant.id = %source.source.tenant,
                    source_id = source.source.source_id,
                    error = cause,
                    "a webhook is not known to be durable; its provider is told to send it again"
                );
                unavailable()
            }
        };
        (Some(&scheme.key), response)
    }

    /// Memory for the body, as long as it says it is or, where it does not say, may be.
    fn reserve(
        &self,
        scheme: &Scheme,
        headers: &HeaderMap,
    ) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let bytes = length(headers).map_or(scheme.max_body, |said| said.min(scheme.max_body));
        let kib = u32::try_from(bytes.div_ceil(KIB).max(1)).ok()?;
        self.memory.try_acquire_many(kib).ok()
    }

    /// The raw bytes, never more than the scheme allows.
    async fn body(
        &self,
        scheme: &Scheme,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Bytes, StatusCode> {
        if length(headers).is_some_and(|said| said > scheme.max_body) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let whole = Limited::new(body, scheme.max_body).collect();
        match timeout(self.body_timeout, whole).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// As the provider wants it.
fn acknowledged(scheme: &Scheme) -> Response {
    let mut response = Response::new(Body::from(scheme.response.body.clone()));
    *response.status_mut() = scheme.response.status;
    let content_type = scheme.response.content_type.as_deref();
    if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn unavailable() -> Response {
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static(PAUSE));
    response
}
