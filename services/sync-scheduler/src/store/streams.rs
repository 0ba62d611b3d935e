//! Streams: where the lease lies and the cursor is kept.

use common::TenantKey;
use common::pg::{Error, Row, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;
use crate::stream::{Stream, StreamKey};

macro_rules! columns {
    () => {
        "bucket, tenant_id, connection_id, external_account_id, stream, provider, integration_id, user_id, user_email,
    epoch, running_job_id, cursor_json, cursor_version, queue, cadence_seconds, backfilled_from, next_run_at, updated_at"
    };
}

const STREAM_ENSURE: &str = "\
-- scheduler.stream_ensure
INSERT INTO scheduler.streams (
    bucket, tenant_id, connection_id, external_account_id, stream, provider, integration_id, user_id, user_email,
    created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
ON CONFLICT (bucket, connection_id, external_account_id, stream)
DO UPDATE SET user_id = EXCLUDED.user_id,
    user_email = EXCLUDED.user_email";

const STREAM_LOCK: &str = concat!(
    "-- scheduler.stream_lock\nSELECT ",
    columns!(),
    "
FROM scheduler.streams
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4
FOR UPDATE"
);

/// In the order of their keys, as everybody takes them who takes several.
const STREAM_HELD_LOCK: &str = concat!(
    "-- scheduler.stream_held_lock\nSELECT ",
    columns!(),
    "
FROM scheduler.streams
WHERE bucket = $1
    AND (connection_id, external_account_id, stream) IN (
        SELECT connection_id, external_account_id, stream
        FROM scheduler.jobs
        WHERE bucket = $1
            AND job_id = ANY ($2))
ORDER BY connection_id, external_account_id, stream
FOR UPDATE"
);

/// What somebody else is at is left out.
const STREAM_CLAIM: &str = concat!(
    "-- scheduler.stream_claim\nSELECT ",
    columns!(),
    "
FROM scheduler.streams
WHERE bucket = $1
    AND (running_job_id IS NULL OR running_job_id = ANY ($2) OR lease_until <= now())
    AND (connection_id, external_account_id, stream) IN (
        SELECT connection_id, external_account_id, stream
        FROM scheduler.jobs
        WHERE bucket = $1
            AND job_id = ANY ($2))
ORDER BY connection_id, external_account_id, stream
FOR UPDATE SKIP LOCKED"
);

const STREAM_LEASE: &str = "\
-- scheduler.stream_lease
UPDATE scheduler.streams
SET running_job_id = $5,
    epoch = epoch + 1,
    lease_until = now() + make_interval(secs => $6),
    updated_at = now()
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4
RETURNING epoch";

const STREAM_EXTEND: &str = "\
-- scheduler.stream_extend
UPDATE scheduler.streams
SET lease_until = now() + make_interval(secs => $5)
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4";

const STREAM_RELEASE: &str = "\
-- scheduler.stream_release
UPDATE scheduler.streams
SET running_job_id = NULL,
    lease_until = NULL,
    updated_at = now()
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4
    AND running_job_id = $5";

const STREAM_PREPARE: &str = "\
-- scheduler.stream_prepare
UPDATE scheduler.streams
SET queue = $5,
    cadence_seconds = $6
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4";

const STREAM_BACKFILLED: &str = "\
-- scheduler.stream_backfilled
UPDATE scheduler.streams
SET backfilled_from = $5,
    next_run_at = $6
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4";

const STREAM_TICK: &str = "\
-- scheduler.stream_tick
UPDATE scheduler.streams
SET next_run_at = $5
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND stream = $4";

/// Over all buckets on purpose: which of them are to be looked into.
const STREAM_DUE_BUCKETS: &str = "\
-- scheduler.stream_due_buckets
SELECT DISTINCT bucket
FROM scheduler.streams
WHERE next_run_at <= $1";

const STREAM_DUE: &str = concat!(
    "-- scheduler.stream_due\nSELECT ",
    columns!(),
    "
FROM scheduler.streams
WHERE bucket = $1
    AND next_run_at <= $2
ORDER BY next_run_at
LIMIT $3
FOR UPDATE SKIP LOCKED"
);

/// Over all buckets on purpose: how long there is nothing to look for.
const STREAM_NEXT_RUN: &str = "\
-- scheduler.stream_next_run
SELECT min(next_run_at) AS next_run_at
FROM scheduler.streams
WHERE next_run_at IS NOT NULL";

const STREAM_UNSCHEDULE: &str = "\
-- scheduler.stream_unschedule
UPDATE scheduler.streams
SET next_run_at = NULL
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3";

const STREAM_RESCHEDULE: &str = "\
-- scheduler.stream_reschedule
UPDATE scheduler.streams
SET next_run_at = $4
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND backfilled_from IS NOT NULL
    AND cadence_seconds IS NOT NULL
    AND next_run_at IS NULL";

const STREAM_LIST: &str = concat!(
    "-- scheduler.stream_list\nSELECT ",
    columns!(),
    "
FROM scheduler.streams
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
ORDER BY external_account_id, stream"
);

/// Makes the stream's row where it is missing; the connection's user is brought up to date.
pub(crate) async fn stream_ensure(tx: &Tx, stream: &Stream) -> Result<(), Error> {
    let key = &stream.key;
    tx.execute(
        STREAM_ENSURE,
        &[
            &key.tenant.bucket(),
            &key.tenant.id(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &stream.provider,
            &stream.integration_id,
            &stream.user_id,
            &stream.user_email,
            &stream.updated_at,
        ],
    )
    .await
    .map(drop)
}

/// The stream, kept from others until the transaction ends.
pub(crate) async fn stream_lock(tx: &Tx, key: &StreamKey) -> Result<Option<Stream>, Error> {
    let row = tx
        .query_opt(
            STREAM_LOCK,
            &[
                &key.tenant.bucket(),
                &key.connection_id,
                &key.external_account_id,
                &key.stream,
            ],
        )
        .await?;
    Ok(row.as_ref().map(stream))
}

/// The streams of these jobs, kept from others until the transaction ends.
pub(crate) async fn stream_held_lock(
    tx: &Tx,
    bucket: i16,
    job_ids: &[Uuid],
) -> Result<Vec<Stream>, Error> {
    Ok(tx
        .query(STREAM_HELD_LOCK, &[&bucket, &job_ids])
        .await?
        .iter()
        .map(stream)
        .collect())
}

/// Those of the jobs' streams that are free, and nobody else is about to take.
pub(crate) async fn stream_claim(
    tx: &Tx,
    bucket: i16,
    job_ids: &[Uuid],
) -> Result<Vec<Stream>, Error> {
    Ok(tx
        .query(STREAM_CLAIM, &[&bucket, &job_ids])
        .await?
        .iter()
        .map(stream)
        .collect())
}

/// Takes the lease of a stream that is locked; tells the new epoch.
pub(crate) async fn stream_lease(
    tx: &Tx,
    key: &StreamKey,
    job_id: Uuid,
    lease: f64,
) -> Result<i64, Error> {
    let row = tx
        .query_one(
            STREAM_LEASE,
            &[
                &key.tenant.bucket(),
                &key.connection_id,
                &key.external_account_id,
                &key.stream,
                &job_id,
                &lease,
            ],
        )
        .await?;
    Ok(row.get("epoch"))
}

/// Extends the lease of a stream that is locked.
pub(crate) async fn stream_extend(tx: &Tx, key: &StreamKey, lease: f64) -> Result<(), Error> {
    tx.execute(
        STREAM_EXTEND,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &lease,
        ],
    )
    .await
    .map(drop)
}

/// Gives the lease back where this job holds it.
pub(crate) async fn stream_release(tx: &Tx, key: &StreamKey, job_id: Uuid) -> Result<(), Error> {
    tx.execute(
        STREAM_RELEASE,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &job_id,
        ],
    )
    .await
    .map(drop)
}

/// Sets who serves the stream's scheduled runs, and how often they are to be.
pub(crate) async fn stream_prepare(
    tx: &Tx,
    key: &StreamKey,
    queue: &str,
    cadence_seconds: Option<i32>,
) -> Result<(), Error> {
    tx.execute(
        STREAM_PREPARE,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &queue,
            &cadence_seconds,
        ],
    )
    .await
    .map(drop)
}

