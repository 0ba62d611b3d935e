//! How tokens are renewed, how long they live, and how they end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ReplayWindow, TextTemplate, UrlTemplate};

/// How tokens are renewed, and how long they live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refresh {
    /// What renews an access token.
    pub strategy: RefreshStrategy,
    /// Each refresh gives a new refresh token and ends the old one, sooner or later. Unset: not known; taken as yes.
    pub rotates: Option<bool>,
    /// How long a refresh token that was used already may be used again.
    pub replay_window: ReplayWindow,
    /// The scopes that were granted go along with each refresh again.
    pub resend_scopes: bool,
    /// Life of an access token whose answer does not tell.
    #[serde(with = "humantime_serde")]
    pub access_token_lifetime: Option<Duration>,
    /// A refresh token that is not used for this long ends.
    #[serde(with = "humantime_serde")]
    pub idle_lifetime: Option<Duration>,
    /// A grant ends this long after the user's consent, whatever happens.
    #[serde(with = "humantime_serde")]
    pub absolute_lifetime: Option<Duration>,
    /// With the strategy `jwt_bearer`, and wherever a client signs assertions of its own.
    pub jwt_bearer: Option<JwtBearer>,
    /// With the strategy `token_exchange`.
    pub token_exchange: Option<TokenExchange>,
}

/// What renews an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshStrategy {
    /// A refresh token (RFC 6749, 6).
    #[default]
    RefreshToken,
    /// The client asks for another one by its credentials.
    ClientCredentials,
    /// The client signs another assertion.
    JwtBearer,
    /// The access token itself is traded for one that lives longer, while it lives.
    TokenExchange,
    /// Nothing: the user has to connect again.
    None,
}

/// An assertion of the client's that brings a token (RFC 7523, 2.1, and what resembles it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtBearer {
    /// How the assertion travels.
    #[serde(default)]
    pub carried: AssertionCarrier,
    /// `aud`, compared as text by the provider; the token endpoint where unset.
    #[serde(default)]
    pub audience: Option<TextTemplate>,
    /// `sub`.
    #[serde(default)]
    pub subject: AssertionSubject,
    /// Where scopes go.
    #[serde(default)]
    pub scopes: AssertionScopes,
    /// The longest life that the provider takes, of which we use what is customary.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
}

/// How an assertion travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionCarrier {
    /// As `assertion`, with the grant type of RFC 7523.
    #[default]
    GrantType,
    /// As the bearer token of a request without a body: a GitHub App's.
    BearerToken,
}

/// Whether an assertion names a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionSubject {
    /// Where the connection names one: a user on whose behalf a service account acts.
    #[default]
    Optional,
    /// Always: the provider asks for a user.
    Required,
    /// Never.
    None,
}

/// Where the scopes of an assertion go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionScopes {
    /// As the claim `scope`.
    #[default]
    Claim,
    /// As the parameter `scope` (RFC 7521, 4.1).
    Parameter,
    /// Nowhere: the client has what it has.
    None,
}

/// How an access token is traded for one that lives longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenExchange {
    /// The trade that renews. It goes to `endpoints.refresh`, or else to `endpoints.token`.
    pub renew: ExchangeCall,
    /// The trade that makes a long-lived token of the first one; the same where unset.
    #[serde(default)]
    pub first: Option<ExchangeCall>,
    /// A token that is younger than this is not renewed.
    #[serde(default, with = "humantime_serde")]
    pub minimum_age: Option<Duration>,
}

/// One trade of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeCall {
    /// Where to, if not where all others go.
    #[serde(default)]
    pub endpoint: Option<UrlTemplate>,
    /// How it is asked for; the parameters of a GET go into the query.
    #[serde(default)]
    pub method: CallMethod,
    /// `grant_type`.
    pub grant_type: String,
    /// The parameter that holds the token.
    pub token_param: String,
    /// What of the client goes along.
    #[serde(default)]
    pub client: ClientParams,
}

/// What of the client goes along as parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientParams {
    /// `client_id` and `client_secret`.
    #[default]
    IdAndSecret,
    /// `client_secret` alone.
    Secret,
    /// Nothing: the token proves enough.
    None,
}

/// The method of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CallMethod {
    /// POST.
    #[default]
    Post,
    /// GET.
    Get,
    /// DELETE.
    Delete,
}

/// How tokens are revoked at `endpoints.revocation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Revocation {
    /// Which tokens, in which order.
    pub tokens: Vec<RevocableToken>,
    /// Whether `token_type_hint` is sent.
    pub token_type_hint: bool,
    /// How it is asked for.
    pub method: CallMethod,
    /// Where the token stands.
    pub carried: TokenCarrier,
}

/// Where the token stands that is to be revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenCarrier {
    /// In the body, beside the client's authentication (RFC 7009, 2.1).
    #[default]
    Body,
    /// In the Authorization header, as the bearer token that ends itself; the client is not asked for.
    BearerToken,
}

/// A token that can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocableToken {
    /// The refresh token.
    RefreshToken,
    /// The access token.
    AccessToken,
}

impl Default for Revocation {
    /// The order of RFC 7009, 2.1: the refresh token takes the access tokens with it.
    fn default() -> Self {
        Self {
            tokens: vec![RevocableToken::RefreshToken, RevocableToken::AccessToken],
            token_type_hint: true,
            method: CallMethod::Post,
            carried: TokenCarrier::Body,
        }
    }
}
