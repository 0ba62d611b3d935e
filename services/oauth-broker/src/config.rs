//! The OAuth broker's configuration.

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
    /// The public listener: connect pages and the OAuth callback.
    pub http: HttpConfig,
    /// The schema `broker`.
    pub database: PgConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub lifecycle: LifecycleConfig,
    /// The token vault, which keeps every secret.
    pub vault: ClientConfig,
    /// The tenant directory, which knows names, e-mails, and where pages may return to.
    pub directory: ClientConfig,
    /// How providers are reached.
    pub egress: EgressConfig,
    /// What people see.
    pub pages: PagesConfig,
    /// What is done in the background.
    pub upkeep: UpkeepConfig,
}

/// The public listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where browsers reach it, without a path: `https://connect.example.com`. Redirect URIs are registered with providers
    /// under it. Only a loopback listener does without, for development.
    pub public_url: Option<Url>,
}

/// What people see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagesConfig {
    /// The product that asks for access, as connect pages name it.
    pub product_name: String,
    /// Where a settings page begins an action, with `{action}` and `{integration_id}` in it. Empty where there is none.
    pub action_url: String,
}

/// What is done in the background.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepConfig {
    /// How often to look for what was begun and not finished: old sessions, grants that the vault has to be told of.
    pub interval: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
        }
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

impl Default for PagesConfig {
    fn default() -> Self {
        Self {
            product_name: "Hawser".to_owned(),
            action_url: String::new(),
        }
    }
}

impl HttpConfig {
    /// Where browsers reach what listens at `bound`, without a slash at the end.
    pub fn public_url(&self, bound: SocketAddr) -> String {
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
                "name the https address at which browsers reach the connect pages; only a loopback `listen` does without",
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

impl Validate for UpkeepConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.interval.get().is_zero(),
            "interval",
            "must be longer than nothing, as in \"10s\"",
        );
    }
}

impl Validate for PagesConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.product_name.trim().is_empty(),
            "product_name",
            "say which product asks for access",
        );
        problems.check(
            self.action_url.is_empty() || Url::parse(&self.action_url).is_ok(),
            "action_url",
            "must be a URL, with `{action}` and `{integration_id}` in it",
        );
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        problems.nested("grpc", &self.grpc);
        problems.nested("identity", &self.identity);
        problems.nested("http", &self.http);
        problems.nested("database", &self.database);
        problems.nested("admin", &self.admin);
        problems.nested("telemetry", &self.telemetry);
        problems.nested("lifecycle", &self.lifecycle);
        problems.nested("vault", &self.vault);
        problems.nested("directory", &self.directory);
        problems.nested("pages", &self.pages);
        problems.nested("upkeep", &self.upkeep);
        problems.nested("egress", &self.egress);
    }
}

/// Whether the URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
