//! What a provider's webhook may name a connection by.

use aws_lc_rs::digest::{SHA256, digest};
use common::TenantKey;
use contracts::broker::v1 as contract;

/// The provider's id of an account.
pub(crate) const ACCOUNT: &str = "account";
/// The user's e-mail at the provider.
pub(crate) const EMAIL: &str = "email";
/// The user's id at the provider.
pub(crate) const USER: &str = "user";
/// Kept in step with the connection; other names come from whoever adds them.
pub(crate) const OWN: [&str; 3] = [ACCOUNT, EMAIL, USER];

/// A name and a value, written in one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoutingKey {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl RoutingKey {
    /// E-mails are compared without their case.
    pub(crate) fn new(name: &str, value: &str) -> Self {
        let value = value.trim();
        let value = if name == EMAIL {
            value.to_lowercase()
        } else {
            value.to_owned()
        };
        Self {
            name: name.to_owned(),
            value,
        }
    }

    /// The shard of the look-up table that has it.
    pub(crate) fn bucket(&self, integration_tenant: TenantKey, integration_id: &str) -> i16 {
        shard(&[
            integration_tenant.id().as_bytes(),
            integration_id.as_bytes(),
            self.name.as_bytes(),
            self.value.as_bytes(),
        ])
    }
}

impl From<&RoutingKey> for contract::RoutingKey {
    fn from(key: &RoutingKey) -> Self {
        Self {
            name: key.name.clone(),
            value: key.value.clone(),
        }
    }
}

/// A bucket by hash, for what has to be unique or found over all tenants.
pub(crate) fn shard(parts: &[&[u8]]) -> i16 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    i16::from(digest(&SHA256, &bytes).as_ref()[0])
}
