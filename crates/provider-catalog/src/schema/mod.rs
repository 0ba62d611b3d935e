//! The schema of a catalogue entry. Unknown fields are refused, so that a misspelt one cannot be overlooked.
//!
//! The build script includes this module too, so it names nothing outside itself.

mod api;
mod check;
mod errors;
mod family;
mod file;
mod renewal;
mod template;
mod token_response;
mod values;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use api::{
    Accounts, Api, Credential, Identity, IdentitySource, Placement, Verify, VerifyMethod,
};
pub(crate) use errors::is_any_of;
pub use errors::{
    ApiErrorClass, ApiErrorRule, Errors, ReauthorizationCause, TokenErrorClass, TokenErrorRule,
};
pub use family::link;
pub use file::{FileProblem, parse};
pub use renewal::{
    AssertionCarrier, AssertionScopes, AssertionSubject, CallMethod, ClientParams, ExchangeCall,
    JwtBearer, Refresh, RefreshStrategy, RevocableToken, Revocation, TokenCarrier, TokenExchange,
};
pub use template::{FillError, Location, TextTemplate, UrlTemplate};
pub use token_response::{Condition, TokenResponse, ZeroLifetime};
pub use values::{FieldProblem, Key, Pattern, Pointer, ReplayWindow};

/// One provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name in the API; the file's name too.
    pub key: Key,
    /// Its name for people.
    pub display_name: String,
    /// What it is for: "construction", "crm".
    pub categories: Vec<String>,
    /// Where its authentication is documented.
    pub docs_url: UrlTemplate,
    /// How sure the entry is as a whole.
    pub confidence: Confidence,
    /// Where single values stand apart from that: by field path, "refresh.rotates".
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    /// Ways to authenticate, the usual one first.
    pub auth_modes: Vec<AuthMode>,
    /// What makes two connections the same one, unless the integration says otherwise.
    #[serde(default)]
    pub cardinality: Cardinality,
    /// One grant reaches several accounts, and a call chooses among them.
    #[serde(default)]
    pub multiple_accounts: bool,
    /// Fields that an integration has to supply itself: "issuer".
    #[serde(default)]
    pub required_overrides: Vec<String>,
    /// Values that each connection has to supply: "subdomain".
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,

    /// The issuer's identifier; endpoints that are missing are discovered from it (RFC 8414, OpenID Connect Discovery).
    #[serde(default)]
    pub issuer: Option<UrlTemplate>,
    /// The metadata document, where it is not at one of the two usual places.
    #[serde(default)]
    pub discovery_url: Option<UrlTemplate>,
    /// Where to send what.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Whether the provider takes part in PKCE (RFC 7636).
    #[serde(default)]
    pub pkce: Pkce,
    /// How the client authenticates at the token endpoint, the usual way first.
    #[serde(default = "default_client_auth")]
    pub client_auth: Vec<ClientAuthMethod>,
    /// Scopes, and how they are written.
    #[serde(default)]
    pub scopes: Scopes,
    /// Sent with every authorization request.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// Sent with every token request.
    #[serde(default)]
    pub token_params: BTreeMap<String, String>,
    /// Sent with every refresh, besides `token_params`.
    #[serde(default)]
    pub refresh_params: BTreeMap<String, String>,
    /// How the body of a token request is written.
    #[serde(default)]
    pub token_body: TokenBody,
    /// How a token response is written.
    #[serde(default)]
    pub token_response: TokenResponse,
    /// What the token endpoint's errors mean, where they differ from the standard's.
    #[serde(default)]
    pub errors: Errors,
    /// How tokens are renewed, and how long they live.
    #[serde(default)]
    pub refresh: Refresh,
    /// How tokens are revoked.
    #[serde(default)]
    pub revocation: Revocation,

    /// Who the user is at the provider.
    #[serde(default)]
    pub identity: Identity,
    /// The accounts that a grant reaches.
    #[serde(default)]
    pub accounts: Option<Accounts>,
    /// The provider's API.
    #[serde(default)]
    pub api: Api,
    /// A harmless request that shows whether a credential is accepted.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// What else whoever uses it should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How sure the catalogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Seen to work against the provider.
    Verified,
    /// From the provider's documentation.
    Documented,
    /// Two sources agree on the endpoints; the rest is general knowledge.
    CrossChecked,
    /// General knowledge; using it has to be accepted.
    Unverified,
}

/// Where a single value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How sure it is.
    pub confidence: Confidence,
    /// The page that says so.
    #[serde(default)]
    pub docs_url: Option<UrlTemplate>,
    /// What to bear in mind.
    #[serde(default)]
    pub note: Option<String>,
}

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Authorization code (RFC 6749, 4.1).
    #[serde(rename = "oauth2_code")]
    OAuth2Code,
    /// Client credentials (RFC 6749, 4.4).
    #[serde(rename = "oauth2_client_credentials")]
    OAuth2ClientCredentials,
    /// Device authorization (RFC 8628).
    #[serde(rename = "oauth2_device")]
    OAuth2Device,
    /// A signed assertion (RFC 7523, 2.1).
    #[serde(rename = "oauth2_jwt_bearer")]
    OAuth2JwtBearer,
    /// A key that the user pastes.
    ApiKey,
    /// User name and password (RFC 7617).
    Basic,
}

/// What makes two connections the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cardinality {
    /// One for each user of the tenant.
    #[default]
    PerUser,
    /// One for each provider account within the tenant.
    PerAccount,
    /// One for each pair of user and provider account.
    PerUserAndAccount,
    /// One for the whole tenant.
    PerTenant,
}

