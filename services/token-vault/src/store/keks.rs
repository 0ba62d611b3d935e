//! What lies under the key-encryption keys besides data keys: values by which a wrong key is found, and MAC keys.

use common::pg::Scope;
use time::OffsetDateTime;

use super::{Store, StoreError, get};

const KEK_CHECK_LIST: &str = "-- {schema}.kek_check_list
SELECT kek_id, value
FROM {schema}.kek_checks
ORDER BY created_at, kek_id";

const KEK_CHECK_ADD: &str = "-- {schema}.kek_check_add
INSERT INTO {schema}.kek_checks (kek_id, value, created_at)
VALUES ($1, $2, $3)
ON CONFLICT (kek_id) DO NOTHING";

const KEK_LIST: &str = "-- {schema}.kek_list
SELECT DISTINCT kek_id
FROM {schema}.data_keys";

const MAC_KEY_LIST: &str = "-- {schema}.mac_key_list
SELECT kek_id, purpose, wrapped
FROM {schema}.mac_keys";

const MAC_KEY_GET: &str = "-- {schema}.mac_key_get
SELECT kek_id, purpose, wrapped
FROM {schema}.mac_keys
WHERE kek_id = $1
  AND purpose = $2";

const MAC_KEY_ADD: &str = "-- {schema}.mac_key_add
INSERT INTO {schema}.mac_keys (kek_id, purpose, wrapped, created_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (kek_id, purpose) DO NOTHING";

const MAC_KEY_REWRAP: &str = "-- {schema}.mac_key_rewrap
UPDATE {schema}.mac_keys
SET wrapped = $4
WHERE kek_id = $1
  AND purpose = $2
  AND wrapped = $3";

/// A value wrapped under the key-encryption key of that id.
#[derive(Clone, Debug)]
pub(crate) struct KekCheckRow {
    pub(crate) kek_id: String,
    pub(crate) value: Vec<u8>,
}

/// The MAC key of records that were written while `kek_id` was current.
#[derive(Clone, Debug)]
pub(crate) struct MacKeyRow {
    pub(crate) kek_id: String,
    pub(crate) purpose: String,
    pub(crate) wrapped: Vec<u8>,
}

impl Store {
    /// The check values, oldest first.
    pub(crate) async fn kek_checks(&self) -> Result<Vec<KekCheckRow>, StoreError> {
        let rows = self.db.query(Scope::System, KEK_CHECK_LIST, &[]).await?;
        let from = |row| {
            Ok(KekCheckRow {
                kek_id: get(row, "kek_id")?,
                value: get(row, "value")?,
            })
        };
        rows.iter().map(from).collect()
    }

    /// Adds a check value, unless somebody else was first.
    pub(crate) async fn kek_check_add(
        &self,
        check: &KekCheckRow,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.db
            .execute(
                Scope::System,
                KEK_CHECK_ADD,
                &[&check.kek_id, &check.value, &now],
            )
            .await?;
        Ok(())
    }

    /// The ids of the key-encryption keys that data keys are wrapped under.
    pub(crate) async fn keks_in_use(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.db.query(Scope::System, KEK_LIST, &[]).await?;
        rows.iter().map(|row| get(row, "kek_id")).collect()
    }

    /// All MAC keys.
    pub(crate) async fn mac_keys(&self) -> Result<Vec<MacKeyRow>, StoreError> {
        let rows = self.db.query(Scope::System, MAC_KEY_LIST, &[]).await?;
        rows.iter().map(mac_key).collect()
    }

    pub(crate) async fn mac_key_get(
        &self,
        kek_id: &str,
        purpose: &str,
    ) -> Result<Option<MacKeyRow>, StoreError> {
        let row = self
            .db
            .query_opt(Scope::System, MAC_KEY_GET, &[&kek_id, &purpose])
            .await?;
        row.as_ref().map(mac_key).transpose()
    }

    /// Adds a MAC key, unless somebody else was first.
    pub(crate) async fn mac_key_add(
        &self,
        key: &MacKeyRow,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.db
            .execute(
                Scope::System,
                MAC_KEY_ADD,
                &[&key.kek_id, &key.purpose, &key.wrapped, &now],
            )
            .await?;
        Ok(())
    }

    /// Puts the same key, wrapped anew, in place of `key`, if nobody else has.
    pub(crate) async fn mac_key_rewrap(
        &self,
        key: &MacKeyRow,
        wrapped: &[u8],
    ) -> Result<(), StoreError> {
        self.db
            .execute(
                Scope::System,
                MAC_KEY_REWRAP,
                &[&key.kek_id, &key.purpose, &key.wrapped, &wrapped],
            )
            .await?;
        Ok(())
    }
}

fn mac_key(row: &common::pg::Row) -> Result<MacKeyRow, StoreError> {
    Ok(MacKeyRow {
        kek_id: get(row, "kek_id")?,
        purpose: get(row, "purpose")?,
        wrapped: get(row, "wrapped")?,
    })
}
