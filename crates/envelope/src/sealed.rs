//! The sealed value: `HSV`, format 1, data key version, salt, commitment, ciphertext, tag.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    AssociatedData, DataKey,
    committed::{self, Purpose, UnlockError},
};

const MAGIC: &[u8; 3] = b"HSV";
const FORMAT: u8 = 1;
const HEADER_LEN: usize = 8;

const SEALED_VALUE: Purpose = Purpose {
    key_info: b"hawser sealed value v1 key",
    commitment_info: b"hawser sealed value v1 commitment",
};

/// How many bytes longer a sealed value is than what is in it.
pub const OVERHEAD: usize = HEADER_LEN + committed::OVERHEAD;

/// Why a sealed value was not opened. Says nothing of keys or contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It does not begin like a sealed value, or ends too early.
    #[error("not a sealed value")]
    NotSealed,
    /// A later version of Hawser wrote it.
    #[error("a sealed value of format {0}, which this version cannot read")]
    UnknownFormat(u8),
    /// The caller took the wrong data key.
    #[error("sealed under data key version {sealed}, opened with version {given}")]
    KeyVersion {
        /// The version in the value's header.
        sealed: u32,
        /// The version of the key that was tried.
        given: u32,
    },
    /// The version is right and the key is not: another tenant's, another service's, or a value made up.
    #[error("sealed under another key")]
    WrongKey,
    /// The key is right: the value was altered, or lies where it was not sealed for.
    #[error("altered, or moved from where it was sealed for")]
    Refused,
}

/// Seals `plaintext` for the place that `place` says. `random` fills a salt from a cryptographic source; two values
/// under the same key and salt would be readable against each other, so it must never repeat.
pub fn seal(
    key: &DataKey,
    place: &AssociatedData<'_>,
    plaintext: &[u8],
    random: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    header[..3].copy_from_slice(MAGIC);
    header[3] = FORMAT;
    header[4..].copy_from_slice(&key.version().to_be_bytes());
    committed::lock(
        key.expose(),
        &SEALED_VALUE,
        &header,
        &place.encode(),
        plaintext,
        random,
    )
}

/// What was sealed, if it was under this key and for this place.
pub fn open(
    key: &DataKey,
    place: &AssociatedData<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let version = data_key_version(sealed)?;
    if version != key.version() {
        return Err(OpenError::KeyVersion {
            sealed: version,
            given: key.version(),
        });
    }
    committed::unlock(
        key.expose(),
        &SEALED_VALUE,
        sealed,
        HEADER_LEN,
        &place.encode(),
    )
    .map_err(|error| match error {
        UnlockError::TooShort => OpenError::NotSealed,
        UnlockError::WrongKey => OpenError::WrongKey,
        UnlockError::Refused => OpenError::Refused,
    })
}

/// Which of the tenant's data keys opens the value. Not yet authenticated: good for choosing the key, and nothing else.
pub fn data_key_version(sealed: &[u8]) -> Result<u32, OpenError> {
    let (header, _) = sealed
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(OpenError::NotSealed)?;
    let [a, b, c, format, version @ ..] = *header;
    if [a, b, c] != *MAGIC {
        return Err(OpenError::NotSealed);
    }
    if format != FORMAT {
        return Err(OpenError::UnknownFormat(format));
    }
    Ok(u32::from_be_bytes(version))
}
