//! Tenants.

use common::TenantKey;
use common::pg::Row;
use uuid::Uuid;

use super::{Database, Scope, StoreError, Tx, column, known};
use crate::subdomain::Subdomain;
use crate::tenant::{Profile, Quotas, State, Status, Subscription, Tenant, Tier};

macro_rules! columns {
    () => {
        "tenant_id, company_name, external_id, subdomain, billing_customer_id, tier, status, trial_ends_at,
    documents_per_user_per_day, connections, max_backfill_days, sync_weight, support_contact, logo_url,
    allowed_origins, state, deletion, revision, created_at, updated_at"
    };
}
pub(super) use columns;

const TENANT_CREATE: &str = "\
-- directory.tenant_create
INSERT INTO directory.tenants (
    bucket, tenant_id, company_name, external_id, subdomain, billing_customer_id, tier, status, trial_ends_at,
    documents_per_user_per_day, connections, max_backfill_days, sync_weight, support_contact, logo_url,
    allowed_origins, state, deletion, revision, created_at, updated_at, search_text)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
ON CONFLICT (bucket, tenant_id) DO NOTHING";

pub(super) const TENANT_GET: &str = concat!(
    "-- directory.tenant_get
SELECT ",
    columns!(),
    "
FROM directory.tenants
WHERE bucket = $1 AND tenant_id = $2"
);

const TENANT_LOCK: &str = concat!(
    "-- directory.tenant_lock
SELECT ",
    columns!(),
    "
FROM directory.tenants
WHERE bucket = $1 AND tenant_id = $2
FOR UPDATE"
);

const TENANT_STATE_HOLD: &str = "\
-- directory.tenant_state_hold
SELECT state
FROM directory.tenants
WHERE bucket = $1 AND tenant_id = $2
FOR SHARE";

const TENANT_UPDATE: &str = "\
-- directory.tenant_update
UPDATE directory.tenants
SET company_name = $3, external_id = $4, subdomain = $5, billing_customer_id = $6, tier = $7, status = $8,
    trial_ends_at = $9, documents_per_user_per_day = $10, connections = $11, max_backfill_days = $12,
    sync_weight = $13, support_contact = $14, logo_url = $15, allowed_origins = $16, state = $17, deletion = $18,
    revision = $19, created_at = $20, updated_at = $21, search_text = $22
WHERE bucket = $1 AND tenant_id = $2";

pub(super) const TENANTS_GET: &str = concat!(
    "-- directory.tenants_get
SELECT ",
    columns!(),
    "
FROM directory.tenants
WHERE bucket = ANY($1) AND tenant_id = ANY($2)"
);

/// Adds the tenant; `false` where it is there already.
pub(crate) async fn tenant_create(tx: &Tx, tenant: &Tenant) -> Result<bool, StoreError> {
    Ok(write(tx, TENANT_CREATE, tenant).await? == 1)
}

/// Writes the tenant, whose row the transaction has locked.
pub(crate) async fn tenant_update(tx: &Tx, tenant: &Tenant) -> Result<(), StoreError> {
    let written = write(tx, TENANT_UPDATE, tenant).await?;
    debug_assert_eq!(written, 1, "the row is locked");
    Ok(())
}

/// The tenant, for reading.
pub(crate) async fn tenant_get(
    db: &Database,
    key: TenantKey,
) -> Result<Option<Tenant>, StoreError> {
    let row = db
        .query_opt(Scope::Tenant(key), TENANT_GET, &[&key.bucket(), &key.id()])
        .await?;
    row.as_ref().map(decode).transpose()
}

/// The tenant, for changing.
pub(crate) async fn tenant_lock(tx: &Tx, key: TenantKey) -> Result<Option<Tenant>, StoreError> {
    let row = tx
        .query_opt(TENANT_LOCK, &[&key.bucket(), &key.id()])
        .await?;
    row.as_ref().map(decode).transpose()
}

/// The tenant's state, which stays as it is until the transaction ends.
pub(crate) async fn tenant_state_hold(
    tx: &Tx,
    key: TenantKey,
) -> Result<Option<State>, StoreError> {
    let row = tx
        .query_opt(TENANT_STATE_HOLD, &[&key.bucket(), &key.id()])
        .await?;
    row.map(|row| state(&row)).transpose()
}

/// Those of these tenants that there are, in any order.
pub(crate) async fn tenants_get(
    db: &Database,
    keys: &[TenantKey],
) -> Result<Vec<Tenant>, StoreError> {
    let mut buckets: Vec<i16> = keys.iter().map(TenantKey::bucket).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let ids: Vec<Uuid> = keys.iter().map(TenantKey::id).collect();
    let rows = db
        .query(Scope::System, TENANTS_GET, &[&buckets, &ids])
        .await?;
    rows.iter().map(decode).collect()
}

async fn write(tx: &Tx, sql: &str, tenant: &Tenant) -> Result<u64, StoreError> {
    let Profile {
        company_name,
        external_id,
        subdomain,
        subscription,
        quotas,
        support_contact,
        logo_url,
        allowed_origins,
    } = &tenant.profile;
    let written = tx
        .execute(
            sql,
            &[
                &tenant.key.bucket(),
                &tenant.key.id(),
                company_name,
                external_id,
                &subdomain.as_ref().map(Subdomain::as_str),
                &subscription.billing_customer_id,
                &subscription.tier.as_str(),
                &subscription.status.as_str(),
                &subscription.trial_ends_at,
                &quotas.documents_per_user_per_day,
                &quotas.connections,
                &quotas.max_backfill_days,
                &quotas.sync_weight,
                support_contact,
                logo_url,
                allowed_origins,
                &tenant.state.as_str(),
                &tenant.deletion,
                &tenant.revision,
                &tenant.created_at,
                &tenant.updated_at,
                &tenant.search_text(),
            ],
        )
        .await?;
    Ok(written)
}

pub(super) fn decode(row: &Row) -> Result<Tenant, StoreError> {
    let text = |name| column::<String>(row, name);
    let subscription = Subscription {
        tier: known(Tier::from_stored(&text("tier")?), "tenants", "tier")?,
        status: known(Status::from_stored(&text("status")?), "tenants", "status")?,
        trial_ends_at: column(row, "trial_ends_at")?,
        billing_customer_id: column(row, "billing_customer_id")?,
    };
    let quotas = Quotas {
        documents_per_user_per_day: column(row, "documents_per_user_per_day")?,
        connections: column(row, "connections")?,
        max_backfill_days: column(row, "max_backfill_days")?,
        sync_weight: column(row, "sync_weight")?,
    };
    let profile = Profile {
        company_name: text("company_name")?,
        external_id: column(row, "external_id")?,
        subdomain: column::<Option<String>>(row, "subdomain")?.map(Subdomain::from_stored),
        subscription,
        quotas,
        support_contact: text("support_contact")?,
        logo_url: text("logo_url")?,
        allowed_origins: column(row, "allowed_origins")?,
    };
    Ok(Tenant {
        key: key(row, "tenants")?,
        profile,
        state: state(row)?,
        deletion: text("deletion")?,
        revision: column(row, "revision")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn state(row: &Row) -> Result<State, StoreError> {
    known(
        State::from_stored(&column::<String>(row, "state")?),
        "tenants",
        "state",
    )
}

/// A row's tenant.
pub(super) fn key(row: &Row, table: &'static str) -> Result<TenantKey, StoreError> {
    known(
        TenantKey::from_id(column(row, "tenant_id")?).ok(),
        table,
        "tenant_id",
    )
}
