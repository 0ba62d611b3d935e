//! Tenants' data keys, wrapped, which of them seals, and the check value of the key-encryption key.

use common::TenantKey;
use common::identity::Actor;
use common::pg::{Row, Scope, ToSql, Tx, audit};
use time::OffsetDateTime;

use super::key_jobs::{KEY_JOB_ADD, KeyJobKind};
use super::{Store, StoreError, get, tenant};

/// For the list of a statement that reads what is sealed: whether the keys that opened it were destroyed. `$table` is
/// the table that is read, by the name that it has in the statement.
macro_rules! is_shredded {
    ($table:literal) => {
        concat!(
            "EXISTS (SELECT FROM {schema}.tenant_keys AS keys WHERE keys.bucket = ",
            $table,
            ".bucket AND keys.tenant_id = ",
            $table,
            ".tenant_id AND keys.shredded_at IS NOT NULL)"
        )
    };
}
pub(super) use is_shredded;

const DATA_KEY_GET: &str = "-- {schema}.data_key_get
SELECT version, wrapped
FROM {schema}.data_keys
WHERE bucket = $1
  AND tenant_id = $2
  AND version = $3";

/// Takes a block of uses of the version that seals, unless that one has been used too often or for too long.
const DATA_KEY_RESERVE: &str = "-- {schema}.data_key_reserve
UPDATE {schema}.data_keys
SET uses = data_keys.uses + $3
FROM {schema}.tenant_keys AS keys
WHERE data_keys.bucket = $1
  AND data_keys.tenant_id = $2
  AND keys.bucket = $1
  AND keys.tenant_id = $2
  AND keys.shredded_at IS NULL
  AND data_keys.version = keys.current_version
  AND data_keys.uses <= $4
  AND data_keys.created_at > now() - interval '90 days'
RETURNING data_keys.version, data_keys.wrapped";

const DATA_KEY_ADD: &str = "-- {schema}.data_key_add
INSERT INTO {schema}.data_keys (bucket, tenant_id, version, wrapped, kek_id, created_at)
VALUES ($1, $2, $3, $4, $5, now())";

const DATA_KEY_SUPERSEDE: &str = "-- {schema}.data_key_supersede
UPDATE {schema}.data_keys
SET superseded_at = now()
WHERE bucket = $1
  AND tenant_id = $2
  AND version = $3";

const DATA_KEY_HAND_OUT: &str = "-- {schema}.data_key_hand_out
UPDATE {schema}.data_keys
SET is_handed_out = true
WHERE bucket = $1
  AND tenant_id = $2
  AND version = $3
RETURNING version";

const DATA_KEYS_DESTROY: &str = "-- {schema}.data_keys_destroy
DELETE FROM {schema}.data_keys
WHERE bucket = $1
  AND tenant_id = $2";

const TENANT_KEYS_GET: &str = "-- {schema}.tenant_keys_get
SELECT current_version, current_made_at, shredded_at, keys_destroyed
FROM {schema}.tenant_keys
WHERE bucket = $1
  AND tenant_id = $2";

const TENANT_KEYS_ADD: &str = "-- {schema}.tenant_keys_add
INSERT INTO {schema}.tenant_keys (bucket, tenant_id, current_version, current_made_at, resealed_version)
VALUES ($1, $2, 0, now(), 1)
ON CONFLICT (bucket, tenant_id) DO NOTHING";

const TENANT_KEYS_LOCK: &str = "-- {schema}.tenant_keys_lock
SELECT current_version, current_made_at, shredded_at, keys_destroyed
FROM {schema}.tenant_keys
WHERE bucket = $1
  AND tenant_id = $2
FOR UPDATE";

const TENANT_KEYS_ADVANCE: &str = "-- {schema}.tenant_keys_advance
UPDATE {schema}.tenant_keys
SET current_version = $3,
    current_made_at = now()
WHERE bucket = $1
  AND tenant_id = $2";

const TENANT_KEYS_SHRED: &str = "-- {schema}.tenant_keys_shred
UPDATE {schema}.tenant_keys
SET shredded_at = now(),
    keys_destroyed = $3
WHERE bucket = $1
  AND tenant_id = $2";

/// Whoever still seals under an older version that it has in hand has finished by then.
const TENANT_KEYS_RESEALED: &str = "-- {schema}.tenant_keys_reseal
UPDATE {schema}.tenant_keys
SET resealed_version = $3
WHERE bucket = $1
  AND tenant_id = $2
  AND current_version = $3
  AND current_made_at < now() - interval '8 minutes'";

const ROTATION_BUCKETS: &str = "-- {schema}.rotation_buckets
SELECT DISTINCT bucket
FROM {schema}.tenant_keys
WHERE shredded_at IS NULL
  AND (current_made_at < $1 OR resealed_version < current_version)";

