//! A data key in hand, with its uses counted.

use std::sync::atomic::{AtomicU32, Ordering};

use envelope::{DataKey, MacKey, derive_service_key};

/// The version that seals, with a number of uses that the database has counted already: whatever becomes of database and
/// key service, that many values can be sealed. Wiped from memory when dropped.
#[derive(Debug)]
pub(crate) struct SealingKey {
    key: DataKey,
    left: AtomicU32,
}

impl SealingKey {
    pub(super) fn new(key: DataKey, uses: u32) -> Self {
        Self {
            key,
            left: AtomicU32::new(uses),
        }
    }

    /// Which of the tenant's keys it is.
    pub(crate) fn version(&self) -> u32 {
        self.key.version()
    }

    /// A key that is derived from it, for MACs. Nothing is sealed with it.
    pub(crate) fn mac_key(&self, purpose: &str) -> MacKey {
        MacKey::new(derive_service_key(&self.key, purpose).expose())
    }

    /// The key, for one value.
    pub(super) fn take(&self) -> &DataKey {
        let took = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        took.expect("a key is asked for with as many uses as there are values to seal");
        &self.key
    }
}