/// Its history is there, and its schedule begins.
pub(crate) async fn stream_backfilled(
    tx: &Tx,
    key: &StreamKey,
    from: Option<OffsetDateTime>,
    next_run_at: Option<OffsetDateTime>,
) -> Result<(), Error> {
    tx.execute(
        STREAM_BACKFILLED,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &from,
            &next_run_at,
        ],
    )
    .await
    .map(drop)
}

/// Sets when its schedule is due next.
pub(crate) async fn stream_tick(
    tx: &Tx,
    key: &StreamKey,
    next_run_at: Option<OffsetDateTime>,
) -> Result<(), Error> {
    tx.execute(
        STREAM_TICK,
        &[
            &key.tenant.bucket(),
            &key.connection_id,
            &key.external_account_id,
            &key.stream,
            &next_run_at,
        ],
    )
    .await
    .map(drop)
}

/// The buckets with schedules that are due.
pub(crate) async fn stream_due_buckets(tx: &Tx, now: OffsetDateTime) -> Result<Vec<i16>, Error> {
    Ok(tx
        .query(STREAM_DUE_BUCKETS, &[&now])
        .await?
        .iter()
        .map(|row| row.get("bucket"))
        .collect())
}

/// Streams of a bucket whose schedule is due, kept from others.
pub(crate) async fn stream_due(
    tx: &Tx,
    bucket: i16,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Stream>, Error> {
    Ok(tx
        .query(STREAM_DUE, &[&bucket, &now, &limit])
        .await?
        .iter()
        .map(stream)
        .collect())
}

/// When the next schedule is due, over all buckets.
pub(crate) async fn stream_next_run(tx: &Tx) -> Result<Option<OffsetDateTime>, Error> {
    Ok(tx.query_one(STREAM_NEXT_RUN, &[]).await?.get("next_run_at"))
}

/// Stops the schedules of a connection; their cadence is kept.
pub(crate) async fn stream_unschedule(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<(), Error> {
    tx.execute(
        STREAM_UNSCHEDULE,
        &[&tenant.bucket(), &tenant.id(), &connection_id],
    )
    .await
    .map(drop)
}

/// Starts again what [`stream_unschedule`] stopped.
pub(crate) async fn stream_reschedule(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
    next_run_at: OffsetDateTime,
) -> Result<(), Error> {
    tx.execute(
        STREAM_RESCHEDULE,
        &[&tenant.bucket(), &tenant.id(), &connection_id, &next_run_at],
    )
    .await
    .map(drop)
}

/// The streams of a connection.
pub(crate) async fn stream_list(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Stream>, Error> {
    Ok(tx
        .query(
            STREAM_LIST,
            &[&tenant.bucket(), &tenant.id(), &connection_id],
        )
        .await?
        .iter()
        .map(stream)
        .collect())
}

fn stream(row: &Row) -> Stream {
    Stream {
        key: StreamKey {
            tenant: tenant(row),
            connection_id: row.get("connection_id"),
            external_account_id: row.get("external_account_id"),
            stream: row.get("stream"),
        },
        provider: row.get("provider"),
        integration_id: row.get("integration_id"),
        user_id: row.get("user_id"),
        user_email: row.get("user_email"),
        epoch: row.get("epoch"),
        running_job_id: row.get("running_job_id"),
        cursor_json: row.get("cursor_json"),
        cursor_version: row.get("cursor_version"),
        queue: row.get("queue"),
        cadence_seconds: row.get("cadence_seconds"),
        backfilled_from: row.get("backfilled_from"),
        next_run_at: row.get("next_run_at"),
        updated_at: row.get("updated_at"),
    }
}