/// A value that a connection supplies and templates refer to as `{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Anchored at both ends; values that do not match are refused.
    pub pattern: Pattern,
    /// What to ask the user for.
    pub description: String,
    /// A value as it might be.
    #[serde(default)]
    pub example: Option<String>,
    /// Taken where a connection supplies none.
    #[serde(default)]
    pub default: Option<String>,
    /// Where the provider itself tells it, so that nobody has to be asked.
    #[serde(default)]
    pub captured: Option<Capture>,
}

/// Where a provider tells a parameter's value: one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// A parameter of the callback, by name.
    pub callback: Option<String>,
    /// A member of the token response.
    pub token_response: Option<Pointer>,
    /// A member of the answer of `identity.endpoint`.
    pub identity: Option<Pointer>,
    /// Which part of it.
    pub part: CapturedPart,
}

/// Which part of a captured value counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapturedPart {
    /// All of it.
    #[default]
    Whole,
    /// The host of the https URL that it is.
    Host,
}

/// Where to send what. What is missing is discovered, or does not exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    /// Where the browser goes.
    pub authorization: Option<UrlTemplate>,
    /// Where codes and refresh tokens are traded.
    pub token: Option<UrlTemplate>,
    /// Where refresh tokens are traded, if elsewhere.
    pub refresh: Option<UrlTemplate>,
    /// Revocation (RFC 7009).
    pub revocation: Option<UrlTemplate>,
    /// The user's claims (OpenID Connect Core, 5.3).
    pub userinfo: Option<UrlTemplate>,
    /// The provider's signing keys.
    pub jwks: Option<UrlTemplate>,
    /// Pushed authorization requests (RFC 9126).
    pub pushed_authorization_request: Option<UrlTemplate>,
    /// Device authorization (RFC 8628).
    pub device_authorization: Option<UrlTemplate>,
}

/// Whether PKCE is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// Requests without it are refused.
    Required,
    /// It is checked where it is used.
    #[default]
    Supported,
    /// The parameters are accepted; nobody says that they are checked.
    Tolerated,
    /// The parameters make the request fail.
    Unsupported,
}

/// How the client proves itself at the token endpoint (OpenID Connect Core, 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// HTTP Basic with form-encoded parts (RFC 6749, 2.3.1).
    ClientSecretBasic,
    /// In the body.
    ClientSecretPost,
    /// A signed assertion (RFC 7523, 2.2).
    PrivateKeyJwt,
    /// A public client: PKCE alone.
    None,
}

/// Scopes, and how they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scopes {
    /// Between two scopes.
    pub separator: String,
    /// Asked for where the integration names none.
    pub default: Vec<String>,
}

/// How the body of a token request is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBody {
    /// As the standard has it.
    #[default]
    Form,
    /// A JSON object.
    Json,
}

fn default_client_auth() -> Vec<ClientAuthMethod> {
    vec![ClientAuthMethod::ClientSecretBasic]
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            separator: " ".to_owned(),
            default: Vec::new(),
        }
    }
}

impl Pkce {
    /// Whether a challenge is sent.
    pub fn is_sent(self) -> bool {
        self != Self::Unsupported
    }
}

impl AuthMode {
    /// Whether tokens come from a token endpoint.
    pub fn is_oauth2(self) -> bool {
        !matches!(self, Self::ApiKey | Self::Basic)
    }
}

impl Provider {
    /// The way to authenticate that an integration uses unless it says otherwise.
    pub fn default_mode(&self) -> AuthMode {
        // An entry without any is refused when it is read.
        self.auth_modes
            .first()
            .copied()
            .unwrap_or(AuthMode::OAuth2Code)
    }

    /// Every URL in the entry, with its field's path. Locations relative to the API's base are not among them.
    pub fn urls(&self) -> Vec<(&'static str, &UrlTemplate)> {
        let endpoints = &self.endpoints;
        let identity = self.identity.endpoint.as_ref().and_then(Location::absolute);
        let accounts = self
            .accounts
            .as_ref()
            .and_then(|accounts| accounts.endpoint.absolute());
        let exchange = self.refresh.token_exchange.as_ref();
        let renewing = exchange.and_then(|exchange| exchange.renew.endpoint.as_ref());
        let first = exchange.and_then(|exchange| exchange.first.as_ref()?.endpoint.as_ref());
        let verify = self
            .verify
            .as_ref()
            .and_then(|verify| verify.endpoint.absolute());
        [
            ("issuer", self.issuer.as_ref()),
            ("discovery_url", self.discovery_url.as_ref()),
            ("endpoints.authorization", endpoints.authorization.as_ref()),
            ("endpoints.token", endpoints.token.as_ref()),
            ("endpoints.refresh", endpoints.refresh.as_ref()),
            ("endpoints.revocation", endpoints.revocation.as_ref()),
            ("endpoints.userinfo", endpoints.userinfo.as_ref()),
            ("endpoints.jwks", endpoints.jwks.as_ref()),
            (
                "endpoints.pushed_authorization_request",
                endpoints.pushed_authorization_request.as_ref(),
            ),
            (
                "endpoints.device_authorization",
                endpoints.device_authorization.as_ref(),
            ),
            ("identity.endpoint", identity),
            ("accounts.endpoint", accounts),
            ("refresh.token_exchange.renew.endpoint", renewing),
            ("refresh.token_exchange.first.endpoint", first),
            ("api.base_url", self.api.base_url.as_ref()),
            ("verify.endpoint", verify),
        ]
        .into_iter()
        .filter_map(|(field, url)| Some((field, url?)))
        .collect()
    }
}
