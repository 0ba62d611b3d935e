//! Tenants' data keys, wrapped, and the check value of the key-encryption key.

use common::TenantKey;
use common::pg::{Row, Scope};
use time::OffsetDateTime;

use super::{Store, StoreError, get};

const DATA_KEY_GET: &str = "-- {schema}.data_key_get
SELECT version, wrapped
FROM {schema}.data_keys
WHERE bucket = $1
  AND tenant_id = $2
  AND version = $3";

const DATA_KEY_NEWEST: &str = "-- {schema}.data_key_find
SELECT version, wrapped
FROM {schema}.data_keys
WHERE bucket = $1
  AND tenant_id = $2
ORDER BY version DESC
LIMIT 1";

const DATA_KEY_ADD: &str = "-- {schema}.data_key_add
INSERT INTO {schema}.data_keys (bucket, tenant_id, version, wrapped, kek_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (bucket, tenant_id, version) DO NOTHING";

const DATA_KEYS_COUNT: &str = "-- {schema}.data_keys_count
SELECT count(*) AS all_keys, count(*) FILTER (WHERE kek_id <> $1) AS under_older
FROM {schema}.data_keys";

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

impl Store {
    pub(crate) async fn data_key_get(
        &self,
        tenant: TenantKey,
        version: i32,
    ) -> Result<Option<DataKeyRow>, StoreError> {
        let params: &[&(dyn common::pg::ToSql + Sync)] =
            &[&tenant.bucket(), &tenant.id(), &version];
        let row = self
            .db
            .query_opt(Scope::Tenant(tenant), DATA_KEY_GET, params)
            .await?;
        row.as_ref().map(from).transpose()
    }

    /// The one that seals.
    pub(crate) async fn data_key_newest(
        &self,
        tenant: TenantKey,
    ) -> Result<Option<DataKeyRow>, StoreError> {
        let params: &[&(dyn common::pg::ToSql + Sync)] = &[&tenant.bucket(), &tenant.id()];
        let row = self
            .db
            .query_opt(Scope::Tenant(tenant), DATA_KEY_NEWEST, params)
            .await?;
        row.as_ref().map(from).transpose()
    }

    /// Adds a version, unless somebody else was first.
    pub(crate) async fn data_key_add(
        &self,
        tenant: TenantKey,
        key: &DataKeyRow,
        kek_id: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let params: &[&(dyn common::pg::ToSql + Sync)] = &[
            &tenant.bucket(),
            &tenant.id(),
            &key.version,
            &key.wrapped,
            &kek_id,
            &now,
        ];
        self.db
            .execute(Scope::Tenant(tenant), DATA_KEY_ADD, params)
            .await?;
        Ok(())
    }

    /// How many there are, and how many are not wrapped under `kek_id`.
    pub(crate) async fn data_keys_count(&self, kek_id: &str) -> Result<(i64, i64), StoreError> {
        let row = self
            .db
            .query_one(Scope::System, DATA_KEYS_COUNT, &[&kek_id])
            .await?;
        Ok((get(&row, "all_keys")?, get(&row, "under_older")?))
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

fn from(row: &Row) -> Result<DataKeyRow, StoreError> {
    Ok(DataKeyRow {
        version: get(row, "version")?,
        wrapped: get(row, "wrapped")?,
    })
}
