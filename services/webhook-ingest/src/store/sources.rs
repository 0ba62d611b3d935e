//! Sources.

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Database, Error, Json, Row, Scope, Tx};
use uuid::Uuid;

use super::tenant_in;
use crate::source::{Integration, Previous, SealedSecrets, SealedToken, Source};
use crate::source_token::TokenHash;

macro_rules! columns {
    () => {
        "tenant_id, source_id, source_key, token_hash, token_sealed, integration_tenant_id, integration_id, scheme,
    scheme_options, trigger_streams, sealed_bodies, accept_unverified, secret_version, secret_sealed,
    previous_secret_sealed, previous_secret_until, revision, created_at, updated_at"
    };
}

const SOURCE_INSERT: &str = "\
-- ingest.source_insert
INSERT INTO ingest.sources (
    bucket, tenant_id, source_id, source_key, token_hash, token_sealed, integration_tenant_id, integration_id, scheme,
    scheme_options, trigger_streams, sealed_bodies, accept_unverified, secret_version, secret_sealed,
    revision, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT (bucket, tenant_id, source_id) DO NOTHING";

const SOURCE_GET: &str = concat!(
    "-- ingest.source_get\nSELECT ",
    columns!(),
    "
FROM ingest.sources
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id = $3"
);

const SOURCE_LOCK: &str = concat!(
    "-- ingest.source_lock\nSELECT ",
    columns!(),
    "
FROM ingest.sources
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id = $3
FOR UPDATE"
);

const SOURCE_FIND: &str = concat!(
    "-- ingest.source_find\nSELECT ",
    columns!(),
    "
FROM ingest.sources
WHERE bucket = $1
    AND token_hash = $2"
);

const SOURCE_LIST: &str = concat!(
    "-- ingest.source_list\nSELECT ",
    columns!(),
    "
FROM ingest.sources
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id > $3
ORDER BY source_id
LIMIT $4"
);

/// Every tenant's; the bucket comes first in the order, so that a page is one range of the primary key.
const SOURCE_LIST_ALL: &str = concat!(
    "-- ingest.source_list_all\nSELECT ",
    columns!(),
    "
FROM ingest.sources
WHERE (bucket, tenant_id, source_id) > ($1, $2, $3)
ORDER BY bucket, tenant_id, source_id
LIMIT $4"
);

/// Only what is as it was read.
const SOURCE_RESEAL: &str = "\
-- ingest.source_reseal
UPDATE ingest.sources
SET token_sealed = $5,
    secret_sealed = $7,
    previous_secret_sealed = $9
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id = $3
    AND token_sealed = $4
    AND secret_sealed = $6
    AND previous_secret_sealed IS NOT DISTINCT FROM $8";

const SOURCE_UPDATE: &str = "\
-- ingest.source_update
UPDATE ingest.sources
SET integration_tenant_id = $4,
    integration_id = $5,
    scheme_options = $6,
    trigger_streams = $7,
    sealed_bodies = $8,
    secret_version = $9,
    secret_sealed = $10,
    previous_secret_sealed = $11,
    previous_secret_until = $12,
    revision = $13,
    updated_at = $14
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id = $3";

const SOURCE_DELETE: &str = "\
-- ingest.source_delete
DELETE FROM ingest.sources
WHERE bucket = $1
    AND tenant_id = $2
    AND source_id = $3";

/// `false` where the tenant has one of this id.
pub(crate) async fn source_insert(tx: &Tx, source: &Source) -> Result<bool, Error> {
    let (owner, integration_id) = integration(source);
    let inserted = tx
        .execute(
            SOURCE_INSERT,
            &[
                &source.tenant.bucket(),
                &source.tenant.id(),
                &source.source_id,
                &source.source_key,
                &source.token.hash.as_slice(),
                &source.token.sealed,
                &owner,
                &integration_id,
                &source.scheme,
                &source.scheme_options,
                &Json(&source.trigger_streams),
                &source.sealed_bodies,
                &source.accept_unverified,
                &source.secrets.version,
                &source.secrets.current,
                &source.revision,
                &source.created_at,
                &source.updated_at,
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The tenant's source.
pub(crate) async fn source_get(
    db: &Database,
    tenant: TenantKey,
    source_id: &str,
) -> Result<Option<Source>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            SOURCE_GET,
            &[&tenant.bucket(), &tenant.id(), &source_id],
        )
        .await?;
    Ok(row.as_ref().map(source))
}

/// The tenant's source, which nobody else changes until the transaction ends.
pub(crate) async fn source_lock(
    tx: &Tx,
    tenant: TenantKey,
    source_id: &str,
) -> Result<Option<Source>, Error> {
    let row = tx
        .query_opt(SOURCE_LOCK, &[&tenant.bucket(), &tenant.id(), &source_id])
        .await?;
    Ok(row.as_ref().map(source))
}

/// The source whose address has this token, whoever's it is.
pub(crate) async fn source_find(db: &Database, token: TokenHash) -> Result<Option<Source>, Error> {
    let row = db
        .query_opt(
            Scope::System,
            SOURCE_FIND,
            &[&token.bucket, &token.hash.as_slice()],
        )
        .await?;
    Ok(row.as_ref().map(source))
}

/// The tenant's sources behind this id, in order.
pub(crate) async fn source_list(
    db: &Database,
    tenant: TenantKey,
    after: &str,
    limit: i64,
) -> Result<Vec<Source>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            SOURCE_LIST,
            &[&tenant.bucket(), &tenant.id(), &after, &limit],
        )
        .await?;
    Ok(rows.iter().map(source).collect())
}

