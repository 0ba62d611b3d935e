//! Statements over all buckets: pages of operators' lists, and which work there is.

use common::TenantKey;
use common::pg::Row;
use uuid::Uuid;

use super::name::{self, StoredName};
use super::tenant::columns;
use super::{Database, Scope, StoreError, column, known, tenant};
use crate::deletion::Step;
use crate::name::Claim;
use crate::tenant::Tenant;

pub(super) const TENANTS_LIST: &str = concat!(
    "-- directory.tenants_list
SELECT ",
    columns!(),
    "
FROM directory.tenants
WHERE tenant_id > $1 AND state <> 'deleted'
ORDER BY tenant_id
LIMIT $2"
);

const TENANTS_SEARCH: &str = concat!(
    "-- directory.tenants_search
SELECT ",
    columns!(),
    "
FROM directory.tenants
WHERE tenant_id > $1 AND state <> 'deleted' AND position($3 IN search_text) > 0
ORDER BY tenant_id
LIMIT $2"
);

pub(super) const DELETIONS_OPEN: &str = "\
-- directory.deletions_open
SELECT tenant_id, deletion_id
FROM directory.deletions
WHERE step < 6 AND deletion_id > $1
ORDER BY deletion_id
LIMIT $2";

pub(super) const DELETION_PARTS_DUE: &str = "\
-- directory.deletion_parts_due
SELECT p.tenant_id, p.deletion_id
FROM directory.deletion_parts AS p
JOIN directory.deletions AS d ON d.bucket = p.bucket AND d.deletion_id = p.deletion_id
WHERE p.service = $1 AND p.step = $2 AND NOT p.done AND d.step = $2
LIMIT $3";

pub(super) const NAMES_LEFT: &str = "\
-- directory.names_left
SELECT kind, name, claim_id, tenant_id, confirmed, claimed_at < now() - '15 s'::interval AS stale
FROM directory.names
WHERE NOT confirmed AND claimed_at < now() - '15 s'::interval
ORDER BY claimed_at
LIMIT $1";

pub(super) const NAME_CLAIMS_RELEASED: &str = "\
-- directory.name_claims_released
SELECT kind, name, claim_id, tenant_id
FROM directory.name_claims
WHERE state = 'released'
ORDER BY decided_at
LIMIT $1";

pub(super) const NAME_CLAIMS_OLD: &str = "\
-- directory.name_claims_old
SELECT kind, name, claim_id, tenant_id
FROM directory.name_claims
WHERE state IN ('freed', 'refused') AND decided_at < now() - '30 days'::interval
ORDER BY decided_at
LIMIT $1";

pub(super) const CREATIONS_OLD: &str = "\
-- directory.creations_old
SELECT DISTINCT bucket
FROM directory.creations
WHERE created_at < now() - '2 days'::interval";

/// The tenants after `after`, in the order of their ids; with `search`, those whose search text has it in it.
pub(crate) async fn tenants_list(
    db: &Database,
    search: &str,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Tenant>, StoreError> {
    let rows = if search.is_empty() {
        db.query(Scope::System, TENANTS_LIST, &[&after, &limit])
            .await?
    } else {
        db.query(Scope::System, TENANTS_SEARCH, &[&after, &limit, &search])
            .await?
    };
    rows.iter().map(tenant::decode).collect()
}

/// Deletions that are not over, after `after`, in the order of their ids.
pub(crate) async fn deletions_open(
    db: &Database,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(TenantKey, Uuid)>, StoreError> {
    let rows = db
        .query(Scope::System, DELETIONS_OPEN, &[&after, &limit])
        .await?;
    rows.iter()
        .map(|row| Ok((tenant::key(row, "deletions")?, column(row, "deletion_id")?)))
        .collect()
}

/// Deletions that wait for `service` in `step`.
pub(crate) async fn deletion_parts_due(
    db: &Database,
    service: &str,
    step: Step,
    limit: i64,
) -> Result<Vec<(TenantKey, Uuid)>, StoreError> {
    let rows = db
        .query(
            Scope::System,
            DELETION_PARTS_DUE,
            &[&service, &step.number(), &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                tenant::key(row, "deletion_parts")?,
                column(row, "deletion_id")?,
            ))
        })
        .collect()
}

/// Reservations that nobody has confirmed for a while.
pub(crate) async fn names_left(db: &Database, limit: i64) -> Result<Vec<StoredName>, StoreError> {
    db.query(Scope::System, NAMES_LEFT, &[&limit])
        .await?
        .iter()
        .map(name::decode)
        .collect()
}

/// Names that their tenants have given up.
pub(crate) async fn name_claims_released(
    db: &Database,
    limit: i64,
) -> Result<Vec<Claim>, StoreError> {
    db.query(Scope::System, NAME_CLAIMS_RELEASED, &[&limit])
        .await?
        .iter()
        .map(claim)
        .collect()
}

/// Claims that ended so long ago that whoever made them cannot come back.
pub(crate) async fn name_claims_old(db: &Database, limit: i64) -> Result<Vec<Claim>, StoreError> {
    db.query(Scope::System, NAME_CLAIMS_OLD, &[&limit])
        .await?
        .iter()
        .map(claim)
        .collect()
}

/// Buckets with requests to create a tenant that are no longer remembered.
pub(crate) async fn creations_old(db: &Database) -> Result<Vec<i16>, StoreError> {
    db.query(Scope::System, CREATIONS_OLD, &[])
        .await?
        .iter()
        .map(|row| column(row, "bucket"))
        .collect()
}

fn claim(row: &Row) -> Result<Claim, StoreError> {
    let kind = crate::name::NameKind::from_stored(&column::<String>(row, "kind")?);
    Ok(Claim {
        name: crate::name::Name::new(
            known(kind, "name_claims", "kind")?,
            column::<String>(row, "name")?,
        ),
        tenant: tenant::key(row, "name_claims")?,
        claim_id: column(row, "claim_id")?,
    })
}
