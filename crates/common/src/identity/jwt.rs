//! Users' tokens: JWTs of the host application or its identity provider (RFC 7519, checked as RFC 8725 asks).

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::Deps;

/// An issuer whose tokens are taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Must equal the token's `iss`.
    pub issuer: String,
    /// Must be among the token's `aud`.
    pub audience: String,
    /// Where its keys are; exactly one of the three.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
    /// A JSON Web Key Set (RFC 7517) in a file.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// A JSON Web Key Set at an address; fetched anew for an unknown key, at most once in 30 s.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The claim with the tenant's id, ours or the host application's.
    #[serde(default = "default_tenant_claim")]
    pub tenant_claim: String,
    /// The claim with the user's roles, a list or a text with spaces.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
}

impl IssuerConfig {
    /// An issuer with the usual claims, still without a source of keys.
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            tenant_claim: default_tenant_claim(),
            roles_claim: default_roles_claim(),
        }
    }
}

fn default_tenant_claim() -> String {
    "tenant_id".to_owned()
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Its `sub`.
    pub user_id: Option<String>,
    /// The tenant's id, ours or the host application's.
    pub tenant: Option<String>,
    /// The user's roles.
    pub roles: Vec<String>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// Why a token is not taken. The token itself is never part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT, or one of an algorithm that is not allowed.
    #[error("the token is no JWT signed with RS256, ES256 or EdDSA")]
    Malformed,
    /// `iss` is none of the configured ones.
    #[error("the token's issuer is not one that is trusted here")]
    UnknownIssuer,
    /// No key of the issuer's has made this signature.
    #[error("the token's signature is not one of its issuer's keys")]
    BadSignature,
    /// `aud` does not name us.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// Past its `exp`, or it has none, or before its `nbf`.
    #[error("the token has expired, is not valid yet, or does not say when it ends")]
    NotInItsTime,
    /// The issuer's keys cannot be had now.
    #[error("the issuer's keys cannot be fetched")]
    KeysUnavailable,
}

/// Fetches a key set; the services give it their outbound HTTP client.
pub trait FetchKeys: Send + Sync + fmt::Debug {
    /// The document at `url`, or why not.
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;
}

/// Where an issuer's keys come from, once read.
#[derive(Debug)]
pub enum KeySource {
    /// Read at start.
    Fixed,
    /// Fetched, and fetched again for an unknown key.
    Url(String),
}

/// Verifies tokens against the configured issuers, and remembers verified ones until they end.
pub struct JwtVerifier {
    issuers: Vec<Issuer>,
    fetch: Option<Arc<dyn FetchKeys>>,
    deps: Deps,
    verified: Mutex<HashMap<[u8; 32], Claims>>,
}

struct Issuer {
    config: IssuerConfig,
    source: KeySource,
    keys: ArcSwap<Vec<Key>>,
    refetched: Mutex<Option<Duration>>,
}

struct Key {
    id: Option<String>,
    verifies: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// Why an issuer's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Not exactly one source of keys.
    #[error("issuer {0}: set exactly one of public_key_file, jwks_file, jwks_url")]
    KeySource(String),
    /// A key file cannot be read.
    #[error("issuer {issuer}: {path} cannot be read")]
    Unreadable {
        /// The issuer.
        issuer: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no key that is understood.
    #[error(
        "issuer {issuer}: {path} holds no public key in PEM (RSA, P-256, Ed25519) or no JSON Web Key Set"
    )]
    NoKey {
        /// The issuer.
        issuer: String,
        /// The file.
        path: String,
    },
}

const ALLOWED: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
const LEEWAY: time::Duration = time::Duration::seconds(60);
const REFETCH_AT_MOST_EVERY: Duration = Duration::from_secs(30);
const REMEMBERED_AT_MOST: usize = 100_000;

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("issuers", &self.issuers.len())
            .finish_non_exhaustive()
    }
}

impl JwtVerifier {
    /// Reads the issuers' key files; key sets at an address are fetched with `fetch` when they are first needed.
    ///
    /// # Errors
    /// [`IssuerError`] where a file is missing or holds no key.
    pub fn new(
        issuers: &[IssuerConfig],
        fetch: Option<Arc<dyn FetchKeys>>,
        deps: Deps,
    ) -> Result<Self, IssuerError> {
        let issuers = issuers.iter().map(Issuer::read).collect::<Result<_, _>>()?;
        Ok(Self {
            issuers,
            fetch,
            deps,
            verified: Mutex::default(),
        })
    }

    /// What the token says, once signature, issuer, audience and time are found good.
    ///
    /// # Errors
    /// [`JwtError`] says which of them is not.
    pub async fn verify(&self, token: &str) -> Result<Claims, JwtError> {
        let hash: [u8; 32] = digest(&SHA256, token.as_bytes())
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes");
        let now = self.deps.now();
        let known = self
            .verified
            .lock()
            .expect("no holder of this lock can panic")
            .get(&hash)
            .cloned();
        if let Some(claims) = known {
            return if claims.expires_at + LEEWAY > now {
                Ok(claims)
            } else {
                Err(JwtError::NotInItsTime)
            };
        }
        let claims = self.verify_anew(token, now).await?;
        let mut verified = self
            .verified
            .lock()
            .expect("no holder of this lock can panic");
        if verified.len() >= REMEMBERED_AT_MOST {
            verified.retain(|_, claims| claims.expires_at > now);
        }
        if verified.len() < REMEMBERED_AT_MOST {
            verified.insert(hash, claims.clone());
        }
        Ok(claims)
    }

