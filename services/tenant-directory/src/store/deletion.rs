//! Deletions, and what each service has to do in them.

use common::TenantKey;
use common::pg::Row;
use uuid::Uuid;

use super::{Database, Scope, StoreError, Tx, column, known, tenant};
use crate::deletion::{Deletion, Part, Step};

const DELETION_CREATE: &str = "\
-- directory.deletion_create
INSERT INTO directory.deletions (
    bucket, tenant_id, deletion_id, user_id, delete_documents, step, revision, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const DELETION_PARTS_CREATE: &str = "\
-- directory.deletion_parts_create
INSERT INTO directory.deletion_parts (bucket, tenant_id, deletion_id, step, service, done, detail)
SELECT $1, $2, $3, part.step, part.service, false, ''
FROM unnest($4::smallint[], $5::text[]) AS part (step, service)";

const DELETION_GET: &str = "\
-- directory.deletion_get
SELECT tenant_id, deletion_id, user_id, delete_documents, step, revision, created_at, updated_at
FROM directory.deletions
WHERE bucket = $1 AND tenant_id = $2 AND deletion_id = $3";

const DELETION_LOCK: &str = "\
-- directory.deletion_lock
SELECT tenant_id, deletion_id, user_id, delete_documents, step, revision, created_at, updated_at
FROM directory.deletions
WHERE bucket = $1 AND tenant_id = $2 AND deletion_id = $3
FOR UPDATE";

pub(super) const DELETIONS_LIST: &str = "\
-- directory.deletions_list
SELECT deletion_id
FROM directory.deletions
WHERE bucket = $1 AND tenant_id = $2 AND step < 6 AND deletion_id > $3
ORDER BY deletion_id
LIMIT $4";

pub(super) const DELETION_PARTS_GET: &str = "\
-- directory.deletion_parts_get
SELECT step, service, done, detail
FROM directory.deletion_parts
WHERE bucket = $1 AND tenant_id = $2 AND deletion_id = $3
ORDER BY step, service";

const DELETION_ADVANCE: &str = "\
-- directory.deletion_advance
UPDATE directory.deletions
SET step = $4, revision = $5, updated_at = $6
WHERE bucket = $1 AND tenant_id = $2 AND deletion_id = $3";

const DELETION_PART_REPORT: &str = "\
-- directory.deletion_part_report
UPDATE directory.deletion_parts
SET done = $6, detail = $7, reported_at = $8
WHERE bucket = $1 AND tenant_id = $2 AND deletion_id = $3 AND step = $4 AND service = $5";

/// Adds the deletion and its parts.
pub(crate) async fn deletion_create(tx: &Tx, deletion: &Deletion) -> Result<(), StoreError> {
    let (bucket, tenant_id) = (deletion.tenant.bucket(), deletion.tenant.id());
    tx.execute(
        DELETION_CREATE,
        &[
            &bucket,
            &tenant_id,
            &deletion.id,
            &deletion.user_id,
            &deletion.delete_documents,
            &deletion.step.number(),
            &deletion.revision,
            &deletion.created_at,
            &deletion.updated_at,
        ],
    )
    .await?;
    let steps: Vec<i16> = deletion
        .parts
        .iter()
        .map(|part| part.step.number())
        .collect();
    let services: Vec<&str> = deletion
        .parts
        .iter()
        .map(|part| part.service.as_str())
        .collect();
    tx.execute(
        DELETION_PARTS_CREATE,
        &[&bucket, &tenant_id, &deletion.id, &steps, &services],
    )
    .await?;
    Ok(())
}

/// The deletion, for reading.
pub(crate) async fn deletion_get(
    db: &Database,
    tenant: TenantKey,
    id: Uuid,
) -> Result<Option<Deletion>, StoreError> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            DELETION_GET,
            &[&tenant.bucket(), &tenant.id(), &id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let parts = db
        .query(
            Scope::Tenant(tenant),
            DELETION_PARTS_GET,
            &[&tenant.bucket(), &tenant.id(), &id],
        )
        .await?;
    decode(&row, &parts).map(Some)
}

/// The deletion, for changing.
pub(crate) async fn deletion_lock(
    tx: &Tx,
    tenant: TenantKey,
    id: Uuid,
) -> Result<Option<Deletion>, StoreError> {
    let key: [&(dyn common::pg::ToSql + Sync); 3] = [&tenant.bucket(), &tenant.id(), &id];
    let Some(row) = tx.query_opt(DELETION_LOCK, &key).await? else {
        return Ok(None);
    };
    decode(&row, &tx.query(DELETION_PARTS_GET, &key).await?).map(Some)
}

/// The tenant's deletions that are not over, after `after`, in the order of their ids.
pub(crate) async fn deletions_list(
    db: &Database,
    tenant: TenantKey,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(TenantKey, Uuid)>, StoreError> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            DELETIONS_LIST,
            &[&tenant.bucket(), &tenant.id(), &after, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((tenant, column(row, "deletion_id")?)))
        .collect()
}

/// Writes where the deletion is, in the row that the transaction has locked.
pub(crate) async fn deletion_advance(tx: &Tx, deletion: &Deletion) -> Result<(), StoreError> {
    tx.execute(
        DELETION_ADVANCE,
        &[
            &deletion.tenant.bucket(),
            &deletion.tenant.id(),
            &deletion.id,
            &deletion.step.number(),
            &deletion.revision,
            &deletion.updated_at,
        ],
    )
    .await?;
    Ok(())
}

/// Writes what a service has said of its part, under the lock on the deletion.
pub(crate) async fn deletion_part_report(
    tx: &Tx,
    deletion: &Deletion,
    part: &Part,
    now: time::OffsetDateTime,
) -> Result<(), StoreError> {
    tx.execute(
        DELETION_PART_REPORT,
        &[
            &deletion.tenant.bucket(),
            &deletion.tenant.id(),
            &deletion.id,
            &part.step.number(),
            &part.service,
            &part.done,
            &part.detail,
            &now,
        ],
    )
    .await?;
    Ok(())
}

fn decode(row: &Row, parts: &[Row]) -> Result<Deletion, StoreError> {
    let part = |row: &Row| -> Result<Part, StoreError> {
        Ok(Part {
            step: step(row)?,
            service: column(row, "service")?,
            done: column(row, "done")?,
            detail: column(row, "detail")?,
        })
    };
    Ok(Deletion {
        id: column(row, "deletion_id")?,
        tenant: tenant::key(row, "deletions")?,
        user_id: column(row, "user_id")?,
        delete_documents: column(row, "delete_documents")?,
        step: step(row)?,
        parts: parts.iter().map(part).collect::<Result<_, _>>()?,
        revision: column(row, "revision")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn step(row: &Row) -> Result<Step, StoreError> {
    known(Step::from_number(column(row, "step")?), "deletions", "step")
}