/// `$4` is the one tenant whose key is rotated, where it is not every tenant's.
const ROTATION_LIST: &str = "-- {schema}.rotation_list
SELECT tenant_id
FROM {schema}.tenant_keys
WHERE bucket = $1
  AND shredded_at IS NULL
  AND (current_made_at < $2 OR resealed_version < current_version)
  AND tenant_id > $3
  AND ($4::uuid IS NULL OR tenant_id = $4)
ORDER BY tenant_id
LIMIT $5";

const KEY_CHECK_ADD: &str = "-- {schema}.key_check_add
INSERT INTO {schema}.key_checks (id, value, created_at)
VALUES (1, $1, $2)
ON CONFLICT (id) DO NOTHING";

const KEY_CHECK_GET: &str = "-- {schema}.key_check_get
SELECT value
FROM {schema}.key_checks
WHERE id = 1";

/// A wrapped data key.
#[derive(Clone, Debug)]
pub(crate) struct DataKeyRow {
    pub(crate) version: i32,
    pub(crate) wrapped: Vec<u8>,
}

/// How a tenant's keys stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TenantKeysRow {
    /// The version that seals; 0 before the first.
    pub(crate) current_version: i32,
    /// By the database's clock.
    pub(crate) current_made_at: OffsetDateTime,
    /// Whether they were destroyed.
    pub(crate) is_shredded: bool,
    /// How many there were then.
    pub(crate) keys_destroyed: i64,
}

impl Store {
    pub(crate) async fn data_key_get(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<Option<DataKeyRow>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id(), &version];
        let row = self
            .db
            .query_opt(Scope::Tenant(tenant), DATA_KEY_GET, params)
            .await?;
        row.as_ref().map(from).transpose()
    }

    /// The version that seals, with `uses` more uses counted; `None` where it has had `most` of them, is 90 days old, or
    /// is not there.
    pub(crate) async fn data_key_reserve(
        &self,
        tenant: TenantKey,
        uses: i64,
        most: i64,
    ) -> Result<Option<DataKeyRow>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] =
            &[&tenant.bucket(), &tenant.id(), &uses, &(most - uses)];
        let row = self
            .db
            .query_opt(Scope::Tenant(tenant), DATA_KEY_RESERVE, params)
            .await?;
        row.as_ref().map(from).transpose()
    }

    /// How the tenant's keys stand; `None` where it never had any.
    pub(crate) async fn tenant_keys_get(
        &self,
        tenant: TenantKey,
    ) -> Result<Option<TenantKeysRow>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id()];
        let row = self
            .db
            .query_opt(Scope::Tenant(tenant), TENANT_KEYS_GET, params)
            .await?;
        row.as_ref().map(keys_from).transpose()
    }

    /// Makes `key` the version that seals, if the one before it still does. Of several vaults that try, one succeeds.
    pub(crate) async fn data_key_advance(
        &self,
        tenant: TenantKey,
        key: &DataKeyRow,
        kek_id: &str,
        actor: &Actor,
        reason: &'static str,
    ) -> Result<bool, StoreError> {
        let (key, kek_id, actor) = (key.clone(), kek_id.to_owned(), actor.clone());
        let reason = reason.to_owned();
        self.db
            .run_tx(
                "data_key_advance",
                Scope::Tenant(tenant),
                async move |tx: &Tx| {
                    let (bucket, id, before) = (tenant.bucket(), tenant.id(), key.version - 1);
                    let keys = tenant_keys_lock(tx, tenant).await?;
                    if keys.is_shredded {
                        return Err(StoreError::Shredded);
                    }
                    if keys.current_version != before {
                        return Ok(false);
                    }
                    tx.execute(
                        DATA_KEY_ADD,
                        &[&bucket, &id, &key.version, &key.wrapped, &kek_id],
                    )
                    .await?;
                    tx.execute(TENANT_KEYS_ADVANCE, &[&bucket, &id, &key.version])
                        .await?;
                    if before > 0 {
                        tx.execute(DATA_KEY_SUPERSEDE, &[&bucket, &id, &before])
                            .await?;
                        let resource = format!("data_keys/{}", key.version);
                        audit::append(tx, tenant, &actor, "data_key_made", &resource, &reason)
                            .await?;
                    }
                    Ok(true)
                },
            )
            .await
    }

    /// Notes that a service may have sealed under a key that was derived from this one; from now on it is never retired.
    /// `false` where there is no such version.
    pub(crate) async fn data_key_hand_out(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<bool, StoreError> {
        self.db
            .run_tx(
                "data_key_hand_out",
                Scope::Tenant(tenant),
                async move |tx: &Tx| {
                    refuse_shredded(tx, tenant).await?;
                    let params: &[&(dyn ToSql + Sync)] =
                        &[&tenant.bucket(), &tenant.id(), &version];
                    Ok(tx.query_opt(DATA_KEY_HAND_OUT, params).await?.is_some())
                },
            )
            .await
    }

    /// Destroys the tenant's data keys, and says how many there were; again and again the same.
    pub(crate) async fn tenant_shred(
        &self,
        tenant: TenantKey,
        actor: &Actor,
    ) -> Result<i64, StoreError> {
        let actor = actor.clone();
        self.db
            .run_tx(
                "VaultAdminService/ShredTenant",
                Scope::System,
                async move |tx: &Tx| {
                    let (bucket, id) = (tenant.bucket(), tenant.id());
                    let keys = tenant_keys_lock(tx, tenant).await?;
                    if keys.is_shredded {
                        return Ok(keys.keys_destroyed);
                    }
                    let destroyed = tx
                        .execute(DATA_KEYS_DESTROY, &[&bucket, &id])
                        .await?
                        .cast_signed();
                    tx.execute(TENANT_KEYS_SHRED, &[&bucket, &id, &destroyed])
                        .await?;
                    let job = TenantKey::PLATFORM.new_id(tx.deps());
                    let kind = KeyJobKind::Erase.as_str();
                    tx.execute(KEY_JOB_ADD, &[&job, &kind, &id.to_string()])
                        .await?;
                    audit::append(
                        tx,
                        tenant,
                        &actor,
                        "VaultAdminService/ShredTenant",
                        &format!("tenants/{id}"),
                        "",
                    )
                    .await?;
                    Ok(destroyed)
                },
            )
            .await
    }

    /// Everything of the tenant's is sealed under `version`, and nobody seals under an older one any more.
    pub(crate) async fn tenant_keys_resealed(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<(), StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id(), &version];
        self.db
            .execute(Scope::Tenant(tenant), TENANT_KEYS_RESEALED, params)
            .await?;
        Ok(())
    }

    /// The buckets in which a rotation that was asked for at that time has something to do.
    pub(crate) async fn rotation_buckets(
        &self,
        requested_at: OffsetDateTime,
    ) -> Result<Vec<i16>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, ROTATION_BUCKETS, &[&requested_at])
            .await?;
        rows.iter().map(|row| get(row, "bucket")).collect()
    }

    /// The bucket's tenants behind `after` whose key is older than the rotation, or whose values are older than their key.
    pub(crate) async fn rotation_list(
        &self,
        bucket: i16,
        requested_at: OffsetDateTime,
        after: uuid::Uuid,
        only: Option<TenantKey>,
        limit: i64,
    ) -> Result<Vec<TenantKey>, StoreError> {
        let only = only.map(|tenant| tenant.id());
        let params: &[&(dyn ToSql + Sync)] = &[&bucket, &requested_at, &after, &only, &limit];
        let rows = self.db.query(Scope::System, ROTATION_LIST, params).await?;
        rows.iter()
            .map(|row| tenant(row, "tenant_keys", "tenant_id"))
            .collect()
    }

    /// The check value; `made` where there was none before.
    pub(crate) async fn key_check(
        &self,
        made: Vec<u8>,
        now: OffsetDateTime,
    ) -> Result<Vec<u8>, StoreError> {
        if let Some(row) = self.db.query_opt(Scope::System, KEY_CHECK_GET, &[]).await? {
            return get(&row, "value");
        }
        self.db
            .execute(Scope::System, KEY_CHECK_ADD, &[&made, &now])
            .await?;
        get(
            &self.db.query_one(Scope::System, KEY_CHECK_GET, &[]).await?,
            "value",
        )
    }
}

