//! Who is calling, for whom, and whether they may.
//!
//! A caller is known by its client certificate, an API key, or a user's token ([`Identity`]); the policy says which
//! methods it may call and in which capacity ([`Policy`]); what a handler sees of it is a [`Caller`].
//! Verifying happens in `rpc`'s layers, before any handler runs.

mod api_key;
#[cfg(feature = "authority")]
pub mod authority;
mod caller;
mod jwt;
mod policy;
pub mod tls;

pub use api_key::{ApiKeyIdentity, Authenticate, Directory, TenantLookup};
pub use caller::{Acting, Caller, Tenants, UserContext, current, scope};
pub use contracts::common::v1::Actor;
pub use jwt::{Claims, FetchKeys, IssuerConfig, IssuerError, JwtError, JwtVerifier, KeySource};
pub use policy::{Capacity, Policy, PolicyError, Row, UserRule};

use std::fmt;

/// What has been proved of the one who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// One of Hawser's services: `spiffe://hawser/oauth-broker`.
    Service(String),
    /// A backend of the host application: `spiffe://hawser/host/<name>`.
    Host(String),
    /// A person at a terminal: `spiffe://hawser/operator/<name>`.
    Operator(String),
    /// A backend without a certificate.
    ApiKey {
        /// The key's id; never the key.
        id: String,
        /// The policy's name of what it may call.
        role: String,
    },
    /// A person whose token is all there is.
    User,
}

impl Identity {
    /// The identity in a certificate's URI SAN; `None` where it is not one of Hawser's trust domain.
    pub fn from_spiffe(uri: &str) -> Option<Self> {
        let path = uri.strip_prefix("spiffe://hawser/")?;
        let named = |name: &str| (!name.is_empty() && !name.contains('/')).then(|| name.to_owned());
        match path.split_once('/') {
            None => named(path).map(Self::Service),
            Some(("host", name)) => named(name).map(Self::Host),
            Some(("operator", name)) => named(name).map(Self::Operator),
            Some(_) => None,
        }
    }

    /// The service's own identity.
    pub fn service(name: &str) -> Self {
        Self::Service(name.to_owned())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "spiffe://hawser/{name}"),
            Self::Host(name) => write!(f, "spiffe://hawser/host/{name}"),
            Self::Operator(name) => write!(f, "spiffe://hawser/operator/{name}"),
            Self::ApiKey { id, .. } => write!(f, "api-key/{id}"),
            Self::User => f.write_str("user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uris_of_the_trust_domain_are_identities() {
        assert_eq!(
            Identity::from_spiffe("spiffe://hawser/token-vault"),
            Some(Identity::service("token-vault"))
        );
        assert_eq!(
            Identity::from_spiffe("spiffe://hawser/host/app"),
            Some(Identity::Host("app".into()))
        );
        assert_eq!(
            Identity::from_spiffe("spiffe://hawser/operator/kim"),
            Some(Identity::Operator("kim".into()))
        );
        for uri in [
            "spiffe://hawser/",
            "spiffe://other/token-vault",
            "spiffe://hawser/host/",
            "spiffe://hawser/host/a/b",
            "spiffe://hawser/tenant/a",
        ] {
            assert_eq!(Identity::from_spiffe(uri), None, "{uri}");
        }
    }

    #[test]
    fn an_identity_prints_as_its_uri() {
        for uri in [
            "spiffe://hawser/token-vault",
            "spiffe://hawser/host/app",
            "spiffe://hawser/operator/kim",
        ] {
            assert_eq!(
                Identity::from_spiffe(uri).expect("it is one").to_string(),
                uri
            );
        }
    }
}
