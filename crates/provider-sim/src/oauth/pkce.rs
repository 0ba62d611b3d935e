//! Proof Key for Code Exchange (RFC 7636), S256 only.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Whether it can be the base64url form of a SHA-256 hash.
pub(super) fn is_challenge(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == 43 && text.bytes().all(letter)
}

/// Section 4.6. A verifier for a request without a challenge is refused, as RFC 9700, section 2.1.1, demands.
pub(super) fn verifier_fits(challenge: Option<&str>, verifier: Option<&str>) -> bool {
    match (challenge, verifier) {
        (None, None) => true,
        (Some(challenge), Some(verifier)) => {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let form = (43..=128).contains(&verifier.len()) && verifier.bytes().all(letter);
            let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
            form && hash == challenge
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_of_appendix_b_fits_its_challenge() {
        let verifier = Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let challenge = Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(verifier_fits(challenge, verifier));
        assert!(!verifier_fits(
            challenge,
            Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXX")
        ));
        assert!(!verifier_fits(challenge, None));
        assert!(!verifier_fits(None, verifier));
        assert!(verifier_fits(None, None));
    }

    #[test]
    fn a_short_verifier_is_refused_though_its_hash_fits() {
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, b"short"));
        assert!(!verifier_fits(Some(&hash), Some("short")));
    }
}
