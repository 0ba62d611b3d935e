//! AES-256-GCM under a key that is derived for one value, with a commitment to that key: what sealed values and
//! wrapped keys have in common.
//!
//! GCM alone does not commit: one ciphertext can be made to open under two keys, to two plaintexts. So the value carries
//! 32 bytes derived beside its key, and is refused before decryption where they differ.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    constant_time::verify_slices_are_equal,
};
use zeroize::Zeroizing;

use crate::{KEY_LEN, derive::derive};

pub(crate) const SALT_LEN: usize = 32;
pub(crate) const COMMITMENT_LEN: usize = 32;
pub(crate) const TAG_LEN: usize = 16;

/// What is added to a prefix and a plaintext.
pub(crate) const OVERHEAD: usize = SALT_LEN + COMMITMENT_LEN + TAG_LEN;

/// Each key encrypts one message, so the nonce needs no randomness and no room.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Keeps the keys of one kind of value apart from those of another under the same root key.
pub(crate) struct Purpose {
    pub(crate) key_info: &'static [u8],
    pub(crate) commitment_info: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnlockError {
    TooShort,
    WrongKey,
    Refused,
}

/// `prefix`, salt, commitment, ciphertext, tag. All that comes before the ciphertext is authenticated with
/// `associated`.
pub(crate) fn lock(
    root: &[u8; KEY_LEN],
    purpose: &Purpose,
    prefix: &[u8],
    associated: &[u8],
    plaintext: &[u8],
    random: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut salt = [0; SALT_LEN];
    random(&mut salt);
    let commitment = derive(root, &salt, &[purpose.commitment_info]);

    // Allocated once: a vector that grew would leave a copy of the plaintext behind.
    let mut out = Vec::with_capacity(prefix.len() + OVERHEAD + plaintext.len());
    out.extend_from_slice(prefix);
    out.extend_from_slice(&salt);
    out.extend_from_slice(commitment.as_slice());
    let aad = [out.as_slice(), associated].concat();
    let body = out.len();
    out.extend_from_slice(plaintext);

    let tag = value_key(root, purpose, &salt)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(NONCE),
            Aad::from(&aad),
            &mut out[body..],
        )
        .expect("a plaintext in memory is below AES-GCM's limit of 64 GiB");
    out.extend_from_slice(tag.as_ref());
    out
}

/// The plaintext of what [`lock`] made with a prefix of `prefix_len` bytes.
pub(crate) fn unlock(
    root: &[u8; KEY_LEN],
    purpose: &Purpose,
    locked: &[u8],
    prefix_len: usize,
    associated: &[u8],
) -> Result<Zeroizing<Vec<u8>>, UnlockError> {
    if locked.len() < prefix_len + OVERHEAD {
        return Err(UnlockError::TooShort);
    }
    let (head, body) = locked.split_at(prefix_len + SALT_LEN + COMMITMENT_LEN);
    let (salt, commitment) = head[prefix_len..].split_at(SALT_LEN);

    let expected = derive(root, salt, &[purpose.commitment_info]);
    verify_slices_are_equal(expected.as_slice(), commitment).map_err(|_| UnlockError::WrongKey)?;

    let aad = [head, associated].concat();
    let mut plaintext = Zeroizing::new(body.to_vec());
    let len = value_key(root, purpose, salt)
        .open_in_place(
            Nonce::assume_unique_for_key(NONCE),
            Aad::from(&aad),
            &mut plaintext,
        )
        .map_err(|_| UnlockError::Refused)?
        .len();
    plaintext.truncate(len);
    Ok(plaintext)
}

fn value_key(root: &[u8; KEY_LEN], purpose: &Purpose, salt: &[u8]) -> LessSafeKey {
    let key = derive(root, salt, &[purpose.key_info]);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256 takes 32 bytes"))
}
