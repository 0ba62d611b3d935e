//! Key-encryption keys that the process holds itself, from a file or the environment.

use std::{fmt, fs, future::ready, path::Path};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    KekId, KeyEncryptionKeys, KeyError, KeyFuture, MacKey, Random, WrappedHeader, wrapping_place,
};
use crate::{
    DataKey, KEY_LEN,
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

/// One key-encryption key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    id: KekId,
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
        let id = KekId(hex::encode(&fingerprint[..8]));
        Ok(Self { id, bytes })
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

    /// The same key under an id of the operator's own.
    #[must_use]
    pub fn named(self, id: KekId) -> Self {
        Self { id, ..self }
    }

    /// Under which id it wraps.
    pub fn id(&self) -> &KekId {
        &self.id
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Keys in this process's memory: one that wraps, and older ones that still unwrap.
pub struct LocalKeys {
    /// The current one first.
    keys: Vec<KeyEncryptionKey>,
    random: Random,
}

impl LocalKeys {
    /// Refused where two keys have one id.
    pub fn new(
        current: KeyEncryptionKey,
        older: impl IntoIterator<Item = KeyEncryptionKey>,
        random: Random,
    ) -> Result<Self, KeyError> {
        let mut keys = vec![current];
        for key in older {
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyError::DuplicateId { id: key.id });
            }
            keys.push(key);
        }
        Ok(Self { keys, random })
    }

    fn find(&self, id: &KekId) -> Result<&KeyEncryptionKey, KeyError> {
        self.keys
            .iter()
            .find(|key| key.id == *id)
            .ok_or_else(|| KeyError::UnknownId { id: id.clone() })
    }

    fn wrap_now(&self, tenant: Uuid, key: &DataKey) -> Vec<u8> {
        let kek = &self.keys[0];
        let header = WrappedHeader::write(FORMAT, &kek.id);
        let place = wrapping_place(tenant, key.version());
        committed::lock(
            &kek.bytes,
            &WRAPPED_KEY,
            &header,
            &place,
            key.expose(),
            |salt| (self.random)(salt),
        )
    }

    fn unwrap_now(&self, tenant: Uuid, version: u32, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        let header = WrappedHeader::read(wrapped)?;
        let kek = self.find(&header.kek)?;
        if header.format != FORMAT {
            return Err(KeyError::UnknownFormat {
                format: header.format,
                id: header.kek,
            });
        }
        let place = wrapping_place(tenant, version);
        let bytes = committed::unlock(&kek.bytes, &WRAPPED_KEY, wrapped, header.len, &place)
            .map_err(|error| match error {
                UnlockError::TooShort => KeyError::NotWrapped,
                UnlockError::WrongKey => KeyError::WrongKey { id: header.kek },
                UnlockError::Refused => KeyError::Refused,
            })?;
        if bytes.len() != KEY_LEN {
            return Err(KeyError::NotWrapped);
        }
        let mut key = Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(&bytes);
        Ok(DataKey::new(version, key))
    }

    fn mac_key_now(&self, kek: &KekId, purpose: &str) -> Result<MacKey, KeyError> {
        let kek = self.find(kek)?;
        let purpose = encode_fields(&[purpose.as_bytes()]);
        Ok(MacKey::new(&derive(
            &kek.bytes,
            &[],
            &[MAC_KEY_INFO, &purpose],
        )))
    }
}

impl KeyEncryptionKeys for LocalKeys {
    fn current(&self) -> &KekId {
        &self.keys[0].id
    }

    fn ids(&self) -> Vec<&KekId> {
        self.keys.iter().map(|key| &key.id).collect()
    }

    fn wrap<'a>(&'a self, tenant: Uuid, key: &'a DataKey) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(ready(Ok(self.wrap_now(tenant, key))))
    }

    fn unwrap<'a>(
        &'a self,
        tenant: Uuid,
        version: u32,
        wrapped: &'a [u8],
    ) -> KeyFuture<'a, DataKey> {
        Box::pin(ready(self.unwrap_now(tenant, version, wrapped)))
    }

    fn derive_mac_key<'a>(&'a self, kek: &'a KekId, purpose: &'a str) -> KeyFuture<'a, MacKey> {
        Box::pin(ready(self.mac_key_now(kek, purpose)))
    }
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKeys")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
