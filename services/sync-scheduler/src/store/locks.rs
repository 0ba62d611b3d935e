//! Locks of the one-time historical sync.

use common::TenantKey;
use common::pg::{Error, Row, Tx};
use contracts::scheduler::v1::InitialSyncState;
use uuid::Uuid;

use super::tenant;
use crate::lock::{LockKey, SyncLock};

macro_rules! columns {
    () => {
        "bucket, tenant_id, integration_id, user_id, external_account_id, stream, connection_id, provider, user_email,
    run_id, state, reason, locked_at, completed_at, revision"
    };
}

const LOCK_TAKE: &str = "\
-- scheduler.lock_take
INSERT INTO scheduler.sync_locks (
    bucket, tenant_id, integration_id, user_id, external_account_id, stream, connection_id, provider, user_email,
    run_id, state, reason, locked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (bucket, tenant_id, integration_id, user_id, external_account_id, stream) DO NOTHING";

const LOCK_READ: &str = concat!(
    "-- scheduler.lock_read\nSELECT ",
    columns!(),
    "
FROM scheduler.sync_locks
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3
    AND user_id = $4
    AND external_account_id = $5
    AND stream = ANY ($6)
ORDER BY stream
FOR UPDATE"
);

const LOCK_RETAKE: &str = "\
-- scheduler.lock_retake
UPDATE scheduler.sync_locks
SET connection_id = $7,
    user_email = $8,
    run_id = $9,
    state = $10,
    reason = $11,
    locked_at = $12,
    completed_at = NULL,
    revision = revision + 1
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3
    AND user_id = $4
    AND external_account_id = $5
    AND stream = $6";

const LOCK_SETTLE: &str = "\
-- scheduler.lock_settle
UPDATE scheduler.sync_locks
SET state = $7,
    completed_at = $8,
    reason = $10,
    revision = revision + 1
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3
    AND user_id = $4
    AND external_account_id = $5
    AND stream = $6
    AND run_id = $9";

const LOCK_OF_RUN: &str = concat!(
    "-- scheduler.lock_of_run\nSELECT ",
    columns!(),
    "
FROM scheduler.sync_locks
WHERE bucket = $1
    AND run_id = $2
ORDER BY stream
FOR UPDATE"
);

const LOCK_OF_CONNECTION: &str = concat!(
    "-- scheduler.lock_of_connection\nSELECT ",
    columns!(),
    "
FROM scheduler.sync_locks
WHERE bucket = $1
    AND tenant_id = $2
    AND integration_id = $3
    AND user_id = $4
    AND external_account_id = $5
ORDER BY stream"
);

const LOCK_LIST: &str = "\
-- scheduler.lock_list
SELECT DISTINCT tenant_id, connection_id, external_account_id
FROM scheduler.sync_locks
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3::uuid IS NULL OR (connection_id, external_account_id) > ($3, $4))
ORDER BY connection_id, external_account_id
LIMIT $5";

/// Over every tenant, for operators.
const LOCK_LIST_ALL: &str = "\
-- scheduler.lock_list_all
SELECT DISTINCT tenant_id, connection_id, external_account_id
FROM scheduler.sync_locks
WHERE $1::uuid IS NULL
    OR (tenant_id, connection_id, external_account_id) > ($1, $2, $3)
ORDER BY tenant_id, connection_id, external_account_id
LIMIT $4";

const LOCK_OF_ACCOUNT: &str = concat!(
    "-- scheduler.lock_of_account\nSELECT ",
    columns!(),
    "
FROM scheduler.sync_locks
WHERE bucket = $1
    AND tenant_id = $2
    AND connection_id = $3
    AND external_account_id = $4
ORDER BY stream"
);

/// Takes the lock; `false` where it was taken before.
pub(crate) async fn lock_take(tx: &Tx, lock: &SyncLock) -> Result<bool, Error> {
    let key = &lock.key;
    let taken = tx
        .execute(
            LOCK_TAKE,
            &[
                &key.tenant.bucket(),
                &key.tenant.id(),
                &key.integration_id,
                &key.user_id,
                &key.external_account_id,
                &key.stream,
                &lock.connection_id,
                &lock.provider,
                &lock.user_email,
                &lock.run_id,
                &(lock.state as i16),
                &lock.reason,
                &lock.locked_at,
            ],
        )
        .await?;
    Ok(taken == 1)
}

/// The locks of these streams, kept from others until the transaction ends. `key.stream` is not looked at.
pub(crate) async fn lock_read(
    tx: &Tx,
    key: &LockKey,
    streams: &[String],
) -> Result<Vec<SyncLock>, Error> {
    let rows = tx
        .query(
            LOCK_READ,
            &[
                &key.tenant.bucket(),
                &key.tenant.id(),
                &key.integration_id,
                &key.user_id,
                &key.external_account_id,
                &streams,
            ],
        )
        .await?;
    Ok(rows.iter().map(lock).collect())
}

