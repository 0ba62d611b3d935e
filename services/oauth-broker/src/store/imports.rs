//! The grants that imports make.

use common::TenantKey;
use common::pg::{Database, Error, Scope};
use time::OffsetDateTime;
use uuid::Uuid;

const IMPORT_RESERVE: &str = "\
-- broker.import_reserve
INSERT INTO broker.imports (bucket, tenant_id, request_id, grant_id, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING";

const IMPORT_GET: &str = "\
-- broker.import_get
SELECT grant_id
FROM broker.imports
WHERE bucket = $1
    AND tenant_id = $2
    AND request_id = $3";

const IMPORT_OLD_BUCKETS: &str = "\
-- broker.import_old_buckets
SELECT DISTINCT bucket
FROM broker.imports
WHERE created_at < $1";

const IMPORT_PURGE: &str = "\
-- broker.import_purge
DELETE FROM broker.imports
WHERE bucket = $1
    AND created_at < $2";

/// The grant of this import: `fresh`, or the one that an earlier call with the request id has chosen.
pub(crate) async fn import_grant(
    db: &Database,
    tenant: TenantKey,
    request_id: &str,
    fresh: Uuid,
) -> Result<Uuid, Error> {
    if request_id.is_empty() {
        return Ok(fresh);
    }
    let (bucket, id, now) = (tenant.bucket(), tenant.id(), db.deps().now());
    let scope = Scope::Tenant(tenant);
    if db
        .execute(
            scope,
            IMPORT_RESERVE,
            &[&bucket, &id, &request_id, &fresh, &now],
        )
        .await?
        == 1
    {
        return Ok(fresh);
    }
    Ok(db
        .query_one(scope, IMPORT_GET, &[&bucket, &id, &request_id])
        .await?
        .get("grant_id"))
}

/// Forgets what nobody repeats any more.
pub(crate) async fn import_purge(db: &Database, before: OffsetDateTime) -> Result<(), Error> {
    for row in db
        .query(Scope::System, IMPORT_OLD_BUCKETS, &[&before])
        .await?
    {
        let bucket: i16 = row.get("bucket");
        db.execute(Scope::System, IMPORT_PURGE, &[&bucket, &before])
            .await?;
    }
    Ok(())
}
