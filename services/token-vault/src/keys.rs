//! Tenants' data keys: made, wrapped under the key-encryption key, kept in memory for at most five minutes; and sealing
//! with them.
//!
//! Each use is counted before it is made: whoever seals takes uses out of a block that a statement has added to the
//! key's row. A key that has had its share, or its time, is followed by the next version; which one that is, one
//! transaction decides for all vaults.

mod cache;
mod kek;
mod sealing_key;

use std::fmt;
use std::sync::Arc;

use common::identity::{Actor, Identity};
use common::{Deps, TenantKey};
use envelope::{AssociatedData, DataKey, KeyEncryptionKeys, KeyError, MacKey, OpenError};
use tokio::sync::Notify;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::store::{DataKeyRow, Store, StoreError, TenantKeysRow};

pub(crate) use cache::CACHE_FOR;
use cache::Cache;
pub(crate) use kek::Keks;
pub use kek::{KekError, key_ring};
pub(crate) use sealing_key::SealingKey;

const SERVICE: &str = "vault";
const RECORDS_PURPOSE: &str = "access records";
/// After this many uses a key is followed by the next.
const MOST_USES: i64 = 1 << 31;
/// Uses that are taken from the database at a time. What is left of a block when its five minutes are over is lost: a
/// vault that does nothing else wastes a key's uses in five years.
const BLOCK: u32 = 1 << 12;
/// Values that an ordinary call may seal with a key: it seals four at most.
const USES_OF_A_CALL: u32 = 8;

/// All keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    keks: Box<dyn KeyEncryptionKeys>,
    store: Store,
    deps: Deps,
    cache: Cache,
    job_added: Notify,
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
    Store(#[source] StoreError),
    /// The key-encryption key does not open them.
    #[error("the tenant's data key cannot be unwrapped")]
    Kek(#[from] KeyError),
    /// They were destroyed, for good.
    #[error("the tenant's data keys were destroyed")]
    Shredded,
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
            Self::Kek(error) => error.is_unavailable(),
            Self::Shredded | Self::Missing(_) | Self::Sealed { .. } | Self::Content { .. } => false,
        }
    }
}

impl From<StoreError> for KeysError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Shredded => Self::Shredded,
            error => Self::Store(error),
        }
    }
}

