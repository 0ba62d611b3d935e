//! What an operator may change.

use std::path::PathBuf;
use std::time::Duration;

use common::config::{Problems, Validate};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How the world outside is reached. The defaults are right for production.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Ranges that may be called although they are private: a GitLab or a Keycloak of one's own. Cloud metadata
    /// addresses stay refused.
    pub allowed_cidrs: Vec<IpNet>,
    /// Lets loopback addresses be called, also by plain http. For development alone.
    pub allow_loopback_http: bool,
    /// Longest time for name resolution, TCP and TLS together.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest time for a whole call, connecting included.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// Longest answer that is read, in bytes.
    pub body_limit: usize,
    /// What we call ourselves; some providers want an address to write to in it.
    pub user_agent: String,
    /// PEM files with certificate authorities that are trusted besides the system's.
    pub ca_files: Vec<PathBuf>,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            allowed_cidrs: Vec::new(),
            allow_loopback_http: false,
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(20),
            body_limit: 1024 * 1024,
            user_agent: concat!("hawser/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_files: Vec::new(),
        }
    }
}

impl Validate for EgressConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.connect_timeout.is_zero(),
            "connect_timeout",
            "must be longer than nothing",
        );
        problems.check(
            self.total_timeout >= self.connect_timeout,
            "total_timeout",
            "must be at least connect_timeout",
        );
        problems.check(self.body_limit > 0, "body_limit", "must be at least 1 byte");
        let is_header = http::HeaderValue::from_str(&self.user_agent).is_ok()
            && !self.user_agent.trim().is_empty();
        problems.check(
            is_header,
            "user_agent",
            "must be printable text on one line",
        );
        for file in &self.ca_files {
            problems.check(
                file.is_file(),
                "ca_files",
                format!("{} must be a PEM file", file.display()),
            );
        }
    }
}
