//! The `[telemetry]` part of every service's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::filter;
use crate::config::{Duration, Problems, SecretFile, Validate};

/// How a process tells what it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How logs are written: `json`, `pretty`, or `auto`, which is `pretty` on a terminal.
    pub log_format: LogFormat,
    /// What is logged: directives such as `info,token_vault=debug`; can be changed while the process runs.
    pub log_filter: String,
    /// Which share of the traces that begin here is sampled, from 0 to 1; a caller's decision is followed.
    pub sample_ratio: f64,
    /// More resource attributes, such as `deployment.environment.name = "production"`.
    pub resource: BTreeMap<String, String>,
    /// Where traces, metrics and logs are exported to.
    pub otlp: OtlpConfig,
}

/// The OpenTelemetry collector.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// Its gRPC endpoint, such as `http://127.0.0.1:4317`; nothing is exported without it.
    pub endpoint: Option<String>,
    /// How often metrics are exported; spans and logs are sent after five seconds at the latest.
    pub interval: Duration,
    /// How long one export may take.
    pub timeout: Duration,
    /// The certificates (PEM) that an `https` endpoint is checked against; the system's if not given.
    pub ca_file: Option<PathBuf>,
    /// Headers to send along, such as `authorization`, each the content of a file.
    pub headers: BTreeMap<String, SecretFile>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// An object a line.
    Json,
    /// For people.
    Pretty,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Auto,
            // Some clients send an IP address for SNI; rustls warns of each.
            log_filter: "info,opentelemetry=warn,rustls::msgs=error".to_owned(),
            sample_ratio: 1.0,
            resource: BTreeMap::new(),
            otlp: OtlpConfig::default(),
        }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            ca_file: None,
            headers: BTreeMap::new(),
        }
    }
}

impl Validate for TelemetryConfig {
    fn validate(&self, problems: &mut Problems) {
        if let Err(error) = filter::parse(&self.log_filter) {
            problems.report("log_filter", error.to_string());
        }
        problems.check(
            (0.0..=1.0).contains(&self.sample_ratio),
            "sample_ratio",
            "must be between 0 and 1",
        );
        problems.nested("otlp", &self.otlp);
    }
}

impl Validate for OtlpConfig {
    fn validate(&self, problems: &mut Problems) {
        if let Some(endpoint) = &self.endpoint {
            let scheme = endpoint.parse::<http::Uri>().ok().and_then(|uri| {
                uri.authority()?;
                uri.scheme_str().map(str::to_owned)
            });
            problems.check(
                matches!(scheme.as_deref(), Some("http" | "https")),
                "endpoint",
                "must be an address such as http://127.0.0.1:4317 or https://collector:4317",
            );
        }
        problems.check(
            !self.interval.is_zero(),
            "interval",
            "must be longer than 0s",
        );
        problems.check(!self.timeout.is_zero(), "timeout", "must be longer than 0s");
        if let Some(file) = &self.ca_file {
            let found = std::fs::metadata(file).is_ok_and(|file| file.is_file());
            problems.check(
                found,
                "ca_file",
                "must be a file that this process can read",
            );
        }
        problems.within("headers", |problems| {
            for (name, file) in &self.headers {
                problems.check(
                    http::HeaderName::try_from(name).is_ok(),
                    name,
                    "must be the name of an HTTP header",
                );
                problems.secret_file(name, file);
            }
        });
    }
}