impl Keys {
    pub(crate) fn new(keks: Box<dyn KeyEncryptionKeys>, store: Store, deps: Deps) -> Self {
        Self(Arc::new(Inner {
            keks,
            store,
            deps,
            cache: Cache::default(),
            job_added: Notify::new(),
        }))
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

    /// What records were authenticated with while that key-encryption key was current.
    pub(crate) async fn records_key_of(&self, kek_id: &str) -> Result<MacKey, KeysError> {
        let kek = kek_id.parse()?;
        Ok(self.0.keks.derive_mac_key(&kek, RECORDS_PURPOSE).await?)
    }

    /// The tenant's key that seals, for an ordinary call; its first one is made when it is first asked for.
    pub(crate) async fn newest(&self, tenant: TenantKey) -> Result<SealingKey, KeysError> {
        self.sealing(tenant, USES_OF_A_CALL).await
    }

    /// The tenant's key that seals, with `uses` counted.
    pub(crate) async fn sealing(
        &self,
        tenant: TenantKey,
        uses: u32,
    ) -> Result<SealingKey, KeysError> {
        match self.take(tenant, uses) {
            Some(key) => Ok(key),
            // On the heap: it is rare, and long.
            None => Box::pin(self.sealing_anew(tenant, uses)).await,
        }
    }

    async fn sealing_anew(&self, tenant: TenantKey, uses: u32) -> Result<SealingKey, KeysError> {
        let _gate = self.0.cache.gate(tenant).await;
        // Whoever was at it before has taken a block.
        if let Some(key) = self.take(tenant, uses) {
            return Ok(key);
        }
        let block = uses.max(BLOCK);
        let row = self.reserve(tenant, block).await?;
        let version = row.version;
        let key = match self.cached(tenant, version) {
            Some(key) => key,
            None => self.unwrap(tenant, row).await?,
        };
        self.0
            .cache
            .put_uses(tenant, version, block - uses, &*self.0.deps.clock);
        Ok(SealingKey::new(key, uses))
    }

    /// The tenant's key that seals, as the database says now, and not as it was minutes ago.
    pub(crate) async fn sealing_now(
        &self,
        tenant: TenantKey,
        uses: u32,
    ) -> Result<SealingKey, KeysError> {
        self.0.cache.forget_uses(tenant);
        self.sealing(tenant, uses).await
    }

    /// The tenant's key of that version.
    pub(crate) async fn version(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<DataKey, KeysError> {
        match self.cached(tenant, version) {
            Some(key) => Ok(key),
            None => Box::pin(self.version_anew(tenant, version)).await,
        }
    }

    async fn version_anew(&self, tenant: TenantKey, version: i32) -> Result<DataKey, KeysError> {
        let _gate = self.0.cache.gate(tenant).await;
        if let Some(key) = self.cached(tenant, version) {
            return Ok(key);
        }
        let found = self.0.store.data_key_get(tenant, version).await?;
        if let Some(found) = found {
            return self.unwrap(tenant, found).await;
        }
        match self.0.store.tenant_keys_get(tenant).await? {
            Some(keys) if keys.is_shredded => Err(KeysError::Shredded),
            _ => Err(KeysError::Missing(version)),
        }
    }

    /// The tenant's key of that version, or of the one that seals, to derive a service's key from. Noted, and asked of
    /// the database in any case, so that nothing is handed out for a tenant whose keys were destroyed.
    pub(crate) async fn hand_out(
        &self,
        tenant: TenantKey,
        version: Option<i32>,
    ) -> Result<DataKey, KeysError> {
        let version = match version {
            Some(version) => version,
            None => self.current_version(tenant).await?,
        };
        if !self.0.store.data_key_hand_out(tenant, version).await? {
            return Err(KeysError::Missing(version));
        }
        self.version(tenant, version).await
    }

    /// How the tenant's keys stand in the database; `None` where it never had any.
    pub(crate) async fn of_tenant(
        &self,
        tenant: TenantKey,
    ) -> Result<Option<TenantKeysRow>, KeysError> {
        Ok(self.0.store.tenant_keys_get(tenant).await?)
    }

    /// Makes the version after `before`, unless somebody else has.
    pub(crate) async fn advance(
        &self,
        tenant: TenantKey,
        before: i32,
        reason: &'static str,
    ) -> Result<(), KeysError> {
        let version = before + 1;
        let key = DataKey::generate(version.cast_unsigned(), |bytes| {
            self.0.deps.rng.fill(bytes);
        });
        let wrapped = self.0.keks.wrap(tenant.id(), &key).await?;
        let row = DataKeyRow { version, wrapped };
        let actor = Actor {
            identity: Identity::service("token-vault").to_string(),
            ..Actor::default()
        };
        let made = self
            .0
            .store
            .data_key_advance(tenant, &row, self.kek_id(), &actor, reason)
            .await?;
        if made && before > 0 {
            tracing::info!(event = "data_key_made", tenant.id = %tenant, version, reason, "a tenant's values are sealed under a new data key");
        }
        self.0.cache.forget_uses(tenant);
        Ok(())
    }

    /// The version that seals, as the database says now. One use is counted, for the key that is derived from it; what a
    /// service seals wears out the derived one.
    async fn current_version(&self, tenant: TenantKey) -> Result<i32, KeysError> {
        let mut version = self.sealing(tenant, 1).await?.version().cast_signed();
        let keys = self.0.store.tenant_keys_get(tenant).await?;
        if keys.is_some_and(|keys| keys.current_version != version) {
            version = self.sealing_now(tenant, 1).await?.version().cast_signed();
        }
        Ok(version)
    }

    /// Nothing of the tenant's keys stays in this process's memory.
    pub(crate) fn forget(&self, tenant: TenantKey) {
        self.0.cache.forget_tenant(tenant);
    }

    /// The wrapped data key, under the key-encryption key that wraps.
    pub(crate) async fn rewrap(
        &self,
        tenant: TenantKey,
        version: i32,
        wrapped: &[u8],
    ) -> Result<Vec<u8>, KeyError> {
        let keks = self.0.keks.as_ref();
        let key = keks
            .unwrap(tenant.id(), version.cast_unsigned(), wrapped)
            .await?;
        keks.wrap(tenant.id(), &key).await
    }

    /// There is a job for the runner.
    pub(crate) fn job_added(&self) {
        self.0.job_added.notify_one();
    }

    /// Until there is one.
    pub(crate) async fn wait_for_job(&self) {
        self.0.job_added.notified().await;
    }

    /// Seals a value for its place.
    pub(crate) fn seal(&self, key: &SealingKey, place: &Place, plaintext: &[u8]) -> Vec<u8> {
        envelope::seal(key.take(), &place.associated(), plaintext, |salt| {
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

    /// As [`Keys::open`], where the data key is in memory already; `None` where it has to be fetched.
    pub(crate) fn open_at_once(
        &self,
        place: &Place,
        sealed: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        let refused = |source| KeysError::Sealed {
            table: place.table,
            column: place.column,
            source,
        };
        let version = envelope::data_key_version(sealed).map_err(refused)?;
        let key = self.cached(place.tenant, version.cast_signed());
        key.map(|key| envelope::open(&key, &place.associated(), sealed).map_err(refused))
            .transpose()
    }

    /// Drops what has been kept too long, so that it does not lie in memory either.
    pub(crate) fn sweep(&self) {
        self.0.cache.sweep(&*self.0.deps.clock);
    }

    fn take(&self, tenant: TenantKey, uses: u32) -> Option<SealingKey> {
        let clock = &*self.0.deps.clock;
        let version = self.0.cache.take_uses(tenant, uses, clock)?;
        // Where the key's five minutes have ended before its block's, the uses are lost.
        let key = self.0.cache.get(tenant, version, clock)?;
        Some(SealingKey::new(key, uses))
    }

    fn cached(&self, tenant: TenantKey, version: i32) -> Option<DataKey> {
        self.0.cache.get(tenant, version, &*self.0.deps.clock)
    }

    /// A block of uses of the version that seals, which is made where there is none that may.
    async fn reserve(&self, tenant: TenantKey, uses: u32) -> Result<DataKeyRow, KeysError> {
        let mut seen = None;
        loop {
            let reserved = self
                .0
                .store
                .data_key_reserve(tenant, i64::from(uses), MOST_USES)
                .await?;
            if let Some(row) = reserved {
                return Ok(row);
            }
            let keys = self.0.store.tenant_keys_get(tenant).await?;
            if keys.is_some_and(|keys| keys.is_shredded) {
                return Err(KeysError::Shredded);
            }
            let before = keys.map_or(0, |keys| keys.current_version);
            // It may be newer than what was refused.
            if before == 0 || seen == Some(before) {
                self.advance(tenant, before, "the one before is worn out")
                    .await?;
            }
            seen = Some(before);
        }
    }

    async fn unwrap(&self, tenant: TenantKey, row: DataKeyRow) -> Result<DataKey, KeysError> {
        let key = self
            .0
            .keks
            .unwrap(tenant.id(), row.version.cast_unsigned(), &row.wrapped)
            .await?;
        self.0.cache.put(tenant, key.clone(), &*self.0.deps.clock);
        Ok(key)
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
