//! Integrations.

use common::TenantKey;
use common::pg::{Database, Error, Json, Row, Scope, Tx};
use serde_json::Value;
use uuid::Uuid;

use super::{number, tenant};
use crate::integration::{Discovered, Integration};

macro_rules! columns {
    () => {
        "bucket, tenant_id, integration_id, provider, display_name, auth_mode, oauth_client_id, client_id, scopes,
    cardinality, exclusive_accounts, overrides, discovered, allowed_origins, accept_unverified, configuration_error,
    revision, created_at, updated_at"
    };
}

const INTEGRATION_INSERT: &str = "\
-- broker.integration_insert
INSERT INTO broker.integrations (
    bucket, tenant_id, integration_id, provider, display_name, auth_mode, oauth_client_id, client_id, scopes,
    cardinality, exclusive_accounts, overrides, discovered, allowed_origins, accept_unverified, revision, created_at,
    updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT DO NOTHING";

const INTEGRATION_GET: &str = concat!(
    "-- broker.integration_get\nSELECT ",
    columns!(),
    "
FROM broker.integrations
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3"
);

const INTEGRATION_LIST: &str = concat!(
    "-- broker.integration_list\nSELECT ",
    columns!(),
    "
FROM broker.integrations
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3::text IS NULL OR integration_id > $3)
ORDER BY integration_id
LIMIT $4"
);

const INTEGRATION_UPDATE: &str = "\
-- broker.integration_update
UPDATE broker.integrations
SET display_name = $4,
    client_id = $5,
    scopes = $6,
    exclusive_accounts = $7,
    overrides = $8,
    discovered = $9,
    allowed_origins = $10,
    accept_unverified = $11,
    configuration_error = $12,
    updated_at = $13,
    revision = revision + 1
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3
    AND revision = $14";

const INTEGRATION_DELETE: &str = "\
-- broker.integration_delete
DELETE FROM broker.integrations
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3";

const INTEGRATION_BLAME: &str = "\
-- broker.integration_blame
UPDATE broker.integrations
SET configuration_error = $3,
    updated_at = $4,
    revision = revision + 1
WHERE bucket = $1
    AND oauth_client_id = $2
    AND configuration_error <> $3";

/// Writes a new one; `false` where the tenant has one of that id.
pub(crate) async fn integration_insert(tx: &Tx, new: &Integration) -> Result<bool, Error> {
    let inserted = tx
        .execute(
            INTEGRATION_INSERT,
            &[
                &new.tenant.bucket(),
                &new.tenant.id(),
                &new.integration_id,
                &new.provider,
                &new.display_name,
                &(new.auth_mode as i16),
                &new.oauth_client_id,
                &new.client_id,
                &new.scopes,
                &(new.cardinality as i16),
                &new.exclusive_accounts,
                &Json(&new.overrides),
                &new.discovered.as_ref().map(Json),
                &new.allowed_origins,
                &new.accept_unverified,
                &new.revision,
                &new.created_at,
                &new.updated_at,
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The tenant's integration of that id.
pub(crate) async fn integration_get(
    db: &Database,
    owner: TenantKey,
    id: &str,
) -> Result<Option<Integration>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(owner),
            INTEGRATION_GET,
            &[&owner.bucket(), &owner.id(), &id],
        )
        .await?;
    Ok(row.as_ref().map(integration))
}

/// By id, behind `after`.
pub(crate) async fn integration_list(
    db: &Database,
    owner: TenantKey,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Integration>, Error> {
    let rows = db
        .query(
            Scope::Tenant(owner),
            INTEGRATION_LIST,
            &[&owner.bucket(), &owner.id(), &after, &limit],
        )
        .await?;
    Ok(rows.iter().map(integration).collect())
}

/// Writes what can change over the revision that was read; `false` where there is another by now.
pub(crate) async fn integration_update(tx: &Tx, changed: &Integration) -> Result<bool, Error> {
    let updated = tx
        .execute(
            INTEGRATION_UPDATE,
            &[
                &changed.tenant.bucket(),
                &changed.tenant.id(),
                &changed.integration_id,
                &changed.display_name,
                &changed.client_id,
                &changed.scopes,
                &changed.exclusive_accounts,
                &Json(&changed.overrides),
                &changed.discovered.as_ref().map(Json),
                &changed.allowed_origins,
                &changed.accept_unverified,
                &changed.configuration_error,
                &changed.updated_at,
                &changed.revision,
            ],
        )
        .await?;
    Ok(updated == 1)
}

/// Forgets it; `false` where there is none.
pub(crate) async fn integration_delete(tx: &Tx, owner: TenantKey, id: &str) -> Result<bool, Error> {
    Ok(tx
        .execute(INTEGRATION_DELETE, &[&owner.bucket(), &owner.id(), &id])
        .await?
        == 1)
}

/// Notes what the provider says against the client, or that it is content.
pub(crate) async fn integration_blame(
    db: &Database,
    owner: TenantKey,
    oauth_client_id: Uuid,
    error: &str,
) -> Result<(), Error> {
    let now = db.deps().now();
    db.execute(
        Scope::Tenant(owner),
        INTEGRATION_BLAME,
        &[&owner.bucket(), &oauth_client_id, &error, &now],
    )
    .await
    .map(drop)
}

fn integration(row: &Row) -> Integration {
    Integration {
        tenant: tenant(row, "tenant_id"),
        integration_id: row.get("integration_id"),
        provider: row.get("provider"),
        display_name: row.get("display_name"),
        auth_mode: number(row, "auth_mode"),
        oauth_client_id: row.get("oauth_client_id"),
        client_id: row.get("client_id"),
        scopes: row.get("scopes"),
        cardinality: number(row, "cardinality"),
        exclusive_accounts: row.get("exclusive_accounts"),
        overrides: row.get::<_, Json<Value>>("overrides").0,
        discovered: row
            .get::<_, Option<Json<Discovered>>>("discovered")
            .map(|Json(discovered)| discovered),
        allowed_origins: row.get("allowed_origins"),
        accept_unverified: row.get("accept_unverified"),
        configuration_error: row.get("configuration_error"),
        revision: row.get("revision"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}
