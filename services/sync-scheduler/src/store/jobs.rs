//! Jobs.

use common::TenantKey;
use common::pg::{Error, Json, Row, Tx};
use contracts::scheduler::v1::{JobKind, JobState, TriggerSource};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;
use crate::job::{Job, NOT_BEGUN, Progress};
use crate::stream::StreamKey;

macro_rules! columns {
    () => {
        "bucket, tenant_id, job_id, run_id, connection_id, external_account_id, stream, provider, integration_id, queue,
    kind, state, triggered_by, user_id, owner_id, priority, window_start, window_end, external_ids, due_at, fence,
    attempt, failures, max_attempts, cursor_json, cursor_version, incremental_cursor_json, progress, last_error,
    waiting_for, traceparent, checkpoint_number, scheduled_at, started_at, leased_at, finished_at, revision"
    };
}

const JOB_INSERT: &str = "\
-- scheduler.job_insert
INSERT INTO scheduler.jobs (
    bucket, tenant_id, job_id, run_id, connection_id, external_account_id, stream, provider, integration_id, queue,
    kind, state, triggered_by, user_id, owner_id, priority, window_start, window_end, external_ids, due_at,
    max_attempts, traceparent, scheduled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)";

const JOB_GET: &str = concat!(
    "-- scheduler.job_get\nSELECT ",
    columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND job_id = $3"
);

const JOB_LOCK: &str = concat!(
    "-- scheduler.job_lock\nSELECT ",
    columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND tenant_id = $2
    AND job_id = $3
FOR UPDATE"
);

/// The stream's row is locked before, so that what is read here is as it is now.
const JOB_HELD_LOCK: &str = concat!(
    "-- scheduler.job_held_lock\nSELECT ",
    columns!(),
    ", due_at > now() AS in_time
FROM scheduler.jobs
WHERE bucket = $1
    AND job_id = ANY ($2)
ORDER BY job_id
FOR UPDATE"
);

const JOB_DUE_LOCK: &str = concat!(
    "-- scheduler.job_due_lock\nSELECT ",
    columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND job_id = ANY ($2)
    AND state IN (1, 2, 3)
    AND due_at <= now()
ORDER BY job_id
FOR UPDATE"
);

const JOB_LIST: &str = concat!(
    "-- scheduler.job_list\nSELECT ",
    columns!(),
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
    columns!(),
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
    columns!()
);

const JOB_SUPERSEDED_LOCK: &str = concat!(
    "-- scheduler.job_superseded_lock\nSELECT ",
    columns!(),
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
    columns!(),
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
    columns!(),
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
    columns!(),
    "
FROM scheduler.jobs
WHERE bucket = $1
    AND run_id = $2
ORDER BY job_id"
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
    columns!()
);

/// Over all buckets on purpose, and only over what is leased.
const JOB_LEASED_BEFORE: &str = concat!(
    "-- scheduler.job_leased_before\nSELECT ",
    columns!(),
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
    columns!()
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
    columns!()
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
    columns!()
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
    columns!()
);

/// Writes a new job.
pub(crate) async fn job_insert(tx: &Tx, job: &Job) -> Result<(), Error> {
    tx.execute(
        JOB_INSERT,
        &[
            &job.key.tenant.bucket(),
            &job.key.tenant.id(),
            &job.job_id,
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
                &found.job_id,
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
                &begun.job_id,
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
            &[&held.key.tenant.bucket(), &held.job_id, &held.fence, &lease],
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
                &ended.job_id,
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
            &[&bucket, &found.job_id, &(to as i16), &finished_at],
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

fn state(row: &Row) -> JobState {
    JobState::try_from(i32::from(row.get::<_, i16>("state")))
        .expect("only states of the contract are written")
}

fn job(row: &Row) -> Job {
    let Json(progress) = row.get("progress");
    Job {
        key: StreamKey {
            tenant: tenant(row),
            connection_id: row.get("connection_id"),
            external_account_id: row.get("external_account_id"),
            stream: row.get("stream"),
        },
        job_id: row.get("job_id"),
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
