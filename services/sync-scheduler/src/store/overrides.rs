//! Overrides.

use common::TenantKey;
use common::pg::{Error, Row, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;
use crate::lock::Override;

macro_rules! columns {
    () => {
        "bucket, tenant_id, override_id, connection_id, reason, granted_by, granted_at, expires_at, used_at,
    used_by_job_id, revoked_at"
    };
}

const OVERRIDE_INSERT: &str = "\
-- scheduler.override_insert
INSERT INTO scheduler.overrides (
    bucket, tenant_id, override_id, connection_id, reason, granted_by, granted_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// One for the connection itself comes before one for the whole tenant; the one that ends first comes first.
const OVERRIDE_CLAIM: &str = concat!(
    "-- scheduler.override_claim\nSELECT ",
    columns!(),
    "
FROM scheduler.overrides
WHERE bucket = $1
    AND tenant_id = $2
    AND (connection_id IS NULL OR connection_id = $3)
    AND used_at IS NULL
    AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > $4)
ORDER BY connection_id NULLS LAST, expires_at NULLS LAST, granted_at
LIMIT 1
FOR UPDATE"
);

const OVERRIDE_FIND: &str = concat!(
    "-- scheduler.override_find\nSELECT ",
    columns!(),
    "
FROM scheduler.overrides
WHERE bucket = $1
    AND tenant_id = $2
    AND (connection_id IS NULL OR connection_id = $3)
    AND used_at IS NULL
    AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > $4)
ORDER BY connection_id NULLS LAST, expires_at NULLS LAST, granted_at
LIMIT 1"
);

const OVERRIDE_USE: &str = "\
-- scheduler.override_use
UPDATE scheduler.overrides
SET used_at = $3,
    used_by_job_id = $4
WHERE bucket = $1
    AND override_id = $2";

const OVERRIDE_REVOKE: &str = concat!(
    "-- scheduler.override_revoke
UPDATE scheduler.overrides
SET revoked_at = $3
WHERE bucket = $1
    AND override_id = $2
    AND used_at IS NULL
    AND revoked_at IS NULL
RETURNING ",
    columns!()
);

const OVERRIDE_GET: &str = concat!(
    "-- scheduler.override_get\nSELECT ",
    columns!(),
    "
FROM scheduler.overrides
WHERE bucket = $1
    AND override_id = $2"
);

const OVERRIDE_LIST: &str = concat!(
    "-- scheduler.override_list\nSELECT ",
    columns!(),
    "
FROM scheduler.overrides
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3 OR (used_at IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)))
    AND ($5::uuid IS NULL OR override_id < $5)
ORDER BY override_id DESC
LIMIT $6"
);

/// Over every tenant, for operators.
const OVERRIDE_LIST_ALL: &str = concat!(
    "-- scheduler.override_list_all\nSELECT ",
    columns!(),
    "
FROM scheduler.overrides
WHERE ($1 OR (used_at IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)))
    AND ($3::uuid IS NULL OR override_id < $3)
ORDER BY override_id DESC
LIMIT $4"
);

/// Writes a new one.
pub(crate) async fn override_insert(tx: &Tx, granted: &Override) -> Result<(), Error> {
    tx.execute(
        OVERRIDE_INSERT,
        &[
            &granted.tenant.bucket(),
            &granted.tenant.id(),
            &granted.id,
            &granted.connection_id,
            &granted.reason,
            &granted.granted_by,
            &granted.granted_at,
            &granted.expires_at,
        ],
    )
    .await
    .map(drop)
}

/// The one that a start of this connection would use up, kept from others until the transaction ends.
pub(crate) async fn override_claim(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
    now: OffsetDateTime,
) -> Result<Option<Override>, Error> {
    let row = tx
        .query_opt(
            OVERRIDE_CLAIM,
            &[&tenant.bucket(), &tenant.id(), &connection_id, &now],
        )
        .await?;
    Ok(row.as_ref().map(granted))
}

/// The one that a start of this connection would use up.
pub(crate) async fn override_find(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
    now: OffsetDateTime,
) -> Result<Option<Override>, Error> {
    let row = tx
        .query_opt(
            OVERRIDE_FIND,
            &[&tenant.bucket(), &tenant.id(), &connection_id, &now],
        )
        .await?;
    Ok(row.as_ref().map(granted))
}

/// Uses it up.
pub(crate) async fn override_use(
    tx: &Tx,
    found: &Override,
    job_id: Uuid,
    now: OffsetDateTime,
) -> Result<(), Error> {
    tx.execute(
        OVERRIDE_USE,
        &[&found.tenant.bucket(), &found.id, &now, &job_id],
    )
    .await
    .map(drop)
}

/// Takes it back where it is in force.
pub(crate) async fn override_revoke(
    tx: &Tx,
    tenant: TenantKey,
    override_id: Uuid,
    now: OffsetDateTime,
) -> Result<Option<Override>, Error> {
    let row = tx
        .query_opt(OVERRIDE_REVOKE, &[&tenant.bucket(), &override_id, &now])
        .await?;
    Ok(row.as_ref().map(granted))
}

/// Whatever became of it.
pub(crate) async fn override_get(
    tx: &Tx,
    tenant: TenantKey,
    override_id: Uuid,
) -> Result<Option<Override>, Error> {
    Ok(tx
        .query_opt(OVERRIDE_GET, &[&tenant.bucket(), &override_id])
        .await?
        .as_ref()
        .map(granted))
}

/// Newest first, of a tenant or of all; without those that are not in force any more unless `all`.
pub(crate) async fn override_list(
    tx: &Tx,
    tenant: Option<TenantKey>,
    all: bool,
    before: Option<Uuid>,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Vec<Override>, Error> {
    let rows = match tenant {
        Some(tenant) => {
            tx.query(
                OVERRIDE_LIST,
                &[&tenant.bucket(), &tenant.id(), &all, &now, &before, &limit],
            )
            .await?
        }
        None => {
            tx.query(OVERRIDE_LIST_ALL, &[&all, &now, &before, &limit])
                .await?
        }
    };
    Ok(rows.iter().map(granted).collect())
}

fn granted(row: &Row) -> Override {
    Override {
        tenant: tenant(row),
        id: row.get("override_id"),
        connection_id: row.get("connection_id"),
        reason: row.get("reason"),
        granted_by: row.get("granted_by"),
        granted_at: row.get("granted_at"),
        expires_at: row.get("expires_at"),
        used_at: row.get("used_at"),
        used_by_job_id: row.get("used_by_job_id"),
        revoked_at: row.get("revoked_at"),
    }
}
