//! Routing keys: the connection's own, and the table over all tenants in which they are found.

use common::TenantKey;
use common::pg::{Database, Error, Row, Scope, Tx};
use uuid::Uuid;

use super::tenant;
use crate::connection::Connection;
use crate::routing_key::{OWN, RoutingKey};

/// One that was withdrawn and is wanted again is published anew.
const ROUTING_KEY_ADD: &str = "\
-- broker.routing_key_add
INSERT INTO broker.connection_routing_keys AS k (
    bucket, tenant_id, connection_id, name, value, integration_tenant_id, integration_id, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
ON CONFLICT (bucket, connection_id, name, value) DO UPDATE
SET state = EXCLUDED.state
WHERE k.state = 3";

const ROUTING_KEY_WITHDRAW: &str = "\
-- broker.routing_key_withdraw
UPDATE broker.connection_routing_keys
SET state = 3
WHERE bucket = $1
    AND connection_id = $2
    AND state <> 3
    AND name = ANY ($3)
    AND NOT (name || chr(10) || value) = ANY ($4)";

const ROUTING_KEY_WITHDRAW_ALL: &str = "\
-- broker.routing_key_withdraw_all
UPDATE broker.connection_routing_keys
SET state = 3
WHERE bucket = $1
    AND connection_id = $2";

const ROUTING_KEY_LIST: &str = "\
-- broker.routing_key_list
SELECT name, value
FROM broker.connection_routing_keys
WHERE bucket = $1
    AND connection_id = $2
    AND state <> 3
ORDER BY name, value";

const ROUTING_KEY_HOLDERS: &str = "\
-- broker.routing_key_holders
SELECT DISTINCT k.connection_id
FROM broker.connection_routing_keys k
JOIN unnest($3::text[], $4::text[]) AS wanted (name, value)
    ON wanted.name = k.name
    AND wanted.value = k.value
WHERE k.bucket = $1
    AND k.connection_id = ANY ($2)
    AND k.state <> 3";

const ROUTING_KEY_UNPUBLISHED_BUCKETS: &str = "\
-- broker.routing_key_unpublished_buckets
SELECT DISTINCT bucket
FROM broker.connection_routing_keys
WHERE state <> 2";

const ROUTING_KEY_UNPUBLISHED: &str = "\
-- broker.routing_key_unpublished
SELECT tenant_id, connection_id, name, value, integration_tenant_id, integration_id, state
FROM broker.connection_routing_keys
WHERE bucket = $1
    AND ($2::uuid IS NULL OR connection_id = $2)
    AND state <> 2
LIMIT 500";

const ROUTING_KEY_PUBLISH: &str = "\
-- broker.routing_key_publish
INSERT INTO broker.routing_keys (
    bucket, integration_tenant_id, integration_id, name, value, connection_id, tenant_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING";

const ROUTING_KEY_REMOVE: &str = "\
-- broker.routing_key_remove
DELETE FROM broker.routing_keys
WHERE bucket = $1
    AND integration_tenant_id = $2
    AND integration_id = $3
    AND name = $4
    AND value = $5
    AND connection_id = $6";

const ROUTING_KEY_PUBLISHED: &str = "\
-- broker.routing_key_published
UPDATE broker.connection_routing_keys
SET state = 2
WHERE bucket = $1
    AND connection_id = $2
    AND name = $3
    AND value = $4
    AND state = 1";

const ROUTING_KEY_FORGET: &str = "\
-- broker.routing_key_forget
DELETE FROM broker.connection_routing_keys
WHERE bucket = $1
    AND connection_id = $2
    AND name = $3
    AND value = $4
    AND state = 3";

/// It was given back while it was being withdrawn.
const ROUTING_KEY_REPUBLISH: &str = "\
-- broker.routing_key_republish
UPDATE broker.connection_routing_keys
SET state = 1
WHERE bucket = $1
    AND connection_id = $2
    AND name = $3
    AND value = $4
    AND state = 2";

const ROUTING_KEY_FIND: &str = "\
-- broker.routing_key_find
SELECT connection_id, tenant_id
FROM broker.routing_keys
WHERE bucket = $1
    AND integration_tenant_id = $2
    AND integration_id = $3
    AND name = $4
    AND value = $5
    AND ($6::uuid IS NULL OR tenant_id = $6)
    AND ($7::uuid IS NULL OR connection_id > $7)
ORDER BY connection_id
LIMIT $8";

/// A key that the table over all tenants does not show as it should.
#[derive(Clone, Debug)]
pub(crate) struct Unpublished {
    pub(crate) tenant: TenantKey,
    pub(crate) connection_id: Uuid,
    pub(crate) key: RoutingKey,
    pub(crate) integration_tenant: TenantKey,
    pub(crate) integration_id: String,
    pub(crate) withdrawn: bool,
}

/// Gives the connection a key, to be published.
pub(crate) async fn routing_key_add(
    tx: &Tx,
    connection: &Connection,
    key: &RoutingKey,
) -> Result<(), Error> {
    tx.execute(
        ROUTING_KEY_ADD,
        &[
            &connection.tenant.bucket(),
            &connection.tenant.id(),
            &connection.connection_id,
            &key.name,
            &key.value,
            &connection.integration_tenant.id(),
            &connection.integration_id,
        ],
    )
    .await
    .map(drop)
}

/// Keeps of the connection's own kinds of keys only these.
pub(crate) async fn routing_key_keep(
    tx: &Tx,
    connection: &Connection,
    keep: &[RoutingKey],
) -> Result<(), Error> {
    let keep: Vec<_> = keep
        .iter()
        .map(|key| format!("{}\n{}", key.name, key.value))
        .collect();
    tx.execute(
        ROUTING_KEY_WITHDRAW,
        &[
            &connection.tenant.bucket(),
            &connection.connection_id,
            &OWN.as_slice(),
            &keep,
        ],
    )
    .await?;
    Ok(())
}

/// Takes every key from the connection.
pub(crate) async fn routing_key_withdraw_all(
    tx: &Tx,
    connection: &Connection,
) -> Result<(), Error> {
    tx.execute(
        ROUTING_KEY_WITHDRAW_ALL,
        &[&connection.tenant.bucket(), &connection.connection_id],
    )
    .await
    .map(drop)
}

/// The connection's keys.
pub(crate) async fn routing_key_list(
    db: &Database,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<RoutingKey>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            ROUTING_KEY_LIST,
            &[&tenant.bucket(), &connection_id],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| RoutingKey {
            name: row.get("name"),
            value: row.get("value"),
        })
        .collect())
}

