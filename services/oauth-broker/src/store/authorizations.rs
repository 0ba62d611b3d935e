//! Trips to a provider and back.

use common::TenantKey;
use common::pg::{Database, Error, Row, Scope, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant;

const AUTHORIZATION_INSERT: &str = "\
-- broker.authorization_insert
INSERT INTO broker.authorizations (
    bucket, tenant_id, state_hash, session_id, browser_hash, integration_tenant_id, integration_id, redirect_uri,
    grant_id, requested_scopes, sealed, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// The sealed verifier is read and destroyed at once.
const AUTHORIZATION_CONSUME: &str = "\
-- broker.authorization_consume
WITH found AS (
    SELECT bucket, state_hash, sealed
    FROM broker.authorizations
    WHERE bucket = $1
        AND state_hash = $2
        AND browser_hash = $3
        AND redirect_uri = $4
        AND consumed_at IS NULL
        AND expires_at > $5
    FOR UPDATE
)
UPDATE broker.authorizations a
SET consumed_at = $5,
    sealed = NULL
FROM found
WHERE a.bucket = $1
    AND a.state_hash = found.state_hash
RETURNING a.tenant_id, a.session_id, a.browser_hash, a.integration_tenant_id, a.integration_id, a.redirect_uri,
    a.grant_id, a.requested_scopes, found.sealed, a.created_at, a.expires_at, a.consumed_at";

const AUTHORIZATION_GET: &str = "\
-- broker.authorization_get
SELECT tenant_id, session_id, browser_hash, integration_tenant_id, integration_id, redirect_uri, grant_id,
    requested_scopes, sealed, created_at, expires_at, consumed_at
FROM broker.authorizations
WHERE bucket = $1
    AND state_hash = $2";

/// One trip.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) tenant: TenantKey,
    pub(crate) session_id: Uuid,
    pub(crate) browser_hash: Vec<u8>,
    pub(crate) integration_tenant: TenantKey,
    pub(crate) integration_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) grant_id: Uuid,
    pub(crate) requested_scopes: Vec<String>,
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) consumed_at: Option<OffsetDateTime>,
}

/// Writes one before the browser leaves.
pub(crate) async fn authorization_insert(
    tx: &Tx,
    state_hash: &[u8],
    new: &Authorization,
) -> Result<(), Error> {
    tx.execute(
        AUTHORIZATION_INSERT,
        &[
            &new.tenant.bucket(),
            &new.tenant.id(),
            &state_hash,
            &new.session_id,
            &new.browser_hash,
            &new.integration_tenant.id(),
            &new.integration_id,
            &new.redirect_uri,
            &new.grant_id,
            &new.requested_scopes,
            &new.sealed,
            &new.created_at,
            &new.expires_at,
        ],
    )
    .await
    .map(drop)
}

/// Uses a state up, if it is this browser's and came back to where it was sent. Once: of callers at the same time, one.
pub(crate) async fn authorization_consume(
    db: &Database,
    bucket: i16,
    state_hash: &[u8],
    browser_hash: &[u8],
    redirect_uri: &str,
) -> Result<Option<Authorization>, Error> {
    let now = db.deps().now();
    let row = db
        .query_opt(
            Scope::System,
            AUTHORIZATION_CONSUME,
            &[&bucket, &state_hash, &browser_hash, &redirect_uri, &now],
        )
        .await?;
    Ok(row.as_ref().map(authorization))
}

/// What is known of a state that was not consumed just now.
pub(crate) async fn authorization_get(
    db: &Database,
    bucket: i16,
    state_hash: &[u8],
) -> Result<Option<Authorization>, Error> {
    let row = db
        .query_opt(Scope::System, AUTHORIZATION_GET, &[&bucket, &state_hash])
        .await?;
    Ok(row.as_ref().map(authorization))
}

fn authorization(row: &Row) -> Authorization {
    Authorization {
        tenant: tenant(row, "tenant_id"),
        session_id: row.get("session_id"),
        browser_hash: row.get("browser_hash"),
        integration_tenant: tenant(row, "integration_tenant_id"),
        integration_id: row.get("integration_id"),
        redirect_uri: row.get("redirect_uri"),
        grant_id: row.get("grant_id"),
        requested_scopes: row.get("requested_scopes"),
        sealed: row.get("sealed"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        consumed_at: row.get("consumed_at"),
    }
}
