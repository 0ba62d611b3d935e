//! Logs, traces and metrics: one [`Telemetry`] a process.
//!
//! Logs go to standard error, as JSON or for people to read, filtered by directives that can be changed while the
//! process runs ([`LogFilter`]). Traces, metrics and logs are exported over OTLP/gRPC if an endpoint is configured, and
//! metrics are there for Prometheus in any case. Exports run on a thread of their own, so that what is left can be sent
//! while the process ends, and are never traced or logged themselves.
//!
//! Not here: what is measured (whoever measures takes a `Meter`), and which events there are (`docs/logging.md`).

mod config;
pub mod context;
mod export;
mod filter;
mod format;
mod metrics;
mod panics;
mod resource;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult as SdkResult};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Dispatch;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

pub use config::{LogFormat, OtlpConfig, TelemetryConfig};
pub use filter::{FilterError, LogFilter, LogFilterState};
pub use metrics::SECONDS;

pub(crate) use format::chain;

use export::Exports;
use format::LogLayer;

/// The span and log field that names the service, where several share one process.
pub const SERVICE: &str = "hawser.service";

/// How long leaving the process may wait for the last exports.
const FLUSH: Duration = Duration::from_secs(3);

/// The process's telemetry; clones are the same one. What is left is sent when it is shut down, or the last is dropped.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    providers: Providers,
    registry: prometheus::Registry,
    log_filter: LogFilter,
    down: AtomicBool,
    /// Last, so that it is there until the providers are gone.
    _exports: Option<Exports>,
}

#[derive(Clone, Debug)]
struct Providers {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    loggers: Option<SdkLoggerProvider>,
}

/// Telemetry that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter's directives are not well-formed.
    #[error("the log filter cannot be used")]
    Filter(#[from] FilterError),
    /// The exporters could not be made.
    #[error("the OTLP exporters to {endpoint} cannot be made; correct the telemetry.otlp settings")]
    Exporter {
        /// Where they were to send to.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that the exporters need could not be read.
    #[error("the OTLP exporters need {what}, which cannot be read")]
    File {
        /// Which file.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread for exports could not be started.
    #[error("the thread for exports cannot be started")]
    Thread(#[source] io::Error),
    /// The Prometheus registry would not take the collector.
    #[error("the Prometheus registry cannot be made")]
    Prometheus(#[source] OTelSdkError),
    /// A process has one telemetry.
    #[error("telemetry has been started in this process before")]
    AlreadyStarted,
}

/// What could not be sent within the time there was.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// An exporter said why.
    #[error("telemetry could not be exported")]
    Failed(#[from] OTelSdkError),
    /// The collector did not answer in time.
    #[error("telemetry could not be exported in time")]
    TimedOut,
}

/// Starts the process's telemetry: the global subscriber, meters and tracers, and the hook that logs panics.
pub fn init(service: &str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let (telemetry, dispatch) = Telemetry::build(service, config, BoxMakeWriter::new(io::stderr))?;
    dispatch
        .try_init()
        .map_err(|_| TelemetryError::AlreadyStarted)?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    opentelemetry::global::set_meter_provider(telemetry.0.providers.meters.clone());
    opentelemetry::global::set_tracer_provider(telemetry.0.providers.tracers.clone());
    panics::install(Arc::downgrade(&telemetry.0));
    Ok(telemetry)
}

impl Telemetry {
    /// Makes telemetry that writes its logs to `writer` and changes nothing global: the caller puts the dispatch to use.
    /// Processes call [`init`]; this is for tests that look at what is written.
    pub fn build(
        service: &str,
        config: &TelemetryConfig,
        writer: BoxMakeWriter,
    ) -> Result<(Self, Dispatch), TelemetryError> {
        let resource = resource::resource(service, &config.resource);
        let exports = config
            .otlp
            .endpoint
            .as_deref()
            .map(|_| Exports::start())
            .transpose()?;

        let (registry, prometheus) = metrics::prometheus().map_err(TelemetryError::Prometheus)?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(prometheus)
            .with_view(metrics::seconds);
        let mut tracers = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                config.sample_ratio,
            ))));
        let mut loggers = None;
        if let Some(exports) = &exports {
            let to = export::exporters(exports, &config.otlp)?;
            meters = meters.with_reader(to.metrics);
            tracers = tracers.with_span_processor(to.spans);
            loggers = Some(
                SdkLoggerProvider::builder()
                    .with_resource(resource)
                    .with_log_processor(to.logs)
                    .build(),
            );
        }
        let providers = Providers {
            tracers: tracers.build(),
            meters: meters.build(),
            loggers,
        };

        let (log_filter, dispatch) = subscriber(service, config, &providers, writer)?;
        let inner = Inner {
            providers,
            registry,
            log_filter,
            down: AtomicBool::new(false),
            _exports: exports,
        };
        Ok((Self(Arc::new(inner)), dispatch))
    }

    /// A meter with the scope `name`; whoever measures is given one.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.0.providers.meters.meter(name)
    }

    /// The filter that decides what is logged.
    pub fn log_filter(&self) -> &LogFilter {
        &self.0.log_filter
    }

    /// The metrics in Prometheus' text format, whose content type is [`Telemetry::PROMETHEUS_CONTENT_TYPE`].
    pub fn prometheus_text(&self) -> String {
        metrics::text(&self.0.registry)
    }

    /// What `/metrics` says that it is.
    pub const PROMETHEUS_CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

    /// Sends what has been collected so far.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let providers = self.0.providers.clone();
        finish(FLUSH, move || providers.flush()).await
    }

    /// Sends what is left and ends all exports; later logs go to standard error alone. The second call does nothing.
    pub async fn shutdown(&self) -> Result<(), FlushError> {
        if self.0.down.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let providers = self.0.providers.clone();
        finish(FLUSH, move || providers.shutdown()).await
    }

    /// [`Telemetry::flush`] for where nothing can be awaited; gives up after `patience`.
    pub fn flush_blocking(&self, patience: Duration) -> Result<(), FlushError> {
        self.0.flush(patience)
    }
}

