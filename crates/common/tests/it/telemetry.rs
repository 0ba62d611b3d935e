//! Telemetry: what a log line says, what can be changed while running, and that a collector gets all of it.

pub(crate) mod sink;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::config::{Problems, SecretFile, Validate as _};
use common::telemetry::{
    FilterError, FlushError, LogFormat, OtlpConfig, Telemetry, TelemetryConfig, context,
};
use http::HeaderMap;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::Value;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing::{Instrument as _, Span, info_span};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use sink::{Sink, attribute};

/// Telemetry for this thread, and what it wrote.
pub(crate) struct Captured {
    pub(crate) telemetry: Telemetry,
    written: Arc<Mutex<Vec<u8>>>,
    subscriber: DefaultGuard,
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("nobody panics while writing")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(crate) fn new() -> Self {
        Self::with(&json())
    }

    fn with(config: &TelemetryConfig) -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer(Arc::clone(&written));
        let (telemetry, dispatch) =
            Telemetry::build("probe", config, BoxMakeWriter::new(move || writer.clone()))
                .expect("builds");
        Self {
            telemetry,
            written,
            subscriber: set_default(&dispatch),
        }
    }

    fn text(&self) -> String {
        let written = self
            .written
            .lock()
            .expect("nobody panics while writing")
            .clone();
        String::from_utf8(written).expect("logs are UTF-8")
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.text().lines().map(parse).collect()
    }

    /// The lines with this `event`.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["event"] == event);
        lines
    }
}

fn json() -> TelemetryConfig {
    TelemetryConfig {
        log_format: LogFormat::Json,
        ..TelemetryConfig::default()
    }
}

