//! The trace of a job.

use common::telemetry::context;
use contracts::scheduler::v1::{Job, JobKind, TriggerSource};
use http::{HeaderMap, HeaderValue};
use tracing::Span;

/// The span of one attempt. What a webhook led to continues the webhook's trace, so that it can be read from the
/// provider's call to the document; every other job has a trace of its own, linked to what asked for it, since it may run
/// hours later and many times.
pub(crate) fn of(job: &Job) -> Span {
    let kind = match job.kind() {
        JobKind::Unspecified => "unspecified",
        JobKind::Initial => "initial",
        JobKind::Incremental => "incremental",
        JobKind::Full => "full",
    };
    let span = tracing::info_span!(
        parent: None,
        "job",
        otel.name = format!("job.{kind}"),
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        tenant.id = job.tenant_id,
        user.id = job.user_id,
        job.id = job.job_id,
        run.id = job.run_id,
        connection.id = job.connection_id,
        account.id = job.external_account_id,
        provider = job.provider,
        stream = job.stream,
        kind,
        triggered_by = job.triggered_by().as_str_name(),
        attempt = job.attempt,
    );
    if job.triggered_by() == TriggerSource::Webhook {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&job.traceparent) {
            headers.insert(context::TRACEPARENT, value);
        }
        return context::span_with_remote_parent(span, context::extract(&headers));
    }
    context::link_to(&span, &job.traceparent);
    span
}
