//! Assertions that bring a token: RFC 7523, 2.1, and those that a GitHub App shows as a bearer token.

use std::time::Duration;

use common::{Deps, Secret};
use provider_catalog::{AssertionScopes, AssertionSubject, JwtBearer};
use serde::Serialize;

use crate::client::{BadKey, Client, ClientAuth, token_id};

/// The assertion's grant type.
pub(crate) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How far `iat` lies back at most: GitHub's own advice for clocks that drift.
const BACKDATED: Duration = Duration::from_mins(1);
/// From `iat` to `exp` at most, however long a life the provider takes.
const LONGEST_LIFE: Duration = Duration::from_mins(5);

/// What an assertion says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assertion<'a> {
    pub(crate) rules: &'a JwtBearer,
    pub(crate) audience: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) scopes: &'a [String],
    /// Between two scopes.
    pub(crate) separator: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    jti: String,
    iat: i64,
    exp: i64,
}

impl Assertion<'_> {
    /// Signed by the client. Only a client with a key of its own can.
    pub(crate) fn signed(&self, client: &Client, deps: &Deps) -> Result<Secret<String>, BadKey> {
        let ClientAuth::PrivateKeyJwt { key, key_id, .. } = &client.auth else {
            return Err(BadKey);
        };
        let life = self.rules.lifetime.min(LONGEST_LIFE);
        let backdated = BACKDATED.min(life / 3);
        let iat = deps.now().unix_timestamp() - backdated.as_secs().cast_signed();
        let claims = Claims {
            iss: &client.id,
            sub: Some(self.subject).filter(|subject| {
                !subject.is_empty() && self.rules.subject != AssertionSubject::None
            }),
            aud: self.audience,
            scope: (self.rules.scopes == AssertionScopes::Claim)
                .then(|| self.scope())
                .flatten(),
            jti: token_id(deps),
            iat,
            exp: iat + life.as_secs().cast_signed(),
        };
        key.sign(key_id.as_deref(), &claims)
    }

    /// The parameter `scope`, where that is the place for it.
    pub(crate) fn scope_parameter(&self) -> Option<String> {
        (self.rules.scopes == AssertionScopes::Parameter)
            .then(|| self.scope())
            .flatten()
    }

    fn scope(&self) -> Option<String> {
        (!self.scopes.is_empty()).then(|| self.scopes.join(self.separator))
    }
}
