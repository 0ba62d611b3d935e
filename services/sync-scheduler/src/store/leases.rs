//! Leases of jobs: which are due, who holds one, what it has reached, and how it ends. The lease of the stream lies in
//! [`streams`](super::streams), and is taken first.

use common::TenantKey;
use common::pg::{Error, Json, Tx};
use contracts::scheduler::v1::JobState;
use time::OffsetDateTime;
use uuid::Uuid;

use super::jobs::{job, state};
use crate::job::{Job, Progress};

/// The stream's row is locked before, so that what is read here is as it is now.
const JOB_HELD_LOCK: &str = concat!(
    "-- scheduler.job_held_lock\nSELECT ",
    job_columns!(),
    ", due_at > now() AS in_time
FROM scheduler.jobs
WHERE bucket = $1
    AND job_id = ANY ($2)
ORDER BY job_id
FOR UPDATE"
);

const JOB_DUE_LOCK: &str = concat!(
    "-- scheduler.job_due_lock\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND job_id = ANY ($2)
    AND state IN (1, 2, 3)
    AND due_at <= now()
ORDER BY job_id
FOR UPDATE"
);

/// Over all buckets on purpose: which of them are to be looked into.
const JOB_DUE_BUCKETS: &str = "\
-- scheduler.job_due_buckets
SELECT DISTINCT bucket
FROM scheduler.jobs
WHERE state IN (1, 2, 3, 8)
    AND due_at <= now()
    AND queue = ANY ($1)
    AND ($2::uuid[] IS NULL OR tenant_id = ANY ($2))
ORDER BY bucket";

/// Over all buckets on purpose: how long there is nothing to look for.
const JOB_NEXT_DUE: &str = "\
-- scheduler.job_next_due
SELECT extract(epoch FROM min(due_at) - now())::float8 AS seconds
FROM scheduler.jobs
WHERE state IN (1, 2, 3, 8)
    AND due_at > now()
    AND queue = ANY ($1)
    AND ($2::uuid[] IS NULL OR tenant_id = ANY ($2))";

/// One of each stream, tenants by turns. While history is read, incremental runs wait: they go on from its mark.
const JOB_CANDIDATES: &str = "\
-- scheduler.job_candidates
WITH due AS (
    SELECT DISTINCT ON (j.connection_id, j.external_account_id, j.stream)
        j.job_id, j.tenant_id, j.priority, j.due_at
    FROM scheduler.jobs j
    JOIN scheduler.streams s
        ON s.bucket = j.bucket
        AND s.connection_id = j.connection_id
        AND s.external_account_id = j.external_account_id
        AND s.stream = j.stream
    WHERE j.bucket = $1
        AND s.bucket = $1
        AND j.state IN (1, 2, 3)
        AND j.due_at <= now()
        AND j.queue = ANY ($2)
        AND (cardinality($3::text[]) = 0 OR j.provider = ANY ($3))
        AND ($4::uuid[] IS NULL OR j.tenant_id = ANY ($4))
        AND (s.running_job_id IS NULL OR s.running_job_id = j.job_id OR s.lease_until <= now())
        AND (j.kind <> 2 OR NOT EXISTS (
            SELECT
            FROM scheduler.jobs h
            WHERE h.bucket = $1
                AND h.tenant_id = j.tenant_id
                AND h.connection_id = j.connection_id
                AND h.external_account_id = j.external_account_id
                AND h.stream = j.stream
                AND h.kind <> 2
                AND h.state IN (1, 2, 3, 7, 8)))
    ORDER BY j.connection_id, j.external_account_id, j.stream, j.priority DESC, j.due_at
)
SELECT due.job_id
FROM due
LEFT JOIN scheduler.turns t
    ON t.bucket = $1
    AND t.tenant_id = due.tenant_id
ORDER BY row_number() OVER (PARTITION BY due.tenant_id ORDER BY due.priority DESC, due.due_at),
    t.served_at NULLS FIRST, due.priority DESC, due.due_at
LIMIT $5";

const JOB_LEASE: &str = concat!(
    "-- scheduler.job_lease
UPDATE scheduler.jobs
SET state = 2,
    fence = fence + 1,
    attempt = attempt + 1,
    worker_id = $4,
    lease_request_id = $5,
    due_at = now() + make_interval(secs => $6),
    started_at = $7,
    leased_at = $8,
    cursor_json = $9,
    cursor_version = $10,
    window_start = $11,
    waiting_for = '',
    checkpoint_number = 0,
    revision = revision + 1
WHERE bucket = $1
    AND job_id = $2
    AND fence = $3
RETURNING ",
    job_columns!()
);

