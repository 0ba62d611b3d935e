//! The sync worker's configuration.

use common::admin::AdminConfig;
use common::config::{Duration, Problems, Validate};
use common::identity::tls::TlsConfig;
use common::lifecycle::LifecycleConfig;
use common::rpc::ClientConfig;
use common::telemetry::TelemetryConfig;
use egress::EgressConfig;
use serde::{Deserialize, Serialize};
use worker::WorkerConfig;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Our certificate, and whom we believe.
    pub tls: TlsConfig,
    /// How many jobs, and of what.
    pub jobs: WorkerConfig,
    /// How pages are read.
    pub pages: PageConfig,
    /// How providers are reached.
    pub egress: EgressConfig,
    /// The sync scheduler, which gives out jobs.
    pub scheduler: ClientConfig,
    /// The OAuth broker, which gives credentials for a call.
    pub broker: ClientConfig,
    /// The webhook ingest, which keeps documents.
    pub ingest: ClientConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
}

/// How pages are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageConfig {
    /// Longest time for one page.
    pub timeout: Duration,
    /// Longest page that is read, in bytes. Each job holds two at most.
    pub max_bytes: usize,
    /// How often a page is asked for before the job is given up for a while.
    pub attempts: u32,
}

impl Default for PageConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            max_bytes: 32 * 1024 * 1024,
            attempts: 4,
        }
    }
}

impl Validate for PageConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.timeout.is_zero(),
            "timeout",
            "must be longer than nothing",
        );
        problems.check(self.max_bytes >= 1024, "max_bytes", "must be at least 1024");
        problems.check(
            (1..=20).contains(&self.attempts),
            "attempts",
            "must be from 1 to 20",
        );
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("tls", &self.tls);
        problems.nested("jobs", &self.jobs);
        problems.nested("pages", &self.pages);
        problems.nested("egress", &self.egress);
        problems.nested("scheduler", &self.scheduler);
        problems.nested("broker", &self.broker);
        problems.nested("ingest", &self.ingest);
        problems.nested("admin", &self.admin);
        problems.nested("telemetry", &self.telemetry);
        problems.nested("lifecycle", &self.lifecycle);
    }
}
