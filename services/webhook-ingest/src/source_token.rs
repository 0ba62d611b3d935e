//! The token in a source's address: 256 random bits and the bucket, so that no lookup is needed to find the bucket.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Deps, Secret, TenantKey};

const RANDOM: usize = 32;

/// What of a token is kept in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash {
    /// The bucket that the token names.
    pub(crate) bucket: i16,
    /// SHA-256 of the token's bytes.
    pub(crate) hash: [u8; 32],
}

/// A new token for a source of this tenant's.
pub(crate) fn new_token(tenant: TenantKey, deps: &Deps) -> Secret<String> {
    let random: [u8; RANDOM] = deps.random();
    Secret::new(URL_SAFE_NO_PAD.encode([&random[..], &tenant.bucket().to_be_bytes()].concat()))
}

/// What a token is looked up by; `None` where the text is none.
pub(crate) fn token_hash(token: &str) -> Option<TokenHash> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (_, bucket) = bytes.split_at_checked(RANDOM)?;
    let bucket = i16::from_be_bytes(bucket.try_into().ok()?);
    let hash = digest(&SHA256, &bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes");
    Some(TokenHash { bucket, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_its_bucket_and_nothing_else_is_one() {
        let deps = testkit::deps();
        let tenant = TenantKey::new_tenant(&deps);
        let token = new_token(tenant, &deps);
        let hash = token_hash(token.expose()).expect("it is one");
        assert_eq!(hash.bucket, tenant.bucket());
        assert_ne!(
            Some(hash),
            token_hash(new_token(tenant, &deps).expose()),
            "no two are the same"
        );
        let longer = format!("{}AAAA", token.expose());
        for other in ["", "x", "../admin", &token.expose()[1..], &longer] {
            assert_eq!(token_hash(other), None, "{other}");
        }
    }
}