    async fn verify_anew(&self, token: &str, now: OffsetDateTime) -> Result<Claims, JwtError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        if !ALLOWED.contains(&header.alg) {
            return Err(JwtError::Malformed);
        }
        let named = issuer_of(token).ok_or(JwtError::Malformed)?;
        let issuer = self
            .issuers
            .iter()
            .find(|issuer| issuer.config.issuer == named)
            .ok_or(JwtError::UnknownIssuer)?;
        let payload = match issuer.check_signature(token, &header) {
            Some(payload) => payload,
            None if self.refetch(issuer).await? => issuer
                .check_signature(token, &header)
                .ok_or(JwtError::BadSignature)?,
            None => return Err(JwtError::BadSignature),
        };
        issuer.check_claims(&payload, now)
    }

    /// Fetches the issuer's keys again; `false` where they cannot have changed.
    async fn refetch(&self, issuer: &Issuer) -> Result<bool, JwtError> {
        let (KeySource::Url(url), Some(fetch)) = (&issuer.source, &self.fetch) else {
            return Ok(false);
        };
        {
            let now = self.deps.clock.boottime();
            let mut refetched = issuer
                .refetched
                .lock()
                .expect("no holder of this lock can panic");
            if refetched.is_some_and(|at| now < at + REFETCH_AT_MOST_EVERY) {
                return Ok(false);
            }
            *refetched = Some(now);
        }
        let document = fetch.fetch(url).await.map_err(|reason| {
            tracing::warn!(
                event = "jwks_unavailable",
                issuer = issuer.config.issuer,
                reason,
                "an issuer's keys cannot be fetched"
            );
            JwtError::KeysUnavailable
        })?;
        let keys = keys_of_set(&document).ok_or(JwtError::KeysUnavailable)?;
        issuer.keys.store(Arc::new(keys));
        Ok(true)
    }
}

impl Issuer {
    fn read(config: &IssuerConfig) -> Result<Self, IssuerError> {
        let name = || config.issuer.clone();
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| IssuerError::Unreadable {
                issuer: name(),
                path: path.display().to_string(),
                source,
            })
        };
        let no_key = |path: &PathBuf| IssuerError::NoKey {
            issuer: name(),
            path: path.display().to_string(),
        };
        let (source, keys) = match (&config.public_key_file, &config.jwks_file, &config.jwks_url) {
            (Some(path), None, None) => (
                KeySource::Fixed,
                vec![key_of_pem(&read(path)?).ok_or_else(|| no_key(path))?],
            ),
            (None, Some(path), None) => (
                KeySource::Fixed,
                keys_of_set(&read(path)?).ok_or_else(|| no_key(path))?,
            ),
            (None, None, Some(url)) => (KeySource::Url(url.clone()), Vec::new()),
            _ => return Err(IssuerError::KeySource(name())),
        };
        Ok(Self {
            config: config.clone(),
            source,
            keys: ArcSwap::from_pointee(keys),
            refetched: Mutex::new(None),
        })
    }

    fn check_signature(
        &self,
        token: &str,
        header: &jsonwebtoken::Header,
    ) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        self.keys
            .load()
            .iter()
            .filter(|key| key.algorithms.contains(&header.alg))
            .filter(|key| key.id.is_none() || header.kid.is_none() || key.id == header.kid)
            .find_map(|key| {
                jsonwebtoken::decode(token, &key.verifies, &validation)
                    .ok()
                    .map(|data| data.claims)
            })
    }

    fn check_claims(
        &self,
        payload: &Map<String, Value>,
        now: OffsetDateTime,
    ) -> Result<Claims, JwtError> {
        let names_us = |audience: &Value| audience.as_str() == Some(&self.config.audience);
        let for_us = match payload.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(names_us),
            Some(audience) => names_us(audience),
            None => false,
        };
        if !for_us {
            return Err(JwtError::WrongAudience);
        }
        let instant = |claim: &str| {
            let seconds = payload.get(claim).and_then(Value::as_f64)?;
            OffsetDateTime::from_unix_timestamp(seconds as i64).ok()
        };
        let expires_at = instant("exp").ok_or(JwtError::NotInItsTime)?;
        if expires_at + LEEWAY <= now || instant("nbf").is_some_and(|from| from > now + LEEWAY) {
            return Err(JwtError::NotInItsTime);
        }
        let text = |claim: &str| {
            payload
                .get(claim)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let roles = match payload.get(&self.config.roles_claim) {
            Some(Value::Array(roles)) => roles
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(Value::String(roles)) => roles.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Ok(Claims {
            user_id: text("sub"),
            tenant: text(&self.config.tenant_claim),
            roles,
            expires_at,
        })
    }
}

/// The issuer that an unverified token names; it only chooses whose keys are tried.
fn issuer_of(token: &str) -> Option<String> {
    use base64::Engine as _;
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

fn key_of_pem(pem: &[u8]) -> Option<Key> {
    let known = [
        (DecodingKey::from_rsa_pem(pem), Algorithm::RS256),
        (DecodingKey::from_ec_pem(pem), Algorithm::ES256),
        (DecodingKey::from_ed_pem(pem), Algorithm::EdDSA),
    ];
    known.into_iter().find_map(|(key, algorithm)| {
        key.ok().map(|key| Key {
            id: None,
            verifies: key,
            algorithms: vec![algorithm],
        })
    })
}

fn keys_of_set(document: &[u8]) -> Option<Vec<Key>> {
    let set: JwkSet = serde_json::from_slice(document).ok()?;
    let keys: Vec<_> = set
        .keys
        .iter()
        .filter_map(|jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            Some(Key {
                id: jwk.common.key_id.clone(),
                verifies: key,
                algorithms: ALLOWED.to_vec(),
            })
        })
        .collect();
    (!keys.is_empty()).then_some(keys)
}