/// Over all buckets on purpose, and only over what is leased.
const JOB_LEASED_BEFORE: &str = concat!(
    "-- scheduler.job_leased_before\nSELECT ",
    job_columns!(),
    "
FROM scheduler.jobs
WHERE state = 2
    AND due_at > now()
    AND worker_id = $1
    AND lease_request_id = $2
    AND queue = ANY ($3)
    AND ($4::uuid[] IS NULL OR tenant_id = ANY ($4))
ORDER BY job_id"
);

const JOB_EXTEND: &str = "\
-- scheduler.job_extend
UPDATE scheduler.jobs
SET due_at = now() + make_interval(secs => $4)
WHERE bucket = $1
    AND job_id = $2
    AND fence = $3
RETURNING due_at";

/// Nothing where the lease is over or another's, or where a later checkpoint is stored.
const JOB_CHECKPOINT: &str = "\
-- scheduler.job_checkpoint
UPDATE scheduler.jobs
SET checkpoint_number = $5,
    cursor_json = coalesce($6, cursor_json),
    incremental_cursor_json = coalesce($7, incremental_cursor_json),
    progress = $8,
    failures = 0,
    revision = revision + 1
WHERE bucket = $1
    AND tenant_id = $2
    AND job_id = $3
    AND fence = $4
    AND state IN (2, 8)
    AND due_at > now()
    AND checkpoint_number < $5
RETURNING state, queue";

const JOB_FINISH: &str = concat!(
    "-- scheduler.job_finish
UPDATE scheduler.jobs
SET state = $4,
    cursor_json = $5,
    incremental_cursor_json = $6,
    progress = $7,
    last_error = $8,
    waiting_for = $9,
    due_at = $10,
    failures = $11,
    finished_at = $12,
    attempt = $13,
    revision = revision + 1
WHERE bucket = $1
    AND job_id = $2
    AND fence = $3
RETURNING ",
    job_columns!()
);

const JOB_ABANDONED: &str = concat!(
    "-- scheduler.job_abandoned
UPDATE scheduler.jobs
SET state = 6,
    fence = fence + 1,
    finished_at = $2,
    waiting_for = '',
    revision = revision + 1
WHERE bucket = $1
    AND state = 8
    AND due_at <= now()
RETURNING ",
    job_columns!()
);

/// Jobs of a bucket, kept from others, and whether the lease of each has not run out.
pub(crate) async fn job_held_lock(
    tx: &Tx,
    bucket: i16,
    job_ids: &[Uuid],
) -> Result<Vec<(Job, bool)>, Error> {
    let rows = tx.query(JOB_HELD_LOCK, &[&bucket, &job_ids]).await?;
    Ok(rows
        .iter()
        .map(|row| (job(row), row.get("in_time")))
        .collect())
}

/// Those of the jobs that may be leased, kept from others.
pub(crate) async fn job_due_lock(
    tx: &Tx,
    bucket: i16,
    job_ids: &[Uuid],
) -> Result<Vec<Job>, Error> {
    Ok(tx
        .query(JOB_DUE_LOCK, &[&bucket, &job_ids])
        .await?
        .iter()
        .map(job)
        .collect())
}

/// Which jobs a worker may have.
#[derive(Clone, Debug)]
pub(crate) struct Servable {
    /// From these queues.
    pub(crate) queues: Vec<String>,
    /// Of these providers; any where empty.
    pub(crate) providers: Vec<String>,
    /// Of these tenants; any where `None`.
    pub(crate) tenants: Option<Vec<Uuid>>,
}

/// The buckets that have work now.
pub(crate) async fn job_due_buckets(tx: &Tx, servable: &Servable) -> Result<Vec<i16>, Error> {
    let rows = tx
        .query(JOB_DUE_BUCKETS, &[&servable.queues, &servable.tenants])
        .await?;
    Ok(rows.iter().map(|row| row.get("bucket")).collect())
}

/// In how many seconds there is more work, over all buckets.
pub(crate) async fn job_next_due(tx: &Tx, servable: &Servable) -> Result<Option<f64>, Error> {
    Ok(tx
        .query_one(JOB_NEXT_DUE, &[&servable.queues, &servable.tenants])
        .await?
        .get("seconds"))
}

