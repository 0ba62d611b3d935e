//! Key-encryption keys: what data keys are wrapped under before they go into a database.

pub(crate) mod development;
mod error;
mod local;
mod mac;
mod place;
mod ring;

use std::{fmt, future::Future, pin::Pin, str::FromStr, sync::Arc};

use uuid::Uuid;
use zeroize::Zeroizing;

pub use error::KeyError;
pub use local::{KeyEncryptionKey, LocalKek};
pub use mac::MacKey;
pub use place::KeyPlace;
pub use ring::{Kek, KeyRing};

use crate::{DataKey, KEY_LEN};

const MAGIC: &[u8; 3] = b"HWK";
const FIXED_LEN: usize = 5;

/// A check value is this key, which is no secret, wrapped for nobody. Data keys count from 1, so version 0 is free.
const CHECK_KEY: &[u8; KEY_LEN] = b"hawser key-encryption key check.";
const CHECK_VERSION: u32 = 0;
/// Nothing is ever wrapped as this.
const NO_VERSION: u32 = u32::MAX;

/// A cryptographic random source that fills the buffer.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// What a provider of key-encryption keys answers; some have to ask over the network.
pub type KeyFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyError>> + Send + 'a>>;

/// The id of a key-encryption key: 1 to 255 visible ASCII characters, a KMS key's ARN among them. No secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekId(String);

impl KekId {
    /// As it was configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KekId {
    type Err = KeyError;

    fn from_str(id: &str) -> Result<Self, KeyError> {
        let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=255).contains(&id.len()) {
            Ok(Self(id.to_owned()))
        } else {
            Err(KeyError::InvalidId)
        }
    }
}

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Wraps and unwraps data keys. One key is current and wraps; the others are there to unwrap what was wrapped before.
pub trait KeyEncryptionKeys: fmt::Debug + Send + Sync {
    /// The key that wraps.
    fn current(&self) -> &KekId;

    /// All keys that unwrap, the current one first.
    fn ids(&self) -> Vec<&KekId>;

    /// Wraps `key` under the current key-encryption key, bound to the tenant and the key's version. The first bytes
    /// MUST be the header that [`kek_id`] reads.
    fn wrap<'a>(&'a self, tenant: Uuid, key: &'a DataKey) -> KeyFuture<'a, Vec<u8>>;

    /// Unwraps what was wrapped for `tenant` and `version`, under whichever key it says.
    fn unwrap<'a>(
        &'a self,
        tenant: Uuid,
        version: u32,
        wrapped: &'a [u8],
    ) -> KeyFuture<'a, DataKey>;

    /// A key to authenticate records with, the same each time for the same `kek` and `purpose`. `kek` names the key that
    /// was current when the records were written, which need not be configured any more where the MAC key is kept.
    fn derive_mac_key<'a>(&'a self, kek: &'a KekId, purpose: &'a str) -> KeyFuture<'a, MacKey>;
}

/// Under which key-encryption key `wrapped` lies: to count what is still under an old one, and to say which is missing.
pub fn kek_id(wrapped: &[u8]) -> Result<KekId, KeyError> {
    Ok(WrappedHeader::read(wrapped)?.kek)
}

/// A value to store once, that [`verify_check_value`] opens at each start.
pub async fn check_value(keys: &dyn KeyEncryptionKeys) -> Result<Vec<u8>, KeyError> {
    let check = DataKey::new(CHECK_VERSION, Zeroizing::new(*CHECK_KEY));
    keys.wrap(Uuid::nil(), &check).await
}

/// Finds a wrong or missing key-encryption key at start, not at the first read.
pub async fn verify_check_value(
    keys: &dyn KeyEncryptionKeys,
    stored: &[u8],
) -> Result<(), KeyError> {
    let check = keys.unwrap(Uuid::nil(), CHECK_VERSION, stored).await?;
    if check.expose() == CHECK_KEY {
        Ok(())
    } else {
        Err(KeyError::Refused)
    }
}

/// Finds a key service that unwraps for any place what was wrapped for one: an old one takes associated data and ignores
/// it. `check` is a [`check_value`].
pub async fn verify_binding(keys: &dyn KeyEncryptionKeys, check: &[u8]) -> Result<(), KeyError> {
    match keys.unwrap(Uuid::nil(), NO_VERSION, check).await {
        Ok(_) => Err(KeyError::NotBound { id: kek_id(check)? }),
        Err(KeyError::Refused) => Ok(()),
        Err(other) => Err(other),
    }
}

/// `HWK`, the format of what follows, and the key's id behind its length.
struct WrappedHeader {
    format: u8,
    kek: KekId,
    len: usize,
}

impl WrappedHeader {
    fn write(format: u8, kek: &KekId) -> Vec<u8> {
        let len = u8::try_from(kek.0.len()).expect("a key's id has at most 255 bytes");
        [MAGIC.as_slice(), &[format, len], kek.0.as_bytes()].concat()
    }

    fn read(wrapped: &[u8]) -> Result<Self, KeyError> {
        let (fixed, rest) = wrapped
            .split_first_chunk::<FIXED_LEN>()
            .ok_or(KeyError::NotWrapped)?;
        let [a, b, c, format, len] = *fixed;
        if [a, b, c] != *MAGIC {
            return Err(KeyError::NotWrapped);
        }
        let id = rest.get(..usize::from(len)).ok_or(KeyError::NotWrapped)?;
        let id = std::str::from_utf8(id).map_err(|_| KeyError::NotWrapped)?;
        let kek = id.parse().map_err(|_| KeyError::NotWrapped)?;
        Ok(Self {
            format,
            kek,
            len: FIXED_LEN + usize::from(len),
        })
    }
}

/// A key of the right length, or none.
fn fixed(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if bytes.len() != KEY_LEN {
        return Err(KeyError::NotWrapped);
    }
    key.copy_from_slice(bytes);
    Ok(key)
}
