//! Connections.

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Database, Error, Json, Row, Scope, Tx};
use contracts::broker::v1::ConnectionState;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{number, tenant, texts};
use crate::connection::{Connection, GrantFacts, Transition};

macro_rules! columns {
    () => {
        "bucket, tenant_id, connection_id, integration_tenant_id, integration_id, provider, identity_key, user_id,
    user_email, external_user_id, state, grant_id, scopes, requested_scopes, scope_raw, token_type, has_refresh_token,
    token_expires_at, refresh_token_expires_at, parameters, labels, metadata_json, last_error, reauthorization_cause,
    connected_at, disconnected_at, revoked_at, updated_at, revision"
    };
}

const CONNECTION_INSERT: &str = "\
-- broker.connection_insert
INSERT INTO broker.connections (
    bucket, tenant_id, connection_id, integration_tenant_id, integration_id, provider, identity_key, user_id,
    user_email, external_user_id, state, grant_id, scopes, requested_scopes, scope_raw, token_type, has_refresh_token,
    token_expires_at, refresh_token_expires_at, parameters, labels, metadata_json, last_error, reauthorization_cause,
    connected_at, disconnected_at, revoked_at, updated_at, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
    $25, $26, $27, $28, $29)";

const CONNECTION_REPLACE: &str = "\
-- broker.connection_replace
UPDATE broker.connections
SET identity_key = $3,
    user_id = $4,
    user_email = $5,
    external_user_id = $6,
    state = $7,
    grant_id = $8,
    scopes = $9,
    requested_scopes = $10,
    scope_raw = $11,
    token_type = $12,
    has_refresh_token = $13,
    token_expires_at = $14,
    refresh_token_expires_at = $15,
    parameters = $16,
    labels = $17,
    metadata_json = $18,
    last_error = $19,
    reauthorization_cause = $20,
    connected_at = $21,
    disconnected_at = $22,
    revoked_at = $23,
    updated_at = $24,
    revision = $25
WHERE bucket = $1
    AND connection_id = $2";

const CONNECTION_GET: &str = concat!(
    "-- broker.connection_get\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND connection_id = $2"
);

const CONNECTION_LOCK: &str = concat!(
    "-- broker.connection_lock\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND connection_id = $2
FOR UPDATE"
);

const CONNECTION_BY_IDENTITY: &str = concat!(
    "-- broker.connection_by_identity\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_tenant_id = $3
    AND integration_id = $4
    AND identity_key = $5"
);

const CONNECTION_BY_GRANT: &str = concat!(
    "-- broker.connection_by_grant\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND grant_id = $2
FOR UPDATE"
);

const CONNECTION_OF_USER: &str = concat!(
    "-- broker.connection_of_user\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_tenant_id = $3
    AND integration_id = $4
    AND ($5 = '' OR user_id = $5)
    AND state <> 4
ORDER BY connected_at DESC
LIMIT 1"
);

const CONNECTION_LIST: &str = concat!(
    "-- broker.connection_list\nSELECT ",
    columns!(),
    "
FROM broker.connections c
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3 = '' OR user_id = $3)
    AND ($4 = '' OR integration_id = $4)
    AND ($5 = '' OR provider = $5)
    AND ($6::smallint = 0 OR state = $6)
    AND ($7 = '' OR external_user_id = $7)
    AND ($8 = '' OR EXISTS (
        SELECT
        FROM broker.accounts a
        WHERE a.bucket = $1
            AND a.connection_id = c.connection_id
            AND a.external_account_id = $8))
    AND labels @> $9
    AND ($10::uuid IS NULL OR connection_id > $10)
ORDER BY connection_id
LIMIT $11"
);

/// Over every tenant, for operators and services.
const CONNECTION_LIST_ALL: &str = concat!(
    "-- broker.connection_list_all\nSELECT ",
    columns!(),
    "
FROM broker.connections c
WHERE ($1 = '' OR user_id = $1)
    AND ($2 = '' OR integration_id = $2)
    AND ($3 = '' OR provider = $3)
    AND ($4::smallint = 0 OR state = $4)
    AND ($5 = '' OR external_user_id = $5)
    AND ($6 = '' OR EXISTS (
        SELECT
        FROM broker.accounts a
        WHERE a.bucket = c.bucket
            AND a.connection_id = c.connection_id
            AND a.external_account_id = $6))
    AND labels @> $7
    AND ($8::uuid IS NULL OR connection_id > $8)
ORDER BY connection_id
LIMIT $9"
);