/// Takes a lock again that an override has opened.
pub(crate) async fn lock_retake(tx: &Tx, lock: &SyncLock) -> Result<(), Error> {
    let key = &lock.key;
    tx.execute(
        LOCK_RETAKE,
        &[
            &key.tenant.bucket(),
            &key.tenant.id(),
            &key.integration_id,
            &key.user_id,
            &key.external_account_id,
            &key.stream,
            &lock.connection_id,
            &lock.user_email,
            &lock.run_id,
            &(lock.state as i16),
            &lock.reason,
            &lock.locked_at,
        ],
    )
    .await
    .map(drop)
}

/// Writes how its run stands, of a lock that is locked.
pub(crate) async fn lock_settle(tx: &Tx, settled: &SyncLock) -> Result<(), Error> {
    let key = &settled.key;
    tx.execute(
        LOCK_SETTLE,
        &[
            &key.tenant.bucket(),
            &key.tenant.id(),
            &key.integration_id,
            &key.user_id,
            &key.external_account_id,
            &key.stream,
            &(settled.state as i16),
            &settled.completed_at,
            &settled.run_id,
            &settled.reason,
        ],
    )
    .await
    .map(drop)
}

/// The locks that a run holds, kept from others.
pub(crate) async fn lock_of_run(
    tx: &Tx,
    tenant: TenantKey,
    run_id: Uuid,
) -> Result<Vec<SyncLock>, Error> {
    Ok(tx
        .query(LOCK_OF_RUN, &[&tenant.bucket(), &run_id])
        .await?
        .iter()
        .map(lock)
        .collect())
}

/// Every lock of this user, integration and account. `key.stream` is not looked at.
pub(crate) async fn lock_of_connection(tx: &Tx, key: &LockKey) -> Result<Vec<SyncLock>, Error> {
    let rows = tx
        .query(
            LOCK_OF_CONNECTION,
            &[
                &key.tenant.bucket(),
                &key.tenant.id(),
                &key.integration_id,
                &key.user_id,
                &key.external_account_id,
            ],
        )
        .await?;
    Ok(rows.iter().map(lock).collect())
}

/// An account of a connection that has locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locked {
    /// The tenant.
    pub(crate) tenant: Uuid,
    /// The connection that took the locks last.
    pub(crate) connection: Uuid,
    /// The account.
    pub(crate) account: String,
}

/// What is locked, of a tenant or of all, in the order of the ids.
pub(crate) async fn lock_list(
    tx: &Tx,
    tenant: Option<TenantKey>,
    after: Option<Locked>,
    limit: i64,
) -> Result<Vec<Locked>, Error> {
    let tenant_id = after.as_ref().map(|after| after.tenant);
    let connection_id = after.as_ref().map(|after| after.connection);
    let account = after.map(|after| after.account);
    let rows = match tenant {
        Some(tenant) => {
            tx.query(
                LOCK_LIST,
                &[
                    &tenant.bucket(),
                    &tenant.id(),
                    &connection_id,
                    &account,
                    &limit,
                ],
            )
            .await?
        }
        None => {
            tx.query(
                LOCK_LIST_ALL,
                &[&tenant_id, &connection_id, &account, &limit],
            )
            .await?
        }
    };
    let locked = |row: &Row| Locked {
        tenant: row.get("tenant_id"),
        connection: row.get("connection_id"),
        account: row.get("external_account_id"),
    };
    Ok(rows.iter().map(locked).collect())
}

/// The locks that this account of the connection took last.
pub(crate) async fn lock_of_account(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
    account: &str,
) -> Result<Vec<SyncLock>, Error> {
    let rows = tx
        .query(
            LOCK_OF_ACCOUNT,
            &[&tenant.bucket(), &tenant.id(), &connection_id, &account],
        )
        .await?;
    Ok(rows.iter().map(lock).collect())
}

fn lock(row: &Row) -> SyncLock {
    SyncLock {
        key: LockKey {
            tenant: tenant(row),
            integration_id: row.get("integration_id"),
            user_id: row.get("user_id"),
            external_account_id: row.get("external_account_id"),
            stream: row.get("stream"),
        },
        connection_id: row.get("connection_id"),
        provider: row.get("provider"),
        user_email: row.get("user_email"),
        run_id: row.get("run_id"),
        state: InitialSyncState::try_from(i32::from(row.get::<_, i16>("state")))
            .expect("only states of the contract are written"),
        reason: row.get("reason"),
        locked_at: row.get("locked_at"),
        completed_at: row.get("completed_at"),
        revision: row.get("revision"),
    }
}