fn exporting_to(endpoint: String) -> TelemetryConfig {
    TelemetryConfig {
        otlp: OtlpConfig {
            endpoint: Some(endpoint),
            ..OtlpConfig::default()
        },
        ..json()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the grant was not saved")]
struct NotSaved(#[source] io::Error);

#[test]
fn a_json_line_carries_its_fields_its_spans_and_its_trace() {
    let captured = Captured::new();
    let span = info_span!(
        "rpc.Vault/GetCredential",
        tenant.id = "t-1",
        user.id = tracing::field::Empty
    );
    span.in_scope(|| {
        span.record("user.id", "u-1");
        let error = NotSaved(io::Error::other("disk full"));
        tracing::warn!(
            event = "grant_refreshed",
            attempts = 3,
            level = "high",
            error = &error as &dyn std::error::Error,
            "the grant was refreshed",
        );
    });
    let trace = span.in_scope(|| context::current_trace_id().expect("spans are traced"));

    let line = &captured.lines()[0];
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["message"], "the grant was refreshed");
    assert_eq!(line["event"], "grant_refreshed");
    assert_eq!(line["attempts"], 3);
    assert_eq!(line["tenant.id"], "t-1");
    assert_eq!(line["user.id"], "u-1");
    assert_eq!(
        line["field.level"], "high",
        "a field does not overwrite the line's own level"
    );
    assert_eq!(line["error"], "the grant was not saved: disk full");
    assert_eq!(line["span"], "rpc.Vault/GetCredential");
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
    assert!(
        line["target"]
            .as_str()
            .is_some_and(|target| target.ends_with("telemetry"))
    );
    assert!(
        line["timestamp"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}

#[test]
fn a_readable_line_cannot_be_forged_from_outside() {
    let captured = Captured::with(&TelemetryConfig {
        log_format: LogFormat::Pretty,
        ..TelemetryConfig::default()
    });
    let from_outside = "x\n12:00:00 ERROR forged\x1b[2K";
    tracing::info!(subject = from_outside, "mail from {from_outside}");
    let text = captured.text();
    assert!(text.contains(" INFO mail from x\n    12:00:00"), "{text:?}");
    assert!(!text.contains("\x1b[2K"), "{text:?}");
    assert!(text.contains(r#"subject="x\n12:00:00"#), "{text:?}");
}

#[test]
fn the_log_filter_changes_while_running() {
    let captured = Captured::new();
    let filter = captured.telemetry.log_filter();
    let said = || captured.lines().len();
    tracing::debug!("hidden");
    assert_eq!(said(), 0);

    filter
        .set("warn,it::telemetry=debug")
        .expect("well-formed directives");
    tracing::debug!("shown");
    assert_eq!(said(), 1);
    assert_eq!(filter.current().filter, "warn,it::telemetry=debug");

    for (bad, why) in [
        ("", "empty"),
        ("inof", "no level"),
        ("a=b=c", "directives"),
        ("x=loud", "directives"),
    ] {
        let error = filter.set(bad).expect_err(bad).to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
    assert!(matches!(filter.set("inof"), Err(FilterError::BareWord(_))));
    tracing::debug!("still shown");
    assert_eq!(said(), 2, "what cannot be used changes nothing");

    filter.set("off").expect("a level");
    tracing::error!("hidden");
    assert_eq!(said(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_log_filter_returns_to_the_lasting_one() {
    let captured = Captured::new();
    let filter = captured.telemetry.log_filter();
    filter
        .set_for("debug", Duration::from_mins(1))
        .expect("a level");
    filter
        .set_for("trace", Duration::from_mins(10))
        .expect("a level");
    let lasting = TelemetryConfig::default().log_filter;
    assert_eq!(filter.current().then.as_ref(), Some(&lasting));

    // Time is paused: these pass at once, in the order of the timers.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(
        filter.current().filter,
        "trace",
        "the end of an overtaken one does nothing"
    );
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(filter.current().filter, lasting);
    assert_eq!(filter.current().then, None);

    filter
        .set_for("debug", Duration::from_mins(1))
        .expect("a level");
    filter.set("warn").expect("a level");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(filter.current().filter, "warn", "what is set to stay stays");
}

#[test]
fn crates_that_would_show_secrets_are_never_logged_in_detail() {
    let captured = Captured::with(&TelemetryConfig {
        log_filter: "trace".to_owned(),
        ..json()
    });
    tracing::debug!(target: "h2::codec", "authorization: Bearer canary");
    tracing::trace!(target: "tokio_postgres::query", "parameters: canary");
    tracing::trace!(target: "token_vault::refresh", "ours");
    tracing::info!(target: "rustls", "harmless");
    let messages: Vec<_> = captured
        .lines()
        .into_iter()
        .map(|line| line["message"].clone())
        .collect();
    assert_eq!(messages, ["ours", "harmless"]);
}

#[test]
fn prometheus_gets_histograms_with_buckets_for_seconds() {
    let captured = Captured::new();
    let meter = captured.telemetry.meter("probe");
    let duration = meter
        .f64_histogram("rpc.server.duration")
        .with_unit("s")
        .build();
    duration.record(
        0.003,
        &[opentelemetry::KeyValue::new("rpc.method", "GetCredential")],
    );
    meter.u64_counter("grants").build().add(2, &[]);

    let text = captured.telemetry.prometheus_text();
    assert!(
        text.contains("# TYPE rpc_server_duration_seconds histogram"),
        "{text}"
    );
    let bucket = |le: &str, count: u32| {
        text.lines().any(|line| {
            line.starts_with("rpc_server_duration_seconds_bucket{")
                && line.contains("rpc_method=\"GetCredential\"")
                && line.contains(&format!("le=\"{le}\""))
                && line.ends_with(&format!(" {count}"))
        })
    };
    assert!(bucket("0.0025", 0), "{text}");
    assert!(bucket("0.005", 1), "{text}");
    assert!(bucket("60", 1), "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("grants_total{") && line.ends_with(" 2")),
        "{text}"
    );
    assert!(text.contains("service_name=\"probe\""), "{text}");
}

#[tokio::test]
async fn a_collector_gets_one_trace_across_a_call_and_a_link_across_a_job() {
    let sink = Sink::start().await;
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "Bearer collector-token\n").expect("writes the secret");
    let mut config = exporting_to(sink.endpoint());
    let header = SecretFile::new(secret.path());
    config
        .otlp
        .headers
        .insert("authorization".to_owned(), header);
    config
        .resource
        .insert("deployment.environment.name".to_owned(), "test".to_owned());
    let captured = Captured::with(&config);

    let mut headers = HeaderMap::new();
    let stored = async {
        context::inject(&mut headers);
        tracing::info!(event = "job_made", "made a job");
        context::current_traceparent().expect("a trace")
    }
    .instrument(info_span!("client", tenant.id = "t-1"))
    .await;
    assert_eq!(headers[context::TRACEPARENT], stored.as_str());

    let server = context::span_with_remote_parent(info_span!("server"), context::extract(&headers));
    server.in_scope(|| tracing::debug!("not logged"));
    drop(server);
    let job = info_span!("job.sync");
    context::link_to(&job, &stored);
    context::link_to(&job, "00-nonsense");
    job.in_scope(|| {});
    drop(job);
    captured
        .telemetry
        .meter("probe")
        .u64_counter("jobs")
        .build()
        .add(1, &[]);
    captured
        .telemetry
        .shutdown()
        .await
        .expect("the collector takes everything");

    let received = sink.received();
    let (client, server, job) = (
        received.span("client"),
        received.span("server"),
        received.span("job.sync"),
    );
    assert_eq!(server.trace_id, client.trace_id);
    assert_eq!(server.parent_span_id, client.span_id);
    assert_ne!(
        job.trace_id, client.trace_id,
        "a job has a trace of its own"
    );
    assert_eq!(job.links.len(), 1);
    assert_eq!(job.links[0].trace_id, client.trace_id);
    assert_eq!(job.links[0].span_id, client.span_id);

    let log = received.log("made a job");
    assert_eq!(log.trace_id, client.trace_id);
    assert_eq!(attribute(&log.attributes, "event"), Some("job_made"));
    assert_eq!(attribute(&log.attributes, "tenant.id"), Some("t-1"));
    assert_eq!(
        received.logs.len(),
        1,
        "the filter is for exported logs too: {:?}",
        received.logs
    );
    assert!(received.metrics.iter().any(|metric| metric.name == "jobs"));

    let resource = &received.resources[0].attributes;
    assert_eq!(attribute(resource, "service.name"), Some("probe"));
    assert_eq!(attribute(resource, "service.namespace"), Some("hawser"));
    assert_eq!(
        attribute(resource, "deployment.environment.name"),
        Some("test")
    );
    for name in ["service.version", "service.instance.id", "host.name"] {
        assert!(
            attribute(resource, name).is_some_and(|value| !value.is_empty()),
            "{name}"
        );
    }
    assert!(
        received
            .authorization
            .iter()
            .all(|header| header == "Bearer collector-token")
    );
    assert!(
        received.authorization.len() >= 3,
        "each signal says who sends it"
    );
    captured
        .telemetry
        .shutdown()
        .await
        .expect("a second shutdown does nothing");
}

#[tokio::test]
async fn dropping_the_last_handle_sends_what_is_left() {
    let sink = Sink::start().await;
    let captured = Captured::with(&exporting_to(sink.endpoint()));
    info_span!("last").in_scope(|| {});
    // On a thread of its own, since dropping blocks and the sink lives on this one.
    let Captured {
        telemetry,
        subscriber,
        ..
    } = captured;
    drop(subscriber);
    tokio::task::spawn_blocking(move || drop(telemetry))
        .await
        .expect("drops");
    sink.received().span("last");
}

#[tokio::test]
async fn what_is_sampled_is_decided_by_the_caller() {
    let captured = Captured::with(&TelemetryConfig {
        sample_ratio: 0.0,
        ..json()
    });
    let flags = |span: &Span| {
        span.in_scope(|| {
            context::current_traceparent()
                .expect("a trace")
                .split_off(53)
        })
    };
    assert_eq!(flags(&info_span!("ours")), "00");

    let mut headers = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert(context::TRACEPARENT, parent.parse().expect("a header"));
    let span = context::span_with_remote_parent(info_span!("theirs"), context::extract(&headers));
    assert_eq!(flags(&span), "01");
    let trace = span.in_scope(context::current_trace_id);
    assert_eq!(trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));

    headers.insert(context::TRACEPARENT, "00-zz".parse().expect("a header"));
    assert!(!context::extract(&headers).span().span_context().is_valid());
    drop(captured);
}

#[tokio::test]
async fn a_collector_that_is_away_fails_the_flush_and_nothing_else() {
    // A port that nobody listens on any more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let mut config = exporting_to(format!("http://{address}"));
    config.otlp.timeout = common::config::Duration::from_millis(200);
    let captured = Captured::with(&config);
    for _ in 0..3 {
        info_span!("lost").in_scope(|| tracing::info!("lost"));
        let flushed = captured.telemetry.flush().await;
        assert!(matches!(flushed, Err(FlushError::Failed(_))), "{flushed:?}");
    }
    let messages: Vec<_> = captured
        .lines()
        .into_iter()
        .map(|line| line["message"].clone())
        .collect();
    assert_eq!(messages, ["lost", "lost", "lost"]);
}

#[test]
fn settings_that_cannot_be_right_are_refused() {
    let config = TelemetryConfig {
        log_filter: "inof".to_owned(),
        sample_ratio: 2.0,
        otlp: OtlpConfig {
            endpoint: Some("collector:4317".to_owned()),
            interval: common::config::Duration::from_secs(0),
            ca_file: Some("/nowhere".into()),
            ..OtlpConfig::default()
        },
        ..TelemetryConfig::default()
    };
    let mut problems = Problems::default();
    config.validate(&mut problems);
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "log_filter",
            "sample_ratio",
            "otlp.endpoint",
            "otlp.interval",
            "otlp.ca_file"
        ]
    );
}
