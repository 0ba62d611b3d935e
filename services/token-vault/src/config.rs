//! The vault's settings.

mod access_records;
mod keys;

use std::path::PathBuf;

use common::admin::AdminConfig;
use common::config::{Duration, Problems, Validate};
use common::lifecycle::LifecycleConfig;
use common::pg::PgConfig;
use common::rpc::{IdentityConfig, ServerConfig};
use common::telemetry::TelemetryConfig;
use egress::EgressConfig;
use serde::{Deserialize, Serialize};

pub use access_records::AccessRecordsConfig;
pub use keys::{AwsKmsConfig, KekConfig, KeysConfig, KubernetesLoginConfig, TransitConfig};

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether what protects secrets has to be there already, or is made.
    pub environment: Environment,
    /// The key-encryption keys.
    pub keys: KeysConfig,
    /// A folder on a disk of this replica's own, for answers that the database has not taken yet. It has to outlive the
    /// process: a StatefulSet's volume, not the container's layer.
    pub spool_dir: PathBuf,
    /// How grants are refreshed.
    pub refresh: RefreshConfig,
    /// How often background tasks look for work.
    pub tasks: TasksConfig,
    /// How access records are kept.
    pub access_records: AccessRecordsConfig,
    /// How providers are reached.
    pub egress: EgressConfig,
    /// The gRPC listener.
    pub grpc: ServerConfig,
    /// Whose callers are known.
    pub identity: IdentityConfig,
    /// Where the vault keeps what it keeps.
    pub database: PgConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
}

/// Where the vault runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Refuses to start without a key-encryption key.
    #[default]
    Production,
    /// Makes one for itself, and says so.
    Development,
}

/// How grants are refreshed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefreshConfig {
    /// A token request takes no longer than this; a lease lasts 15 s more.
    pub provider_timeout: Duration,
    /// At most this many refreshes that nobody waits for at a time.
    pub concurrency: usize,
    /// At most this many requests at a time to one token endpoint. A quarter of them is kept for callers that wait.
    pub per_endpoint: usize,
}

/// How often background tasks look for work. Each look is one statement where there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TasksConfig {
    /// For grants whose refresh is due.
    pub sweep_every: Duration,
    /// For revocations that a provider has not heard of.
    pub revoke_every: Duration,
    /// For grants that nobody confirmed.
    pub reap_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            environment: Environment::default(),
            keys: KeysConfig::default(),
            spool_dir: PathBuf::from("vault-spool"),
            refresh: RefreshConfig::default(),
            tasks: TasksConfig::default(),
            access_records: AccessRecordsConfig::default(),
            egress: EgressConfig::default(),
            grpc: ServerConfig::default(),
            identity: IdentityConfig::default(),
            database: PgConfig::default(),
            admin: AdminConfig::default(),
            telemetry: TelemetryConfig::default(),
            lifecycle: LifecycleConfig::default(),
        }
    }
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            provider_timeout: Duration::from_secs(20),
            concurrency: 64,
            per_endpoint: 16,
        }
    }
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            sweep_every: Duration::from_secs(5),
            revoke_every: Duration::from_secs(10),
            reap_every: Duration::from_secs(30),
        }
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("keys", &self.keys);
        problems.check(
            self.environment == Environment::Development || !self.keys.is_empty(),
            "keys.file",
            "name the file with the key-encryption key (`openssl rand -hex 32` makes one), or name keys in `keys.keks`; only in development the vault makes its own",
        );
        problems.check(
            !self.spool_dir.as_os_str().is_empty(),
            "spool_dir",
            "name a folder on this replica's own disk",
        );
        problems.nested("refresh", &self.refresh);
        problems.nested("tasks", &self.tasks);
        problems.nested("access_records", &self.access_records);
        problems.nested("egress", &self.egress);
        problems.nested("grpc", &self.grpc);
        problems.nested("identity", &self.identity);
        problems.nested("database", &self.database);
        problems.nested("admin", &self.admin);
        problems.nested("telemetry", &self.telemetry);
        problems.nested("lifecycle", &self.lifecycle);
    }
}

impl Validate for RefreshConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.provider_timeout.get().is_zero(),
            "provider_timeout",
            "must be longer than nothing, as in \"20s\"",
        );
        problems.check(self.concurrency > 0, "concurrency", "must be at least 1");
        problems.check(self.per_endpoint > 0, "per_endpoint", "must be at least 1");
    }
}

impl Validate for TasksConfig {
    fn validate(&self, problems: &mut Problems) {
        for (field, every) in [
            ("sweep_every", self.sweep_every),
            ("revoke_every", self.revoke_every),
            ("reap_every", self.reap_every),
        ] {
            problems.check(
                !every.get().is_zero(),
                field,
                "must be longer than nothing, as in \"5s\"",
            );
        }
    }
}
