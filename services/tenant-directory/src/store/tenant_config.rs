//! What a tenant has chosen instead of the defaults.

use common::TenantKey;
use common::pg::{Json, Row};

use super::{Database, Scope, StoreError, Tx, column};
use crate::tenant_config::{Object, Section, TenantConfig};

const TENANT_CONFIG_CREATE: &str = "\
-- directory.tenant_config_create
INSERT INTO directory.tenant_configs (
    bucket, tenant_id, field_mappings, risk_rules, priority_weights, revision, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, tenant_id) DO NOTHING";

const TENANT_CONFIG_UPDATE: &str = "\
-- directory.tenant_config_update
UPDATE directory.tenant_configs
SET field_mappings = $3, risk_rules = $4, priority_weights = $5, revision = $6, updated_at = $7
WHERE bucket = $1 AND tenant_id = $2";

pub(super) const TENANT_CONFIG_GET: &str = "\
-- directory.tenant_config_get
SELECT field_mappings, risk_rules, priority_weights, revision, updated_at
FROM directory.tenant_configs
WHERE bucket = $1 AND tenant_id = $2";

const TENANT_CONFIG_LOCK: &str = "\
-- directory.tenant_config_lock
SELECT field_mappings, risk_rules, priority_weights, revision, updated_at
FROM directory.tenant_configs
WHERE bucket = $1 AND tenant_id = $2
FOR UPDATE";

const TENANT_CONFIG_ERASE: &str = "\
-- directory.tenant_config_erase
DELETE FROM directory.tenant_configs
WHERE bucket = $1 AND tenant_id = $2";

/// Adds the row that every tenant has.
pub(crate) async fn tenant_config_create(tx: &Tx, config: &TenantConfig) -> Result<(), StoreError> {
    write(tx, TENANT_CONFIG_CREATE, config).await
}

/// Writes what was chosen, in the row that the transaction has locked.
pub(crate) async fn tenant_config_update(tx: &Tx, config: &TenantConfig) -> Result<(), StoreError> {
    write(tx, TENANT_CONFIG_UPDATE, config).await
}

/// The configuration, for reading; `None` where there is no such tenant, or not any more.
pub(crate) async fn tenant_config_get(
    db: &Database,
    tenant: TenantKey,
) -> Result<Option<TenantConfig>, StoreError> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            TENANT_CONFIG_GET,
            &[&tenant.bucket(), &tenant.id()],
        )
        .await?;
    row.map(|row| decode(tenant, &row)).transpose()
}

/// The configuration, for changing.
pub(crate) async fn tenant_config_lock(
    tx: &Tx,
    tenant: TenantKey,
) -> Result<Option<TenantConfig>, StoreError> {
    let row = tx
        .query_opt(TENANT_CONFIG_LOCK, &[&tenant.bucket(), &tenant.id()])
        .await?;
    row.map(|row| decode(tenant, &row)).transpose()
}

/// Forgets it.
pub(crate) async fn tenant_config_erase(
    db: &Database,
    tenant: TenantKey,
) -> Result<(), StoreError> {
    db.execute(
        Scope::Tenant(tenant),
        TENANT_CONFIG_ERASE,
        &[&tenant.bucket(), &tenant.id()],
    )
    .await?;
    Ok(())
}

async fn write(tx: &Tx, sql: &str, config: &TenantConfig) -> Result<(), StoreError> {
    let [field_mappings, risk_rules, priority_weights] =
        Section::ALL.map(|section| Json(config.chosen(section)));
    tx.execute(
        sql,
        &[
            &config.tenant.bucket(),
            &config.tenant.id(),
            &field_mappings,
            &risk_rules,
            &priority_weights,
            &config.revision,
            &config.updated_at,
        ],
    )
    .await?;
    Ok(())
}

fn decode(tenant: TenantKey, row: &Row) -> Result<TenantConfig, StoreError> {
    let section =
        |section: Section| column::<Json<Object>>(row, section.as_str()).map(|Json(object)| object);
    let sections = [
        section(Section::FieldMappings)?,
        section(Section::RiskRules)?,
        section(Section::PriorityWeights)?,
    ];
    Ok(TenantConfig::from_stored(
        tenant,
        sections,
        column(row, "revision")?,
        column(row, "updated_at")?,
    ))
}
