//! Jobs: what is asked for, and what became of it. Who works on one is in [`leases`](super::leases).

use common::TenantKey;
use common::pg::{Error, Json, Row, Tx};
use contracts::scheduler::v1::{JobKind, JobState, TriggerSource};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;
use crate::job::{Job, NOT_BEGUN};
use crate::stream::StreamKey;

const JOB_INSERT: &str = "\
-- scheduler.job_insert
INSERT INTO scheduler.jobs (
    bucket, tenant_id, job_id, run_id, connection_id, external_account_id, stream, provider, integration_id, queue,
    kind, state, triggered_by, user_id, owner_id, priority, window_start, window_end, external_ids, due_at,
    max_attempts, traceparent, scheduled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)";

const JOB_GET: &str = concat!(
    "-- scheduler.job_get\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND job_id = $3"
);

const JOB_LOCK: &str = concat!(
    "-- scheduler.job_lock\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND job_id = $3
FOR UPDATE"
);

const JOB_LIST: &str = concat!(
    "-- scheduler.job_list\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3::uuid IS NULL OR connection_id = $3)
    AND ($4::smallint = 0 OR state = $4)
    AND ($5::text IS NULL OR owner_id = $5)
    AND ($6::uuid IS NULL OR job_id < $6)
ORDER BY job_id DESC
LIMIT $7"
);

/// One that has not begun, or will begin anew: it sees what both ask for.
const JOB_WAITING_LOCK: &str = concat!(
    "-- scheduler.job_waiting_lock\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND external_account_id = $4
    AND stream = $5
    AND queue = $6
    AND state IN (1, 7)
    AND kind = 2
ORDER BY state, job_id
LIMIT 1
FOR UPDATE"
);

const JOB_UNFINISHED: &str = "\
-- scheduler.job_unfinished
SELECT EXISTS (
    SELECT
    FROM scheduler.jobs
    WHERE bucket = $1
        AND tenant_id = $2
        AND connection_id = $3
        AND external_account_id = $4
        AND stream = $5
        AND kind = 2
        AND state IN (1, 2, 3, 7, 8)) AS found";

/// It begins anew, so that nothing that either asks for is behind what it has read.
const JOB_WIDEN: &str = concat!(
    "-- scheduler.job_widen
UPDATE scheduler.jobs
SET external_ids = $3,
    cursor_version = $4,
    revision = revision + 1
WHERE bucket = $1
    AND job_id = $2
RETURNING ",
    job_columns!()
);

const JOB_SUPERSEDED_LOCK: &str = concat!(
    "-- scheduler.job_superseded_lock\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND run_id = ANY ($2)
    AND stream = ANY ($3)
    AND kind = 1
    AND state IN (1, 2, 3, 7)
ORDER BY job_id
FOR UPDATE"
);

const JOB_CURRENT: &str = concat!(
    "-- scheduler.job_current\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND state IN (1, 2, 3, 7, 8)
ORDER BY job_id"
);

const JOB_LAST: &str = concat!(
    "-- scheduler.job_last\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND state IN (4, 5, 6)
ORDER BY job_id DESC
LIMIT 1"
);

const JOB_RUN: &str = concat!(
    "-- scheduler.job_run\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND run_id = $2
ORDER BY job_id"
);

const JOB_CANCEL: &str = concat!(
    "-- scheduler.job_cancel
UPDATE scheduler.jobs
SET state = $3,
    finished_at = $4,
    waiting_for = '',
    revision = revision + 1
WHERE bucket = $1
    AND job_id = $2
RETURNING ",
    job_columns!()
);

const JOB_REQUEUE: &str = concat!(
    "-- scheduler.job_requeue
UPDATE scheduler.jobs
SET state = 3,
    due_at = $3,
    failures = 0,
    waiting_for = '',
    finished_at = NULL,
    revision = revision + 1
WHERE bucket = $1
    AND job_id = $2
RETURNING ",
    job_columns!()
);

const JOB_PARKED: &str = "\
-- scheduler.job_parked
SELECT job_id
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND state = 7
ORDER BY job_id
FOR UPDATE";

