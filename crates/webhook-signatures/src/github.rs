//! Signing as GitHub does, for tests and simulations.

use aws_lc_rs::hmac::HMAC_SHA256;
use http::HeaderName;

use crate::algorithm::hmac;

/// The signature.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
/// The delivery's id, the same when a person sends it again.
pub const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
/// The event's type.
pub const EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// The value of the signature header: `sha256=…`.
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac(HMAC_SHA256, secret, &[body])))
}
