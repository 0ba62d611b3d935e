//! Tenants' data keys: made, wrapped under the key-encryption key, kept in memory for at most five minutes; and sealing
//! with them.

mod kek;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::{Deps, TenantKey};
use envelope::{AssociatedData, DataKey, KeyEncryptionKeys, KeyError, MacKey, OpenError};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::store::{DataKeyRow, Store, StoreError};

pub(crate) use kek::load;

/// Longest time that a data key is kept in memory, here and by the services that are handed one.
pub(crate) const CACHE_FOR: Duration = Duration::from_mins(5);
const SERVICE: &str = "vault";
const RECORDS_PURPOSE: &str = "access records";

/// All keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    keks: Box<dyn KeyEncryptionKeys>,
    store: Store,
    deps: Deps,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    by_version: HashMap<(TenantKey, i32), Kept<DataKey>>,
    newest: HashMap<TenantKey, Kept<i32>>,
}

#[derive(Clone)]
struct Kept<T> {
    value: T,
    since: Duration,
}

/// The place of a value in the vault's tables. `tenant` is the request's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) tenant: TenantKey,
    pub(crate) row: Uuid,
    pub(crate) version: i64,
}

/// Why something was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The data keys cannot be read or written.
    #[error("the tenant's data key cannot be had")]
    Store(#[from] StoreError),
    /// The key-encryption key does not open them.
    #[error("the tenant's data key cannot be unwrapped")]
    Kek(#[from] KeyError),
    /// There is no such version.
    #[error("the tenant has no data key of version {0}")]
    Missing(i32),
    /// The value was altered or moved.
    #[error("the value in {table}.{column} does not open")]
    Sealed {
        table: &'static str,
        column: &'static str,
        #[source]
        source: OpenError,
    },
    /// What was sealed is not what belongs there.
    #[error("the value in {table}.{column} opens, and is not what belongs there")]
    Content {
        table: &'static str,
        column: &'static str,
    },
}

impl KeysError {
    /// Whether it will pass by itself.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Kek(error) => matches!(error, KeyError::Unavailable { .. }),
            Self::Missing(_) | Self::Sealed { .. } | Self::Content { .. } => false,
        }
    }
}

impl Keys {
    pub(crate) fn new(keks: Box<dyn KeyEncryptionKeys>, store: Store, deps: Deps) -> Self {
        Self(Arc::new(Inner {
            keks,
            store,
            deps,
            cache: Mutex::default(),
        }))
    }

    /// Refuses to go on with a key-encryption key that is not the one of this database.
    pub(crate) async fn check(&self) -> Result<(), KeysError> {
        let made = envelope::check_value(self.0.keks.as_ref()).await?;
        let kept = self.0.store.key_check(made, self.0.deps.now()).await?;
        Ok(envelope::verify_check_value(self.0.keks.as_ref(), &kept).await?)
    }

    /// The id of the key-encryption key that wraps.
    pub(crate) fn kek_id(&self) -> &str {
        self.0.keks.current().as_str()
    }

    /// What access records are authenticated with.
    pub(crate) async fn records_key(&self) -> Result<MacKey, KeysError> {
        Ok(self
            .0
            .keks
            .derive_mac_key(self.0.keks.current(), RECORDS_PURPOSE)
            .await?)
    }

    /// The tenant's key that seals; its first one is made when it is first asked for.
    pub(crate) async fn newest(&self, tenant: TenantKey) -> Result<DataKey, KeysError> {
        let kept = self.cache(|cache, now| {
            cache
                .newest
                .get(&tenant)
                .filter(|kept| kept.is_fresh(now))
                .map(|kept| kept.value)
        });
        if let Some(version) = kept {
            return self.version(tenant, version).await;
        }
        let found = match self.0.store.data_key_newest(tenant).await? {
            Some(found) => found,
            None => self.make_first(tenant).await?,
        };
        let version = found.version;
        let key = self.unwrap(tenant, found).await?;
        self.cache(|cache, now| {
            cache.newest.insert(
                tenant,
                Kept {
                    value: version,
                    since: now,
                },
            )
        });
        Ok(key)
    }

    /// The tenant's key of that version.
    pub(crate) async fn version(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<DataKey, KeysError> {
        let place = (tenant, version);
        let kept = self.cache(|cache, now| {
            cache
                .by_version
                .get(&place)
                .filter(|kept| kept.is_fresh(now))
                .map(|kept| kept.value.clone())
        });
        if let Some(key) = kept {
            return Ok(key);
        }
        let found = self.0.store.data_key_get(tenant, version).await?;
        self.unwrap(tenant, found.ok_or(KeysError::Missing(version))?)
            .await
    }

    /// Seals a value for its place.
    pub(crate) fn seal(&self, key: &DataKey, place: &Place, plaintext: &[u8]) -> Vec<u8> {
        envelope::seal(key, &place.associated(), plaintext, |salt| {
            self.0.deps.rng.fill(salt);
        })
    }

    /// What was sealed for this place.
    pub(crate) async fn open(
        &self,
        place: &Place,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let refused = |source| KeysError::Sealed {
            table: place.table,
            column: place.column,
            source,
        };
        let version = envelope::data_key_version(sealed).map_err(refused)?;
        let key = self.version(place.tenant, version.cast_signed()).await?;
        envelope::open(&key, &place.associated(), sealed).map_err(refused)
    }

    /// Data keys, and how many of them are not under the key-encryption key that wraps.
    pub(crate) async fn count(&self) -> Result<(i64, i64), KeysError> {
        Ok(self.0.store.data_keys_count(self.kek_id()).await?)
    }

    /// Drops what has been kept too long, so that it does not lie in memory either.
    pub(crate) fn sweep(&self) {
        self.cache(|cache, now| {
            cache.by_version.retain(|_, kept| kept.is_fresh(now));
            cache.newest.retain(|_, kept| kept.is_fresh(now));
        });
    }

    async fn make_first(&self, tenant: TenantKey) -> Result<DataKeyRow, KeysError> {
        let key = DataKey::generate(1, |bytes| self.0.deps.rng.fill(bytes));
        let wrapped = self.0.keks.wrap(tenant.id(), &key).await?;
        let made = DataKeyRow {
            version: 1,
            wrapped,
        };
        self.0
            .store
            .data_key_add(tenant, &made, self.kek_id(), self.0.deps.now())
            .await?;
        // Somebody else may have been first.
        self.0
            .store
            .data_key_newest(tenant)
            .await?
            .ok_or(KeysError::Missing(1))
    }

    async fn unwrap(&self, tenant: TenantKey, row: DataKeyRow) -> Result<DataKey, KeysError> {
        let key = self
            .0
            .keks
            .unwrap(tenant.id(), row.version.cast_unsigned(), &row.wrapped)
            .await?;
        let kept = key.clone();
        self.cache(|cache, now| {
            cache.by_version.insert(
                (tenant, row.version),
                Kept {
                    value: kept,
                    since: now,
                },
            )
        });
        Ok(key)
    }

    fn cache<T>(&self, with: impl FnOnce(&mut Cache, Duration) -> T) -> T {
        let now = self.0.deps.clock.boottime();
        with(
            &mut self.0.cache.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }
}

impl<T> Kept<T> {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < CACHE_FOR
    }
}

impl Place {
    fn associated(&self) -> AssociatedData<'_> {
        AssociatedData {
            service: SERVICE,
            table: self.table,
            column: self.column,
            tenant: self.tenant.id(),
            row: self.row.as_bytes(),
            row_version: self.version,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("keks", &self.0.keks)
            .finish_non_exhaustive()
    }
}
