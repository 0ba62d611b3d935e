//! Secrets that travel in a browser's address: 256 random bits, then the tenant's bucket, so that what they belong to is
//! found without another look-up. Kept as their hash alone.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Deps, Secret, TenantKey};

const RANDOM: usize = 32;

/// A fresh one.
pub(crate) fn fresh(tenant: TenantKey, deps: &Deps) -> Secret<String> {
    let mut bytes = deps.random::<RANDOM>().to_vec();
    bytes.extend(tenant.bucket().to_be_bytes());
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// One that somebody presents: the bucket it names, and the hash that it is found by. `None` where it is none of ours.
pub(crate) fn presented(text: &str) -> Option<(i16, Vec<u8>)> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .filter(|bytes| bytes.len() == RANDOM + 2)?;
    let bucket = i16::from_be_bytes([bytes[RANDOM], bytes[RANDOM + 1]]);
    (bucket >= 0).then(|| (bucket, hash(text)))
}

/// What is kept of a secret.
pub(crate) fn hash(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_bucket_and_nothing_else_is_one() {
        let deps = Deps::system("test");
        for _ in 0..100 {
            let tenant = TenantKey::new_tenant(&deps);
            let token = fresh(tenant, &deps);
            let (bucket, hash) = presented(token.expose()).expect("it is one");
            assert_eq!(bucket, tenant.bucket());
            assert_eq!(hash.len(), 32);
            assert!(presented(&token.expose()[1..]).is_none());
        }
        for wrong in [
            "",
            "session",
            "../../etc/passwd",
            &"A".repeat(47),
            &"_".repeat(46),
        ] {
            assert!(presented(wrong).is_none(), "{wrong}");
        }
    }
}
