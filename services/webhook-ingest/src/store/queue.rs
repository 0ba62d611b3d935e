//! What is still to be processed.

use std::time::Duration;

use common::TenantKey;
use common::pg::{Database, Error, Scope, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant_in;

const QUEUE_DUE_BUCKETS: &str = "\
-- ingest.queue_due_buckets
SELECT DISTINCT bucket
FROM ingest.event_queue
WHERE due_at <= now()";

const QUEUE_CLAIM: &str = "\
-- ingest.queue_claim
WITH due AS (
    SELECT event_id
    FROM ingest.event_queue
    WHERE bucket = $1
        AND due_at <= now()
    ORDER BY due_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE ingest.event_queue AS q
SET due_at = now() + make_interval(secs => $3),
    fence = q.fence + 1,
    attempts = q.attempts + 1
FROM due
WHERE q.bucket = $1
    AND q.event_id = due.event_id
RETURNING q.tenant_id, q.event_id, q.fence, q.attempts";

const QUEUE_LEAVE: &str = "\
-- ingest.queue_leave
DELETE FROM ingest.event_queue
WHERE bucket = $1
    AND tenant_id = $2
    AND event_id = $3
    AND fence = $4";

const QUEUE_POSTPONE: &str = "\
-- ingest.queue_postpone
UPDATE ingest.event_queue
SET due_at = $5
WHERE bucket = $1
    AND tenant_id = $2
    AND event_id = $3
    AND fence = $4";

/// An event that is ours until the lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) tenant: TenantKey,
    pub(crate) event_id: Uuid,
    /// Proves the lease.
    pub(crate) fence: i64,
    /// Counts from 1, this one among them.
    pub(crate) attempts: i32,
}

/// The buckets that have anything to do. The one statement over all of them.
pub(crate) async fn queue_due_buckets(db: &Database) -> Result<Vec<i16>, Error> {
    let rows = db.query(Scope::System, QUEUE_DUE_BUCKETS, &[]).await?;
    Ok(rows.iter().map(|row| row.get("bucket")).collect())
}

/// Claims what is due in a bucket, the longest due first.
pub(crate) async fn queue_claim(
    db: &Database,
    bucket: i16,
    limit: i64,
    lease: Duration,
) -> Result<Vec<Claimed>, Error> {
    let rows = db
        .query(
            Scope::System,
            QUEUE_CLAIM,
            &[&bucket, &limit, &lease.as_secs_f64()],
        )
        .await?;
    let claimed = rows.iter().map(|row| Claimed {
        tenant: tenant_in(row, "tenant_id"),
        event_id: row.get("event_id"),
        fence: row.get("fence"),
        attempts: row.get("attempts"),
    });
    Ok(claimed.collect())
}

/// It is done. `false` where it is ours no more.
pub(crate) async fn queue_leave(tx: &Tx, claimed: &Claimed) -> Result<bool, Error> {
    let left = tx
        .execute(
            QUEUE_LEAVE,
            &[
                &claimed.tenant.bucket(),
                &claimed.tenant.id(),
                &claimed.event_id,
                &claimed.fence,
            ],
        )
        .await?;
    Ok(left == 1)
}

/// Not before then again. `false` where it is ours no more.
pub(crate) async fn queue_postpone(
    tx: &Tx,
    claimed: &Claimed,
    due_at: OffsetDateTime,
) -> Result<bool, Error> {
    let postponed = tx
        .execute(
            QUEUE_POSTPONE,
            &[
                &claimed.tenant.bucket(),
                &claimed.tenant.id(),
                &claimed.event_id,
                &claimed.fence,
                &due_at,
            ],
        )
        .await?;
    Ok(postponed == 1)
}
