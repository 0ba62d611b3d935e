//! What is inside of sealed values.

use common::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::grant::GrantKey;
use crate::keys::{Keys, KeysError, Place, SealingKey};
use crate::renewal::StandIn;

/// What a grant hands out. Its kind is sealed with it, so that no token is ever handed out as something else.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Credential {
    /// Access tokens of an OAuth provider.
    AccessToken {
        /// The main one.
        value: String,
        /// The others: "user" beside Slack's bot token.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<NamedToken>,
        /// The only origin that may revoke it.
        #[serde(default)]
        revocation_origin: Option<String>,
    },
    /// One key.
    ApiKey { value: String },
    /// User name and password.
    Basic { username: String, password: String },
}

/// A token beside the main one.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
pub(crate) struct NamedToken {
    pub(crate) name: String,
    pub(crate) value: String,
    /// When it ends, in seconds since 1970: it has an end of its own.
    #[serde(default)]
    pub(crate) expires_at: Option<i64>,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
}

impl NamedToken {
    pub(crate) fn of(token: &oauth_client::NamedToken) -> Self {
        Self {
            name: token.name.clone(),
            value: token.access_token.expose().clone(),
            expires_at: token.expires_at.map(OffsetDateTime::unix_timestamp),
            scopes: token.scopes.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn expires_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.expires_at?).ok()
    }
}

/// A refresh token, with where it may be sent.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
pub(crate) struct RefreshToken {
    value: String,
    /// The only origin that trades it.
    pub(crate) origin: String,
}

/// Tokens that wait to be revoked.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
pub(crate) struct RevocableTokens {
    pub(crate) refresh_token: Option<String>,
    pub(crate) access_token: Option<String>,
    /// The access tokens beside that one.
    #[serde(default)]
    pub(crate) others: Vec<String>,
    /// The only origin that they may be sent to.
    pub(crate) revocation_origin: Option<String>,
}

impl Credential {
    /// The tokens beside the main one.
    pub(crate) fn others(&self) -> Vec<oauth_client::NamedToken> {
        let Self::AccessToken { others, .. } = self else {
            return Vec::new();
        };
        let named = |other: &NamedToken| oauth_client::NamedToken {
            name: other.name.clone(),
            access_token: Secret::new(other.value.clone()),
            refresh_token: None,
            expires_at: other.expires_at(),
            scopes: Some(other.scopes.clone()).filter(|scopes| !scopes.is_empty()),
        };
        others.iter().map(named).collect()
    }
}

impl RefreshToken {
    pub(crate) fn new(value: &Secret<String>, origin: String) -> Self {
        Self {
            value: value.expose().clone(),
            origin,
        }
    }

    pub(crate) fn value(&self) -> Secret<String> {
        Secret::new(self.value.clone())
    }
}

impl RevocableTokens {
    /// What a grant or an answer has.
    pub(crate) fn of(
        refresh_token: Option<&RefreshToken>,
        credential: Option<&Credential>,
    ) -> Self {
        let (access_token, others, revocation_origin) = match credential {
            Some(Credential::AccessToken {
                value,
                others,
                revocation_origin,
            }) => {
                let others = others.iter().filter(|other| other.value != *value);
                let others = others.map(|other| other.value.clone()).collect();
                (Some(value.clone()), others, revocation_origin.clone())
            }
            _ => (None, Vec::new(), None),
        };
        Self {
            refresh_token: refresh_token
                .filter(|token| !StandIn::is_in(&token.value))
                .map(|token| token.value.clone()),
            access_token,
            others,
            revocation_origin,
        }
    }
}

/// Where a grant's credential lies.
pub(crate) fn credential_place(grant: GrantKey, version: i64) -> Place {
    grant_place(grant, "credential", version)
}

/// Where a grant's refresh token lies.
pub(crate) fn refresh_token_place(grant: GrantKey, version: i64) -> Place {
    grant_place(grant, "refresh_token", version)
}

/// Where the refresh token before it lies.
pub(crate) fn previous_place(grant: GrantKey, version: i64) -> Place {
    grant_place(grant, "previous_refresh_token", version)
}

/// Where a refresh token lies that came too late to be the one.
pub(crate) fn alternate_place(grant: GrantKey, version: i64) -> Place {
    grant_place(grant, "alternate_refresh_token", version)
}

/// Where tokens lie that are to be revoked.
pub(crate) fn revocation_place(tenant: common::TenantKey, revocation: Uuid) -> Place {
    Place {
        table: "revocations",
        column: "tokens",
        tenant,
        row: revocation,
        version: 1,
    }
}

fn grant_place(grant: GrantKey, column: &'static str, version: i64) -> Place {
    Place {
        table: "grants",
        column,
        tenant: grant.tenant,
        row: grant.id,
        version,
    }
}

/// Seals a value as JSON.
pub(crate) fn seal<T: Serialize>(
    keys: &Keys,
    key: &SealingKey,
    place: &Place,
    value: &T,
) -> Vec<u8> {
    let plaintext =
        Zeroizing::new(serde_json::to_vec(value).expect("what is sealed has only texts in it"));
    keys.seal(key, place, &plaintext)
}

/// Opens a value that [`seal`] sealed.
pub(crate) async fn open<T: DeserializeOwned>(
    keys: &Keys,
    place: &Place,
    sealed: &[u8],
) -> Result<T, KeysError> {
    content(place, &keys.open(place, sealed).await?)
}

/// As [`open`], where the data key is in memory already; `None` where it has to be fetched.
pub(crate) fn open_at_once<T: DeserializeOwned>(
    keys: &Keys,
    place: &Place,
    sealed: &[u8],
) -> Result<Option<T>, KeysError> {
    let plaintext = keys.open_at_once(place, sealed)?;
    plaintext
        .map(|plaintext| content(place, &plaintext))
        .transpose()
}

fn content<T: DeserializeOwned>(place: &Place, plaintext: &[u8]) -> Result<T, KeysError> {
    serde_json::from_slice(plaintext).map_err(|_| KeysError::Content {
        table: place.table,
        column: place.column,
    })
}
