//! The key-encryption keys: where they come from, and what is kept under them.

mod aws_credentials;
mod kms;
mod load;
mod service;
mod transit;

use std::time::Duration;

use common::Deps;
use common::problem::Chain;
use envelope::{DataKey, KekId, KeyEncryptionKeys, KeyError, KeyFuture, KeyPlace, KeyRing, MacKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::store::{KekCheckRow, MacKeyRow, Store, StoreError};

pub use load::{KekError, key_ring};

/// Between two looks for a key service that is away at the start.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The configured keys, with what the database keeps under them.
#[derive(Debug)]
pub(crate) struct Keks {
    ring: KeyRing,
    store: Store,
    deps: Deps,
}

impl Keks {
    pub(crate) fn new(ring: KeyRing, store: Store, deps: &Deps) -> Self {
        Self {
            ring,
            store,
            deps: deps.clone(),
        }
    }

    /// Refuses to go on with keys that are not the ones of this database, and brings under the current one what is kept
    /// under older ones. A key service that is away is waited for, at most `patience`.
    pub(crate) async fn settle(&self, patience: Duration) -> Result<(), KekError> {
        let until = self.deps.clock.boottime() + patience;
        let mut told = false;
        loop {
            match self.settle_once().await {
                Err(KekError::Key { id, source }) if source.is_unavailable() => {
                    if self.deps.clock.boottime() + LOOK_AGAIN > until {
                        return Err(KekError::Away {
                            id,
                            patience: patience.into(),
                            source,
                        });
                    }
                    if !told {
                        told = true;
                        tracing::warn!(
                            event = "key_service_awaited",
                            kek_id = %id,
                            error = %Chain(&source),
                            "the key service cannot be had; the vault waits for it before it starts",
                        );
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn settle_once(&self) -> Result<(), KekError> {
        self.check().await?;
        for id in self.store.keks_in_use().await? {
            let id: KekId = id.parse().map_err(|source| KekError::Key {
                id: self.ring.current().clone(),
                source,
            })?;
            if !self.ring.contains(&id) {
                return Err(KekError::InUse { id });
            }
        }
        self.rewrap_mac_keys().await
    }

    /// Each key that was current once has a value that it has to open; a new one comes in beside one that is known.
    async fn check(&self) -> Result<(), KekError> {
        let current = self.ring.current();
        let kept = self.store.kek_checks().await?;
        if kept.is_empty() {
            self.check_first().await?;
        } else if !self.check_known(&kept).await? {
            let known = kept.into_iter().map(|row| row.kek_id).collect();
            return Err(KekError::Unknown { known });
        }
        let of_current = kept.into_iter().find(|row| row.kek_id == current.as_str());
        let value = match of_current {
            Some(row) => row.value,
            None => self.add_check().await?,
        };
        envelope::verify_binding(&self.ring, &value)
            .await
            .map_err(|error| KekError::key(current, error))
    }

    /// Of vaults that begin together on a new database, one decides what it is written with.
    async fn check_first(&self) -> Result<(), KekError> {
        let made = self.wrap_check().await?;
        let first = self.store.key_check(made, self.deps.now()).await?;
        let id =
            envelope::kek_id(&first).map_err(|error| KekError::key(self.ring.current(), error))?;
        envelope::verify_check_value(&self.ring, &first)
            .await
            .map_err(|error| KekError::key(&id, error))
    }

    /// Whether any of the configured keys is known.
    async fn check_known(&self, kept: &[KekCheckRow]) -> Result<bool, KekError> {
        let mut known = false;
        for row in kept {
            let Some(id) = self.configured(&row.kek_id) else {
                continue;
            };
            match envelope::verify_check_value(&self.ring, &row.value).await {
                Ok(()) => known = true,
                // What an older key still has to open is found out when it is read.
                Err(error) if id != *self.ring.current() && error.is_service() => tracing::warn!(
                    event = "older_key_unchecked",
                    kek_id = %id,
                    error = %Chain(&error),
                    "an older key-encryption key cannot be used; what is still wrapped under it does not open",
                ),
                Err(error) => return Err(KekError::key(&id, error)),
            }
        }
        Ok(known)
    }

    async fn add_check(&self) -> Result<Vec<u8>, KekError> {
        let check = KekCheckRow {
            kek_id: self.ring.current().to_string(),
            value: self.wrap_check().await?,
        };
        self.store.kek_check_add(&check, self.deps.now()).await?;
        Ok(check.value)
    }

    async fn wrap_check(&self) -> Result<Vec<u8>, KekError> {
        envelope::check_value(&self.ring)
            .await
            .map_err(|error| KekError::key(self.ring.current(), error))
    }

    /// So that records can be verified when the key they were written under is gone.
    async fn rewrap_mac_keys(&self) -> Result<(), KekError> {
        let current = self.ring.current();
        for row in self.store.mac_keys().await? {
            let Ok(under) = envelope::kek_id(&row.wrapped) else {
                continue;
            };
            if under == *current || !self.ring.contains(&under) {
                continue;
            }
            let rewrapped = async {
                let kek: KekId = row.kek_id.parse()?;
                let place = KeyPlace::MacKey {
                    kek: &kek,
                    purpose: &row.purpose,
                };
                let bytes = self.ring.unwrap_key(place, &row.wrapped).await?;
                self.ring.wrap_key(place, &bytes).await
            };
            let wrapped = rewrapped
                .await
                .map_err(|error| KekError::key(&under, error))?;
            self.store.mac_key_rewrap(&row, &wrapped).await?;
        }
        Ok(())
    }

    fn configured(&self, id: &str) -> Option<KekId> {
        id.parse().ok().filter(|id| self.ring.contains(id))
    }

    /// The kept key; else the one that a key in this process gives; else, while `kek` is current, a new one.
    async fn mac_key(&self, kek: &KekId, purpose: &str) -> Result<MacKey, KeyError> {
        let kept = self.store.mac_key_get(kek.as_str(), purpose).await;
        let kept = match kept.map_err(storage)? {
            Some(kept) => kept,
            None => self.keep_mac_key(kek, purpose).await?,
        };
        let place = KeyPlace::MacKey { kek, purpose };
        Ok(MacKey::new(
            &*self.ring.unwrap_key(place, &kept.wrapped).await?,
        ))
    }

    async fn keep_mac_key(&self, kek: &KekId, purpose: &str) -> Result<MacKeyRow, KeyError> {
        let bytes = match self.ring.mac_key_bytes(kek, purpose) {
            Some(derived) => derived,
            None if kek == self.ring.current() => Zeroizing::new(self.deps.random()),
            None => return Err(KeyError::NotDerivable { id: kek.clone() }),
        };
        let wrapped = self
            .ring
            .wrap_key(KeyPlace::MacKey { kek, purpose }, &bytes)
            .await?;
        let made = MacKeyRow {
            kek_id: kek.to_string(),
            purpose: purpose.to_owned(),
            wrapped,
        };
        let added = self.store.mac_key_add(&made, self.deps.now()).await;
        added.map_err(storage)?;
        // Somebody else may have been first.
        let kept = self.store.mac_key_get(kek.as_str(), purpose).await;
        Ok(kept.map_err(storage)?.unwrap_or(made))
    }
}

impl KeyEncryptionKeys for Keks {
    fn current(&self) -> &KekId {
        self.ring.current()
    }

    fn ids(&self) -> Vec<&KekId> {
        self.ring.ids()
    }

    fn wrap<'a>(&'a self, tenant: Uuid, key: &'a DataKey) -> KeyFuture<'a, Vec<u8>> {
        self.ring.wrap(tenant, key)
    }

    fn unwrap<'a>(
        &'a self,
        tenant: Uuid,
        version: u32,
        wrapped: &'a [u8],
    ) -> KeyFuture<'a, DataKey> {
        self.ring.unwrap(tenant, version, wrapped)
    }

    fn derive_mac_key<'a>(&'a self, kek: &'a KekId, purpose: &'a str) -> KeyFuture<'a, MacKey> {
        Box::pin(self.mac_key(kek, purpose))
    }
}

fn storage(error: StoreError) -> KeyError {
    KeyError::Storage {
        is_away: error.is_unavailable(),
        source: Box::new(error),
    }
}
