//! A job and what led to it, in traces.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use worker::{Completion, Outcome, TriggerSource};

use crate::support::PATIENCE;
use crate::world::World;

/// Keeps the spans that have ended.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

async fn span_of_a_job(triggered_by: TriggerSource) -> (SpanData, String) {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(ended.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing_subscriber::registry().with(layer).set_default();

    let world = World::new().await;
    let job = world.give(|job| {
        job.triggered_by = triggered_by.into();
        job.traceparent = format!("00-{TRACE}-{SPAN}-01");
    });
    let running = world.start();
    running
        .begun()
        .await
        .end
        .send(Outcome::Completed(Completion::default()))
        .unwrap();
    world.scheduler.log().wait("completed", 1).await;
    running.stop().await;
    let found = testkit::eventually_some(PATIENCE, async || {
        let spans = ended.0.lock().unwrap();
        spans
            .iter()
            .find(|span| span.name == "job.incremental")
            .cloned()
    });
    (found.await, job.job_id)
}

#[tokio::test]
async fn a_webhooks_trace_goes_on_in_its_job() {
    let (span, job_id) = span_of_a_job(TriggerSource::Webhook).await;
    assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    assert_eq!(span.parent_span_id.to_string(), SPAN);
    let value = |name: &str| {
        span.attributes
            .iter()
            .find(|pair| pair.key.as_str() == name)
            .map(|pair| pair.value.to_string())
    };
    assert_eq!(value("job.id"), Some(job_id));
    assert_eq!(value("user.id").as_deref(), Some("ada"));
}

#[tokio::test]
async fn every_other_job_has_a_trace_of_its_own_with_a_link() {
    for source in [TriggerSource::Schedule, TriggerSource::User] {
        let (span, _) = span_of_a_job(source).await;
        assert_ne!(span.span_context.trace_id().to_string(), TRACE);
        let links: Vec<_> = span
            .links
            .iter()
            .map(|link| link.span_context.trace_id().to_string())
            .collect();
        assert_eq!(links, [TRACE]);
    }
}
