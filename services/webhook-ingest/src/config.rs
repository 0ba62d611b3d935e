//! The webhook ingest's configuration.

use std::net::{Ipv4Addr, SocketAddr};

use common::admin::AdminConfig;
use common::config::{Duration, Problems, Validate};
use common::lifecycle::LifecycleConfig;
use common::pg::PgConfig;
use common::rpc::{ClientConfig, IdentityConfig, ServerConfig};
use common::telemetry::TelemetryConfig;
use egress::EgressConfig;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gRPC listener.
    pub grpc: ServerConfig,
    /// Whose callers are known.
    pub identity: IdentityConfig,
    /// The public listener, where providers send their webhooks.
    pub http: HttpConfig,
    /// How webhooks are taken in.
    pub intake: IntakeConfig,
    /// How what was taken in is processed.
    pub processing: ProcessingConfig,
    /// What secrets are sealed under.
    pub keys: KeysConfig,
    /// The schema `ingest`.
    pub database: PgConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
    /// How key sets of users' tokens are fetched, where an issuer has them at an address.
    pub egress: EgressConfig,
    /// The token vault, which gives the keys that secrets are sealed under.
    pub vault: ClientConfig,
    /// The OAuth broker, which knows whose connection a webhook is about.
    pub broker: ClientConfig,
    /// The sync scheduler, which is told to sync.
    pub scheduler: ClientConfig,
    /// The tenant directory, which knows quotas, users, and API keys.
    pub directory: ClientConfig,
}

/// The public listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where providers reach it, without a path: `https://hooks.example.com`. Sources' addresses begin with it, and some
    /// providers sign it. Only a loopback listener does without, for development.
    pub public_url: Option<Url>,
}

/// How webhooks are taken in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeConfig {
    /// After this long without being durable a webhook is answered with 503, for the provider to send it again.
    pub budget: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Bodies in memory at a time, in MiB; beyond, 503.
    pub body_memory_mib: usize,
    /// Days that events are kept.
    pub retention_days: u16,
}

/// How what was taken in is processed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessingConfig {
    /// Events that one process works on at a time.
    pub concurrency: usize,
    /// How long one process has an event to itself. One that dies leaves its events to others after that.
    pub lease: Duration,
    /// How often to look for work that nobody said a word about: retries, and what a dead process left.
    pub poll_interval: Duration,
    /// An event whose processing failed this often is dead.
    pub max_attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// What secrets are sealed under.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// How often to look for what older keys have sealed, to seal it under the newest.
    pub reseal_every: Duration,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            reseal_every: Duration::from_secs(24 * 3600),
        }
    }
}

impl Validate for KeysConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.reseal_every.get().is_zero(),
            "reseal_every",
            "must be longer than nothing, as in \"24h\"",
        );
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_url: None,
        }
    }
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(2800),
            body_timeout: Duration::from_secs(10),
            body_memory_mib: 256,
            retention_days: 28,
        }
    }
}

impl Default for ProcessingConfig {
    fn default() -> Self {
        Self {
            concurrency: 16,
            lease: Duration::from_secs(60),
            poll_interval: Duration::from_secs(2),
            max_attempts: 30,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(1800),
        }
    }
}

impl HttpConfig {
    /// Where providers reach what listens at `bound`, without a slash at the end.
    pub(crate) fn public_url(&self, bound: SocketAddr) -> String {
        let url = self
            .public_url
            .as_ref()
            .map_or_else(|| format!("http://{bound}"), Url::to_string);
        url.trim_end_matches('/').to_owned()
    }
}

impl Validate for HttpConfig {
    fn validate(&self, problems: &mut Problems) {
        let Some(url) = &self.public_url else {
            problems.check(
                self.listen.ip().is_loopback(),
                "public_url",
                "name the https address at which providers reach the hooks; only a loopback `listen` does without",
            );
            return;
        };
        problems.check(
            url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)),
            "public_url",
            "must begin with https://, or with http:// and a loopback host for development",
        );
        problems.check(
            url.path() == "/" && url.query().is_none() && url.fragment().is_none(),
            "public_url",
            "must have neither path nor query",
        );
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Validate for IntakeConfig {
    fn validate(&self, problems: &mut Problems) {
        let budget = self.budget.get();
        problems.check(
            budget >= std::time::Duration::from_millis(100)
                && budget <= std::time::Duration::from_secs(3),
            "budget",
            "must be 100ms to 3s: providers give up soon after",
        );
        problems.check(
            !self.body_timeout.get().is_zero(),
            "body_timeout",
            "must be longer than nothing, as in \"10s\"",
        );
        problems.check(
            (32..=65_536).contains(&self.body_memory_mib),
            "body_memory_mib",
            "must be 32 to 65536: the longest body that a scheme allows has to fit",
        );
        problems.check(
            (7..=28).contains(&self.retention_days),
            "retention_days",
            "must be 7 to 28",
        );
    }
}

impl Validate for ProcessingConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(self.concurrency > 0, "concurrency", "must be at least 1");
        problems.check(
            self.lease.get() >= std::time::Duration::from_secs(10),
            "lease",
            "must be 10s or more: processing calls other services",
        );
        problems.check(
            !self.poll_interval.get().is_zero(),
            "poll_interval",
            "must be longer than nothing, as in \"2s\"",
        );
        problems.check(self.max_attempts > 0, "max_attempts", "must be at least 1");
        problems.check(
            !self.first_pause.get().is_zero() && self.first_pause <= self.longest_pause,
            "first_pause",
            "must be longer than nothing, and not longer than `longest_pause`",
        );
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("grpc", &self.grpc);
        problems.nested("identity", &self.identity);
        problems.nested("http", &self.http);
        problems.nested("intake", &self.intake);
        problems.nested("processing", &self.processing);
        problems.nested("keys", &self.keys);
        problems.nested("database", &self.database);
        problems.nested("admin", &self.admin);
        problems.nested("telemetry", &self.telemetry);
        problems.nested("lifecycle", &self.lifecycle);
        problems.nested("egress", &self.egress);
        problems.nested("vault", &self.vault);
        problems.nested("broker", &self.broker);
        problems.nested("scheduler", &self.scheduler);
        problems.nested("directory", &self.directory);
    }
}
