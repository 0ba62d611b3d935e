//! Signing as Standard Webhooks: what Hawser hands on to the host application, and what tests send.

use aws_lc_rs::{
    hmac::HMAC_SHA256,
    signature::{ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::algorithm::{SecretEncoding, hmac};

/// The message's id, the same whenever it is sent again.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this attempt was signed, in seconds since the epoch.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures, with a space between them.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const SYMMETRIC: &[u8] = b"whsec_";
const ASYMMETRIC: &[u8] = b"whsk_";
const SEED_LEN: usize = 32;

/// Why a message was not signed. Never holds the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// The secret is neither `whsec_…` nor `whsk_…` with a key in base64.
    #[error("the signing secret is neither `whsec_` nor `whsk_` with a key in base64")]
    Secret,
    /// An id with a full stop could be read in two ways, and one that is no header value cannot be sent.
    #[error("a message's id is visible ASCII without a full stop")]
    Id,
}

/// The entry for the signature header, `v1,…` for a `whsec_` secret or a bare one, `v1a,…` for a `whsk_` one.
pub fn sign(
    secret: &[u8],
    id: &str,
    timestamp: OffsetDateTime,
    body: &[u8],
) -> Result<String, SignError> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'.')
    {
        return Err(SignError::Id);
    }
    let seconds = timestamp.unix_timestamp().to_string();
    let content: [&[u8]; 5] = [id.as_bytes(), b".", seconds.as_bytes(), b".", body];
    if let Some(text) = secret.strip_prefix(ASYMMETRIC) {
        let signature = key_pair(&decode(text)?)?.sign(&content.concat());
        return Ok(format!("v1a,{}", STANDARD.encode(signature)));
    }
    let key = decode(secret.strip_prefix(SYMMETRIC).unwrap_or(secret))?;
    Ok(format!(
        "v1,{}",
        STANDARD.encode(hmac(HMAC_SHA256, &key, &content))
    ))
}

/// The three headers of a message, signed with each of the secrets: the current one and, while it is being replaced,
/// the one before.
pub fn headers(
    secrets: &[&[u8]],
    id: &str,
    timestamp: OffsetDateTime,
    body: &[u8],
) -> Result<HeaderMap, SignError> {
    let signatures: Result<Vec<_>, _> = secrets
        .iter()
        .map(|secret| sign(secret, id, timestamp, body))
        .collect();
    let signatures = signatures?;
    if signatures.is_empty() {
        return Err(SignError::Secret);
    }
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(ID, HeaderValue::from_str(id).map_err(|_| SignError::Id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(timestamp.unix_timestamp()));
    let signatures = signatures.join(" ");
    headers.insert(
        SIGNATURE,
        HeaderValue::from_str(&signatures).map_err(|_| SignError::Secret)?,
    );
    Ok(headers)
}

/// A new symmetric secret of 256 bits. `random` fills its bytes from a cryptographic source.
pub fn generate_secret(random: impl FnOnce(&mut [u8])) -> Zeroizing<String> {
    let mut key = Zeroizing::new([0; 32]);
    random(key.as_mut_slice());
    // Allocated once: a string that grew would leave part of the secret behind.
    let mut secret = Zeroizing::new(String::with_capacity(64));
    secret.push_str("whsec_");
    STANDARD.encode_string(key.as_slice(), &mut secret);
    secret
}

fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, SignError> {
    SecretEncoding::Base64
        .decode(text)
        .filter(|key| !key.is_empty())
        .ok_or(SignError::Secret)
}

/// From a seed, or from a seed and its public key.
fn key_pair(key: &[u8]) -> Result<Ed25519KeyPair, SignError> {
    let pair = match key.split_at_checked(SEED_LEN) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
        Some((seed, public)) if public.len() == ED25519_PUBLIC_KEY_LEN => {
            Ed25519KeyPair::from_seed_and_public_key(seed, public)
        }
        _ => return Err(SignError::Secret),
    };
    pair.map_err(|_| SignError::Secret)
}
