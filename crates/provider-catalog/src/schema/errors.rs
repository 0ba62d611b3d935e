//! What a provider's errors mean, where they differ from the standard's.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Key, Pointer};

/// The errors of the token endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Errors {
    /// The entry whose places and rules follow these: a family shares one table.
    pub from: Option<Key>,
    /// Places of the error code that come before the usual ones.
    pub code: Vec<Pointer>,
    /// Places of the description that come before the usual ones.
    pub description: Vec<Pointer>,
    /// The first that fits counts; where none does, the standard's meaning does.
    pub rules: Vec<TokenErrorRule>,
}

/// What one of the provider's own errors means. All conditions that are set have to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenErrorRule {
    /// The HTTP status: one, or one of several. Unset: any below 500, and above that only for what passes by itself.
    #[serde(default, deserialize_with = "one_or_several")]
    pub status: Vec<u16>,
    /// The error code, whatever its case: one, or one of several.
    #[serde(default, deserialize_with = "one_or_several")]
    pub error: Vec<String>,
    /// A further member of the body that refines the code: Microsoft's `/error_codes`.
    #[serde(default)]
    pub at: Option<Pointer>,
    /// What stands there, or, where a list stands there, in it: one of these.
    #[serde(default)]
    pub any_of: Vec<Value>,
    /// Part of the description, in lower case: for what has no code of its own.
    #[serde(default)]
    pub description_contains: Option<String>,
    /// What it means.
    pub means: TokenErrorClass,
    /// With `reauthorization`: why.
    #[serde(default)]
    pub cause: Option<ReauthorizationCause>,
    /// With `rate_limited`: for how long, where the answer does not tell.
    #[serde(default, with = "humantime_serde")]
    pub wait: Option<Duration>,
}

/// What a refused token request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenErrorClass {
    /// It passes by itself.
    Transient,
    /// Too many requests.
    RateLimited,
    /// The user has to connect again.
    Reauthorization,
    /// The integration's owner has to change something.
    Configuration,
    /// The provider breaks its own protocol.
    ProviderBug,
}

/// Why the user has to connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReauthorizationCause {
    /// Revoked by the user, or by the provider's policy.
    Revoked,
    /// Not used for too long, or at the end of its life.
    Expired,
    /// A rotated token was lost between the provider and us.
    LostRotation,
    /// The user's account at the provider is disabled or gone.
    AccountDisabled,
    /// An administrator at the provider has to consent or change a policy.
    AdminAction,
    /// The provider wants the user to sign in interactively.
    InteractionRequired,
}

/// What an answer of the provider's API says of the credential or the account. All conditions that are set have to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiErrorRule {
    /// The HTTP status.
    pub status: u16,
    /// A header, by its name.
    #[serde(default)]
    pub header: Option<String>,
    /// A member of the body.
    #[serde(default)]
    pub at: Option<Pointer>,
    /// What stands in the header or the member: one of these.
    #[serde(default)]
    pub any_of: Vec<Value>,
    /// What it means.
    pub means: ApiErrorClass,
}

/// What an answer of the provider's API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiErrorClass {
    /// The access token is refused: another one may be taken.
    TokenRefused,
    /// The account that was asked for is disconnected or inactive; the grant's other accounts are as before.
    AccountUnavailable,
    /// The client, or what it may do, has to be changed by the integration's owner.
    Configuration,
    /// The grant itself is gone.
    Revoked,
    /// Too many requests.
    RateLimited,
    /// It passes by itself.
    Transient,
}

impl TokenErrorRule {
    /// Whether what stands at [`Self::at`] is one of [`Self::any_of`]; a rule without a place fits always.
    pub fn refines(&self, body: &Value) -> bool {
        self.at.as_ref().is_none_or(|at| {
            at.find(body)
                .is_some_and(|found| is_any_of(found, &self.any_of))
        })
    }
}

/// Whether a value, or an item of it where it is a list, is among those wanted. Numbers and texts are compared as they are written.
pub(crate) fn is_any_of(found: &Value, wanted: &[Value]) -> bool {
    match found {
        Value::Array(items) => items.iter().any(|item| is_any_of(item, wanted)),
        found => wanted
            .iter()
            .any(|wanted| written(wanted) == written(found)),
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A single value, or a list of them.
pub(super) fn one_or_several<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a value or a list of values")]
    enum OneOrSeveral<T> {
        One(T),
        Several(Vec<T>),
    }
    Ok(match OneOrSeveral::deserialize(deserializer)? {
        OneOrSeveral::One(value) => vec![value],
        OneOrSeveral::Several(values) => values,
    })
}
