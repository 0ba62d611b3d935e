//! The tenant directory's configuration.

use common::admin::AdminConfig;
use common::config::{Duration, Problems, Validate};
use common::lifecycle::LifecycleConfig;
use common::pg::PgConfig;
use common::rpc::{IdentityConfig, ServerConfig};
use common::telemetry::TelemetryConfig;
use egress::EgressConfig;
use serde::{Deserialize, Serialize};

/// Everything that can be set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gRPC listener.
    pub grpc: ServerConfig,
    /// Whose callers are known.
    pub identity: IdentityConfig,
    /// The schema `directory`.
    pub database: PgConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
    /// How key sets of users' tokens are fetched, where an issuer has them at an address.
    pub egress: EgressConfig,
    /// What API keys may be.
    pub api_keys: ApiKeysConfig,
    /// How often background tasks look.
    pub tasks: TasksConfig,
}

/// What API keys may be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeysConfig {
    /// The roles that a key may have: those that the policy has rows for, as `api-key/<role>`.
    pub roles: Vec<String>,
    /// How long a key is good that was made without an end.
    pub default_lifetime: Duration,
    /// How long a key may be good at most.
    pub max_lifetime: Duration,
    /// How long a rotation may leave the secret before it good at most.
    pub max_overlap: Duration,
}

/// How often background tasks look.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TasksConfig {
    /// For names that were reserved and never used.
    pub reap_every: Duration,
    /// For deletions that wait for the directory itself; those that come up here are seen at once.
    pub deletions_every: Duration,
}

const DAY: u64 = 24 * 60 * 60;

impl Default for ApiKeysConfig {
    fn default() -> Self {
        Self {
            roles: ["host", "read-only", "worker"].map(str::to_owned).to_vec(),
            default_lifetime: Duration::from_secs(365 * DAY),
            max_lifetime: Duration::from_secs(10 * 365 * DAY),
            max_overlap: Duration::from_secs(30 * DAY),
        }
    }
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            reap_every: Duration::from_secs(30),
            deletions_every: Duration::from_secs(30),
        }
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("grpc", &self.grpc);
        problems.nested("identity", &self.identity);
        problems.nested("database", &self.database);
        problems.nested("admin", &self.admin);
        problems.nested("telemetry", &self.telemetry);
        problems.nested("lifecycle", &self.lifecycle);
        problems.nested("egress", &self.egress);
        problems.nested("api_keys", &self.api_keys);
        problems.nested("tasks", &self.tasks);
    }
}

impl Validate for ApiKeysConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.roles.is_empty(),
            "roles",
            "must name at least one role",
        );
        problems.check(
            !self.default_lifetime.is_zero(),
            "default_lifetime",
            "must be longer than nothing, as in \"365d\"",
        );
        problems.check(
            self.max_lifetime >= self.default_lifetime,
            "max_lifetime",
            "must not be shorter than `default_lifetime`",
        );
    }
}

impl Validate for TasksConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            self.reap_every.as_secs() > 0,
            "reap_every",
            "must be at least a second, as in \"30s\"",
        );
        problems.check(
            self.deletions_every.as_secs() > 0,
            "deletions_every",
            "must be at least a second, as in \"30s\"",
        );
    }
}
