//! Several key-encryption keys of any kind: one that wraps, and older ones that still unwrap.

use std::fmt;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    KekId, KeyEncryptionKey, KeyEncryptionKeys, KeyError, KeyFuture, KeyPlace, MacKey, Random,
    WrappedHeader,
};
use crate::{DataKey, KEY_LEN};

/// One key-encryption key, wherever it is. What it writes follows a header that the [`KeyRing`] writes and reads.
pub trait Kek: fmt::Debug + Send + Sync {
    /// Under which id it wraps.
    fn id(&self) -> &KekId;

    /// Whether it unwraps what carries `id`.
    fn answers_to(&self, id: &KekId) -> bool {
        id == self.id()
    }

    /// The format byte: how that which follows the header is to be read.
    fn format(&self) -> u8;

    /// What follows `header`: `key`, bound to `place` and to the header.
    fn wrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        key: &'a [u8; KEY_LEN],
    ) -> KeyFuture<'a, Vec<u8>>;

    /// The key in what follows `header`. Whatever was altered, or wrapped for another place, is refused.
    fn unwrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        body: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<[u8; KEY_LEN]>>;

    /// The bytes of a [`MacKey`], the same each time. `None` where the key never leaves the service that holds it: then
    /// one is made, and kept wrapped.
    fn derive_mac_key(&self, _purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        None
    }
}

/// Key-encryption keys: one wraps, the others unwrap what was wrapped before.
#[derive(Debug)]
pub struct KeyRing {
    /// The current one first.
    keks: Vec<Box<dyn Kek>>,
}

impl KeyRing {
    /// Refused where two keys have one id.
    pub fn new(
        current: Box<dyn Kek>,
        older: impl IntoIterator<Item = Box<dyn Kek>>,
    ) -> Result<Self, KeyError> {
        let mut keks = vec![current];
        for kek in older {
            if keks
                .iter()
                .any(|known| known.answers_to(kek.id()) || kek.answers_to(known.id()))
            {
                return Err(KeyError::DuplicateId {
                    id: kek.id().clone(),
                });
            }
            keks.push(kek);
        }
        Ok(Self { keks })
    }

    /// Keys in this process's memory alone.
    pub fn local(
        current: KeyEncryptionKey,
        older: impl IntoIterator<Item = KeyEncryptionKey>,
        random: &Random,
    ) -> Result<Self, KeyError> {
        let boxed =
            |key: KeyEncryptionKey| -> Box<dyn Kek> { Box::new(key.with(Random::clone(random))) };
        Self::new(boxed(current), older.into_iter().map(boxed))
    }

    /// Wraps 32 bytes under the current key, for `place`.
    pub async fn wrap_key(
        &self,
        place: KeyPlace<'_>,
        key: &[u8; KEY_LEN],
    ) -> Result<Vec<u8>, KeyError> {
        let kek = &self.keks[0];
        let mut wrapped = WrappedHeader::write(kek.format(), kek.id());
        let body = kek.wrap(&wrapped, place, key).await?;
        wrapped.extend_from_slice(&body);
        Ok(wrapped)
    }

    /// Unwraps what was wrapped for `place`, under whichever key it says.
    pub async fn unwrap_key(
        &self,
        place: KeyPlace<'_>,
        wrapped: &[u8],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
        let header = WrappedHeader::read(wrapped)?;
        let kek = self.find(&header.kek)?;
        if header.format != kek.format() {
            return Err(KeyError::UnknownFormat {
                format: header.format,
                id: header.kek,
            });
        }
        let (header, body) = wrapped.split_at(header.len);
        kek.unwrap(header, place, body).await
    }

    /// The bytes of a MAC key, where `kek` is configured and lets them be derived.
    pub fn mac_key_bytes(&self, kek: &KekId, purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        self.find(kek).ok()?.derive_mac_key(purpose)
    }

    /// Whether a key of that id is configured.
    pub fn contains(&self, id: &KekId) -> bool {
        self.find(id).is_ok()
    }

    fn find(&self, id: &KekId) -> Result<&dyn Kek, KeyError> {
        let found = self.keks.iter().find(|kek| kek.answers_to(id));
        found
            .map(Box::as_ref)
            .ok_or_else(|| KeyError::UnknownId { id: id.clone() })
    }
}

impl KeyEncryptionKeys for KeyRing {
    fn current(&self) -> &KekId {
        self.keks[0].id()
    }

    fn ids(&self) -> Vec<&KekId> {
        self.keks.iter().map(|kek| kek.id()).collect()
    }

    fn wrap<'a>(&'a self, tenant: Uuid, key: &'a DataKey) -> KeyFuture<'a, Vec<u8>> {
        let place = KeyPlace::DataKey {
            tenant,
            version: key.version(),
        };
        Box::pin(self.wrap_key(place, key.expose()))
    }

    fn unwrap<'a>(
        &'a self,
        tenant: Uuid,
        version: u32,
        wrapped: &'a [u8],
    ) -> KeyFuture<'a, DataKey> {
        Box::pin(async move {
            let place = KeyPlace::DataKey { tenant, version };
            let bytes = self.unwrap_key(place, wrapped).await?;
            Ok(DataKey::new(version, bytes))
        })
    }

    fn derive_mac_key<'a>(&'a self, kek: &'a KekId, purpose: &'a str) -> KeyFuture<'a, MacKey> {
        Box::pin(async move {
            let bytes = self
                .find(kek)?
                .derive_mac_key(purpose)
                .ok_or_else(|| KeyError::NotDerivable { id: kek.clone() })?;
            Ok(MacKey::new(&bytes))
        })
    }
}
