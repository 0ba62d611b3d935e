//! What the vault still has to be told of grants.

use common::TenantKey;
use common::pg::{Database, Error, Row, Scope, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;

/// A later word about a grant takes the place of an earlier one: what was to be confirmed is revoked instead.
const DUTY_PUT: &str = "\
-- broker.grant_duty_put
INSERT INTO broker.grant_duties (bucket, tenant_id, grant_id, duty, due_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (bucket, grant_id) DO UPDATE
SET duty = EXCLUDED.duty,
    due_at = EXCLUDED.due_at";

const DUTY_DONE: &str = "\
-- broker.grant_duty_done
DELETE FROM broker.grant_duties
WHERE bucket = $1
    AND grant_id = $2
    AND duty = $3";

const DUTY_PUT_OFF: &str = "\
-- broker.grant_duty_put_off
UPDATE broker.grant_duties
SET due_at = $3,
    attempts = attempts + 1
WHERE bucket = $1
    AND grant_id = $2";

const DUTY_DUE_BUCKETS: &str = "\
-- broker.grant_duty_due_buckets
SELECT DISTINCT bucket
FROM broker.grant_duties
WHERE due_at <= $1";

const DUTY_DUE: &str = "\
-- broker.grant_duty_due
SELECT tenant_id, grant_id, duty, attempts
FROM broker.grant_duties
WHERE bucket = $1
    AND due_at <= $2
ORDER BY due_at
LIMIT 100";

/// What to tell the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The connection is saved.
    Confirm = 1,
    /// It is to end, at the provider too.
    Revoke = 2,
    /// It is to end here alone: revoking it at the provider could end the grant that came in its place.
    RevokeHere = 3,
}

/// A grant, and what to tell the vault of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantDuty {
    pub(crate) tenant: TenantKey,
    pub(crate) grant_id: Uuid,
    pub(crate) duty: Duty,
    pub(crate) attempts: i32,
}

/// Notes it, in the transaction that makes it so. Due a little later, since whoever notes it does it at once.
pub(crate) async fn duty_put(
    tx: &Tx,
    tenant: TenantKey,
    grant_id: Uuid,
    duty: Duty,
) -> Result<(), Error> {
    let due = tx.deps().now() + time::Duration::seconds(10);
    tx.execute(
        DUTY_PUT,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &grant_id,
            &(duty as i16),
            &due,
        ],
    )
    .await
    .map(drop)
}

/// The vault knows.
pub(crate) async fn duty_done(db: &Database, done: &GrantDuty) -> Result<(), Error> {
    let params: &[&(dyn common::pg::ToSql + Sync)] =
        &[&done.tenant.bucket(), &done.grant_id, &(done.duty as i16)];
    db.execute(Scope::Tenant(done.tenant), DUTY_DONE, params)
        .await
        .map(drop)
}

/// To be tried again then.
pub(crate) async fn duty_put_off(
    db: &Database,
    duty: &GrantDuty,
    until: OffsetDateTime,
) -> Result<(), Error> {
    let params: &[&(dyn common::pg::ToSql + Sync)] =
        &[&duty.tenant.bucket(), &duty.grant_id, &until];
    db.execute(Scope::Tenant(duty.tenant), DUTY_PUT_OFF, params)
        .await
        .map(drop)
}

/// The buckets in which something is due.
pub(crate) async fn duty_due_buckets(db: &Database) -> Result<Vec<i16>, Error> {
    let now = db.deps().now();
    let rows = db.query(Scope::System, DUTY_DUE_BUCKETS, &[&now]).await?;
    Ok(rows.iter().map(|row| row.get("bucket")).collect())
}

/// What is due in a bucket.
pub(crate) async fn duty_due(db: &Database, bucket: i16) -> Result<Vec<GrantDuty>, Error> {
    let now = db.deps().now();
    let rows = db.query(Scope::System, DUTY_DUE, &[&bucket, &now]).await?;
    Ok(rows.iter().map(duty).collect())
}

fn duty(row: &Row) -> GrantDuty {
    let duty = match row.get::<_, i16>("duty") {
        1 => Duty::Confirm,
        2 => Duty::Revoke,
        _ => Duty::RevokeHere,
    };
    GrantDuty {
        tenant: tenant(row, "tenant_id"),
        grant_id: row.get("grant_id"),
        duty,
        attempts: row.get("attempts"),
    }
}
