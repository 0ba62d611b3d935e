//! Metrics: the registry that `/metrics` shows, and buckets that suit seconds.

use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};
use prometheus::{Registry, TextEncoder};

/// The buckets of every histogram whose unit is `s`: from a local call to a request that nearly timed out.
pub const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
];

pub(super) fn prometheus() -> Result<(Registry, PrometheusExporter), OTelSdkError> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()?;
    Ok((registry, exporter))
}

/// The SDK's own buckets are made for milliseconds.
pub(super) fn seconds(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram || instrument.unit() != "s" {
        return None;
    }
    Stream::builder()
        .with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries: SECONDS.to_vec(),
            record_min_max: true,
        })
        .build()
        .ok()
}

pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&registry.gather(), &mut text) {
        tracing::warn!(
            event = "metrics_not_encoded",
            error = &error as &dyn std::error::Error,
            "the metrics could not be written as Prometheus text",
        );
    }
    text
}
