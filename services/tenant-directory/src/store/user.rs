//! Users.

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Json, Row};
use time::OffsetDateTime;

use super::{Database, Scope, StoreError, Tx, column, tenant, violates};
use crate::email::Email;
use crate::user::User;

macro_rules! columns {
    () => {
        "tenant_id, user_id, email, first_name, last_name, roles, external_user_ids, profile_json, last_login_at,
    revision, created_at, updated_at"
    };
}

const USER_CREATE: &str = "\
-- directory.user_create
INSERT INTO directory.users (
    bucket, tenant_id, user_id, email, email_key, first_name, last_name, roles, external_user_ids, profile_json,
    last_login_at, revision, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (bucket, tenant_id, user_id) DO NOTHING";

const USER_UPDATE: &str = "\
-- directory.user_update
UPDATE directory.users
SET email = $4, email_key = $5, first_name = $6, last_name = $7, roles = $8, external_user_ids = $9,
    profile_json = $10, last_login_at = $11, revision = $12, created_at = $13, updated_at = $14
WHERE bucket = $1 AND tenant_id = $2 AND user_id = $3";

const USER_SIGN_IN: &str = concat!(
    "-- directory.user_sign_in
UPDATE directory.users
SET last_login_at = $4
WHERE bucket = $1 AND tenant_id = $2 AND user_id = $3
RETURNING ",
    columns!()
);

pub(super) const USER_GET: &str = concat!(
    "-- directory.user_get
SELECT ",
    columns!(),
    "
FROM directory.users
WHERE bucket = $1 AND tenant_id = $2 AND user_id = $3"
);

const USER_LOCK: &str = concat!(
    "-- directory.user_lock
SELECT ",
    columns!(),
    "
FROM directory.users
WHERE bucket = $1 AND tenant_id = $2 AND user_id = $3
FOR UPDATE"
);

pub(super) const USERS_LIST: &str = concat!(
    "-- directory.users_list
SELECT ",
    columns!(),
    "
FROM directory.users
WHERE bucket = $1 AND tenant_id = $2 AND (created_at, user_id) > ($3, $4)
ORDER BY created_at, user_id
LIMIT $5"
);

const USER_DELETE: &str = concat!(
    "-- directory.user_delete
DELETE FROM directory.users
WHERE bucket = $1 AND tenant_id = $2 AND user_id = $3
RETURNING ",
    columns!()
);

pub(super) const USERS_ERASE: &str = "\
-- directory.users_erase
DELETE FROM directory.users
WHERE bucket = $1 AND tenant_id = $2 AND user_id IN (
    SELECT user_id
    FROM directory.users
    WHERE bucket = $1 AND tenant_id = $2
    LIMIT $3)";

/// What became of a user that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was.
    Yes,
    /// There is one with its id.
    Exists,
    /// There is one with its e-mail; the transaction can do nothing more.
    EmailTaken,
}

/// Adds the user.
pub(crate) async fn user_create(tx: &Tx, user: &User) -> Result<Written, StoreError> {
    write(tx, USER_CREATE, user).await
}

/// Writes the user, whose row the transaction has locked.
pub(crate) async fn user_update(tx: &Tx, user: &User) -> Result<Written, StoreError> {
    write(tx, USER_UPDATE, user).await
}

/// Notes a sign-in; `None` where there is no such user.
pub(crate) async fn user_sign_in(
    tx: &Tx,
    tenant: TenantKey,
    user_id: &str,
    now: OffsetDateTime,
) -> Result<Option<User>, StoreError> {
    let row = tx
        .query_opt(
            USER_SIGN_IN,
            &[&tenant.bucket(), &tenant.id(), &user_id, &now],
        )
        .await?;
    row.as_ref().map(decode).transpose()
}

/// The user, for reading.
pub(crate) async fn user_get(
    db: &Database,
    tenant: TenantKey,
    user_id: &str,
) -> Result<Option<User>, StoreError> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            USER_GET,
            &[&tenant.bucket(), &tenant.id(), &user_id],
        )
        .await?;
    row.as_ref().map(decode).transpose()
}

/// The user, for changing.
pub(crate) async fn user_lock(
    tx: &Tx,
    tenant: TenantKey,
    user_id: &str,
) -> Result<Option<User>, StoreError> {
    let row = tx
        .query_opt(USER_LOCK, &[&tenant.bucket(), &tenant.id(), &user_id])
        .await?;
    row.as_ref().map(decode).transpose()
}

/// The tenant's users after the one made at `after.0` with the id `after.1`, the oldest first.
pub(crate) async fn users_list(
    db: &Database,
    tenant: TenantKey,
    after: (OffsetDateTime, &str),
    limit: i64,
) -> Result<Vec<User>, StoreError> {
    let (created_at, user_id) = after;
    let rows = db
        .query(
            Scope::Tenant(tenant),
            USERS_LIST,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &created_at,
                &user_id,
                &limit,
            ],
        )
        .await?;
    rows.iter().map(decode).collect()
}

/// Deletes the user; gives what it was, or `None` where there is no such user.
pub(crate) async fn user_delete(
    tx: &Tx,
    tenant: TenantKey,
    user_id: &str,
) -> Result<Option<User>, StoreError> {
    let row = tx
        .query_opt(USER_DELETE, &[&tenant.bucket(), &tenant.id(), &user_id])
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Deletes up to `limit` of the tenant's users; gives how many.
pub(crate) async fn users_erase(
    db: &Database,
    tenant: TenantKey,
    limit: i64,
) -> Result<u64, StoreError> {
    Ok(db
        .execute(
            Scope::Tenant(tenant),
            USERS_ERASE,
            &[&tenant.bucket(), &tenant.id(), &limit],
        )
        .await?)
}

async fn write(tx: &Tx, sql: &str, user: &User) -> Result<Written, StoreError> {
    let written = tx
        .execute(
            sql,
            &[
                &user.tenant.bucket(),
                &user.tenant.id(),
                &user.user_id,
                &user.email.as_ref().map(Email::as_str),
                &user.email.as_ref().map(Email::key),
                &user.first_name,
                &user.last_name,
                &user.roles,
                &Json(&user.external_user_ids),
                &user.profile_json,
                &user.last_login_at,
                &user.revision,
                &user.created_at,
                &user.updated_at,
            ],
        )
        .await;
    match written {
        Ok(0) => Ok(Written::Exists),
        Ok(_) => Ok(Written::Yes),
        Err(error) if violates(&error, "users_email") => Ok(Written::EmailTaken),
        Err(error) => Err(error.into()),
    }
}

fn decode(row: &Row) -> Result<User, StoreError> {
    let Json(external_user_ids) =
        column::<Json<BTreeMap<String, String>>>(row, "external_user_ids")?;
    Ok(User {
        tenant: tenant::key(row, "users")?,
        user_id: column(row, "user_id")?,
        email: column::<Option<String>>(row, "email")?.map(Email::from_stored),
        first_name: column(row, "first_name")?,
        last_name: column(row, "last_name")?,
        roles: column(row, "roles")?,
        external_user_ids,
        profile_json: column(row, "profile_json")?,
        last_login_at: column(row, "last_login_at")?,
        revision: column(row, "revision")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}