const CONNECTION_BATCH: &str = concat!(
    "-- broker.connection_batch\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE bucket = $1
    AND connection_id = ANY ($2)"
);

/// Of an integration, over every tenant: who uses the platform's is not known before.
const CONNECTION_OF_INTEGRATION: &str = concat!(
    "-- broker.connection_of_integration\nSELECT ",
    columns!(),
    "
FROM broker.connections
WHERE integration_tenant_id = $1
    AND integration_id = $2
    AND state <> 4
ORDER BY connection_id
LIMIT $3"
);

/// Facts of the grant move without a new revision: nobody has changed the connection.
const CONNECTION_GRANT_MOVE: &str = "\
-- broker.connection_grant_move
UPDATE broker.connections
SET scopes = $3,
    scope_raw = $4,
    token_type = $5,
    has_refresh_token = $6,
    token_expires_at = $7,
    refresh_token_expires_at = $8,
    last_error = $9,
    revoked_at = $10
WHERE bucket = $1
    AND connection_id = $2";

const CONNECTION_REVOKED: &str = "\
-- broker.connection_revoked
UPDATE broker.connections
SET revoked_at = $3
WHERE bucket = $1
    AND connection_id = $2";

const CONNECTION_STATE: &str = concat!(
    "-- broker.connection_state
UPDATE broker.connections
SET state = $3,
    reauthorization_cause = $4,
    updated_at = $5,
    revision = revision + 1
WHERE bucket = $1
    AND connection_id = $2
RETURNING ",
    columns!()
);

const CONNECTION_DISCONNECT: &str = concat!(
    "-- broker.connection_disconnect
UPDATE broker.connections
SET state = 4,
    reauthorization_cause = '',
    last_error = '',
    metadata_json = '',
    token_expires_at = NULL,
    has_refresh_token = false,
    disconnected_at = $3,
    updated_at = $3,
    revision = revision + 1
WHERE bucket = $1
    AND connection_id = $2
RETURNING ",
    columns!()
);

const CONNECTION_TOUCH: &str = concat!(
    "-- broker.connection_touch
UPDATE broker.connections
SET labels = $3,
    updated_at = $4,
    revision = revision + 1
WHERE bucket = $1
    AND connection_id = $2
RETURNING ",
    columns!()
);

/// Writes a new connection.
pub(crate) async fn connection_insert(tx: &Tx, new: &Connection) -> Result<(), Error> {
    tx.execute(
        CONNECTION_INSERT,
        &[
            &new.tenant.bucket(),
            &new.tenant.id(),
            &new.connection_id,
            &new.integration_tenant.id(),
            &new.integration_id,
            &new.provider,
            &new.identity_key,
            &new.user_id,
            &new.user_email,
            &new.external_user_id,
            &(new.state as i16),
            &new.grant.grant_id,
            &new.grant.scopes,
            &new.requested_scopes,
            &new.grant.scope_raw,
            &new.grant.token_type,
            &new.grant.has_refresh_token,
            &new.grant.token_expires_at,
            &new.grant.refresh_token_expires_at,
            &Json(&new.parameters),
            &Json(&new.labels),
            &new.metadata_json,
            &new.last_error,
            &new.reauthorization_cause,
            &new.connected_at,
            &new.disconnected_at,
            &new.revoked_at,
            &new.updated_at,
            &new.revision,
        ],
    )
    .await
    .map(drop)
}

/// Writes a connection that was locked before.
pub(crate) async fn connection_replace(tx: &Tx, changed: &Connection) -> Result<(), Error> {
    tx.execute(
        CONNECTION_REPLACE,
        &[
            &changed.tenant.bucket(),
            &changed.connection_id,
            &changed.identity_key,
            &changed.user_id,
            &changed.user_email,
            &changed.external_user_id,
            &(changed.state as i16),
            &changed.grant.grant_id,
            &changed.grant.scopes,
            &changed.requested_scopes,
            &changed.grant.scope_raw,
            &changed.grant.token_type,
            &changed.grant.has_refresh_token,
            &changed.grant.token_expires_at,
            &changed.grant.refresh_token_expires_at,
            &Json(&changed.parameters),
            &Json(&changed.labels),
            &changed.metadata_json,
            &changed.last_error,
            &changed.reauthorization_cause,
            &changed.connected_at,
            &changed.disconnected_at,
            &changed.revoked_at,
            &changed.updated_at,
            &changed.revision,
        ],
    )
    .await
    .map(drop)
}

