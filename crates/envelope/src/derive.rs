//! HKDF-SHA256 (RFC 5869), as everything here derives its keys.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::KEY_LEN;

/// 32 bytes from `key`, `salt` and the parts of `info` one after the other.
pub(crate) fn derive(key: &[u8; KEY_LEN], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut out = Zeroizing::new([0; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("HKDF-SHA256 can always give 32 bytes");
    out
}
