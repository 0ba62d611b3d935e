//! Proof Key for Code Exchange (RFC 7636), S256 alone.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Deps, Secret};

/// What proves that the code is traded by whoever asked for it. To be used once.
#[derive(Clone, Debug)]
pub struct Verifier(Secret<String>);

impl Verifier {
    /// A fresh one: 256 random bits, 43 characters.
    pub fn new(deps: &Deps) -> Self {
        Self(deps.token(""))
    }

    /// One that was kept.
    pub fn from_kept(verifier: Secret<String>) -> Self {
        Self(verifier)
    }

    /// The verifier itself, for the token request.
    pub fn secret(&self) -> &Secret<String> {
        &self.0
    }

    /// What the authorization request carries (RFC 7636, 4.2).
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.0.expose().as_bytes()))
    }
}
