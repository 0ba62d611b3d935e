//! Key-encryption keys that the process holds itself, from a file or the environment.

use std::{fmt, fs, future::ready, path::Path};

use zeroize::Zeroizing;

use super::{Kek, KekId, KeyError, KeyFuture, KeyPlace, Random, fixed};
use crate::{
    KEY_LEN,
    associated_data::encode_fields,
    committed::{self, Purpose, UnlockError},
    derive::derive,
};

/// The format byte of a key that was wrapped here.
const FORMAT: u8 = 1;

const WRAPPED_KEY: Purpose = Purpose {
    key_info: b"hawser wrapped key v1 key",
    commitment_info: b"hawser wrapped key v1 commitment",
};
const FINGERPRINT_INFO: &[u8] = b"hawser key-encryption key fingerprint v1";
const MAC_KEY_INFO: &[u8] = b"hawser mac key v1";

/// One key-encryption key's bytes, and what it is called. Wiped from memory when dropped.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    id: KekId,
    fingerprint: KekId,
    bytes: Zeroizing<[u8; KEY_LEN]>,
}

impl KeyEncryptionKey {
    /// From 64 hexadecimal characters, with space around them allowed. Its id is its fingerprint, so a wrong key has
    /// another id and is noticed by that too; [`named`](Self::named) gives it one of the operator's.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice())
            .map_err(|_| KeyError::NotHex)?;
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(KeyError::Placeholder);
        }
        let fingerprint = derive(&bytes, &[], &[FINGERPRINT_INFO]);
        let fingerprint = KekId(hex::encode(&fingerprint[..8]));
        Ok(Self {
            id: fingerprint.clone(),
            fingerprint,
            bytes,
        })
    }

    /// From a file that holds what [`from_hex`](Self::from_hex) takes.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let content = fs::read(path)
            .map(Zeroizing::new)
            .map_err(|source| KeyError::Read {
                path: path.to_owned(),
                source,
            })?;
        std::str::from_utf8(&content)
            .map_err(|_| KeyError::NotHex)
            .and_then(Self::from_hex)
            .map_err(|error| KeyError::File {
                path: path.to_owned(),
                source: Box::new(error),
            })
    }

    /// The same key under an id of the operator's own. What was wrapped under its fingerprint is unwrapped as before.
    #[must_use]
    pub fn named(self, id: KekId) -> Self {
        Self { id, ..self }
    }

    /// Under which id it wraps.
    pub fn id(&self) -> &KekId {
        &self.id
    }

    /// The key with a random source, so that it can wrap.
    pub fn with(self, random: Random) -> LocalKek {
        LocalKek { key: self, random }
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A key in this process's memory that wraps and unwraps.
pub struct LocalKek {
    key: KeyEncryptionKey,
    random: Random,
}

impl LocalKek {
    fn wrap_now(&self, header: &[u8], place: &KeyPlace<'_>, key: &[u8; KEY_LEN]) -> Vec<u8> {
        let mut wrapped = committed::lock(
            &self.key.bytes,
            &WRAPPED_KEY,
            header,
            &place.encode(),
            key,
            |salt| (self.random)(salt),
        );
        wrapped.split_off(header.len())
    }

    fn unwrap_now(
        &self,
        header: &[u8],
        place: &KeyPlace<'_>,
        body: &[u8],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
        let wrapped = [header, body].concat();
        let bytes = committed::unlock(
            &self.key.bytes,
            &WRAPPED_KEY,
            &wrapped,
            header.len(),
            &place.encode(),
        )
        .map_err(|error| match error {
            UnlockError::TooShort => KeyError::NotWrapped,
            UnlockError::WrongKey => KeyError::WrongKey {
                id: self.key.id.clone(),
            },
            UnlockError::Refused => KeyError::Refused,
        })?;
        fixed(&bytes)
    }
}

impl Kek for LocalKek {
    fn id(&self) -> &KekId {
        &self.key.id
    }

    fn answers_to(&self, id: &KekId) -> bool {
        *id == self.key.id || *id == self.key.fingerprint
    }

    fn format(&self) -> u8 {
        FORMAT
    }

    fn wrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        key: &'a [u8; KEY_LEN],
    ) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(ready(Ok(self.wrap_now(header, &place, key))))
    }

    fn unwrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        body: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<[u8; KEY_LEN]>> {
        Box::pin(ready(self.unwrap_now(header, &place, body)))
    }

    fn derive_mac_key(&self, purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let purpose = encode_fields(&[purpose.as_bytes()]);
        Some(derive(&self.key.bytes, &[], &[MAC_KEY_INFO, &purpose]))
    }
}

impl fmt::Debug for LocalKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalKek").field(&self.key.id).finish()
    }
}
