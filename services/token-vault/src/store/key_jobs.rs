//! Work that goes through all keys: who is at it, how far it is, and what the keys' state is as a whole.

use common::TenantKey;
use common::identity::Actor;
use common::pg::{Row, Scope, ToSql, Tx, audit};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, get, tenant, word};
use crate::text_enum::text_enum;

const TABLE: &str = "key_jobs";

pub(super) const KEY_JOB_ADD: &str = "-- {schema}.key_job_add
INSERT INTO {schema}.key_jobs (job_id, kind, subject, requested_at, lease_until)
VALUES ($1, $2, $3, now(), now())
ON CONFLICT (kind, subject) WHERE finished_at IS NULL DO NOTHING";

/// A key-encryption key that is current no more is not wrapped under.
const KEY_JOBS_OVERRULE: &str = "-- {schema}.key_jobs_overrule
UPDATE {schema}.key_jobs
SET finished_at = now(),
    fence = fence + 1
WHERE kind = 'rewrap'
  AND subject <> $1
  AND finished_at IS NULL";

const KEY_JOB_CLAIM: &str = "-- {schema}.key_job_claim
UPDATE {schema}.key_jobs
SET fence = fence + 1,
    lease_until = now() + interval '30 seconds'
WHERE job_id = (
    SELECT job_id
    FROM {schema}.key_jobs
    WHERE finished_at IS NULL
      AND lease_until <= now()
      AND (kind <> 'rewrap' OR subject = $1)
    ORDER BY requested_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING job_id, kind, subject, requested_at, fence, passes";

const KEY_JOB_ADVANCE: &str = "-- {schema}.key_job_advance
UPDATE {schema}.key_jobs
SET done = done + $3,
    failed = failed + $4,
    lease_until = now() + interval '30 seconds'
WHERE job_id = $1
  AND fence = $2
  AND finished_at IS NULL";

/// Rests until nobody seals under a version that was superseded by the pass before.
const KEY_JOB_REST: &str = "-- {schema}.key_job_rest
UPDATE {schema}.key_jobs
SET passes = passes + 1,
    lease_until = now() + interval '10 minutes'
WHERE job_id = $1
  AND fence = $2
  AND finished_at IS NULL";

const KEY_JOB_PUT_OFF: &str = "-- {schema}.key_job_put_off
UPDATE {schema}.key_jobs
SET lease_until = now() + interval '10 seconds'
WHERE job_id = $1
  AND fence = $2
  AND finished_at IS NULL";

const KEY_JOB_FINISH: &str = "-- {schema}.key_job_finish
UPDATE {schema}.key_jobs
SET passes = passes + 1,
    finished_at = now()
WHERE job_id = $1
  AND fence = $2
  AND finished_at IS NULL
RETURNING done, failed";

const REWRAP_BUCKETS: &str = "-- {schema}.rewrap_buckets
SELECT DISTINCT bucket
FROM {schema}.data_keys
WHERE kek_id <> $1";

const REWRAP_LIST: &str = "-- {schema}.rewrap_list
SELECT tenant_id, version, wrapped
FROM {schema}.data_keys
WHERE bucket = $1
  AND kek_id <> $2
  AND (tenant_id, version) > ($3, $4)
ORDER BY tenant_id, version
LIMIT $5";

const REWRAP_STORE: &str = "-- {schema}.rewrap_store
UPDATE {schema}.data_keys
SET wrapped = new.wrapped,
    kek_id = $2
FROM unnest($3::uuid[], $4::integer[], $5::bytea[], $6::bytea[]) AS new (tenant_id, version, before, wrapped)
WHERE data_keys.bucket = $1
  AND data_keys.tenant_id = new.tenant_id
  AND data_keys.version = new.version
  AND data_keys.wrapped = new.before";

/// Each count ends at `$2`, so that looking never costs more than that.
const KEY_STATUS: &str = "-- {schema}.key_status
SELECT (SELECT count(*) FROM (SELECT FROM {schema}.data_keys LIMIT $2) AS counted) AS data_keys,
    (SELECT count(*) FROM (
        SELECT FROM {schema}.data_keys WHERE kek_id < $1
        UNION ALL
        SELECT FROM {schema}.data_keys WHERE kek_id > $1
        LIMIT $2
    ) AS counted) AS under_older_keks,
    (SELECT count(*) FROM (
        SELECT FROM {schema}.tenant_keys AS keys
        JOIN {schema}.grants ON grants.bucket = keys.bucket
          AND grants.tenant_id = keys.tenant_id
          AND grants.oldest_key_version < int4send(keys.current_version)
        WHERE keys.resealed_version < keys.current_version
          AND keys.shredded_at IS NULL
        UNION ALL
        SELECT FROM {schema}.tenant_keys AS keys
        JOIN {schema}.oauth_clients AS clients ON clients.bucket = keys.bucket
          AND clients.tenant_id = keys.tenant_id
          AND clients.secret IS NOT NULL
          AND clients.key_version < keys.current_version
        WHERE keys.resealed_version < keys.current_version
          AND keys.shredded_at IS NULL
        UNION ALL
        SELECT FROM {schema}.tenant_keys AS keys
        JOIN {schema}.revocations ON revocations.bucket = keys.bucket
          AND revocations.tenant_id = keys.tenant_id
          AND revocations.key_version < keys.current_version
        WHERE keys.resealed_version < keys.current_version
          AND keys.shredded_at IS NULL
        LIMIT $2
    ) AS counted) AS under_older_data_keys";

const RETIRE_LIST: &str = "-- {schema}.retire_list
SELECT tenant_id, version, superseded_at
FROM {schema}.data_keys
WHERE superseded_at < now() - interval '30 days'
  AND NOT is_handed_out
  AND (superseded_at, tenant_id, version) > ($1, $2, $3)
ORDER BY superseded_at, tenant_id, version
LIMIT $4";

/// Only what nothing is sealed under any more.
const DATA_KEY_RETIRE: &str = "-- {schema}.data_key_retire
DELETE FROM {schema}.data_keys
WHERE bucket = $1
  AND tenant_id = $2
  AND version = $3
  AND superseded_at < now() - interval '30 days'
  AND NOT is_handed_out
  AND NOT EXISTS (
    SELECT FROM {schema}.grants
    WHERE bucket = $1
      AND tenant_id = $2
      AND oldest_key_version <= int4send($3)
  )
  AND NOT EXISTS (
    SELECT FROM {schema}.oauth_clients
    WHERE bucket = $1
      AND tenant_id = $2
      AND key_version <= $3
      AND (secret IS NOT NULL OR previous_secret IS NOT NULL)
  )
  AND NOT EXISTS (
    SELECT FROM {schema}.revocations
    WHERE bucket = $1
      AND tenant_id = $2
      AND key_version <= $3
  )";

text_enum! {
    /// What a job does.
    pub(crate) enum KeyJobKind {
        /// Wraps every data key under one key-encryption key.
        Rewrap = "rewrap",
        /// Makes new data keys, and seals under them what older ones sealed.
        Rotate = "rotate",
        /// Removes what destroyed keys have sealed.
        Erase = "erase",
    }
}

/// A job under a lease.
#[derive(Clone, Debug)]
pub(crate) struct KeyJob {
    pub(crate) id: Uuid,
    pub(crate) kind: KeyJobKind,
    /// The key-encryption key, the tenant, or [`EVERY_TENANT`].
    pub(crate) subject: String,
    /// By the database's clock.
    pub(crate) requested_at: OffsetDateTime,
    pub(crate) fence: i64,
    /// How often it has gone through everything.
    pub(crate) passes: i32,
}

/// The subject of a rotation that is every tenant's.
pub(crate) const EVERY_TENANT: &str = "*";

/// A data key that is to be wrapped anew.
#[derive(Clone, Debug)]
pub(crate) struct WrappedKey {
    pub(crate) tenant: TenantKey,
    pub(crate) version: i32,
    pub(crate) wrapped: Vec<u8>,
}

/// The keys' state as a whole. No count goes beyond [`MOST_COUNTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyStatus {
    pub(crate) data_keys: i64,
    pub(crate) under_older_keks: i64,
    /// Rows with something that an older data key sealed.
    pub(crate) under_older_data_keys: i64,
}

