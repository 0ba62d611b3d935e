//! API keys, and the hashes of their secrets.

use common::TenantKey;
use common::pg::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, Scope, StoreError, Tx, column, known};
use crate::api_key::{ApiKey, NewSecret, SecretHash};

/// Keys are the platform's.
const OWNER: TenantKey = TenantKey::PLATFORM;
/// The scope of every statement on keys but looking up a hash.
pub(crate) const SCOPE: Scope = Scope::Tenant(OWNER);

const API_KEY_CREATE: &str = "\
-- directory.api_key_create
INSERT INTO directory.api_keys (
    bucket, tenant_id, api_key_id, display_name, reaches, role, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

const API_KEY_LOCK: &str = "\
-- directory.api_key_lock
SELECT k.api_key_id, k.display_name, k.reaches, k.role, k.expires_at, k.last_used_at, k.revoked_at, k.created_at, s.prefix
FROM directory.api_keys AS k
JOIN directory.api_key_secrets AS s
    ON s.bucket = k.bucket AND s.api_key_id = k.api_key_id AND s.good_until IS NULL
WHERE k.bucket = $1 AND k.tenant_id = $2 AND k.api_key_id = $3
FOR UPDATE OF k";

pub(super) const API_KEYS_LIST: &str = "\
-- directory.api_keys_list
SELECT k.api_key_id, k.display_name, k.reaches, k.role, k.expires_at, k.last_used_at, k.revoked_at, k.created_at, s.prefix
FROM directory.api_keys AS k
JOIN directory.api_key_secrets AS s
    ON s.bucket = k.bucket AND s.api_key_id = k.api_key_id AND s.good_until IS NULL
WHERE k.bucket = $1 AND k.tenant_id = $2 AND k.api_key_id > $3
ORDER BY k.api_key_id
LIMIT $4";

pub(super) const API_KEY_FIND: &str = "\
-- directory.api_key_find
SELECT k.api_key_id, k.display_name, k.reaches, k.role, k.expires_at, k.last_used_at, k.revoked_at, k.created_at,
    s.prefix, s.good_until
FROM directory.api_key_secrets AS s
JOIN directory.api_keys AS k
    ON k.bucket = s.bucket AND k.tenant_id = s.tenant_id AND k.api_key_id = s.api_key_id
WHERE s.bucket = $1 AND s.tenant_id = $2 AND s.hash = $3 AND s.api_key_id = $4";

const API_KEY_REVOKE: &str = "\
-- directory.api_key_revoke
UPDATE directory.api_keys
SET revoked_at = $4
WHERE bucket = $1 AND tenant_id = $2 AND api_key_id = $3";

const API_KEY_USE: &str = "\
-- directory.api_key_use
UPDATE directory.api_keys
SET last_used_at = $4
WHERE bucket = $1 AND tenant_id = $2 AND api_key_id = $3 AND (last_used_at IS NULL OR last_used_at <= $5)";

const API_KEY_SECRET_CREATE: &str = "\
-- directory.api_key_secret_create
INSERT INTO directory.api_key_secrets (bucket, tenant_id, hash, api_key_id, prefix, created_at)
VALUES ($1, $2, $3, $4, $5, $6)";

const API_KEY_SECRETS_LIMIT: &str = "\
-- directory.api_key_secrets_limit
UPDATE directory.api_key_secrets
SET good_until = $4
WHERE bucket = $1 AND tenant_id = $2 AND api_key_id = $3 AND (good_until IS NULL OR good_until > $4)";

const API_KEY_SECRETS_PRUNE: &str = "\
-- directory.api_key_secrets_prune
DELETE FROM directory.api_key_secrets
WHERE bucket = $1 AND tenant_id = $2 AND api_key_id = $3 AND good_until <= $4
RETURNING hash";

const API_KEY_HASH_CREATE: &str = "\
-- directory.api_key_hash_create
INSERT INTO directory.api_key_hashes (bucket, hash, api_key_id)
VALUES ($1, $2, $3)";

pub(super) const API_KEY_HASH_GET: &str = "\
-- directory.api_key_hash_get
SELECT api_key_id
FROM directory.api_key_hashes
WHERE bucket = $1 AND hash = $2";

const API_KEY_HASH_DELETE: &str = "\
-- directory.api_key_hash_delete
DELETE FROM directory.api_key_hashes
WHERE bucket = $1 AND hash = $2";

/// Makes a hash known, before a key has it: one that no key has opens nothing.
pub(crate) async fn api_key_hash_create(
    db: &Database,
    hash: SecretHash,
    key: Uuid,
) -> Result<(), StoreError> {
    db.execute(
        Scope::System,
        API_KEY_HASH_CREATE,
        &[&hash.bucket(), &hash.as_bytes(), &key],
    )
    .await?;
    Ok(())
}

/// Forgets a hash that no key has.
pub(crate) async fn api_key_hash_delete(db: &Database, hash: SecretHash) -> Result<(), StoreError> {
    db.execute(
        Scope::System,
        API_KEY_HASH_DELETE,
        &[&hash.bucket(), &hash.as_bytes()],
    )
    .await?;
    Ok(())
}

/// The key that has this secret, and until when the secret is good where a rotation has limited that.
pub(crate) async fn api_key_find(
    db: &Database,
    hash: SecretHash,
) -> Result<Option<(ApiKey, Option<OffsetDateTime>)>, StoreError> {
    let found = db
        .query_opt(
            Scope::System,
            API_KEY_HASH_GET,
            &[&hash.bucket(), &hash.as_bytes()],
        )
        .await?;
    let Some(found) = found else { return Ok(None) };
    let id: Uuid = column(&found, "api_key_id")?;
    let row = db
        .query_opt(
            SCOPE,
            API_KEY_FIND,
            &[&OWNER.bucket(), &OWNER.id(), &hash.as_bytes(), &id],
        )
        .await?;
    row.map(|row| Ok((decode(&row)?, column(&row, "good_until")?)))
        .transpose()
}

/// Notes a use, unless one was noted after `unless_after`.
pub(crate) async fn api_key_use(
    db: &Database,
    key: Uuid,
    now: OffsetDateTime,
    unless_after: OffsetDateTime,
) -> Result<(), StoreError> {
    db.execute(
        SCOPE,
        API_KEY_USE,
        &[&OWNER.bucket(), &OWNER.id(), &key, &now, &unless_after],
    )
    .await?;
    Ok(())
}

/// The keys after `after`, in the order of their ids.
pub(crate) async fn api_keys_list(
    db: &Database,
    after: Uuid,
    limit: i64,
) -> Result<Vec<ApiKey>, StoreError> {
    let rows = db
        .query(
            SCOPE,
            API_KEYS_LIST,
            &[&OWNER.bucket(), &OWNER.id(), &after, &limit],
        )
        .await?;
    rows.iter().map(decode).collect()
}

/// Adds a key with its first secret.
pub(crate) async fn api_key_create(
    tx: &Tx,
    key: &ApiKey,
    secret: &NewSecret,
) -> Result<(), StoreError> {
    let reaches: Vec<Uuid> = key.tenants.iter().map(TenantKey::id).collect();
    tx.execute(
        API_KEY_CREATE,
        &[
            &OWNER.bucket(),
            &OWNER.id(),
            &key.id,
            &key.display_name,
            &reaches,
            &key.role,
            &key.expires_at,
            &key.created_at,
        ],
    )
    .await?;
    api_key_secret_create(tx, key.id, secret, key.created_at).await
}

/// Adds a secret, as the key's present one.
pub(crate) async fn api_key_secret_create(
    tx: &Tx,
    key: Uuid,
    secret: &NewSecret,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let hash = secret.hash.as_bytes();
    tx.execute(
        API_KEY_SECRET_CREATE,
        &[
            &OWNER.bucket(),
            &OWNER.id(),
            &hash,
            &key,
            &secret.prefix,
            &now,
        ],
    )
    .await?;
    Ok(())
}

/// Lets none of the key's secrets be good for longer than `until`.
pub(crate) async fn api_key_secrets_limit(
    tx: &Tx,
    key: Uuid,
    until: OffsetDateTime,
) -> Result<(), StoreError> {
    tx.execute(
        API_KEY_SECRETS_LIMIT,
        &[&OWNER.bucket(), &OWNER.id(), &key, &until],
    )
    .await?;
    Ok(())
}

/// Forgets the key's secrets that are good no longer; gives their hashes.
pub(crate) async fn api_key_secrets_prune(
    tx: &Tx,
    key: Uuid,
    now: OffsetDateTime,
) -> Result<Vec<SecretHash>, StoreError> {
    let rows = tx
        .query(
            API_KEY_SECRETS_PRUNE,
            &[&OWNER.bucket(), &OWNER.id(), &key, &now],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let hash: Vec<u8> = column(row, "hash")?;
            known(SecretHash::from_stored(&hash), "api_key_secrets", "hash")
        })
        .collect()
}

