//! The keys that values are sealed under.

use std::fmt;

use zeroize::Zeroizing;

use crate::{KEY_LEN, associated_data::encode_fields, derive::derive};

const SERVICE_KEY_INFO: &[u8] = b"hawser service key v1";

/// A tenant's key of one version: the root of the keys of all values sealed under it. Wiped from memory when dropped.
///
/// Versions count from 1. A service key ([`derive_service_key`]) is a data key too, with the version of the tenant's.
#[derive(Clone)]
pub struct DataKey {
    version: u32,
    bytes: Zeroizing<[u8; KEY_LEN]>,
}

impl DataKey {
    /// A key that exists already: unwrapped, or handed out by the vault.
    pub fn new(version: u32, bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self { version, bytes }
    }

    /// A new key. `random` fills its bytes from a cryptographic source.
    pub fn generate(version: u32, random: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random(bytes.as_mut_slice());
        Self { version, bytes }
    }

    /// Which of the tenant's keys it is. Stands in the header of each value sealed under it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key itself, to be wrapped or handed to the service that it is for.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The key under which `service` seals what is its own for the tenant of `data_key`. From it neither the data key nor
/// another service's key can be had.
pub fn derive_service_key(data_key: &DataKey, service: &str) -> DataKey {
    let service = encode_fields(&[service.as_bytes()]);
    DataKey::new(
        data_key.version,
        derive(&data_key.bytes, &[], &[SERVICE_KEY_INFO, &service]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_version_alone() {
        let key = DataKey::new(7, Zeroizing::new([0xab; KEY_LEN]));
        assert_eq!(format!("{key:?}"), "DataKey { version: 7, .. }");
    }

    #[test]
    fn service_keys_differ_by_service_and_by_data_key() {
        let one = DataKey::new(1, Zeroizing::new([1; KEY_LEN]));
        let two = DataKey::new(2, Zeroizing::new([2; KEY_LEN]));
        let ingest = derive_service_key(&one, "ingest");

        assert_eq!(ingest.version(), 1);
        assert_eq!(ingest.expose(), derive_service_key(&one, "ingest").expose());
        assert_ne!(ingest.expose(), derive_service_key(&one, "broker").expose());
        assert_ne!(ingest.expose(), derive_service_key(&two, "ingest").expose());
        assert_ne!(ingest.expose(), one.expose());
    }
}