/// Writes a new job.
pub(crate) async fn job_insert(tx: &Tx, job: &Job) -> Result<(), Error> {
    tx.execute(
        JOB_INSERT,
        &[
            &job.key.tenant.bucket(),
            &job.key.tenant.id(),
            &job.id,
            &job.run_id,
            &job.key.connection_id,
            &job.key.external_account_id,
            &job.key.stream,
            &job.provider,
            &job.integration_id,
            &job.queue,
            &(job.kind as i16),
            &(job.state as i16),
            &(job.triggered_by as i16),
            &job.user_id,
            &job.owner_id,
            &job.priority,
            &job.window_start,
            &job.window_end,
            &job.external_ids,
            &job.due_at,
            &job.max_attempts,
            &job.traceparent,
            &job.scheduled_at,
        ],
    )
    .await
    .map(drop)
}

/// A job of the tenant's.
pub(crate) async fn job_get(
    tx: &Tx,
    tenant: TenantKey,
    job_id: Uuid,
) -> Result<Option<Job>, Error> {
    Ok(tx
        .query_opt(JOB_GET, &[&tenant.bucket(), &tenant.id(), &job_id])
        .await?
        .as_ref()
        .map(job))
}

/// A job of the tenant's, kept from others until the transaction ends.
pub(crate) async fn job_lock(
    tx: &Tx,
    tenant: TenantKey,
    job_id: Uuid,
) -> Result<Option<Job>, Error> {
    Ok(tx
        .query_opt(JOB_LOCK, &[&tenant.bucket(), &tenant.id(), &job_id])
        .await?
        .as_ref()
        .map(job))
}

/// Which jobs a list shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFilter {
    /// Of this connection.
    pub(crate) connection_id: Option<Uuid>,
    /// In this state; `None` for all.
    pub(crate) state: Option<JobState>,
    /// Of this user's connections.
    pub(crate) owner_id: Option<String>,
    /// Older than this one.
    pub(crate) before: Option<Uuid>,
}

/// Newest first.
pub(crate) async fn job_list(
    tx: &Tx,
    tenant: TenantKey,
    filter: &JobFilter,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let state = filter.state.map_or(0, |state| state as i16);
    let rows = tx
        .query(
            JOB_LIST,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &filter.connection_id,
                &state,
                &filter.owner_id,
                &filter.before,
                &limit,
            ],
        )
        .await?;
    Ok(rows.iter().map(job).collect())
}

/// The incremental job of a stream that another request for the same work joins, kept from others.
pub(crate) async fn job_waiting_lock(
    tx: &Tx,
    key: &StreamKey,
    queue: &str,
) -> Result<Option<Job>, Error> {
    let row = tx
        .query_opt(
            JOB_WAITING_LOCK,
            &[
                &key.tenant.bucket(),
                &key.tenant.id(),
                &key.connection_id,
                &key.external_account_id,
                &key.stream,
                &queue,
            ],
        )
        .await?;
    Ok(row.as_ref().map(job))
}

/// Whether the stream has an incremental job that is not over.
pub(crate) async fn job_unfinished(tx: &Tx, key: &StreamKey) -> Result<bool, Error> {
    let row = tx
        .query_one(
            JOB_UNFINISHED,
            &[
                &key.tenant.bucket(),
                &key.tenant.id(),
                &key.connection_id,
                &key.external_account_id,
                &key.stream,
            ],
        )
        .await?;
    Ok(row.get("found"))
}

/// Sets which records a waiting job is about.
pub(crate) async fn job_widen(tx: &Tx, found: &Job, external_ids: &[String]) -> Result<Job, Error> {
    let row = tx
        .query_one(
            JOB_WIDEN,
            &[
                &found.key.tenant.bucket(),
                &found.id,
                &external_ids,
                &NOT_BEGUN,
            ],
        )
        .await?;
    Ok(job(&row))
}

/// Jobs of older initial syncs of these streams that are not over, kept from others.
pub(crate) async fn job_superseded_lock(
    tx: &Tx,
    tenant: TenantKey,
    run_ids: &[Uuid],
    streams: &[String],
) -> Result<Vec<Job>, Error> {
    Ok(tx
        .query(JOB_SUPERSEDED_LOCK, &[&tenant.bucket(), &run_ids, &streams])
        .await?
        .iter()
        .map(job)
        .collect())
}