/// Every tenant's sources behind this one, in order.
pub(crate) async fn source_list_all(
    db: &Database,
    after: Option<&Source>,
    limit: i64,
) -> Result<Vec<Source>, Error> {
    let (bucket, tenant_id, source_id) = after.map_or((-1, Uuid::nil(), ""), |last| {
        (
            last.tenant.bucket(),
            last.tenant.id(),
            last.source_id.as_str(),
        )
    });
    let rows = db
        .query(
            Scope::System,
            SOURCE_LIST_ALL,
            &[&bucket, &tenant_id, &source_id, &limit],
        )
        .await?;
    Ok(rows.iter().map(source).collect())
}

/// Replaces what is sealed in a source, if it still is as it is in `before`.
pub(crate) async fn source_reseal(
    db: &Database,
    before: &Source,
    token: &[u8],
    secret: &[u8],
    previous: Option<&[u8]>,
) -> Result<bool, Error> {
    let previous_before = before.secrets.previous.as_ref();
    let replaced = db
        .execute(
            Scope::Tenant(before.tenant),
            SOURCE_RESEAL,
            &[
                &before.tenant.bucket(),
                &before.tenant.id(),
                &before.source_id,
                &before.token.sealed,
                &token,
                &before.secrets.current,
                &secret,
                &previous_before.map(|previous| &previous.sealed),
                &previous,
            ],
        )
        .await?;
    Ok(replaced == 1)
}

/// Writes what can change.
pub(crate) async fn source_update(tx: &Tx, source: &Source) -> Result<(), Error> {
    let (owner, integration_id) = integration(source);
    let previous = source.secrets.previous.as_ref();
    tx.execute(
        SOURCE_UPDATE,
        &[
            &source.tenant.bucket(),
            &source.tenant.id(),
            &source.source_id,
            &owner,
            &integration_id,
            &source.scheme_options,
            &Json(&source.trigger_streams),
            &source.sealed_bodies,
            &source.secrets.version,
            &source.secrets.current,
            &previous.map(|previous| &previous.sealed),
            &previous.map(|previous| previous.until),
            &source.revision,
            &source.updated_at,
        ],
    )
    .await
    .map(drop)
}

/// `false` where there is none.
pub(crate) async fn source_delete(
    tx: &Tx,
    tenant: TenantKey,
    source_id: &str,
) -> Result<bool, Error> {
    let deleted = tx
        .execute(SOURCE_DELETE, &[&tenant.bucket(), &tenant.id(), &source_id])
        .await?;
    Ok(deleted == 1)
}

fn integration(source: &Source) -> (Option<Uuid>, &str) {
    match &source.integration {
        Some(integration) => (Some(integration.tenant.id()), &integration.integration_id),
        None => (None, ""),
    }
}

fn source(row: &Row) -> Source {
    let integration = row
        .get::<_, Option<Uuid>>("integration_tenant_id")
        .map(|owner| Integration {
            tenant: TenantKey::from_id(owner).expect("only tenants' ids are written"),
            integration_id: row.get("integration_id"),
        });
    let previous = row
        .get::<_, Option<Vec<u8>>>("previous_secret_sealed")
        .zip(row.get("previous_secret_until"))
        .map(|(sealed, until)| Previous { sealed, until });
    let Json(trigger_streams): Json<BTreeMap<String, String>> = row.get("trigger_streams");
    Source {
        tenant: tenant_in(row, "tenant_id"),
        source_id: row.get("source_id"),
        source_key: row.get("source_key"),
        integration,
        scheme: row.get("scheme"),
        scheme_options: row.get("scheme_options"),
        trigger_streams,
        sealed_bodies: row.get("sealed_bodies"),
        accept_unverified: row.get("accept_unverified"),
        token: SealedToken {
            hash: row
                .get::<_, &[u8]>("token_hash")
                .try_into()
                .expect("only SHA-256 hashes are written"),
            sealed: row.get("token_sealed"),
        },
        secrets: SealedSecrets {
            version: row.get("secret_version"),
            current: row.get("secret_sealed"),
            previous,
        },
        revision: row.get("revision"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}