/// The key, for changing.
pub(crate) async fn api_key_lock(tx: &Tx, key: Uuid) -> Result<Option<ApiKey>, StoreError> {
    let row = tx
        .query_opt(API_KEY_LOCK, &[&OWNER.bucket(), &OWNER.id(), &key])
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Writes since when the key is refused.
pub(crate) async fn api_key_revoke(
    tx: &Tx,
    key: Uuid,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    tx.execute(API_KEY_REVOKE, &[&OWNER.bucket(), &OWNER.id(), &key, &now])
        .await?;
    Ok(())
}

fn decode(row: &Row) -> Result<ApiKey, StoreError> {
    let reaches: Vec<Uuid> = column(row, "reaches")?;
    let tenants: Result<Vec<_>, _> = reaches.into_iter().map(TenantKey::from_id).collect();
    Ok(ApiKey {
        id: column(row, "api_key_id")?,
        display_name: column(row, "display_name")?,
        tenants: known(tenants.ok(), "api_keys", "reaches")?,
        role: column(row, "role")?,
        prefix: column(row, "prefix")?,
        expires_at: column(row, "expires_at")?,
        last_used_at: column(row, "last_used_at")?,
        revoked_at: column(row, "revoked_at")?,
        created_at: column(row, "created_at")?,
    })
}
