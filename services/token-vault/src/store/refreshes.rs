//! The lease on a grant: taken, proved, and what is due.

use std::time::Duration;

use common::pg::{self, Scope};
use time::OffsetDateTime;
use uuid::Uuid;

use super::grant_row::key_from;
use super::{Store, StoreError, get};
use crate::grant::GrantKey;

/// The heartbeat of the intent's instance, and the time since which it could have been written at all.
const INSTANCE_HEARD: &str = "-- {schema}.instance_hear
SELECT heartbeat_at, pg_postmaster_start_time() AS started_at, now() AS read_at
FROM {schema}.instances
WHERE instance_id = $1";

/// The last look before the first byte leaves: the fence is still ours, and from here on the provider may have acted.
const INTENT_SEND: &str = "-- {schema}.intent_send
UPDATE {schema}.grants
SET intent_sent_at = now()
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3
  AND fence = $4
  AND lease_until > now()
RETURNING intent_sent_at";

const DUE_BUCKETS: &str = "-- {schema}.due_buckets
SELECT DISTINCT bucket
FROM {schema}.grants
WHERE next_refresh_at <= now()
  AND state IN ('unconfirmed', 'active', 'refresh_failing')";

const DUE_LIST: &str = "-- {schema}.due_list
SELECT tenant_id, grant_id, version
FROM {schema}.grants
WHERE bucket = $1
  AND next_refresh_at <= now()
  AND state IN ('unconfirmed', 'active', 'refresh_failing')
ORDER BY next_refresh_at
LIMIT $2";

const UNCONFIRMED_LIST: &str = "-- {schema}.unconfirmed_list
SELECT tenant_id, grant_id
FROM {schema}.grants
WHERE confirm_until <= now()
ORDER BY confirm_until
LIMIT $1";

const INTENT_LIST: &str = "-- {schema}.intent_list
SELECT tenant_id, grant_id
FROM {schema}.grants
WHERE intent_instance = $1";

const ABANDONED_DELETE: &str = "-- {schema}.abandoned_delete
DELETE FROM {schema}.grants
WHERE state IN ('exchanging', 'exchange_failed')
  AND created_at < now() - interval '1 hour'";

impl Store {
    /// For how long an instance has been silent while it could have been heard; `None` where it never was.
    pub(crate) async fn instance_silence(
        &self,
        instance: Uuid,
    ) -> Result<Option<Duration>, StoreError> {
        let Some(row) = self
            .db
            .query_opt(Scope::System, INSTANCE_HEARD, &[&instance])
            .await?
        else {
            return Ok(None);
        };
        let heartbeat_at: OffsetDateTime = get(&row, "heartbeat_at")?;
        // While the database was down nobody could be heard.
        let heard_at = heartbeat_at.max(get(&row, "started_at")?);
        let read_at: OffsetDateTime = get(&row, "read_at")?;
        Ok(Some(
            Duration::try_from(read_at - heard_at).unwrap_or_default(),
        ))
    }

    /// Notes that the request is on its way; `None` where the lease is somebody else's now.
    pub(crate) async fn intent_send(
        &self,
        key: GrantKey,
        fence: i64,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let params: &[&(dyn pg::ToSql + Sync)] =
            &[&key.tenant.bucket(), &key.tenant.id(), &key.id, &fence];
        let row = self
            .db
            .query_opt(Scope::Tenant(key.tenant), INTENT_SEND, params)
            .await?;
        row.map(|row| get(&row, "intent_sent_at")).transpose()
    }

    /// The buckets in which a refresh is due.
    pub(crate) async fn due_buckets(&self) -> Result<Vec<i16>, StoreError> {
        let rows = self.db.query(Scope::System, DUE_BUCKETS, &[]).await?;
        rows.iter().map(|row| get(row, "bucket")).collect()
    }

    /// The grants of a bucket whose refresh is due, and their versions.
    pub(crate) async fn due_list(
        &self,
        bucket: i16,
        limit: i64,
    ) -> Result<Vec<(GrantKey, i64)>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, DUE_LIST, &[&bucket, &limit])
            .await?;
        rows.iter()
            .map(|row| Ok((key_from(row)?, get(row, "version")?)))
            .collect()
    }

    /// Grants that nobody has confirmed in time.
    pub(crate) async fn unconfirmed_list(&self, limit: i64) -> Result<Vec<GrantKey>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, UNCONFIRMED_LIST, &[&limit])
            .await?;
        rows.iter().map(key_from).collect()
    }

    /// Grants with an open intent of this instance.
    pub(crate) async fn intent_list(&self, instance: Uuid) -> Result<Vec<GrantKey>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, INTENT_LIST, &[&instance])
            .await?;
        rows.iter().map(key_from).collect()
    }

    /// Forgets exchanges that came to nothing long ago.
    pub(crate) async fn abandoned_delete(&self) -> Result<u64, StoreError> {
        Ok(self
            .db
            .execute(Scope::System, ABANDONED_DELETE, &[])
            .await?)
    }
}