/// Nothing is written for a tenant whose keys were destroyed.
pub(super) async fn refuse_shredded(tx: &Tx, tenant: TenantKey) -> Result<(), StoreError> {
    let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id()];
    let row = tx.query_opt(TENANT_KEYS_GET, params).await?;
    let keys = row.as_ref().map(keys_from).transpose()?;
    if keys.is_some_and(|keys| keys.is_shredded) {
        return Err(StoreError::Shredded);
    }
    Ok(())
}

/// The tenant's row, made where there is none; nobody else makes or destroys its keys until the transaction ends.
async fn tenant_keys_lock(tx: &Tx, tenant: TenantKey) -> Result<TenantKeysRow, StoreError> {
    let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id()];
    tx.execute(TENANT_KEYS_ADD, params).await?;
    keys_from(&tx.query_one(TENANT_KEYS_LOCK, params).await?)
}

fn from(row: &Row) -> Result<DataKeyRow, StoreError> {
    Ok(DataKeyRow {
        version: get(row, "version")?,
        wrapped: get(row, "wrapped")?,
    })
}

fn keys_from(row: &Row) -> Result<TenantKeysRow, StoreError> {
    Ok(TenantKeysRow {
        current_version: get(row, "current_version")?,
        current_made_at: get(row, "current_made_at")?,
        is_shredded: get::<Option<OffsetDateTime>>(row, "shredded_at")?.is_some(),
        keys_destroyed: get(row, "keys_destroyed")?,
    })
}
