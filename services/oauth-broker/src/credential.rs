//! A credential, and where a provider's API wants it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Secret;
use contracts::vault::v1 as vault;
use provider_catalog::{FillError, Placement, ResolvedProvider};
use time::OffsetDateTime;

/// What the vault handed out.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) version: i64,
    pub(crate) expires_at: Option<OffsetDateTime>,
    secret: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// An access token or an API key.
    Bare(Secret<String>),
    Basic {
        username: String,
        password: Secret<String>,
    },
}

/// What a request carries besides its URL and body. Holds secrets.
#[derive(Clone, Default)]
pub(crate) struct Carried {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
}

impl Credential {
    /// `None` where the vault's answer has no secret in it.
    pub(crate) fn of(credential: vault::Credential) -> Option<Self> {
        let (secret, expires_at) = match credential.secret? {
            vault::credential::Secret::AccessToken(token) => {
                (Kind::Bare(Secret::new(token.value)), token.expires_at)
            }
            vault::credential::Secret::ApiKey(key) => (Kind::Bare(Secret::new(key.value)), None),
            vault::credential::Secret::Basic(basic) => (
                Kind::Basic {
                    username: basic.username,
                    password: Secret::new(basic.password),
                },
                None,
            ),
        };
        let expires_at = expires_at.and_then(|at| crate::api::encode::moment(&at));
        Some(Self {
            version: credential.version,
            expires_at,
            secret,
        })
    }

    /// The bare token or key; `None` for a user name and password.
    pub(crate) fn bare(&self) -> Option<&Secret<String>> {
        match &self.secret {
            Kind::Bare(secret) => Some(secret),
            Kind::Basic { .. } => None,
        }
    }

    /// What each call to the provider's API carries, the account's header among it.
    pub(crate) fn carried(
        &self,
        resolved: &ResolvedProvider,
        account: Option<&str>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Carried, FillError> {
        let mut carried = Carried {
            headers: resolved.api_headers(account, parameters)?,
            query: BTreeMap::new(),
        };
        let place = &resolved.provider().api.credential;
        match &self.secret {
            Kind::Basic { username, password } => {
                let pair = Secret::new(format!("{username}:{}", password.expose()));
                carried.headers.insert(
                    "Authorization".to_owned(),
                    format!("Basic {}", STANDARD.encode(pair.expose())),
                );
            }
            Kind::Bare(secret) => {
                let value = place.format.fill(&BTreeMap::from([(
                    "secret".to_owned(),
                    secret.expose().clone(),
                )]))?;
                match place.placement {
                    Placement::Header => carried.headers.insert(place.name.clone(), value),
                    Placement::Query => carried.query.insert(place.name.clone(), value),
                };
            }
        }
        Ok(carried)
    }
}