/// A connection of the tenant's.
pub(crate) async fn connection_get(
    db: &Database,
    tenant: TenantKey,
    id: Uuid,
) -> Result<Option<Connection>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            CONNECTION_GET,
            &[&tenant.bucket(), &id],
        )
        .await?;
    Ok(row.as_ref().map(connection))
}

/// A connection of the tenant's, kept from others until the transaction ends.
pub(crate) async fn connection_lock(
    tx: &Tx,
    tenant: TenantKey,
    id: Uuid,
) -> Result<Option<Connection>, Error> {
    Ok(tx
        .query_opt(CONNECTION_LOCK, &[&tenant.bucket(), &id])
        .await?
        .as_ref()
        .map(connection))
}

/// The connection that another of this identity would be the same as.
pub(crate) async fn connection_by_identity(
    db: &Database,
    tenant: TenantKey,
    integration: (TenantKey, &str),
    identity_key: &str,
) -> Result<Option<Connection>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            CONNECTION_BY_IDENTITY,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &integration.0.id(),
                &integration.1,
                &identity_key,
            ],
        )
        .await?;
    Ok(row.as_ref().map(connection))
}

/// The connection that lives by a grant, kept from others until the transaction ends.
pub(crate) async fn connection_by_grant(
    tx: &Tx,
    tenant: TenantKey,
    grant_id: Uuid,
) -> Result<Option<Connection>, Error> {
    Ok(tx
        .query_opt(CONNECTION_BY_GRANT, &[&tenant.bucket(), &grant_id])
        .await?
        .as_ref()
        .map(connection))
}

/// The newest connection of a user, or of anybody, to an integration.
pub(crate) async fn connection_of_user(
    db: &Database,
    tenant: TenantKey,
    integration: (TenantKey, &str),
    user_id: &str,
) -> Result<Option<Connection>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            CONNECTION_OF_USER,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &integration.0.id(),
                &integration.1,
                &user_id,
            ],
        )
        .await?;
    Ok(row.as_ref().map(connection))
}

/// What narrows a list; empty fields do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) user_id: String,
    pub(crate) integration_id: String,
    pub(crate) provider: String,
    pub(crate) state: ConnectionState,
    pub(crate) external_user_id: String,
    pub(crate) external_account_id: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) after: Option<Uuid>,
}

/// By id; of one tenant, or of all.
pub(crate) async fn connection_list(
    db: &Database,
    tenant: Option<TenantKey>,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Connection>, Error> {
    let state = filter.state as i16;
    let labels = Json(&filter.labels);
    let rows = match tenant {
        Some(tenant) => {
            db.query(
                Scope::Tenant(tenant),
                CONNECTION_LIST,
                &[
                    &tenant.bucket(),
                    &tenant.id(),
                    &filter.user_id,
                    &filter.integration_id,
                    &filter.provider,
                    &state,
                    &filter.external_user_id,
                    &filter.external_account_id,
                    &labels,
                    &filter.after,
                    &limit,
                ],
            )
            .await?
        }
        None => {
            db.query(
                Scope::System,
                CONNECTION_LIST_ALL,
                &[
                    &filter.user_id,
                    &filter.integration_id,
                    &filter.provider,
                    &state,
                    &filter.external_user_id,
                    &filter.external_account_id,
                    &labels,
                    &filter.after,
                    &limit,
                ],
            )
            .await?
        }
    };
    Ok(rows.iter().map(connection).collect())
}

/// Several connections of the tenant's, in no order.
pub(crate) async fn connection_batch(
    db: &Database,
    tenant: TenantKey,
    ids: &[Uuid],
) -> Result<Vec<Connection>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            CONNECTION_BATCH,
            &[&tenant.bucket(), &ids],
        )
        .await?;
    Ok(rows.iter().map(connection).collect())
}

