//! Names that are unique over all tenants, and the claims on them.

use common::pg::Row;
use time::OffsetDateTime;

use super::{Database, Scope, StoreError, Tx, column, known, tenant};
use crate::name::{Claim, Name, NameKind, Verdict};

/// A name as it stands.
pub(crate) struct StoredName {
    /// Whose it is, and under which claim.
    pub(crate) claim: Claim,
    /// Whether the claim is known to have been used.
    pub(crate) confirmed: bool,
    /// Reserved so long ago that whoever did it may be gone.
    pub(crate) stale: bool,
}

const NAME_RESERVE: &str = "\
-- directory.name_reserve
INSERT INTO directory.names (bucket, kind, name, claim_id, tenant_id, confirmed)
VALUES ($1, $2, $3, $4, $5, false)
ON CONFLICT (bucket, kind, name) DO NOTHING";

pub(super) const NAME_GET: &str = "\
-- directory.name_get
SELECT kind, name, claim_id, tenant_id, confirmed, claimed_at < now() - '5 s'::interval AS stale
FROM directory.names
WHERE bucket = $1 AND kind = $2 AND name = $3";

const NAME_CONFIRM: &str = "\
-- directory.name_confirm
UPDATE directory.names
SET confirmed = true
WHERE bucket = $1 AND kind = $2 AND name = $3 AND claim_id = $4";

const NAME_FREE: &str = "\
-- directory.name_free
DELETE FROM directory.names
WHERE bucket = $1 AND kind = $2 AND name = $3 AND claim_id = $4";

const NAME_CLAIM_DECIDE: &str = "\
-- directory.name_claim_decide
INSERT INTO directory.name_claims (bucket, tenant_id, claim_id, kind, name, state, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, claim_id) DO NOTHING";

pub(super) const NAME_CLAIM_GET: &str = "\
-- directory.name_claim_get
SELECT state
FROM directory.name_claims
WHERE bucket = $1 AND tenant_id = $2 AND claim_id = $3";

pub(super) const NAME_CLAIM_RELEASE: &str = "\
-- directory.name_claim_release
UPDATE directory.name_claims
SET state = 'released', decided_at = $5
WHERE bucket = $1 AND tenant_id = $2 AND kind = $3 AND state = 'used' AND name <> $4
RETURNING kind, name, claim_id, tenant_id";

const NAME_CLAIM_END: &str = "\
-- directory.name_claim_end
UPDATE directory.name_claims
SET state = 'freed', decided_at = $4
WHERE bucket = $1 AND tenant_id = $2 AND claim_id = $3 AND state = 'released'";

const NAME_CLAIM_FORGET: &str = "\
-- directory.name_claim_forget
DELETE FROM directory.name_claims
WHERE bucket = $1 AND tenant_id = $2 AND claim_id = $3 AND state IN ('freed', 'refused')";

/// Reserves a free name; `false` where it is somebody's.
pub(crate) async fn name_reserve(db: &Database, claim: &Claim) -> Result<bool, StoreError> {
    let Claim {
        name,
        tenant,
        claim_id,
    } = claim;
    let added = db
        .execute(
            Scope::System,
            NAME_RESERVE,
            &[
                &name.bucket(),
                &name.kind.as_str(),
                &name.name,
                claim_id,
                &tenant.id(),
            ],
        )
        .await?;
    Ok(added == 1)
}

/// Whose a name is.
pub(crate) async fn name_get(db: &Database, name: &Name) -> Result<Option<StoredName>, StoreError> {
    let row = db
        .query_opt(
            Scope::System,
            NAME_GET,
            &[&name.bucket(), &name.kind.as_str(), &name.name],
        )
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Notes that the claim was used.
pub(crate) async fn name_confirm(db: &Database, claim: &Claim) -> Result<(), StoreError> {
    on_name(db, NAME_CONFIRM, claim).await
}

/// Lets go of a name, where it is still held under this claim.
pub(crate) async fn name_free(db: &Database, claim: &Claim) -> Result<(), StoreError> {
    on_name(db, NAME_FREE, claim).await
}

async fn on_name(db: &Database, sql: &str, claim: &Claim) -> Result<(), StoreError> {
    let Claim { name, claim_id, .. } = claim;
    db.execute(
        Scope::System,
        sql,
        &[&name.bucket(), &name.kind.as_str(), &name.name, claim_id],
    )
    .await?;
    Ok(())
}

/// Decides what becomes of a claim, unless that is decided already; gives what holds.
pub(crate) async fn name_claim_decide(
    tx: &Tx,
    claim: &Claim,
    verdict: Verdict,
    now: OffsetDateTime,
) -> Result<Verdict, StoreError> {
    let Claim {
        name,
        tenant,
        claim_id,
    } = claim;
    let decided = tx
        .execute(
            NAME_CLAIM_DECIDE,
            &[
                &tenant.bucket(),
                &tenant.id(),
                claim_id,
                &name.kind.as_str(),
                &name.name,
                &verdict.as_str(),
                &now,
            ],
        )
        .await?;
    if decided == 1 {
        return Ok(verdict);
    }
    let row = tx
        .query_opt(NAME_CLAIM_GET, &[&tenant.bucket(), &tenant.id(), claim_id])
        .await?;
    match row {
        Some(row) => known(
            Verdict::from_stored(&column::<String>(&row, "state")?),
            "name_claims",
            "state",
        ),
        // Forgotten between the two statements, long after its end.
        None => Ok(Verdict::Freed),
    }
}

/// The tenant gives up its names of this kind, but for the one that it has now.
pub(crate) async fn name_claim_release(
    tx: &Tx,
    tenant: common::TenantKey,
    kind: NameKind,
    kept: Option<&Name>,
    now: OffsetDateTime,
) -> Result<Vec<Claim>, StoreError> {
    let kept = kept.map_or("", |name| name.name.as_str());
    let rows = tx
        .query(
            NAME_CLAIM_RELEASE,
            &[&tenant.bucket(), &tenant.id(), &kind.as_str(), &kept, &now],
        )
        .await?;
    rows.iter().map(claim).collect()
}

/// Notes that the name of a released claim is free.
pub(crate) async fn name_claim_end(
    db: &Database,
    claim: &Claim,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let Claim {
        tenant, claim_id, ..
    } = claim;
    db.execute(
        Scope::Tenant(*tenant),
        NAME_CLAIM_END,
        &[&tenant.bucket(), &tenant.id(), claim_id, &now],
    )
    .await?;
    Ok(())
}

/// Forgets a claim long after its end.
pub(crate) async fn name_claim_forget(db: &Database, claim: &Claim) -> Result<(), StoreError> {
    let Claim {
        tenant, claim_id, ..
    } = claim;
    db.execute(
        Scope::Tenant(*tenant),
        NAME_CLAIM_FORGET,
        &[&tenant.bucket(), &tenant.id(), claim_id],
    )
    .await?;
    Ok(())
}

pub(super) fn decode(row: &Row) -> Result<StoredName, StoreError> {
    Ok(StoredName {
        claim: claim(row)?,
        confirmed: column(row, "confirmed")?,
        stale: column(row, "stale")?,
    })
}

fn claim(row: &Row) -> Result<Claim, StoreError> {
    let kind = known(
        NameKind::from_stored(&column::<String>(row, "kind")?),
        "names",
        "kind",
    )?;
    Ok(Claim {
        name: Name::new(kind, column::<String>(row, "name")?),
        tenant: tenant::key(row, "names")?,
        claim_id: column(row, "claim_id")?,
    })
}
