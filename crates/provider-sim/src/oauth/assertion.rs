//! Assertions that clients sign: to prove themselves, to ask for a token, and as a GitHub App does
//! (RFC 7523; <https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::config::{ClientConfig, ProviderConfig};
use crate::world::Site;

/// What the simulator reads of one.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: Option<String>,
    pub(crate) aud: Option<String>,
    pub(crate) scope: Option<String>,
    jti: Option<String>,
    iat: i64,
    exp: i64,
}

/// From `iat` to `exp` at most; Google's hour is the longest that any provider takes.
const LONGEST_SECONDS: i64 = 3600;

/// Reads an assertion and the client that signed it. The sentence says what is wrong with it.
pub(crate) fn verify<'a>(
    site: &Site,
    provider: &'a ProviderConfig,
    assertion: &str,
) -> Result<(&'a ClientConfig, Claims), &'static str> {
    let unverified = jsonwebtoken::dangerous::insecure_decode::<Claims>(assertion)
        .map_err(|_| "The assertion could not be read.")?;
    let client = provider
        .client(&unverified.claims.iss)
        .ok_or("There is no such client.")?;
    let pem = client
        .public_key
        .as_deref()
        .ok_or("The client has no key.")?
        .as_bytes();
    let (key, algorithm) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        (key, Algorithm::RS256)
    } else {
        let key = DecodingKey::from_ec_pem(pem).map_err(|_| "The client's key is none.")?;
        (key, Algorithm::ES256)
    };
    let mut validation = Validation::new(algorithm);
    // By the simulator's clock, below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<Claims>(assertion, &key, &validation)
        .map_err(|_| "The assertion's signature is wrong.")?
        .claims;
    let now = site.world.clock.now_ms() / 1000;
    if claims.iat > now || claims.exp <= now || claims.exp - claims.iat > LONGEST_SECONDS {
        return Err("The assertion is not of this time.");
    }
    if claims.jti.as_deref().is_none_or(str::is_empty) {
        return Err("The assertion has no jti.");
    }
    Ok((client, claims))
}

impl Claims {
    /// Whether it was made for this provider: for the issuer, or for its token endpoint.
    pub(crate) fn is_for(&self, site: &Site) -> bool {
        let issuer = site.issuer();
        self.aud.as_deref().is_some_and(|audience| {
            audience == issuer
                || audience
                    .strip_prefix(&issuer)
                    .is_some_and(|path| path.starts_with("/oauth/"))
        })
    }
}
