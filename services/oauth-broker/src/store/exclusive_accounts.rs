//! Accounts that may be connected only once: reserved, then used, then confirmed.

use common::TenantKey;
use common::pg::{Database, Error, Scope};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::routing_key::shard;

const EXCLUSIVE_RESERVE: &str = "\
-- broker.exclusive_account_reserve
INSERT INTO broker.exclusive_accounts (
    bucket, integration_tenant_id, integration_id, external_account_id, connection_id, tenant_id, reserved_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING";

const EXCLUSIVE_HOLDER: &str = "\
-- broker.exclusive_account_holder
SELECT connection_id
FROM broker.exclusive_accounts
WHERE bucket = $1
    AND integration_tenant_id = $2
    AND integration_id = $3
    AND external_account_id = $4";

const EXCLUSIVE_CONFIRM: &str = "\
-- broker.exclusive_account_confirm
UPDATE broker.exclusive_accounts
SET confirmed_at = $6
WHERE bucket = $1
    AND integration_tenant_id = $2
    AND integration_id = $3
    AND external_account_id = $4
    AND connection_id = $5";

const EXCLUSIVE_RELEASE: &str = "\
-- broker.exclusive_account_release
DELETE FROM broker.exclusive_accounts
WHERE bucket = $1
    AND integration_tenant_id = $2
    AND integration_id = $3
    AND external_account_id = $4
    AND connection_id = $5";

const EXCLUSIVE_STALE: &str = "\
-- broker.exclusive_account_stale
SELECT integration_tenant_id, integration_id, external_account_id, connection_id, tenant_id
FROM broker.exclusive_accounts
WHERE confirmed_at IS NULL
    AND reserved_at < $1
LIMIT 100";

/// An account of an integration, and the connection that holds it or wants to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) integration_tenant: TenantKey,
    pub(crate) integration_id: String,
    pub(crate) external_account_id: String,
    pub(crate) connection_id: Uuid,
    pub(crate) tenant: TenantKey,
}

impl Claim {
    fn bucket(&self) -> i16 {
        shard(&[
            self.integration_tenant.id().as_bytes(),
            self.integration_id.as_bytes(),
            self.external_account_id.as_bytes(),
        ])
    }
}

/// Reserves the account for the connection; `false` where another one holds it.
pub(crate) async fn exclusive_reserve(db: &Database, claim: &Claim) -> Result<bool, Error> {
    let (bucket, owner, now) = (
        claim.bucket(),
        claim.integration_tenant.id(),
        db.deps().now(),
    );
    let (integration_id, account) = (&claim.integration_id, &claim.external_account_id);
    let params: &[&(dyn common::pg::ToSql + Sync)] = &[
        &bucket,
        &owner,
        integration_id,
        account,
        &claim.connection_id,
        &claim.tenant.id(),
        &now,
    ];
    if db.execute(Scope::System, EXCLUSIVE_RESERVE, params).await? == 1 {
        return Ok(true);
    }
    let row = db
        .query_opt(
            Scope::System,
            EXCLUSIVE_HOLDER,
            &[&bucket, &owner, integration_id, account],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get::<_, Uuid>("connection_id") == claim.connection_id))
}

/// The connection is saved, so the reservation stays.
pub(crate) async fn exclusive_confirm(db: &Database, claim: &Claim) -> Result<(), Error> {
    let (bucket, owner, now) = (
        claim.bucket(),
        claim.integration_tenant.id(),
        db.deps().now(),
    );
    let params: &[&(dyn common::pg::ToSql + Sync)] = &[
        &bucket,
        &owner,
        &claim.integration_id,
        &claim.external_account_id,
        &claim.connection_id,
        &now,
    ];
    db.execute(Scope::System, EXCLUSIVE_CONFIRM, params)
        .await
        .map(drop)
}

/// The connection lets the account go.
pub(crate) async fn exclusive_release(db: &Database, claim: &Claim) -> Result<(), Error> {
    let (bucket, owner) = (claim.bucket(), claim.integration_tenant.id());
    let params: &[&(dyn common::pg::ToSql + Sync)] = &[
        &bucket,
        &owner,
        &claim.integration_id,
        &claim.external_account_id,
        &claim.connection_id,
    ];
    db.execute(Scope::System, EXCLUSIVE_RELEASE, params)
        .await
        .map(drop)
}

/// Reservations that were never confirmed.
pub(crate) async fn exclusive_stale(
    db: &Database,
    before: OffsetDateTime,
) -> Result<Vec<Claim>, Error> {
    let rows = db.query(Scope::System, EXCLUSIVE_STALE, &[&before]).await?;
    let claim = |row: &common::pg::Row| Claim {
        integration_tenant: super::tenant(row, "integration_tenant_id"),
        integration_id: row.get("integration_id"),
        external_account_id: row.get("external_account_id"),
        connection_id: row.get("connection_id"),
        tenant: super::tenant(row, "tenant_id"),
    };
    Ok(rows.iter().map(claim).collect())
}
