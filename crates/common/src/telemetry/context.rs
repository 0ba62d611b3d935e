//! W3C trace context: carried by every call as headers, and by events and jobs as a `traceparent` to link to.
//!
//! A call continues its caller's trace: [`inject`] on one side, [`extract`] and [`span_with_remote_parent`] on the
//! other. What happens later, or perhaps several times, has a trace of its own that is *linked* to its cause:
//! [`current_traceparent`] is stored with the event or job, [`link_to`] is called by whoever takes it up. Headers from
//! strangers (webhooks, browsers) are for [`link_to`] too: a stranger does not decide what is sampled.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header that names a trace and a span.
pub const TRACEPARENT: &str = "traceparent";

/// Puts the current span's context into `headers`; nothing if there is no trace.
pub fn inject(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Context::current(), &mut Headers(headers));
}

/// The caller's context; an empty one if there is none, or it is malformed.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeadersRef(headers))
}

/// The current span, as a `traceparent` to store with an event or job.
pub fn current_traceparent() -> Option<String> {
    let span = current();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
    })
}

/// The current trace's id, to be told to whoever may ask about it.
pub fn current_trace_id() -> Option<String> {
    let span = current();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// Makes `span`, which must not have been entered yet, continue the trace of `parent`.
pub fn span_with_remote_parent(span: Span, parent: Context) -> Span {
    if parent.span().span_context().is_valid() {
        // It fails only where nothing is traced.
        let _ = span.set_parent(parent);
    }
    span
}

/// Links `span` to the span that caused it; a malformed `traceparent` is no link.
pub fn link_to(span: &Span, traceparent: &str) {
    if let Some(cause) = parse(traceparent) {
        span.add_link(cause);
    }
}

fn current() -> SpanContext {
    Context::map_current(|context| context.span().span_context().clone())
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, HeaderValue::from_str(traceparent).ok()?);
    let span = extract(&headers).span().span_context().clone();
    span.is_valid().then_some(span)
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