/// The connection's jobs that are not over.
pub(crate) async fn job_current(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Job>, Error> {
    let rows = tx
        .query(
            JOB_CURRENT,
            &[&tenant.bucket(), &tenant.id(), &connection_id],
        )
        .await?;
    Ok(rows.iter().map(job).collect())
}

/// The newest job of the connection's that is over.
pub(crate) async fn job_last(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Option<Job>, Error> {
    Ok(tx
        .query_opt(JOB_LAST, &[&tenant.bucket(), &tenant.id(), &connection_id])
        .await?
        .as_ref()
        .map(job))
}

/// The jobs that one request made.
pub(crate) async fn job_run(tx: &Tx, tenant: TenantKey, run_id: Uuid) -> Result<Vec<Job>, Error> {
    Ok(tx
        .query(JOB_RUN, &[&tenant.bucket(), &run_id])
        .await?
        .iter()
        .map(job)
        .collect())
}

/// Cancels, or asks its worker to let go.
pub(crate) async fn job_cancel(
    tx: &Tx,
    found: &Job,
    to: JobState,
    finished_at: Option<OffsetDateTime>,
) -> Result<Job, Error> {
    let bucket = found.key.tenant.bucket();
    Ok(job(&tx
        .query_one(
            JOB_CANCEL,
            &[&bucket, &found.id, &(to as i16), &finished_at],
        )
        .await?))
}

/// Makes it due again.
pub(crate) async fn job_requeue(
    tx: &Tx,
    tenant: TenantKey,
    job_id: Uuid,
    due_at: OffsetDateTime,
) -> Result<Job, Error> {
    Ok(job(&tx
        .query_one(JOB_REQUEUE, &[&tenant.bucket(), &job_id, &due_at])
        .await?))
}

/// The connection's parked jobs, kept from others.
pub(crate) async fn job_parked(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Uuid>, Error> {
    let rows = tx
        .query(
            JOB_PARKED,
            &[&tenant.bucket(), &tenant.id(), &connection_id],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("job_id")).collect())
}

pub(super) fn state(row: &Row) -> JobState {
    JobState::try_from(i32::from(row.get::<_, i16>("state")))
        .expect("only states of the contract are written")
}

pub(super) fn job(row: &Row) -> Job {
    let Json(progress) = row.get("progress");
    Job {
        key: StreamKey {
            tenant: tenant(row),
            connection_id: row.get("connection_id"),
            external_account_id: row.get("external_account_id"),
            stream: row.get("stream"),
        },
        id: row.get("job_id"),
        run_id: row.get("run_id"),
        provider: row.get("provider"),
        integration_id: row.get("integration_id"),
        queue: row.get("queue"),
        kind: JobKind::try_from(i32::from(row.get::<_, i16>("kind")))
            .expect("only kinds of the contract are written"),
        state: state(row),
        triggered_by: TriggerSource::try_from(i32::from(row.get::<_, i16>("triggered_by")))
            .expect("only sources of the contract are written"),
        user_id: row.get("user_id"),
        owner_id: row.get("owner_id"),
        priority: row.get("priority"),
        window_start: row.get("window_start"),
        window_end: row.get("window_end"),
        external_ids: row.get("external_ids"),
        due_at: row.get("due_at"),
        fence: row.get("fence"),
        checkpoint_number: row.get("checkpoint_number"),
        attempt: row.get("attempt"),
        failures: row.get("failures"),
        max_attempts: row.get("max_attempts"),
        cursor_json: row.get("cursor_json"),
        cursor_version: row.get("cursor_version"),
        incremental_cursor_json: row.get("incremental_cursor_json"),
        progress,
        last_error: row.get("last_error"),
        waiting_for: row.get("waiting_for"),
        traceparent: row.get("traceparent"),
        scheduled_at: row.get("scheduled_at"),
        started_at: row.get("started_at"),
        leased_at: row.get("leased_at"),
        finished_at: row.get("finished_at"),
        revision: row.get("revision"),
    }
}