/// Connections of an integration that are not disconnected.
pub(crate) async fn connection_of_integration(
    db: &Database,
    integration: (TenantKey, &str),
    limit: i64,
) -> Result<Vec<Connection>, Error> {
    let rows = db
        .query(
            Scope::System,
            CONNECTION_OF_INTEGRATION,
            &[&integration.0.id(), &integration.1, &limit],
        )
        .await?;
    Ok(rows.iter().map(connection).collect())
}

/// What is new of its grant.
pub(crate) async fn connection_grant_move(
    tx: &Tx,
    found: &Connection,
    grant: &GrantFacts,
    last_error: &str,
    revoked_at: Option<OffsetDateTime>,
) -> Result<(), Error> {
    tx.execute(
        CONNECTION_GRANT_MOVE,
        &[
            &found.tenant.bucket(),
            &found.connection_id,
            &grant.scopes,
            &grant.scope_raw,
            &grant.token_type,
            &grant.has_refresh_token,
            &grant.token_expires_at,
            &grant.refresh_token_expires_at,
            &last_error,
            &revoked_at,
        ],
    )
    .await
    .map(drop)
}

/// When the grant of a connection that is no more was revoked.
pub(crate) async fn connection_revoked(
    tx: &Tx,
    found: &Connection,
    revoked_at: Option<OffsetDateTime>,
) -> Result<(), Error> {
    tx.execute(
        CONNECTION_REVOKED,
        &[&found.tenant.bucket(), &found.connection_id, &revoked_at],
    )
    .await
    .map(drop)
}

/// Another state.
pub(crate) async fn connection_state(
    tx: &Tx,
    found: &Connection,
    to: &Transition,
) -> Result<Connection, Error> {
    let now = tx.deps().now();
    let row = tx
        .query_one(
            CONNECTION_STATE,
            &[
                &found.tenant.bucket(),
                &found.connection_id,
                &(to.state as i16),
                &to.cause,
                &now,
            ],
        )
        .await?;
    Ok(connection(&row))
}

/// Forgets what is not needed to recognise it when it comes back.
pub(crate) async fn connection_disconnect(
    tx: &Tx,
    found: &Connection,
) -> Result<Connection, Error> {
    let now = tx.deps().now();
    let row = tx
        .query_one(
            CONNECTION_DISCONNECT,
            &[&found.tenant.bucket(), &found.connection_id, &now],
        )
        .await?;
    Ok(connection(&row))
}

/// A change of something that belongs to it, or of its labels.
pub(crate) async fn connection_touch(tx: &Tx, found: &Connection) -> Result<Connection, Error> {
    let now = tx.deps().now();
    let row = tx
        .query_one(
            CONNECTION_TOUCH,
            &[
                &found.tenant.bucket(),
                &found.connection_id,
                &Json(&found.labels),
                &now,
            ],
        )
        .await?;
    Ok(connection(&row))
}

fn connection(row: &Row) -> Connection {
    Connection {
        tenant: tenant(row, "tenant_id"),
        connection_id: row.get("connection_id"),
        integration_tenant: tenant(row, "integration_tenant_id"),
        integration_id: row.get("integration_id"),
        provider: row.get("provider"),
        identity_key: row.get("identity_key"),
        user_id: row.get("user_id"),
        user_email: row.get("user_email"),
        external_user_id: row.get("external_user_id"),
        state: number(row, "state"),
        grant: GrantFacts {
            grant_id: row.get("grant_id"),
            scopes: row.get("scopes"),
            scope_raw: row.get("scope_raw"),
            token_type: row.get("token_type"),
            has_refresh_token: row.get("has_refresh_token"),
            token_expires_at: row.get("token_expires_at"),
            refresh_token_expires_at: row.get("refresh_token_expires_at"),
        },
        requested_scopes: row.get("requested_scopes"),
        parameters: texts(row, "parameters"),
        labels: texts(row, "labels"),
        metadata_json: row.get("metadata_json"),
        last_error: row.get("last_error"),
        reauthorization_cause: row.get("reauthorization_cause"),
        connected_at: row.get("connected_at"),
        disconnected_at: row.get("disconnected_at"),
        revoked_at: row.get("revoked_at"),
        updated_at: row.get("updated_at"),
        revision: row.get("revision"),
    }
}
