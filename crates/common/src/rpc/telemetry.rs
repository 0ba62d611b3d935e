//! The outermost layer: one span and one duration for each call, panics turned into INTERNAL, and load shedding.
//!
//! Names follow OpenTelemetry's semantic conventions for RPC.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::telemetry::context::{self, TRACEPARENT};
use crate::{Deps, Problem};

/// Puts tracing, metrics, the limit on calls in flight, and the panic handler before a gRPC service.
#[derive(Clone, Debug)]
pub(super) struct TelemetryLayer {
    service: &'static str,
    deps: Deps,
    duration: Histogram<f64>,
    in_flight: Arc<Semaphore>,
}

impl TelemetryLayer {
    pub(super) fn new(service: &'static str, max_in_flight: usize, deps: &Deps) -> Self {
        let duration = deps
            .meter
            .f64_histogram("rpc.server.duration")
            .with_unit("s")
            .with_description("Duration of calls taken in")
            .with_boundaries(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ])
            .build();
        Self {
            service,
            deps: deps.clone(),
            duration,
            in_flight: Arc::new(Semaphore::new(max_in_flight)),
        }
    }

    fn record(&self, method: &str, code: i64, took: Duration) {
        let attributes = [
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("hawser.service", self.service),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.grpc.status_code", code),
        ];
        self.duration.record(took.as_secs_f64(), &attributes);
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = TelemetryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TelemetryService {
            inner,
            layer: Arc::new(self.clone()),
        }
    }
}

/// See [`TelemetryLayer`].
#[derive(Clone, Debug)]
pub(super) struct TelemetryService<S> {
    inner: S,
    layer: Arc<TelemetryLayer>,
}

impl<S> Service<Request<Body>> for TelemetryService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = Arc::clone(&self.layer);
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = call_span(layer.service, &method, request.headers());
        let in_span = span.clone();
        Box::pin(
            async move {
                let began = layer.deps.clock.boottime();
                // Health checks are answered however much there is to do.
                let permit = layer.in_flight.try_acquire();
                let response = if permit.is_err() && !method.starts_with("grpc.health.") {
                    let shed = Problem::unavailable(
                        "too many calls in flight; try again shortly",
                        Duration::from_millis(500),
                    );
                    Status::from(shed).into_http()
                } else {
                    match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
                        Ok(Ok(response)) => response,
                        Err(panic) => panicked(&method, &*panic),
                    }
                };
                let code = grpc_code(response.headers());
                span.record("rpc.grpc.status_code", code);
                if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
                    span.record("otel.status_code", "ERROR");
                }
                layer.record(
                    &method,
                    code,
                    layer.deps.clock.boottime().saturating_sub(began),
                );
                Ok(response)
            }
            .instrument(in_span),
        )
    }
}

fn call_span(service: &'static str, method: &str, headers: &HeaderMap) -> tracing::Span {
    let (rpc_service, rpc_method) = method.split_once('/').unwrap_or((method, ""));
    let short = rpc_service.rsplit('.').next().unwrap_or(rpc_service);
    let span = tracing::info_span!(
        parent: None,
        "rpc",
        otel.name = format!("rpc.{short}/{rpc_method}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        rpc.system = "grpc",
        rpc.service = rpc_service,
        rpc.method = rpc_method,
        rpc.grpc.status_code = tracing::field::Empty,
        hawser.service = service,
        hawser.caller = tracing::field::Empty,
        tenant.id = tracing::field::Empty,
        user.id = tracing::field::Empty,
    );
    if headers.contains_key(TRACEPARENT) {
        // A span that is not sampled or not enabled has no parent to take.
        let _ = span.set_parent(context::extract(headers));
    }
    span
}

/// The code of an answer that failed at once stands in its headers; one that streams has begun well.
fn grpc_code(headers: &HeaderMap) -> i64 {
    headers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn panicked(method: &str, panic: &(dyn Any + Send)) -> Response<Body> {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        event = "handler_panicked",
        rpc.method = method,
        panic = message,
        "a handler panicked; this is a defect to be reported"
    );
    Status::from(Problem::bare(
        crate::Code::Internal,
        "an internal error occurred; give the operator the request id",
    ))
    .into_http()
}
