//! Keys to authenticate records with.

use std::fmt;

use aws_lc_rs::hmac;

use crate::KEY_LEN;

/// An HMAC-SHA256 key that can be used and not read. Wiped from memory when dropped.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// From 32 bytes that a provider of key-encryption keys derived.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The MAC of the parts one after the other. Nothing marks where a part ends: lengths are the caller's to write.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; KEY_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut mac = [0; KEY_LEN];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Whether `mac` is the parts' MAC, compared in constant time.
    pub fn verify(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.sign(parts), mac).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}
