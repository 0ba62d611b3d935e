//! New documents by user and day.

use common::TenantKey;
use common::pg::{Database, Error, Scope, Tx};
use time::Date;

const USAGE_LOCK: &str = "\
-- ingest.usage_lock
INSERT INTO ingest.document_usage (bucket, tenant_id, user_id, day, documents)
VALUES ($1, $2, $3, $4, 0)
ON CONFLICT (bucket, tenant_id, user_id, day) DO UPDATE
SET day = EXCLUDED.day
RETURNING documents";

const USAGE_SET: &str = "\
-- ingest.usage_set
UPDATE ingest.document_usage
SET documents = $5
WHERE bucket = $1
    AND tenant_id = $2
    AND user_id = $3
    AND day = $4";

const USAGE_SUM: &str = "\
-- ingest.usage_sum
SELECT coalesce(sum(documents), 0)::bigint AS documents
FROM ingest.document_usage
WHERE bucket = $1
    AND tenant_id = $2
    AND user_id = $3
    AND day >= $4";

/// What the user has brought in that day, for one writer alone.
pub(crate) async fn usage_lock(
    tx: &Tx,
    tenant: TenantKey,
    user_id: &str,
    day: Date,
) -> Result<i64, Error> {
    let row = tx
        .query_one(
            USAGE_LOCK,
            &[&tenant.bucket(), &tenant.id(), &user_id, &day],
        )
        .await?;
    Ok(row.get("documents"))
}

/// Writes what the user has brought in that day.
pub(crate) async fn usage_set(
    tx: &Tx,
    tenant: TenantKey,
    user_id: &str,
    day: Date,
    documents: i64,
) -> Result<(), Error> {
    tx.execute(
        USAGE_SET,
        &[&tenant.bucket(), &tenant.id(), &user_id, &day, &documents],
    )
    .await
    .map(drop)
}

/// What the user has brought in since the beginning of that day.
pub(crate) async fn usage_sum(
    db: &Database,
    tenant: TenantKey,
    user_id: &str,
    since: Date,
) -> Result<i64, Error> {
    let row = db
        .query_one(
            Scope::Tenant(tenant),
            USAGE_SUM,
            &[&tenant.bucket(), &tenant.id(), &user_id, &since],
        )
        .await?;
    Ok(row.get("documents"))
}
