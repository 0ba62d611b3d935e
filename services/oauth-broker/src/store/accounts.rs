//! The accounts that a connection's grant reaches.

use common::TenantKey;
use common::pg::{Database, Error, Row, Scope, Tx};
use uuid::Uuid;

use crate::connection::{Account, Connection};

const ACCOUNT_UPSERT: &str = "\
-- broker.account_upsert
INSERT INTO broker.accounts AS a (
    bucket, tenant_id, connection_id, external_account_id, name, position, usable, active)
VALUES ($1, $2, $3, $4, $5, $6, $7, false)
ON CONFLICT (bucket, connection_id, external_account_id) DO UPDATE
SET name = EXCLUDED.name,
    position = EXCLUDED.position,
    usable = EXCLUDED.usable";

const ACCOUNT_PRUNE: &str = "\
-- broker.account_prune
DELETE FROM broker.accounts
WHERE bucket = $1
    AND connection_id = $2
    AND NOT external_account_id = ANY ($3)";

const ACCOUNT_DEACTIVATE: &str = "\
-- broker.account_deactivate
UPDATE broker.accounts
SET active = false
WHERE bucket = $1
    AND connection_id = $2
    AND active";

const ACCOUNT_ACTIVATE: &str = "\
-- broker.account_activate
UPDATE broker.accounts
SET active = true
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3";

const ACCOUNT_DISCONNECT: &str = "\
-- broker.account_disconnect
UPDATE broker.accounts
SET active = false,
    disconnected_at = $4
WHERE bucket = $1
    AND connection_id = $2
    AND external_account_id = $3
    AND disconnected_at IS NULL";

const ACCOUNT_REVIVE: &str = "\
-- broker.account_revive
UPDATE broker.accounts
SET disconnected_at = NULL
WHERE bucket = $1
    AND connection_id = $2";

const ACCOUNT_LIST: &str = "\
-- broker.account_list
SELECT connection_id, external_account_id, name, usable, active, disconnected_at
FROM broker.accounts
WHERE bucket = $1
    AND connection_id = $2
ORDER BY position, external_account_id";

const ACCOUNT_ACTIVE: &str = "\
-- broker.account_active
SELECT connection_id, external_account_id, name, usable, active, disconnected_at
FROM broker.accounts
WHERE bucket = $1
    AND connection_id = ANY ($2)
    AND active";

/// Writes what the provider lists in place of what was there; which one is active, and which are left alone, stays where they are
/// still listed.
pub(crate) async fn account_replace(
    tx: &Tx,
    connection: &Connection,
    accounts: &[Account],
) -> Result<(), Error> {
    let (bucket, tenant, id) = (
        connection.tenant.bucket(),
        connection.tenant.id(),
        connection.connection_id,
    );
    let listed: Vec<_> = accounts
        .iter()
        .map(|account| account.external_account_id.as_str())
        .collect();
    tx.execute(ACCOUNT_PRUNE, &[&bucket, &id, &listed]).await?;
    for (position, account) in accounts.iter().enumerate() {
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        tx.execute(
            ACCOUNT_UPSERT,
            &[
                &bucket,
                &tenant,
                &id,
                &account.external_account_id,
                &account.name,
                &position,
                &account.usable,
            ],
        )
        .await?;
    }
    Ok(())
}

/// Makes one account the active one and every other inactive; with `None` all are inactive. The connection is locked.
pub(crate) async fn account_activate(
    tx: &Tx,
    connection: &Connection,
    account: Option<&str>,
) -> Result<bool, Error> {
    let (bucket, id) = (connection.tenant.bucket(), connection.connection_id);
    tx.execute(ACCOUNT_DEACTIVATE, &[&bucket, &id]).await?;
    match account {
        Some(account) => Ok(tx
            .execute(ACCOUNT_ACTIVATE, &[&bucket, &id, &account])
            .await?
            == 1),
        None => Ok(true),
    }
}

/// Leaves an account alone from now on; `false` where it is not there, or was left alone before.
pub(crate) async fn account_disconnect(
    tx: &Tx,
    connection: &Connection,
    account: &str,
) -> Result<bool, Error> {
    let now = tx.deps().now();
    let (bucket, id) = (connection.tenant.bucket(), connection.connection_id);
    Ok(tx
        .execute(ACCOUNT_DISCONNECT, &[&bucket, &id, &account, &now])
        .await?
        == 1)
}

/// None is left alone any more: the user has connected again.
pub(crate) async fn account_revive(tx: &Tx, connection: &Connection) -> Result<(), Error> {
    tx.execute(
        ACCOUNT_REVIVE,
        &[&connection.tenant.bucket(), &connection.connection_id],
    )
    .await
    .map(drop)
}

/// As the provider listed them.
pub(crate) async fn account_list(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Account>, Error> {
    Ok(tx
        .query(ACCOUNT_LIST, &[&tenant.bucket(), &connection_id])
        .await?
        .iter()
        .map(account)
        .collect())
}

/// As [`account_list`], in a transaction of its own.
pub(crate) async fn account_list_now(
    db: &Database,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Account>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            ACCOUNT_LIST,
            &[&tenant.bucket(), &connection_id],
        )
        .await?;
    Ok(rows.iter().map(account).collect())
}

/// The active account of each connection that has one.
pub(crate) async fn account_active(
    db: &Database,
    tenant: TenantKey,
    connection_ids: &[Uuid],
) -> Result<Vec<(Uuid, Account)>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            ACCOUNT_ACTIVE,
            &[&tenant.bucket(), &connection_ids],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get("connection_id"), account(row)))
        .collect())
}

fn account(row: &Row) -> Account {
    Account {
        external_account_id: row.get("external_account_id"),
        name: row.get("name"),
        usable: row.get("usable"),
        active: row.get("active"),
        disconnected_at: row.get("disconnected_at"),
    }
}