/// Where counting ends.
const MOST_COUNTED: i64 = 1_000_000;

/// A data key that was superseded long ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superseded {
    pub(crate) tenant: TenantKey,
    pub(crate) version: i32,
    pub(crate) at: OffsetDateTime,
}

impl Store {
    /// Puts a job on the list, unless the same one is on it already; noted in either case.
    pub(crate) async fn key_job_add(
        &self,
        kind: KeyJobKind,
        subject: &str,
        tenant: TenantKey,
        actor: &Actor,
        action: &'static str,
    ) -> Result<(), StoreError> {
        let (subject, actor, noted) = (subject.to_owned(), actor.clone(), action.to_owned());
        self.db
            .run_tx(action, Scope::System, async move |tx: &Tx| {
                let id = TenantKey::PLATFORM.new_id(tx.deps());
                if kind == KeyJobKind::Rewrap {
                    tx.execute(KEY_JOBS_OVERRULE, &[&subject]).await?;
                }
                tx.execute(KEY_JOB_ADD, &[&id, &kind.as_str(), &subject])
                    .await?;
                let resource = format!("{TABLE}/{}/{subject}", kind.as_str());
                audit::append(tx, tenant, &actor, &noted, &resource, "").await?;
                Ok(())
            })
            .await
    }

    /// The oldest job that nobody is at, taken for half a minute. One that wraps is taken only where `kek_id` wraps.
    pub(crate) async fn key_job_claim(&self, kek_id: &str) -> Result<Option<KeyJob>, StoreError> {
        let row = self
            .db
            .query_opt(Scope::System, KEY_JOB_CLAIM, &[&kek_id])
            .await?;
        row.as_ref().map(job_from).transpose()
    }

