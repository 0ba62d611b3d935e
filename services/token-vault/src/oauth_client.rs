//! An OAuth client: how we prove ourselves to a provider, and where we may.

use std::collections::BTreeMap;
use std::time::Duration;

use common::Secret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroize;

use crate::grant::ClientKey;
use crate::text_enum::text_enum;

text_enum! {
    /// How the client proves itself at the token endpoint.
    pub(crate) enum AuthMethod {
        /// HTTP Basic.
        SecretBasic = "secret_basic",
        /// In the body.
        SecretPost = "secret_post",
        /// A signed assertion.
        PrivateKeyJwt = "private_key_jwt",
        /// A public client.
        None = "none",
    }
}

impl AuthMethod {
    /// Whether there is something that must be kept secret.
    pub(crate) fn needs_secret(self) -> bool {
        self != Self::None
    }
}

/// What an owner says of its client, besides the secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) provider: String,
    pub(crate) endpoints: OwnEndpoints,
    pub(crate) issuer: Option<String>,
    pub(crate) auth_method: AuthMethod,
    pub(crate) client_id: String,
    pub(crate) key_id: Option<String>,
    pub(crate) token_params: BTreeMap<String, String>,
    pub(crate) refresh_margin: Option<Duration>,
}

/// Endpoints that replace the catalogue's, as templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnEndpoints {
    pub(crate) token: Option<String>,
    pub(crate) refresh: Option<String>,
    pub(crate) revocation: Option<String>,
    pub(crate) pushed_authorization_request: Option<String>,
    pub(crate) device_authorization: Option<String>,
    pub(crate) jwks: Option<String>,
}

/// A row of `oauth_clients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OAuthClient {
    pub(crate) key: ClientKey,
    pub(crate) settings: Settings,
    pub(crate) secret: Option<Vec<u8>>,
    pub(crate) previous_secret: Option<Vec<u8>>,
    pub(crate) previous_secret_expires_at: Option<OffsetDateTime>,
    /// The row version that the secrets are sealed with.
    pub(crate) secret_version: i64,
    pub(crate) key_version: i32,
    pub(crate) version: i64,
    pub(crate) refusal: Option<Refusal>,
    /// The database's time when the row was read.
    pub(crate) read_at: OffsetDateTime,
}

/// The provider refuses the client, and so we ask it seldom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) since: OffsetDateTime,
    pub(crate) error: String,
    /// Nothing is sent for any of its grants before.
    pub(crate) until: OffsetDateTime,
    pub(crate) count: i32,
}

/// A client's secret as it is sealed: with the places that its owner sent it to.
#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
pub(crate) struct SealedSecret {
    value: String,
    destination: String,
}

/// The secret was sealed for other endpoints than the row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's endpoints are not those that its secret was given for")]
pub(crate) struct BentEndpoints;

impl Settings {
    /// Where the secret goes, and how: whoever changes one of these has to know the secret.
    pub(crate) fn destination(&self) -> String {
        let endpoints = &self.endpoints;
        let own = [
            &endpoints.token,
            &endpoints.refresh,
            &endpoints.revocation,
            &endpoints.pushed_authorization_request,
        ];
        let own = own
            .into_iter()
            .chain([&endpoints.device_authorization, &self.issuer]);
        let parts: Vec<_> = [self.provider.as_str(), self.auth_method.as_str()]
            .into_iter()
            .chain(own.map(|endpoint| endpoint.as_deref().unwrap_or_default()))
            .collect();
        // Nothing that can be in a URL or a key looks like the separator.
        parts.join("\n")
    }
}

impl SealedSecret {
    /// What is sealed for `settings`.
    pub(crate) fn for_settings(value: &Secret<String>, settings: &Settings) -> Self {
        Self {
            value: value.expose().clone(),
            destination: settings.destination(),
        }
    }

    /// The secret, if it may go where `settings` say.
    pub(crate) fn reveal(&self, settings: &Settings) -> Result<Secret<String>, BentEndpoints> {
        if self.destination == settings.destination() {
            Ok(Secret::new(self.value.clone()))
        } else {
            Err(BentEndpoints)
        }
    }
}

/// How long a refused client is left alone: half a minute, doubled each time, at most half an hour.
pub(crate) fn refusal_wait(count: i32) -> Duration {
    let doublings = u32::try_from(count).unwrap_or_default().min(6);
    Duration::from_secs(30 << doublings).min(Duration::from_mins(30))
}
