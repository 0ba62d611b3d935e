//! How a token response is written, where it differs from RFC 6749, 5.1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pointer;
use super::errors::is_any_of;

/// Where the tokens stand, and what makes an answer a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenResponse {
    /// What has to hold besides a 2xx and an access token.
    pub success: Option<Condition>,
    /// The objects that may hold the main token, best first: the first with an access token in it counts.
    pub main: Vec<Pointer>,
    /// The objects that hold further tokens, by the name under which each is handed out.
    pub others: BTreeMap<String, Pointer>,
    /// The member that is the access token.
    pub access_token: String,
    /// Members with the refresh token's remaining life in seconds.
    pub refresh_token_expires_in: Vec<String>,
    /// Words for a bearer token besides "Bearer".
    pub bearer_types: Vec<String>,
    /// What `expires_in: 0` says.
    pub zero_lifetime: ZeroLifetime,
}

/// A member of the body, and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The member.
    pub at: Pointer,
    /// One of these.
    pub any_of: Vec<Value>,
}

/// What `expires_in: 0` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroLifetime {
    /// Nothing, as if it were not there.
    #[default]
    Unknown,
    /// That the token does not end.
    Never,
}

impl Condition {
    /// Whether the document fulfils it.
    pub fn holds(&self, document: &Value) -> bool {
        self.at
            .find(document)
            .is_some_and(|found| is_any_of(found, &self.any_of))
    }
}

impl Default for TokenResponse {
    fn default() -> Self {
        Self {
            success: None,
            main: vec![Pointer::default()],
            others: BTreeMap::new(),
            access_token: "access_token".to_owned(),
            refresh_token_expires_in: [
                "refresh_token_expires_in",
                "x_refresh_token_expires_in",
                "refresh_expires_in",
            ]
            .map(str::to_owned)
            .to_vec(),
            bearer_types: Vec::new(),
            zero_lifetime: ZeroLifetime::Unknown,
        }
    }
}
