//! Tokens that are to be revoked at their provider.

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Json, Row, Scope, ToSql, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::grants::{lock, write};
use super::{Attribution, Change, Store, StoreError, get, tenant, texts};
use crate::grant::{ClientKey, GrantKey};

const REVOCATION_ADD: &str = "-- {schema}.revocation_add
INSERT INTO {schema}.revocations
    (bucket, tenant_id, revocation_id, grant_id, oauth_client_tenant_id, oauth_client_id, parameters, tokens, key_version,
    next_attempt_at, give_up_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + interval '30 seconds', now() + interval '1 day', now())
ON CONFLICT (bucket, tenant_id, revocation_id) DO NOTHING";

/// Takes due ones for a while, so that others leave them alone.
const REVOCATIONS_CLAIM: &str = "-- {schema}.revocations_claim
UPDATE {schema}.revocations
SET next_attempt_at = now() + interval '1 minute',
    attempts = attempts + 1
WHERE (bucket, tenant_id, revocation_id) IN (
    SELECT bucket, tenant_id, revocation_id
    FROM {schema}.revocations
    WHERE next_attempt_at <= now()
    ORDER BY next_attempt_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
RETURNING tenant_id, revocation_id, grant_id, oauth_client_tenant_id, oauth_client_id, parameters, tokens, attempts,
    give_up_at, now() AS read_at";

const REVOCATION_DELAY: &str = "-- {schema}.revocation_delay
UPDATE {schema}.revocations
SET next_attempt_at = $4
WHERE bucket = $1
  AND tenant_id = $2
  AND revocation_id = $3";

const REVOCATION_DELETE: &str = "-- {schema}.revocation_delete
DELETE FROM {schema}.revocations
WHERE bucket = $1
  AND tenant_id = $2
  AND revocation_id = $3";

const REVOCATIONS_LEFT: &str = "-- {schema}.revocations_left
SELECT count(*) AS left
FROM {schema}.revocations
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3";

/// A row of `revocations`.
#[derive(Clone, Debug)]
pub(crate) struct Revocation {
    pub(crate) tenant: TenantKey,
    pub(crate) id: Uuid,
    pub(crate) grant_id: Uuid,
    pub(crate) client: ClientKey,
    pub(crate) parameters: BTreeMap<String, String>,
    /// Sealed with the row's id, version 1.
    pub(crate) tokens: Vec<u8>,
    pub(crate) key_version: i32,
    pub(crate) attempts: i32,
    pub(crate) give_up_at: OffsetDateTime,
    pub(crate) read_at: OffsetDateTime,
}

impl Store {
    /// Puts tokens on the list that no grant holds.
    pub(crate) async fn revocation_add(&self, revocation: &Revocation) -> Result<(), StoreError> {
        let revocation = revocation.clone();
        self.db
            .run_tx(
                "revocation_add",
                Scope::Tenant(revocation.tenant),
                async move |tx: &Tx| add(tx, &revocation).await,
            )
            .await
    }

    /// From here on the grant hands out nothing: its tokens go on the list, in the same transaction. `None` where there is
    /// no such grant, `Some(false)` where it has changed since `version`.
    pub(crate) async fn grant_revoke(
        &self,
        key: GrantKey,
        version: i64,
        revocation: Option<&Revocation>,
        by: &Attribution,
    ) -> Result<Option<bool>, StoreError> {
        let (revocation, by) = (revocation.cloned(), by.clone());
        self.db
            .run_tx(
                "grant_revoke",
                Scope::Tenant(key.tenant),
                async move |tx: &Tx| {
                    let Some(mut grant) = lock(tx, key).await? else {
                        return Ok(None);
                    };
                    if grant.version != version {
                        return Ok(Some(false));
                    }
                    let Some(event) = grant.begin_revoking() else {
                        return Ok(Some(true));
                    };
                    match &revocation {
                        Some(revocation) => add(tx, revocation).await?,
                        None => drop(grant.end_revoking()),
                    }
                    write(tx, &grant, &Change::told((), Some(event)).by(by.clone())).await?;
                    Ok(Some(true))
                },
            )
            .await
    }

    /// Those that are due, each taken for a minute.
    pub(crate) async fn revocations_claim(
        &self,
        limit: i64,
    ) -> Result<Vec<Revocation>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, REVOCATIONS_CLAIM, &[&limit])
            .await?;
        rows.iter().map(from).collect()
    }

    /// Tried again at that time.
    pub(crate) async fn revocation_delay(
        &self,
        revocation: &Revocation,
        until: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let tenant = revocation.tenant;
        let params: &[&(dyn ToSql + Sync)] =
            &[&tenant.bucket(), &tenant.id(), &revocation.id, &until];
        self.db
            .execute(Scope::Tenant(tenant), REVOCATION_DELAY, params)
            .await?;
        Ok(())
    }

    /// Nothing is left to be done for these tokens; with the last of them the grant is revoked.
    pub(crate) async fn revocation_end(&self, revocation: &Revocation) -> Result<(), StoreError> {
        let (tenant, id, grant_id) = (revocation.tenant, revocation.id, revocation.grant_id);
        self.db
            .run_tx(
                "revocation_end",
                Scope::Tenant(tenant),
                async move |tx: &Tx| {
                    tx.execute(REVOCATION_DELETE, &[&tenant.bucket(), &tenant.id(), &id])
                        .await?;
                    let Some(mut grant) = lock(
                        tx,
                        GrantKey {
                            tenant,
                            id: grant_id,
                        },
                    )
                    .await?
                    else {
                        return Ok(());
                    };
                    let left = tx
                        .query_one(
                            REVOCATIONS_LEFT,
                            &[&tenant.bucket(), &tenant.id(), &grant_id],
                        )
                        .await?;
                    if get::<i64>(&left, "left")? > 0 {
                        return Ok(());
                    }
                    let event = grant.end_revoking();
                    write(
                        tx,
                        &grant,
                        &Change {
                            save: event.is_some(),
                            ..Change::told((), event)
                        },
                    )
                    .await
                },
            )
            .await
    }
}

async fn add(tx: &Tx, revocation: &Revocation) -> Result<(), StoreError> {
    let tenant = revocation.tenant;
    let params: &[&(dyn ToSql + Sync)] = &[
        &tenant.bucket(),
        &tenant.id(),
        &revocation.id,
        &revocation.grant_id,
        &revocation.client.tenant.id(),
        &revocation.client.id,
        &Json(&revocation.parameters),
        &revocation.tokens,
        &revocation.key_version,
    ];
    tx.execute(REVOCATION_ADD, params).await?;
    Ok(())
}

fn from(row: &Row) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        tenant: tenant(row, "revocations", "tenant_id")?,
        id: get(row, "revocation_id")?,
        grant_id: get(row, "grant_id")?,
        client: ClientKey {
            tenant: tenant(row, "revocations", "oauth_client_tenant_id")?,
            id: get(row, "oauth_client_id")?,
        },
        parameters: texts(row, "parameters")?,
        tokens: get(row, "tokens")?,
        key_version: 0,
        attempts: get(row, "attempts")?,
        give_up_at: get(row, "give_up_at")?,
        read_at: get(row, "read_at")?,
    })
}
