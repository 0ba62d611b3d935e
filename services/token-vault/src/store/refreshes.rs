//! The lease on a grant: taken, proved, and what is due.

use std::time::Duration;

use common::pg::{self, Scope};
use time::OffsetDateTime;
use uuid::Uuid;

use super::grant_row::key_from;
use super::{Store, StoreError, get};
use crate::grant::{Grant, GrantKey, Silence};

/// The heartbeat of the intent's instance, and the time since which it could have been written at all.
const INSTANCE_HEARD: &str = "-- {schema}.instance_hear
SELECT pg_postmaster_start_time() AS started_at, now() AS read_at, (
    SELECT heartbeat_at
    FROM {schema}.instances
    WHERE instance_id = $1
) AS heartbeat_at";

/// The last look before the first byte leaves: the fence is still ours, and from here on the provider may have acted. The
/// lease begins anew, so that each request of an attempt has a whole one before it.
const INTENT_SEND: &str = "-- {schema}.intent_send
UPDATE {schema}.grants
SET intent_sent_at = now(),
    lease_until = now() + $5 * interval '1 second'
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3
  AND fence = $4
  AND lease_until > now()
RETURNING now() AS sent_at";

/// As the other one, where the same token was sent before and nobody knows what came of it: it counts from then.
const INTENT_REPEAT: &str = "-- {schema}.intent_repeat
UPDATE {schema}.grants
SET lease_until = now() + $5 * interval '1 second'
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3
  AND fence = $4
  AND lease_until > now()
RETURNING now() AS sent_at";

const DUE_BUCKETS: &str = "-- {schema}.due_buckets
SELECT DISTINCT bucket
FROM {schema}.grants
WHERE next_refresh_at <= now()
  AND state IN ('unconfirmed', 'active', 'refresh_failing')";

/// Takes what is due for a minute, so that no other vault looks at it meanwhile; what becomes of it says when it is due
/// again. Clients for whom nothing can be done at present are left out.
const DUE_TAKE: &str = "-- {schema}.due_take
WITH due AS (
    SELECT tenant_id, grant_id
    FROM {schema}.grants
    WHERE bucket = $1
      AND next_refresh_at <= now()
      AND state IN ('unconfirmed', 'active', 'refresh_failing')
      AND (oauth_client_id IS NULL OR oauth_client_id <> ALL ($3))
    ORDER BY next_refresh_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.grants
SET next_refresh_at = now() + interval '1 minute'
FROM due
WHERE grants.bucket = $1
  AND grants.tenant_id = due.tenant_id
  AND grants.grant_id = due.grant_id
RETURNING grants.tenant_id, grants.grant_id, grants.version";

/// Refreshes of others who have not been heard of since, and of those who came back without an answer. Few rows have an
/// intent at any time.
const ORPHANS_LIST: &str = "-- {schema}.orphans_list
SELECT grants.tenant_id, grants.grant_id, grants.version
FROM {schema}.grants
LEFT JOIN {schema}.instances ON instances.instance_id = grants.intent_instance
WHERE grants.intent_instance IS NOT NULL
  AND grants.intent_instance <> $1
  AND grants.intent_kind = 'refresh'
  AND (grants.intent_instance = '00000000-0000-0000-0000-000000000000' OR (
    grants.intent_at <= now() - interval '3 seconds'
    AND (instances.heartbeat_at IS NULL OR instances.heartbeat_at <= now() - interval '3 seconds')
  ))
ORDER BY grants.intent_at DESC
LIMIT $2";

const REMINDERS_LIST: &str = "-- {schema}.reminders_list
SELECT tenant_id, grant_id
FROM {schema}.grants
WHERE remind_at <= now()
ORDER BY remind_at
LIMIT $1";

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
    /// For how long an instance has been silent while it could have been heard.
    pub(crate) async fn instance_silence(&self, instance: Uuid) -> Result<Silence, StoreError> {
        let row = self
            .db
            .query_one(Scope::System, INSTANCE_HEARD, &[&instance])
            .await?;
        let read_at: OffsetDateTime = get(&row, "read_at")?;
        let ago = |at| Duration::try_from(read_at - at).unwrap_or_default();
        // While the database was down nobody could be heard.
        let audible = ago(get(&row, "started_at")?);
        let heartbeat_at: Option<OffsetDateTime> = get(&row, "heartbeat_at")?;
        Ok(Silence {
            instance,
            since: heartbeat_at.map(|at| ago(at).min(audible)),
            audible,
        })
    }

    /// Notes that the request is on its way; `None` where the lease is somebody else's now.
    pub(crate) async fn intent_send(
        &self,
        grant: &Grant,
        lease: Duration,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let (key, lease) = (grant.key, lease.as_secs_f64());
        let params: &[&(dyn pg::ToSql + Sync)] = &[
            &key.tenant.bucket(),
            &key.tenant.id(),
            &key.id,
            &grant.fence,
            &lease,
        ];
        let is_repeated = grant.intent.is_some_and(|intent| intent.sent_at.is_some());
        let statement = if is_repeated {
            INTENT_REPEAT
        } else {
            INTENT_SEND
        };
        let row = self
            .db
            .query_opt(Scope::Tenant(key.tenant), statement, params)
            .await?;
        row.map(|row| get(&row, "sent_at")).transpose()
    }

    /// The buckets in which a refresh is due.
    pub(crate) async fn due_buckets(&self) -> Result<Vec<i16>, StoreError> {
        let rows = self.db.query(Scope::System, DUE_BUCKETS, &[]).await?;
        rows.iter().map(|row| get(row, "bucket")).collect()
    }

    /// Takes grants of a bucket whose refresh is due, and their versions, but for those of some clients.
    pub(crate) async fn due_take(
        &self,
        bucket: i16,
        limit: i64,
        but_of: &[Uuid],
    ) -> Result<Vec<(GrantKey, i64)>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, DUE_TAKE, &[&bucket, &limit, &but_of])
            .await?;
        rows.iter()
            .map(|row| Ok((key_from(row)?, get(row, "version")?)))
            .collect()
    }

    /// Grants that a vault is refreshing, or was, of which nothing has been heard for a while, and their versions.
    pub(crate) async fn orphans_list(
        &self,
        but_of: Uuid,
        limit: i64,
    ) -> Result<Vec<(GrantKey, i64)>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, ORPHANS_LIST, &[&but_of, &limit])
            .await?;
        rows.iter()
            .map(|row| Ok((key_from(row)?, get(row, "version")?)))
            .collect()
    }

    /// Grants whose near end others are to be told of.
    pub(crate) async fn reminders_list(&self, limit: i64) -> Result<Vec<GrantKey>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, REMINDERS_LIST, &[&limit])
            .await?;
        rows.iter().map(key_from).collect()
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
