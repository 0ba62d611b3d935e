//! The provider's API: how it is called, who the user is there, and which accounts there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ApiErrorRule, Condition, Location, Pointer, TextTemplate, UrlTemplate};

/// Who the user is at the provider. Each list holds places to look at, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// The documents to look into, best first.
    pub from: Vec<IdentitySource>,
    /// Asked with the access token; `endpoints.userinfo` where unset.
    pub endpoint: Option<Location>,
    /// The user's id, which never changes.
    pub user_id: Vec<Pointer>,
    /// The user's e-mail: for people, never for comparing.
    pub email: Vec<Pointer>,
    /// The user's name.
    pub name: Vec<Pointer>,
    /// The account's id, where there is one account per grant.
    pub account_id: Vec<Pointer>,
    /// The account's name.
    pub account_name: Vec<Pointer>,
}

/// A document that tells who the user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// The id_token's claims.
    IdToken,
    /// The token response.
    TokenResponse,
    /// The answer of `identity.endpoint`.
    Endpoint,
}

/// The accounts that a grant reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// Asked with the access token.
    pub endpoint: Location,
    /// The array in the answer.
    #[serde(default)]
    pub items: Pointer,
    /// An item's id.
    pub id: Pointer,
    /// An item's name.
    pub name: Pointer,
    /// A boolean that says whether the item can be used; an item without it can.
    #[serde(default)]
    pub active: Option<Pointer>,
    /// The items that count, where not all do: one product of several.
    #[serde(default)]
    pub only: Option<Condition>,
}

/// The provider's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// What paths are appended to; `{account}` is the active account.
    pub base_url: Option<UrlTemplate>,
    /// Sent with every call; one that names `{account}` is left out where no account is active.
    pub headers: BTreeMap<String, TextTemplate>,
    /// Where the credential goes.
    pub credential: Credential,
    /// What its errors say of the credential or the account; the first that fits counts, before what statuses mean everywhere.
    pub errors: Vec<ApiErrorRule>,
}

/// Where an access token or an API key goes. A user name and password always go as RFC 7617 says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credential {
    /// Header or query.
    pub placement: Placement,
    /// The header's or the query parameter's name.
    pub name: String,
    /// Its value, with `{secret}` in it.
    pub format: TextTemplate,
}

/// Header or query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// A header.
    #[default]
    Header,
    /// A query parameter.
    Query,
}

/// A harmless request that shows whether a credential is accepted: any 2xx says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// GET where unset.
    #[serde(default)]
    pub method: VerifyMethod,
    /// What to call.
    pub endpoint: Location,
}

/// The method of a verifying request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerifyMethod {
    /// GET.
    #[default]
    Get,
    /// POST with an empty body.
    Post,
}

impl Default for Credential {
    fn default() -> Self {
        Self {
            placement: Placement::Header,
            name: "Authorization".to_owned(),
            format: TextTemplate::try_from("Bearer {secret}".to_owned())
                .expect("a constant template"),
        }
    }
}
