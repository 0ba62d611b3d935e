//! Who signed in (OpenID Connect Core, 3.1.3.7): signature, then each claim. Time comes from the caller's clock.

use std::str::FromStr;

use aws_lc_rs::digest::{self, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Deps, Secret};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use crate::documents::{DocumentError, Documents};

/// Signatures that are taken: asymmetric ones. With a symmetric one, or none, anybody could have signed.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far the issuer's clock may be off.
const SKEW_SECONDS: i64 = 60;
/// A token issued longer ago than this was not issued for the sign-in that has just ended.
const LONGEST_AGE_SECONDS: i64 = 24 * 60 * 60;
const MOST_BYTES: usize = 64 * 1024;

/// What an id_token has to say.
#[derive(Clone, Debug)]
pub struct IdTokenExpectations<'a> {
    /// The issuer, to the letter; `{tenantid}` in it stands for the token's `tid` (Microsoft).
    pub issuer: &'a str,
    /// Our client's id.
    pub client_id: &'a str,
    /// What the authorization request carried.
    pub nonce: Option<&'a str>,
    /// The access token that came with it, which `at_hash` is about.
    pub access_token: Option<&'a Secret<String>>,
}

/// A verified id_token.
#[derive(Clone, Debug, PartialEq)]
pub struct IdToken {
    /// Who issued it.
    pub issuer: String,
    /// The user's id there. The two together, and nothing else, identify the user.
    pub subject: String,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Why an id_token is not believed.
#[derive(Debug, Error)]
pub enum IdTokenError {
    /// Not a signed JWT.
    #[error("the id_token is not a signed JWT")]
    Malformed,
    /// Signed in a way that is not taken, or not at all.
    #[error("the id_token is not signed by an algorithm that is taken")]
    Algorithm,
    /// The issuer has no such key, also not after asking again.
    #[error("the issuer has no key that the id_token names")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the id_token's signature is not good")]
    Signature,
    /// A claim is missing or wrong.
    #[error("the id_token's claim {claim:?} is missing or wrong")]
    Claim {
        /// The claim.
        claim: &'static str,
    },
    /// The issuer's keys cannot be had; they may be later.
    #[error("the issuer's keys were not fetched")]
    Keys(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

impl IdToken {
    /// Verifies a token against the keys at `jwks`, which are asked for once more where a key is not among those kept.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub async fn verify(
        token: &Secret<String>,
        expected: &IdTokenExpectations<'_>,
        jwks: &Url,
        documents: &Documents,
        deps: &Deps,
    ) -> Result<Self, IdTokenError> {
        let parts = Parts::split(token.expose())?;
        let unavailable = |error: DocumentError| IdTokenError::Keys(error.into());
        let kept = documents.get(jwks).await.map_err(unavailable)?;
        let claims = match parts.check_signature(&kept) {
            Err(IdTokenError::UnknownKey) => {
                let renewed = documents.renew(jwks).await.map_err(unavailable)?;
                parts.check_signature(&renewed)?
            }
            outcome => outcome?,
        };
        check_claims(
            &claims,
            expected,
            parts.algorithm,
            deps.now().unix_timestamp(),
        )?;
        let text = |name| {
            claims
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Ok(Self {
            issuer: text("iss"),
            subject: text("sub"),
            claims,
        })
    }
}

struct Parts<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// Header and payload, as they are signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, IdTokenError> {
        if token.len() > MOST_BYTES {
            return Err(IdTokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(IdTokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(IdTokenError::Malformed)?;
        let header: Header = decode(header).ok_or(IdTokenError::Malformed)?;
        // An extension that must be understood, and is not (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(IdTokenError::Malformed);
        }
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| IdTokenError::Algorithm)?;
        if !ALGORITHMS.contains(&algorithm) {
            return Err(IdTokenError::Algorithm);
        }
        Ok(Self {
            algorithm,
            key_id: header.kid,
            message,
            payload,
            signature,
        })
    }

    fn check_signature(&self, jwks: &Value) -> Result<Map<String, Value>, IdTokenError> {
        let candidates = self.candidates(jwks);
        if candidates.is_empty() {
            return Err(IdTokenError::UnknownKey);
        }
        let is_good = candidates.iter().any(|key| {
            jsonwebtoken::crypto::verify(
                self.signature,
                self.message.as_bytes(),
                key,
                self.algorithm,
            )
            .unwrap_or(false)
        });
        if !is_good {
            return Err(IdTokenError::Signature);
        }
        decode(self.payload).ok_or(IdTokenError::Malformed)
    }

    /// The key that is named; where none is named, those that could be meant. A set may hold keys of kinds that we do not
    /// know, which are passed over.
    fn candidates(&self, jwks: &Value) -> Vec<DecodingKey> {
        let keys = jwks
            .get("keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let set = JwkSet {
            keys: keys.filter_map(|key| Jwk::deserialize(key).ok()).collect(),
        };
        set.keys
            .iter()
            .filter(|key| self.key_id.is_none() || key.common.key_id == self.key_id)
            .filter(|key| {
                matches!(
                    key.common.public_key_use,
                    None | Some(PublicKeyUse::Signature)
                )
            })
            .filter(|key| {
                key.common
                    .key_algorithm
                    .is_none_or(|own| own == KeyAlgorithm::from(self.algorithm))
            })
            .filter_map(|key| DecodingKey::from_jwk(key).ok())
            .filter(|key| {
                key.family() == self.algorithm.family() && key.family() != AlgorithmFamily::Hmac
            })
            .take(8)
            .collect()
    }
}

fn check_claims(
    claims: &Map<String, Value>,
    expected: &IdTokenExpectations<'_>,
    algorithm: Algorithm,
    now: i64,
) -> Result<(), IdTokenError> {
    let wrong = |claim| Err(IdTokenError::Claim { claim });
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| {
        claims.get(name).and_then(|value| {
            value
                .as_i64()
                .or_else(|| value.as_f64().map(|time| time as i64))
        })
    };

    if text("iss").is_none_or(|issuer| issuer != issuer_of(expected.issuer, text("tid"))) {
        return wrong("iss");
    }
    if text("sub").is_none_or(str::is_empty) {
        return wrong("sub");
    }
    let audiences: Vec<_> = match claims.get("aud") {
        Some(Value::String(audience)) => vec![audience.as_str()],
        Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !audiences.contains(&expected.client_id) {
        return wrong("aud");
    }
    let authorized = claims.get("azp");
    if authorized.is_none() && audiences.len() > 1
        || authorized.is_some() && text("azp") != Some(expected.client_id)
    {
        return wrong("azp");
    }
    if time("exp").is_none_or(|end| end.saturating_add(SKEW_SECONDS) <= now) {
        return wrong("exp");
    }
    if claims.contains_key("nbf")
        && time("nbf").is_none_or(|start| start.saturating_sub(SKEW_SECONDS) > now)
    {
        return wrong("nbf");
    }
    let is_recent = |issued: i64| {
        issued.saturating_sub(SKEW_SECONDS) <= now
            && now.saturating_sub(issued) <= LONGEST_AGE_SECONDS
    };
    if !time("iat").is_some_and(is_recent) {
        return wrong("iat");
    }
    if expected.nonce.is_some() && text("nonce") != expected.nonce {
        return wrong("nonce");
    }
    match (claims.get("at_hash"), expected.access_token) {
        (Some(hash), Some(token))
            if hash.as_str() != Some(&half_hash(token.expose(), algorithm)) =>
        {
            wrong("at_hash")
        }
        _ => Ok(()),
    }
}

/// Microsoft's issuer for every directory, with the token's own directory in it.
fn issuer_of(expected: &str, directory: Option<&str>) -> String {
    let is_id = |id: &&str| {
        !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match directory.filter(is_id) {
        Some(directory) => expected.replace("{tenantid}", directory),
        None => expected.to_owned(),
    }
}

/// The left half of the hash that belongs to the signature's algorithm (OpenID Connect Core, 3.1.3.6).
fn half_hash(token: &str, algorithm: Algorithm) -> String {
    let hash = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let hash = digest(hash, token.as_bytes());
    let bytes = hash.as_ref();
    URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() / 2])
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let value = crate::json::parse(&bytes)?;
    T::deserialize(value).ok()
}