impl Inner {
    fn flush(&self, patience: Duration) -> Result<(), FlushError> {
        let providers = self.providers.clone();
        finish_blocking(patience, move || providers.flush())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.down.swap(true, Ordering::SeqCst) {
            let providers = self.providers.clone();
            // There is nobody left to tell.
            let _ = finish_blocking(FLUSH, move || providers.shutdown());
        }
    }
}

impl Providers {
    fn flush(&self) -> SdkResult {
        self.each(
            SdkTracerProvider::force_flush,
            SdkMeterProvider::force_flush,
            SdkLoggerProvider::force_flush,
        )
    }

    fn shutdown(&self) -> SdkResult {
        self.each(
            |tracers| tracers.shutdown_with_timeout(FLUSH),
            |meters| meters.shutdown_with_timeout(FLUSH),
            |loggers| loggers.shutdown_with_timeout(FLUSH),
        )
    }

    /// All three at once, since each may have to wait for a collector that is away.
    fn each(
        &self,
        tracers: impl FnOnce(&SdkTracerProvider) -> SdkResult + Send,
        meters: impl FnOnce(&SdkMeterProvider) -> SdkResult + Send,
        loggers: impl FnOnce(&SdkLoggerProvider) -> SdkResult + Send,
    ) -> SdkResult {
        std::thread::scope(|scope| {
            let spans = scope.spawn(|| tracers(&self.tracers));
            let metrics = scope.spawn(|| meters(&self.meters));
            let logs = self.loggers.as_ref().map_or(Ok(()), loggers);
            let panicked = || OTelSdkError::InternalFailure("an exporter panicked".to_owned());
            let spans = spans.join().map_err(|_| panicked())?;
            let metrics = metrics.join().map_err(|_| panicked())?;
            spans.and(metrics).and(logs)
        })
    }
}

/// Puts the layers together: spans for traces, then logs under one filter that can be changed.
fn subscriber(
    service: &str,
    config: &TelemetryConfig,
    providers: &Providers,
    writer: BoxMakeWriter,
) -> Result<(LogFilter, Dispatch), TelemetryError> {
    let traces = tracing_opentelemetry::layer()
        .with_tracer(providers.tracers.tracer(service.to_owned()))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter::traced());
    let written: Box<dyn Layer<_> + Send + Sync> = LogLayer::new(config.log_format, writer).boxed();
    let exported = providers.loggers.as_ref().map(|loggers| {
        OpenTelemetryTracingBridge::builder(loggers)
            .with_tracing_span_attributes(TracingSpanAttributes::allowlist([
                SERVICE,
                "tenant.id",
                "user.id",
                "request.id",
            ]))
            .build()
            .with_filter(filter::exported())
    });
    let (directives, handle) = reload::Layer::new(filter::parse(&config.log_filter)?);
    let logs = written
        .and_then(exported)
        .with_filter(directives.and(filter::discreet()));
    let log_filter = LogFilter::new(&config.log_filter, move |filter| {
        handle.reload(filter).is_ok()
    });
    let dispatch = Dispatch::new(Registry::default().with(traces).with(logs));
    Ok((log_filter, dispatch))
}

/// Runs `work` on a thread of its own, since it blocks, and waits no longer than `patience`.
async fn finish(
    patience: Duration,
    work: impl FnOnce() -> SdkResult + Send + 'static,
) -> Result<(), FlushError> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    match tokio::time::timeout(patience, result).await {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(_)) | Err(_) => Err(FlushError::TimedOut),
    }
}

fn finish_blocking(
    patience: Duration,
    work: impl FnOnce() -> SdkResult + Send + 'static,
) -> Result<(), FlushError> {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    match result.recv_timeout(patience) {
        Ok(result) => Ok(result?),
        Err(_) => Err(FlushError::TimedOut),
    }
}
