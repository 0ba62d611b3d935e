//! The sync scheduler's configuration.

use common::admin::AdminConfig;
use common::config::{Problems, Validate};
use common::lifecycle::LifecycleConfig;
use common::pg::PgConfig;
use common::rpc::{ClientConfig, IdentityConfig, ServerConfig};
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
    /// The schema `scheduler`.
    pub database: PgConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
    /// How key sets of users' tokens are fetched, where an issuer has them at an address.
    pub egress: EgressConfig,
    /// The OAuth broker, which knows connections and providers.
    pub broker: ClientConfig,
    /// The tenant directory, which knows quotas, API keys, and external ids.
    pub directory: ClientConfig,
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
        problems.nested("broker", &self.broker);
        problems.nested("directory", &self.directory);
    }
}
