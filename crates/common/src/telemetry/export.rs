//! OTLP over gRPC, on a thread and runtime of its own.
//!
//! The SDK's batch processors block their threads on an export while the connection is driven elsewhere: if that were
//! the process's own runtime, nothing could be sent while it blocks or after it has gone. The thread has no subscriber,
//! so an export is never itself traced or logged; that exports fail is told on standard error, once a minute at most.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatches, BatchLogProcessor, LogBatch};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, Temporality};
use opentelemetry_sdk::trace::{BatchConfigBuilder as SpanBatches, BatchSpanProcessor, SpanData};
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::NoSubscriber;

use super::{OtlpConfig, TelemetryError};
use crate::{Clock as _, SystemClock};

/// The target of what is said here; it is not exported.
pub(super) const TARGET: &str = "common::telemetry::export";

/// Spans and logs wait so long for others to be sent with.
const DELAY: Duration = Duration::from_secs(5);

/// Failures are told so often at most.
const TELL: Duration = Duration::from_mins(1);

/// The thread that drives the connections to the collector; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Exports {
    runtime: runtime::Handle,
    stop: CancellationToken,
}

/// One for each signal.
pub(super) struct Exporters {
    pub(super) spans: BatchSpanProcessor,
    pub(super) logs: BatchLogProcessor,
    pub(super) metrics: PeriodicReader<Reported<MetricExporter>>,
}

impl Exports {
    pub(super) fn start() -> Result<Self, TelemetryError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TelemetryError::Thread)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("otlp-export".to_owned())
            .spawn(move || {
                let _silence = tracing::subscriber::set_default(NoSubscriber::new());
                runtime.block_on(stopped.cancelled());
            })
            .map_err(TelemetryError::Thread)?;
        Ok(Self {
            runtime: handle,
            stop,
        })
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes the exporters; they connect when there is something to send.
pub(super) fn exporters(
    exports: &Exports,
    config: &OtlpConfig,
) -> Result<Exporters, TelemetryError> {
    let _on_its_runtime = exports.runtime.enter();
    let to = Destination::new(config)?;
    let failed = |source: opentelemetry_otlp::ExporterBuildError| TelemetryError::Exporter {
        endpoint: to.endpoint.clone(),
        source: source.into(),
    };
    let spans = to
        .configure(SpanExporter::builder().with_tonic())
        .build()
        .map_err(failed)?;
    let logs = to
        .configure(LogExporter::builder().with_tonic())
        .build()
        .map_err(failed)?;
    let metrics = to
        .configure(MetricExporter::builder().with_tonic())
        .build()
        .map_err(failed)?;
    let delay = DELAY.min(config.interval.get());
    Ok(Exporters {
        spans: BatchSpanProcessor::builder(Reported::new("traces", spans))
            .with_batch_config(
                SpanBatches::default()
                    .with_scheduled_delay(delay)
                    .with_max_queue_size(8192)
                    .build(),
            )
            .build(),
        logs: BatchLogProcessor::builder(Reported::new("logs", logs))
            .with_batch_config(
                LogBatches::default()
                    .with_scheduled_delay(delay)
                    .with_max_queue_size(8192)
                    .build(),
            )
            .build(),
        metrics: PeriodicReader::builder(Reported::new("metrics", metrics))
            .with_interval(config.interval.get())
            .build(),
    })
}

/// The collector, as the builders want it.
struct Destination {
    endpoint: String,
    timeout: Duration,
    tls: Option<ClientTlsConfig>,
    metadata: MetadataMap,
}

impl Destination {
    fn new(config: &OtlpConfig) -> Result<Self, TelemetryError> {
        let endpoint = config.endpoint.clone().unwrap_or_default();
        let tls = endpoint
            .starts_with("https:")
            .then(|| tls(config))
            .transpose()?;
        Ok(Self {
            endpoint,
            timeout: config.timeout.get(),
            tls,
            metadata: MetadataMap::from_headers(headers(config)?),
        })
    }

    fn configure<B>(&self, builder: B) -> B
    where
        B: opentelemetry_otlp::WithExportConfig + opentelemetry_otlp::WithTonicConfig,
    {
        let builder = builder
            .with_endpoint(self.endpoint.clone())
            .with_timeout(self.timeout)
            .with_metadata(self.metadata.clone());
        match &self.tls {
            Some(tls) => builder.with_tls_config(tls.clone()),
            None => builder,
        }
    }
}

fn tls(config: &OtlpConfig) -> Result<ClientTlsConfig, TelemetryError> {
    let unreadable =
        |what: &str, source: Box<dyn std::error::Error + Send + Sync>| TelemetryError::File {
            what: what.to_owned(),
            source,
        };
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| unreadable(&file.display().to_string(), error.into()))?;
        return Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
    }
    let found = rustls_native_certs::load_native_certs();
    let anchors: Vec<_> = found
        .certs
        .iter()
        .filter_map(|certificate| webpki::anchor_from_trusted_cert(certificate).ok())
        .map(|anchor| anchor.to_owned())
        .collect();
    if anchors.is_empty() {
        let advice = "there are none; set telemetry.otlp.ca_file";
        return Err(unreadable("the system's certificates", advice.into()));
    }
    Ok(ClientTlsConfig::new().trust_anchors(anchors))
}

fn headers(config: &OtlpConfig) -> Result<http::HeaderMap, TelemetryError> {
    let mut headers = http::HeaderMap::new();
    for (name, file) in &config.headers {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TelemetryError::File {
            what: format!("the header {name} in {}", file.path().display()),
            source,
        };
        let secret = file.read().map_err(|error| unusable(error.into()))?;
        let mut value =
            http::HeaderValue::try_from(secret.expose()).map_err(|error| unusable(error.into()))?;
        value.set_sensitive(true);
        let name = http::HeaderName::try_from(name).map_err(|error| unusable(error.into()))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// An exporter whose failures are told, but not each of them.
pub(super) struct Reported<E> {
    signal: &'static str,
    exporter: E,
    failures: Arc<Mutex<Failures>>,
}

#[derive(Default)]
struct Failures {
    since_told: u64,
    told_at: Option<Duration>,
}

impl<E> Reported<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self {
            signal,
            exporter,
            failures: Arc::default(),
        }
    }

    fn report(&self, result: OTelSdkResult) -> OTelSdkResult {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if failures.told_at.take().is_some() {
                    failures.since_told = 0;
                    tracing::info!(target: TARGET, event = "telemetry_export_resumed", signal = self.signal,
                        "telemetry is exported again");
                }
            }
            Err(error) => {
                failures.since_told += 1;
                let now = SystemClock.boottime();
                if failures
                    .told_at
                    .is_none_or(|told| now.saturating_sub(told) >= TELL)
                {
                    tracing::warn!(target: TARGET, event = "telemetry_export_failed", signal = self.signal,
                        failures = failures.since_told, error = error as &dyn std::error::Error,
                        "telemetry cannot be exported; check telemetry.otlp.endpoint and the collector");
                    failures.told_at = Some(now);
                    failures.since_told = 0;
                }
            }
        }
        result
    }
}

impl<E> fmt::Debug for Reported<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reported")
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Reported<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.report(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl opentelemetry_sdk::logs::LogExporter for Reported<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.report(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Reported<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.report(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
