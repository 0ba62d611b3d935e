//! The policy: a row for each identity or role and the methods it may call. What is not listed is refused.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use super::{Acting, Identity};

/// Who may call what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Identities whose word about the actor behind a call is believed.
    pub forwarders: HashSet<String>,
    /// The first row that fits decides.
    #[serde(rename = "allow")]
    pub rows: Vec<Row>,
}

/// Some callers, some methods, and in which capacity.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// `spiffe://hawser/oauth-broker`, `spiffe://hawser/host/*`, `api-key/<role>`, or `user` for a token alone.
    pub callers: Vec<String>,
    /// `hawser.vault.v1.TokenVaultService/GetCredential`, or `…/*` for a whole service, less what `except` names.
    pub methods: Vec<String>,
    /// Methods that `methods` would cover.
    #[serde(default)]
    pub except: Vec<String>,
    /// Whether a person must be behind the call.
    #[serde(default)]
    pub user: UserRule,
    /// In which capacity.
    pub acting: Capacity,
}

/// Whether a call must, may, or must not have a user context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserRule {
    /// Refused without.
    Required,
    /// Taken either way.
    #[default]
    Optional,
    /// Refused with.
    Forbidden,
}

/// In which capacity a row lets its callers act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// As the person behind the call: a user or its tenant's administrator; without a person, for the whole tenant.
    Person,
    /// For its own work, as one of Hawser's services.
    Service,
    /// As an operator of the platform.
    Operator,
    /// As whoever the forwarded actor is, operators included.
    Forwarded,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the policy file {path} cannot be read; check `identity.policy_file`")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a policy.
    #[error("the policy is not valid TOML of the expected form")]
    Malformed(#[from] toml::de::Error),
}

/// The policy that Hawser ships.
const BUILT_IN: &str = include_str!("../../../../deploy/policy.toml");

impl Policy {
    /// The policy that Hawser ships.
    pub fn built_in() -> Self {
        toml::from_str(BUILT_IN).expect("a test reads the policy that is compiled in")
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`] where the file is not there or not a policy.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Ok(toml::from_str(&text)?)
    }

    /// The row that lets `identity` call `method` (`package.Service/Method`).
    pub fn row(&self, identity: &Identity, method: &str) -> Option<&Row> {
        let name = name_of(identity);
        self.rows
            .iter()
            .find(|row| row.names(&name) && row.names_method(method))
    }

    /// Whether what the identity says of the actor is believed.
    pub fn may_forward(&self, identity: &Identity) -> bool {
        matches!(identity, Identity::Service(_)) && self.forwarders.contains(&identity.to_string())
    }
}

impl Row {
    /// Whether the row is about this caller.
    pub fn names_caller(&self, identity: &Identity) -> bool {
        self.names(&name_of(identity))
    }

    fn names(&self, caller: &str) -> bool {
        self.callers.iter().any(|pattern| matches(pattern, caller))
    }

    /// Whether the row is about this method.
    pub fn names_method(&self, method: &str) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, method));
        named(&self.methods) && !named(&self.except)
    }

    /// The capacity in which a call is made under this row: `admin` says whether the person, if any, administers its
    /// tenant, `forwarded_operator` whether a believed actor is an operator.
    pub fn acting(&self, person: Option<bool>, forwarded_operator: bool) -> Acting {
        match (self.acting, person) {
            (Capacity::Service, _) => Acting::Service,
            (Capacity::Operator, _) => Acting::Operator,
            (Capacity::Forwarded, _) if forwarded_operator => Acting::Operator,
            (_, Some(false)) => Acting::Own,
            (_, Some(true) | None) => Acting::TenantAdmin,
        }
    }
}

/// As rows name it.
fn name_of(identity: &Identity) -> String {
    match identity {
        Identity::ApiKey { role, .. } => format!("api-key/{role}"),
        other => other.to_string(),
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
        None => pattern == name,
    }
}
