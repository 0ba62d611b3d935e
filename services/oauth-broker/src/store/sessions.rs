//! Connect sessions.

use common::TenantKey;
use common::pg::{Database, Error, Json, Row, Scope, Tx};
use contracts::broker::v1::ConnectSessionState;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{number, tenant, texts};
use crate::session::{Authorized, Session};

macro_rules! columns {
    () => {
        "bucket, tenant_id, session_id, token_hash, browser_hash, state, user_id, user_email, integration_tenant_id,
    integration_id, allowed_integration_ids, return_url, opener_origin, locale, connection_parameters, labels, scopes,
    authorization_params, reconnect_connection_id, require_confirmation, confirmation_hash, authorized, connection_id,
    external_user_id, external_account_id, error, error_reason, created_at, expires_at, finished_at"
    };
}

const SESSION_INSERT: &str = "\
-- broker.session_insert
INSERT INTO broker.connect_sessions (
    bucket, tenant_id, session_id, token_hash, state, user_id, user_email, integration_tenant_id, integration_id,
    allowed_integration_ids, return_url, opener_origin, locale, connection_parameters, labels, scopes,
    authorization_params, reconnect_connection_id, require_confirmation, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)";

const SESSION_GET: &str = concat!(
    "-- broker.session_get\nSELECT ",
    columns!(),
    "
FROM broker.connect_sessions
WHERE bucket = $1
    AND session_id = $2"
);

const SESSION_LOCK: &str = concat!(
    "-- broker.session_lock\nSELECT ",
    columns!(),
    "
FROM broker.connect_sessions
WHERE bucket = $1
    AND session_id = $2
FOR UPDATE"
);

const SESSION_BY_TOKEN: &str = concat!(
    "-- broker.session_by_token\nSELECT ",
    columns!(),
    "
FROM broker.connect_sessions
WHERE bucket = $1
    AND token_hash = $2"
);

const SESSION_BIND: &str = "\
-- broker.session_bind
UPDATE broker.connect_sessions
SET browser_hash = $3,
    integration_tenant_id = $4,
    integration_id = $5,
    state = $6
WHERE bucket = $1
    AND session_id = $2
    AND (browser_hash IS NULL OR browser_hash = $3)
    AND state IN (1, 2)
    AND expires_at > $7";

const SESSION_PROGRESS: &str = "\
-- broker.session_progress
UPDATE broker.connect_sessions
SET state = $3,
    authorized = $4,
    confirmation_hash = $5,
    external_user_id = $6,
    external_account_id = $7,
    expires_at = $8
WHERE bucket = $1
    AND session_id = $2";

const SESSION_SUCCEED: &str = "\
-- broker.session_succeed
UPDATE broker.connect_sessions
SET state = 4,
    authorized = NULL,
    confirmation_hash = NULL,
    connection_id = $3,
    external_user_id = $4,
    external_account_id = $5,
    finished_at = $6
WHERE bucket = $1
    AND session_id = $2
    AND finished_at IS NULL";

const SESSION_FAIL: &str = "\
-- broker.session_fail
UPDATE broker.connect_sessions
SET state = $3,
    authorized = NULL,
    confirmation_hash = NULL,
    error = $4,
    error_reason = $5,
    finished_at = $6
WHERE bucket = $1
    AND session_id = $2
    AND finished_at IS NULL";

const SESSION_OVERDUE_BUCKETS: &str = "\
-- broker.session_overdue_buckets
SELECT DISTINCT bucket
FROM broker.connect_sessions
WHERE (finished_at IS NULL AND expires_at < $1)
    OR finished_at < $2";

const SESSION_OVERDUE: &str = concat!(
    "-- broker.session_overdue\nSELECT ",
    columns!(),
    "
FROM broker.connect_sessions
WHERE bucket = $1
    AND finished_at IS NULL
    AND expires_at < $2
ORDER BY expires_at
LIMIT 100"
);

const SESSION_PURGE: &str = "\
-- broker.session_purge
DELETE FROM broker.connect_sessions
WHERE bucket = $1
    AND finished_at < $2";

/// Writes a new session.
pub(crate) async fn session_insert(tx: &Tx, new: &Session) -> Result<(), Error> {
    let (integration_tenant, integration_id) = parts(new.integration.as_ref());
    tx.execute(
        SESSION_INSERT,
        &[
            &new.tenant.bucket(),
            &new.tenant.id(),
            &new.session_id,
            &new.token_hash,
            &(new.state as i16),
            &new.user_id,
            &new.user_email,
            &integration_tenant,
            &integration_id,
            &new.allowed_integration_ids,
            &new.return_url,
            &new.opener_origin,
            &new.locale,
            &Json(&new.connection_parameters),
            &Json(&new.labels),
            &new.scopes,
            &Json(&new.authorization_params),
            &new.reconnect_connection_id,
            &new.require_confirmation,
            &new.created_at,
            &new.expires_at,
        ],
    )
    .await
    .map(drop)
}

/// A session of the tenant's.
pub(crate) async fn session_get(
    db: &Database,
    scope: Scope,
    session_id: Uuid,
) -> Result<Option<Session>, Error> {
    let row = db
        .query_opt(
            scope,
            SESSION_GET,
            &[&common::bucket_of(session_id), &session_id],
        )
        .await?;
    Ok(row.as_ref().map(session))
}

/// A session, kept from others until the transaction ends.
pub(crate) async fn session_lock(tx: &Tx, session_id: Uuid) -> Result<Option<Session>, Error> {
    let row = tx
        .query_opt(SESSION_LOCK, &[&common::bucket_of(session_id), &session_id])
        .await?;
    Ok(row.as_ref().map(session))
}

