//! Tokens that are to be revoked at their provider.

use std::collections::BTreeMap;
use std::time::Duration;

use common::TenantKey;
use common::pg::{Json, Row, Scope, ToSql, Tx};
use uuid::Uuid;

use super::data_keys::is_shredded;
use super::grants::{lock, write};
use super::{Attribution, Change, Store, StoreError, get, tenant, texts};
use crate::grant::{ClientKey, GrantKey};

const REVOCATION_ADD: &str = "-- {schema}.revocation_add
INSERT INTO {schema}.revocations
    (bucket, tenant_id, revocation_id, grant_id, oauth_client_tenant_id, oauth_client_id, parameters, tokens, key_version,
    next_attempt_at, give_up_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + interval '30 seconds', now() + interval '1 day', now())
ON CONFLICT (bucket, tenant_id, revocation_id) DO NOTHING";

const REVOCATION_BUCKETS: &str = concat!(
    "-- {schema}.revocation_buckets
SELECT DISTINCT bucket
FROM (
    SELECT bucket
    FROM {schema}.revocations
    WHERE next_attempt_at <= now()
      AND NOT ",
    is_shredded!("revocations"),
    "
    ORDER BY next_attempt_at
    LIMIT $1
) AS due"
);

/// Takes due ones for a while, so that others leave them alone.
const REVOCATIONS_CLAIM: &str = concat!(
    "-- {schema}.revocations_claim
WITH due AS (
    SELECT tenant_id, revocation_id
    FROM {schema}.revocations
    WHERE bucket = $1
      AND next_attempt_at <= now()
      AND NOT ",
    is_shredded!("revocations"),
    "
    ORDER BY next_attempt_at
    LIMIT $2
    FOR UPDATE OF revocations SKIP LOCKED
)
UPDATE {schema}.revocations AS r
SET next_attempt_at = now() + interval '3 minutes',
    attempts = attempts + 1
FROM due
WHERE r.bucket = $1
  AND r.tenant_id = due.tenant_id
  AND r.revocation_id = due.revocation_id
RETURNING r.tenant_id, r.revocation_id, r.grant_id, r.oauth_client_tenant_id, r.oauth_client_id, r.parameters, r.tokens,
    r.attempts, r.give_up_at <= now() AS is_last"
);

const REVOCATION_DELAY: &str = "-- {schema}.revocation_delay
UPDATE {schema}.revocations
SET next_attempt_at = now() + $4 * interval '1 second'
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
    /// If the provider does not answer this time either, the tokens are destroyed without its word.
    pub(crate) is_last: bool,
}

/// What became of the wish to revoke a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevokeOutcome {
    Revoked,
    /// It is being revoked already, or is to be kept.
    Kept,
    /// It has got other tokens.
    Changed,
    NotFound,
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

    /// From here on the grant hands out nothing: its tokens go on the list, in the same transaction. With `if_unconfirmed`
    /// only where nobody has confirmed it in time.
    pub(crate) async fn grant_revoke(
        &self,
        key: GrantKey,
        version: i64,
        revocation: Option<&Revocation>,
        if_unconfirmed: bool,
        by: &Attribution,
    ) -> Result<RevokeOutcome, StoreError> {
        let (revocation, by) = (revocation.cloned(), by.clone());
        self.db
            .run_tx(
                "grant_revoke",
                Scope::Tenant(key.tenant),
                async move |tx: &Tx| {
                    let Some(mut grant) = lock(tx, key).await? else {
                        return Ok(RevokeOutcome::NotFound);
                    };
                    if grant.version != version {
                        return Ok(RevokeOutcome::Changed);
                    }
                    if if_unconfirmed && grant.confirm_until.is_none_or(|end| end > grant.read_at) {
                        return Ok(RevokeOutcome::Kept);
                    }
                    let Some(event) = grant.begin_revoking() else {
                        return Ok(RevokeOutcome::Kept);
                    };
                    match &revocation {
                        Some(revocation) => add(tx, revocation).await?,
                        None => drop(grant.end_revoking()),
                    }
                    write(tx, &grant, &Change::told((), Some(event)).by(by.clone())).await?;
                    Ok(RevokeOutcome::Revoked)
                },
            )
            .await
    }

    /// The buckets of those that are due first.
    pub(crate) async fn revocation_buckets(&self, limit: i64) -> Result<Vec<i16>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, REVOCATION_BUCKETS, &[&limit])
            .await?;
        rows.iter().map(|row| get(row, "bucket")).collect()
    }

    /// A bucket's that are due, each taken for three minutes.
    pub(crate) async fn revocations_claim(
        &self,
        bucket: i16,
        limit: i64,
    ) -> Result<Vec<Revocation>, StoreError> {
        let rows = self
            .db
            .query(Scope::System, REVOCATIONS_CLAIM, &[&bucket, &limit])
            .await?;
        rows.iter().map(from).collect()
    }

    /// Tried again after that time.
    pub(crate) async fn revocation_delay(
        &self,
        revocation: &Revocation,
        pause: Duration,
    ) -> Result<(), StoreError> {
        let (tenant, pause) = (revocation.tenant, pause.as_secs_f64());
        let params: &[&(dyn ToSql + Sync)] =
            &[&tenant.bucket(), &tenant.id(), &revocation.id, &pause];
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
        is_last: get(row, "is_last")?,
    })
}
