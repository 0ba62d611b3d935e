//! The ways in which providers differ.

use serde::{Deserialize, Serialize};

/// The APIs that can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiShape {
    /// `GET /rest/v1.0/me`, `/companies`, `/projects`.
    Procore,
    /// `GET /v1.0/me`, `/organization`, `/me/messages` and the inbox's delta.
    Graph,
}

/// The collections of records that can be read and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionKind {
    /// A company's projects; the owner is the company's id.
    Projects,
    /// A user's inbox; the owner is the user's key.
    Messages,
}

/// Signature algorithms of id_tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdTokenAlg {
    /// RSASSA-PKCS1-v1_5 with SHA-256, which every client must know (OpenID Connect Core, section 15.1).
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA over P-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// Which extra fields a token response has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenShape {
    /// RFC 6749, section 5.1, with `scope`.
    #[default]
    Standard,
    /// No scope, but `created_at`.
    Procore,
    /// `scope`, `ext_expires_in`, and errors with `error_codes`.
    Microsoft,
}

/// How a client identifies itself (OpenID Connect Core, section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`, id and secret form-encoded first (RFC 6749, section 2.3.1).
    ClientSecretBasic,
    /// `client_id` and `client_secret` in the body.
    ClientSecretPost,
    /// An assertion that the client signs (RFC 7523, section 2.2).
    PrivateKeyJwt,
    /// `client_id` alone, for public clients.
    None,
}

/// Whether PKCE (RFC 7636) is demanded. A challenge that is sent is verified under either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// As OAuth 2.1 has it; only S256.
    #[default]
    Required,
    /// Tolerated.
    Optional,
}

/// How the lifetime is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiresIn {
    /// `"expires_in": 3600`.
    #[default]
    Number,
    /// `"expires_in": "3600"`.
    Text,
    /// Not at all.
    Absent,
    /// `"expires_in": 0`, said by some whose tokens do not expire; here they still do.
    Zero,
    /// `"expires_at": 1767225600`.
    AtSeconds,
    /// `"expires_at": 1767225600000`.
    AtMillis,
    /// `"expires_at": "2026-01-01T00:00:00Z"`.
    AtIso,
}

/// When a refresh token is issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshTokens {
    /// With every consent.
    #[default]
    Always,
    /// If the scope `offline_access` was granted.
    OfflineAccess,
    /// Never.
    Never,
}

/// What using a refresh token does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rotation {
    /// Nothing; answers omit `refresh_token`.
    Off,
    /// Each answer has a new one, and the old ones stay good.
    Overlapping,
    /// Each answer has a new one. For a while after its first use, the previous one is still answered; after that, using it revokes the grant.
    Grace {
        /// How long after its first use.
        window_seconds: u32,
        /// With what it is answered.
        #[serde(default)]
        replay: Replay,
    },
    /// Each answer has a new one. Using an old one revokes the grant (RFC 9700, section 4.14.2).
    Strict,
}

/// What a replayed refresh token is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// The tokens of the first answer.
    #[default]
    Same,
    /// New tokens beside them.
    New,
}

/// What the revocation endpoint (RFC 7009) kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// There is no such endpoint.
    Unsupported,
    /// A refresh token with its whole grant, an access token alone.
    #[default]
    Token,
    /// The whole grant, whichever token is sent.
    Grant,
}

/// So many API calls per grant in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Calls that are answered.
    pub calls: u32,
    /// The window's length; windows begin at its multiples.
    pub window_seconds: u32,
    /// The headers that tell it.
    #[serde(default)]
    pub headers: RateHeaders,
}

/// The ways in which providers say how long to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateHeaders {
    /// They do not.
    None,
    /// `Retry-After: 30` (RFC 9110, section 10.2.3).
    #[default]
    RetryAfterSeconds,
    /// `Retry-After: Sun, 06 Nov 1994 08:49:37 GMT`.
    RetryAfterDate,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` with a Unix time, as GitHub.
    XRatelimitEpoch,
    /// The same with the seconds left.
    XRatelimitSeconds,
    /// `X-Rate-Limit-Limit`, `-Remaining`, `-Reset` with a Unix time, as Procore.
    Procore,
    /// `RateLimit-Limit`, `-Remaining`, `-Reset` with the seconds left, as the early IETF drafts.
    Ietf,
}