/// The session that a link opens. Whose it is, is known only then.
pub(crate) async fn session_by_token(
    db: &Database,
    bucket: i16,
    token_hash: &[u8],
) -> Result<Option<Session>, Error> {
    let row = db
        .query_opt(Scope::System, SESSION_BY_TOKEN, &[&bucket, &token_hash])
        .await?;
    Ok(row.as_ref().map(session))
}

/// Ties the session to the browser that said yes; `false` where it is another's, or over.
pub(crate) async fn session_bind(
    tx: &Tx,
    session_id: Uuid,
    browser_hash: &[u8],
    integration: (TenantKey, &str),
    now: OffsetDateTime,
) -> Result<bool, Error> {
    let bound = tx
        .execute(
            SESSION_BIND,
            &[
                &common::bucket_of(session_id),
                &session_id,
                &browser_hash,
                &integration.0.id(),
                &integration.1,
                &(ConnectSessionState::Authorizing as i16),
                &now,
            ],
        )
        .await?;
    Ok(bound == 1)
}

/// Keeps what was authorised until somebody has chosen or confirmed.
pub(crate) async fn session_progress(
    tx: &Tx,
    session_id: Uuid,
    state: ConnectSessionState,
    authorized: &Authorized,
    confirmation_hash: Option<&[u8]>,
    expires_at: OffsetDateTime,
) -> Result<(), Error> {
    let account = authorized
        .active()
        .map(|account| account.external_account_id.as_str())
        .unwrap_or_default();
    tx.execute(
        SESSION_PROGRESS,
        &[
            &common::bucket_of(session_id),
            &session_id,
            &(state as i16),
            &Json(authorized),
            &confirmation_hash,
            &authorized.person.user_id,
            &account,
            &expires_at,
        ],
    )
    .await
    .map(drop)
}

/// It led to a connection; `false` where it was over before.
pub(crate) async fn session_succeed(
    tx: &Tx,
    session_id: Uuid,
    connection_id: Uuid,
    external_user_id: &str,
    external_account_id: &str,
) -> Result<bool, Error> {
    let now = tx.deps().now();
    let bucket = common::bucket_of(session_id);
    let updated = tx
        .execute(
            SESSION_SUCCEED,
            &[
                &bucket,
                &session_id,
                &connection_id,
                &external_user_id,
                &external_account_id,
                &now,
            ],
        )
        .await?;
    Ok(updated == 1)
}

/// It led to nothing; `false` where it was over before.
pub(crate) async fn session_fail(
    tx: &Tx,
    session_id: Uuid,
    state: ConnectSessionState,
    error: &str,
    reason: &str,
) -> Result<bool, Error> {
    let now = tx.deps().now();
    let bucket = common::bucket_of(session_id);
    Ok(tx
        .execute(
            SESSION_FAIL,
            &[&bucket, &session_id, &(state as i16), &error, &reason, &now],
        )
        .await?
        == 1)
}

/// The buckets with sessions whose time is over, or that are no longer kept.
pub(crate) async fn session_overdue_buckets(
    db: &Database,
    overdue: OffsetDateTime,
    forgotten: OffsetDateTime,
) -> Result<Vec<i16>, Error> {
    let rows = db
        .query(
            Scope::System,
            SESSION_OVERDUE_BUCKETS,
            &[&overdue, &forgotten],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("bucket")).collect())
}

/// Sessions of a bucket whose time is over.
pub(crate) async fn session_overdue(
    db: &Database,
    bucket: i16,
    overdue: OffsetDateTime,
) -> Result<Vec<Session>, Error> {
    let rows = db
        .query(Scope::System, SESSION_OVERDUE, &[&bucket, &overdue])
        .await?;
    Ok(rows.iter().map(session).collect())
}

/// Forgets what ended long ago.
pub(crate) async fn session_purge(
    db: &Database,
    bucket: i16,
    before: OffsetDateTime,
) -> Result<(), Error> {
    db.execute(Scope::System, SESSION_PURGE, &[&bucket, &before])
        .await
        .map(drop)
}

fn parts(integration: Option<&(TenantKey, String)>) -> (Option<Uuid>, Option<&str>) {
    match integration {
        Some((tenant, id)) => (Some(tenant.id()), Some(id.as_str())),
        None => (None, None),
    }
}

fn session(row: &Row) -> Session {
    let integration_id: Option<String> = row.get("integration_id");
    Session {
        tenant: tenant(row, "tenant_id"),
        session_id: row.get("session_id"),
        token_hash: row.get("token_hash"),
        browser_hash: row.get("browser_hash"),
        state: number(row, "state"),
        user_id: row.get("user_id"),
        user_email: row.get("user_email"),
        integration: integration_id.map(|id| (tenant(row, "integration_tenant_id"), id)),
        allowed_integration_ids: row.get("allowed_integration_ids"),
        return_url: row.get("return_url"),
        opener_origin: row.get("opener_origin"),
        locale: row.get("locale"),
        connection_parameters: texts(row, "connection_parameters"),
        labels: texts(row, "labels"),
        scopes: row.get("scopes"),
        authorization_params: texts(row, "authorization_params"),
        reconnect_connection_id: row.get("reconnect_connection_id"),
        require_confirmation: row.get("require_confirmation"),
        confirmation_hash: row.get("confirmation_hash"),
        authorized: row
            .get::<_, Option<Json<Authorized>>>("authorized")
            .map(|Json(authorized)| authorized),
        connection_id: row.get("connection_id"),
        external_user_id: row.get("external_user_id"),
        external_account_id: row.get("external_account_id"),
        error: row.get("error"),
        error_reason: row.get("error_reason"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        finished_at: row.get("finished_at"),
    }
}