/// Those of the connections that really have one of the keys.
pub(crate) async fn routing_key_holders(
    db: &Database,
    tenant: TenantKey,
    connection_ids: &[Uuid],
    keys: &[RoutingKey],
) -> Result<Vec<Uuid>, Error> {
    let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
    let values: Vec<_> = keys.iter().map(|key| key.value.as_str()).collect();
    let rows = db
        .query(
            Scope::Tenant(tenant),
            ROUTING_KEY_HOLDERS,
            &[&tenant.bucket(), &connection_ids, &names, &values],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("connection_id")).collect())
}

/// The buckets in which the table is behind.
pub(crate) async fn routing_key_unpublished_buckets(db: &Database) -> Result<Vec<i16>, Error> {
    let rows = db
        .query(Scope::System, ROUTING_KEY_UNPUBLISHED_BUCKETS, &[])
        .await?;
    Ok(rows.iter().map(|row| row.get("bucket")).collect())
}

/// Keys of a bucket, or of one connection, for which the table is behind.
pub(crate) async fn routing_key_unpublished(
    db: &Database,
    bucket: i16,
    connection_id: Option<Uuid>,
) -> Result<Vec<Unpublished>, Error> {
    let rows = db
        .query(
            Scope::System,
            ROUTING_KEY_UNPUBLISHED,
            &[&bucket, &connection_id],
        )
        .await?;
    Ok(rows.iter().map(unpublished).collect())
}

/// Brings the table up to date for one key, then notes that it is. Both again where the process ends in between.
pub(crate) async fn routing_key_settle(db: &Database, key: &Unpublished) -> Result<(), Error> {
    let shard = key.key.bucket(key.integration_tenant, &key.integration_id);
    let (integration_tenant, integration_id) = (key.integration_tenant.id(), &key.integration_id);
    let (name, value) = (&key.key.name, &key.key.value);
    let (connection_id, bucket, tenant) = (key.connection_id, key.tenant.bucket(), key.tenant.id());
    if key.withdrawn {
        db.execute(
            Scope::System,
            ROUTING_KEY_REMOVE,
            &[
                &shard,
                &integration_tenant,
                integration_id,
                name,
                value,
                &connection_id,
            ],
        )
        .await?;
        let forgotten = db
            .execute(
                Scope::System,
                ROUTING_KEY_FORGET,
                &[&bucket, &connection_id, name, value],
            )
            .await?;
        if forgotten == 0 {
            db.execute(
                Scope::System,
                ROUTING_KEY_REPUBLISH,
                &[&bucket, &connection_id, name, value],
            )
            .await?;
        }
    } else {
        db.execute(
            Scope::System,
            ROUTING_KEY_PUBLISH,
            &[
                &shard,
                &integration_tenant,
                integration_id,
                name,
                value,
                &connection_id,
                &tenant,
            ],
        )
        .await?;
        db.execute(
            Scope::System,
            ROUTING_KEY_PUBLISHED,
            &[&bucket, &connection_id, name, value],
        )
        .await?;
    }
    Ok(())
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) integration: (TenantKey, &'a str),
    pub(crate) key: &'a RoutingKey,
    pub(crate) tenant: Option<TenantKey>,
    pub(crate) after: Option<Uuid>,
}

/// Connections that may have the key, by id.
pub(crate) async fn routing_key_find(
    db: &Database,
    wanted: Wanted<'_>,
    limit: i64,
) -> Result<Vec<(Uuid, TenantKey)>, Error> {
    let (integration_tenant, integration_id) = wanted.integration;
    let shard = wanted.key.bucket(integration_tenant, integration_id);
    let tenant_id = wanted.tenant.map(|tenant| tenant.id());
    let rows = db
        .query(
            Scope::System,
            ROUTING_KEY_FIND,
            &[
                &shard,
                &integration_tenant.id(),
                &integration_id,
                &wanted.key.name,
                &wanted.key.value,
                &tenant_id,
                &wanted.after,
                &limit,
            ],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get("connection_id"), tenant(row, "tenant_id")))
        .collect())
}

fn unpublished(row: &Row) -> Unpublished {
    Unpublished {
        tenant: tenant(row, "tenant_id"),
        connection_id: row.get("connection_id"),
        key: RoutingKey {
            name: row.get("name"),
            value: row.get("value"),
        },
        integration_tenant: tenant(row, "integration_tenant_id"),
        integration_id: row.get("integration_id"),
        withdrawn: row.get::<_, i16>("state") == 3,
    }
}