/// Jobs of a bucket that could be leased now, fair between its tenants.
pub(crate) async fn job_candidates(
    tx: &Tx,
    bucket: i16,
    servable: &Servable,
    limit: i64,
) -> Result<Vec<Uuid>, Error> {
    let rows = tx
        .query(
            JOB_CANDIDATES,
            &[
                &bucket,
                &servable.queues,
                &servable.providers,
                &servable.tenants,
                &limit,
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("job_id")).collect())
}

/// Who takes a lease, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRequest {
    /// The worker's name for itself.
    pub(crate) worker_id: String,
    /// By which a repeated call is known; may be empty.
    pub(crate) request_id: String,
    /// In seconds.
    pub(crate) lease: f64,
    /// The time.
    pub(crate) now: OffsetDateTime,
}

/// Takes the lease of a job that is locked; it goes on as `begun` says.
pub(crate) async fn job_lease(tx: &Tx, begun: &Job, request: &LeaseRequest) -> Result<Job, Error> {
    let row = tx
        .query_one(
            JOB_LEASE,
            &[
                &begun.key.tenant.bucket(),
                &begun.id,
                &begun.fence,
                &request.worker_id,
                &request.request_id,
                &request.lease,
                &begun.started_at.unwrap_or(request.now),
                &request.now,
                &begun.cursor_json,
                &begun.cursor_version,
                &begun.window_start,
            ],
        )
        .await?;
    Ok(job(&row))
}

/// What the same call leased before.
pub(crate) async fn job_leased_before(
    tx: &Tx,
    request: &LeaseRequest,
    servable: &Servable,
) -> Result<Vec<Job>, Error> {
    let rows = tx
        .query(
            JOB_LEASED_BEFORE,
            &[
                &request.worker_id,
                &request.request_id,
                &servable.queues,
                &servable.tenants,
            ],
        )
        .await?;
    Ok(rows.iter().map(job).collect())
}

/// Extends the lease of a job that is locked; tells its end.
pub(crate) async fn job_extend(tx: &Tx, held: &Job, lease: f64) -> Result<OffsetDateTime, Error> {
    let row = tx
        .query_one(
            JOB_EXTEND,
            &[&held.key.tenant.bucket(), &held.id, &held.fence, &lease],
        )
        .await?;
    Ok(row.get("due_at"))
}

/// What a worker has reached.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    /// Counts up within the lease.
    pub(crate) number: i64,
    /// Where a later attempt goes on.
    pub(crate) cursor_json: Option<Vec<u8>>,
    /// Where incremental runs will begin.
    pub(crate) incremental_cursor_json: Option<Vec<u8>>,
    /// The counts so far.
    pub(crate) progress: Progress,
}

/// Stores it where the lease is held and no later one is stored; tells the job's state and queue.
pub(crate) async fn job_checkpoint(
    tx: &Tx,
    tenant: TenantKey,
    job_id: Uuid,
    fence: i64,
    at: &Checkpoint,
) -> Result<Option<(JobState, String)>, Error> {
    let row = tx
        .query_opt(
            JOB_CHECKPOINT,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &job_id,
                &fence,
                &at.number,
                &at.cursor_json,
                &at.incremental_cursor_json,
                &Json(at.progress),
            ],
        )
        .await?;
    Ok(row.map(|row| (state(&row), row.get("queue"))))
}

/// Writes what became of a leased job that is locked.
pub(crate) async fn job_finish(tx: &Tx, ended: &Job) -> Result<Job, Error> {
    let row = tx
        .query_one(
            JOB_FINISH,
            &[
                &ended.key.tenant.bucket(),
                &ended.id,
                &ended.fence,
                &(ended.state as i16),
                &ended.cursor_json,
                &ended.incremental_cursor_json,
                &Json(ended.progress),
                &ended.last_error,
                &ended.waiting_for,
                &ended.due_at,
                &ended.failures,
                &ended.finished_at,
                &ended.attempt,
            ],
        )
        .await?;
    Ok(job(&row))
}

/// Ends cancelled jobs whose worker never let go.
pub(crate) async fn job_abandoned(
    tx: &Tx,
    bucket: i16,
    now: OffsetDateTime,
) -> Result<Vec<Job>, Error> {
    Ok(tx
        .query(JOB_ABANDONED, &[&bucket, &now])
        .await?
        .iter()
        .map(job)
        .collect())
}