    /// Notes how far the job is, and keeps it; `false` where it is somebody else's now.
    pub(crate) async fn key_job_advance(
        &self,
        job: &KeyJob,
        done: i64,
        failed: i64,
    ) -> Result<bool, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&job.id, &job.fence, &done, &failed];
        let kept = self
            .db
            .execute(Scope::System, KEY_JOB_ADVANCE, params)
            .await?;
        Ok(kept == 1)
    }

    /// One pass is over; the next is made when whoever seals has got the new keys.
    pub(crate) async fn key_job_rest(&self, job: &KeyJob) -> Result<(), StoreError> {
        self.db
            .execute(Scope::System, KEY_JOB_REST, &[&job.id, &job.fence])
            .await?;
        Ok(())
    }

    /// Lets go of the job for a while.
    pub(crate) async fn key_job_put_off(&self, job: &KeyJob) -> Result<(), StoreError> {
        self.db
            .execute(Scope::System, KEY_JOB_PUT_OFF, &[&job.id, &job.fence])
            .await?;
        Ok(())
    }

    /// The job is over: how many were done, and how many could not be.
    pub(crate) async fn key_job_finish(
        &self,
        job: &KeyJob,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let row = self
            .db
            .query_opt(Scope::System, KEY_JOB_FINISH, &[&job.id, &job.fence])
            .await?;
        row.map(|row| Ok((get(&row, "done")?, get(&row, "failed")?)))
            .transpose()
    }

    /// The buckets with data keys that are not under `kek_id`.
    pub(crate) async fn rewrap_buckets(&self, kek_id: &str) -> Result<Vec<i16>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, REWRAP_BUCKETS, &[&kek_id])
            .await?;
        rows.iter().map(|row| get(row, "bucket")).collect()
    }

    /// The bucket's data keys behind `after` that are not under `kek_id`.
    pub(crate) async fn rewrap_list(
        &self,
        bucket: i16,
        kek_id: &str,
        after: (Uuid, i32),
        limit: i64,
    ) -> Result<Vec<WrappedKey>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&bucket, &kek_id, &after.0, &after.1, &limit];
        let rows = self.db.query(Scope::System, REWRAP_LIST, params).await?;
        rows.iter()
            .map(|row| {
                Ok(WrappedKey {
                    tenant: tenant(row, "data_keys", "tenant_id")?,
                    version: get(row, "version")?,
                    wrapped: get(row, "wrapped")?,
                })
            })
            .collect()
    }

    /// Replaces those that are as they were read; how many that was.
    pub(crate) async fn rewrap_store(
        &self,
        bucket: i16,
        kek_id: &str,
        keys: &[(WrappedKey, Vec<u8>)],
    ) -> Result<u64, StoreError> {
        let tenants: Vec<Uuid> = keys.iter().map(|(key, _)| key.tenant.id()).collect();
        let versions: Vec<i32> = keys.iter().map(|(key, _)| key.version).collect();
        let before: Vec<&[u8]> = keys.iter().map(|(key, _)| key.wrapped.as_slice()).collect();
        let after: Vec<&[u8]> = keys.iter().map(|(_, wrapped)| wrapped.as_slice()).collect();
        let params: &[&(dyn ToSql + Sync)] =
            &[&bucket, &kek_id, &tenants, &versions, &before, &after];
        Ok(self.db.execute(Scope::System, REWRAP_STORE, params).await?)
    }

    /// How many keys and values there are, and how many of them are behind.
    pub(crate) async fn key_status(&self, kek_id: &str) -> Result<KeyStatus, StoreError> {
        let row = self
            .db
            .query_one(Scope::System, KEY_STATUS, &[&kek_id, &MOST_COUNTED])
            .await?;
        Ok(KeyStatus {
            data_keys: get(&row, "data_keys")?,
            under_older_keks: get(&row, "under_older_keks")?,
            under_older_data_keys: get(&row, "under_older_data_keys")?,
        })
    }

    /// Data keys that were superseded a month ago or more, and that no service has a key of.
    pub(crate) async fn retire_list(
        &self,
        after: Option<&Superseded>,
        limit: i64,
    ) -> Result<Vec<Superseded>, StoreError> {
        let after = after.map_or((OffsetDateTime::UNIX_EPOCH, Uuid::nil(), 0), |last| {
            (last.at, last.tenant.id(), last.version)
        });
        let params: &[&(dyn ToSql + Sync)] = &[&after.0, &after.1, &after.2, &limit];
        let rows = self.db.query(Scope::System, RETIRE_LIST, params).await?;
        rows.iter()
            .map(|row| {
                Ok(Superseded {
                    tenant: tenant(row, "data_keys", "tenant_id")?,
                    version: get(row, "version")?,
                    at: get(row, "superseded_at")?,
                })
            })
            .collect()
    }

    /// Destroys a data key if nothing is sealed under it, or an older one, any more.
    pub(crate) async fn data_key_retire(&self, key: &Superseded) -> Result<bool, StoreError> {
        let params: &[&(dyn ToSql + Sync)] =
            &[&key.tenant.bucket(), &key.tenant.id(), &key.version];
        let retired = self
            .db
            .execute(Scope::Tenant(key.tenant), DATA_KEY_RETIRE, params)
            .await?;
        Ok(retired == 1)
    }
}

fn job_from(row: &Row) -> Result<KeyJob, StoreError> {
    Ok(KeyJob {
        id: get(row, "job_id")?,
        kind: word(row, TABLE, "kind", KeyJobKind::from_word)?,
        subject: get(row, "subject")?,
        requested_at: get(row, "requested_at")?,
        fence: get(row, "fence")?,
        passes: get(row, "passes")?,
    })
}
