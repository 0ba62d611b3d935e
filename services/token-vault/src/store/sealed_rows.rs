//! Rows with sealed values in them, as whoever seals them anew sees them: columns of bytes, and nothing of their meaning.

use common::TenantKey;
use common::pg::{Row, Scope, ToSql};
use uuid::Uuid;

use super::{Store, StoreError, get};

const GRANTS_OLDER: &str = "-- {schema}.sealed_grants_list
SELECT grant_id AS id, version AS row_version, alternate_version, credential, refresh_token, previous_refresh_token,
    alternate_refresh_token
FROM {schema}.grants
WHERE bucket = $1
  AND tenant_id = $2
  AND oldest_key_version < int4send($3)
  AND grant_id > $4
ORDER BY grant_id
LIMIT $5";

/// Only what is as it was read: not what a refresh has replaced, nor what a revocation has destroyed.
const GRANTS_RESEAL: &str = "-- {schema}.sealed_grants_replace
UPDATE {schema}.grants
SET credential = new.credential,
    refresh_token = new.refresh_token,
    previous_refresh_token = new.previous_refresh_token,
    alternate_refresh_token = new.alternate_refresh_token,
    key_version = $3
FROM unnest($4::uuid[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[], $11::bytea[],
    $12::bytea[]) AS new (id, credential_before, credential, refresh_token_before, refresh_token,
    previous_refresh_token_before, previous_refresh_token, alternate_refresh_token_before, alternate_refresh_token)
WHERE grants.bucket = $1
  AND grants.tenant_id = $2
  AND grants.grant_id = new.id
  AND grants.credential IS NOT DISTINCT FROM new.credential_before
  AND grants.refresh_token IS NOT DISTINCT FROM new.refresh_token_before
  AND grants.previous_refresh_token IS NOT DISTINCT FROM new.previous_refresh_token_before
  AND grants.alternate_refresh_token IS NOT DISTINCT FROM new.alternate_refresh_token_before";

const CLIENTS_OLDER: &str = "-- {schema}.sealed_clients_list
SELECT oauth_client_id AS id, secret_version AS row_version, secret, previous_secret
FROM {schema}.oauth_clients
WHERE bucket = $1
  AND tenant_id = $2
  AND key_version < $3
  AND secret IS NOT NULL
  AND oauth_client_id > $4
ORDER BY oauth_client_id
LIMIT $5";

const CLIENTS_RESEAL: &str = "-- {schema}.sealed_clients_replace
UPDATE {schema}.oauth_clients
SET secret = new.secret,
    previous_secret = new.previous_secret,
    key_version = $3
FROM unnest($4::uuid[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[])
    AS new (id, secret_before, secret, previous_secret_before, previous_secret)
WHERE oauth_clients.bucket = $1
  AND oauth_clients.tenant_id = $2
  AND oauth_clients.oauth_client_id = new.id
  AND oauth_clients.secret IS NOT DISTINCT FROM new.secret_before
  AND oauth_clients.previous_secret IS NOT DISTINCT FROM new.previous_secret_before";

const REVOCATIONS_OLDER: &str = "-- {schema}.sealed_revocations_list
SELECT revocation_id AS id, 1::bigint AS row_version, tokens
FROM {schema}.revocations
WHERE bucket = $1
  AND tenant_id = $2
  AND key_version < $3
  AND revocation_id > $4
ORDER BY revocation_id
LIMIT $5";

const REVOCATIONS_RESEAL: &str = "-- {schema}.sealed_revocations_replace
UPDATE {schema}.revocations
SET tokens = new.tokens,
    key_version = $3
FROM unnest($4::uuid[], $5::bytea[], $6::bytea[]) AS new (id, tokens_before, tokens)
WHERE revocations.bucket = $1
  AND revocations.tenant_id = $2
  AND revocations.revocation_id = new.id
  AND revocations.tokens IS NOT DISTINCT FROM new.tokens_before";

/// A grant that nobody can read is a revoked one.
const GRANTS_ERASE: &str = "-- {schema}.sealed_grants_erase
UPDATE {schema}.grants
SET state = 'revoked',
    revoked_at = now(),
    credential = NULL,
    refresh_token = NULL,
    previous_refresh_token = NULL,
    alternate_refresh_token = NULL,
    raw_json = '',
    next_refresh_at = NULL,
    retry_at = NULL,
    confirm_until = NULL,
    remind_at = NULL,
    lease_until = NULL,
    intent_kind = NULL,
    intent_instance = NULL,
    intent_sent_at = NULL,
    fence = fence + 1
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id IN (
    SELECT grant_id
    FROM {schema}.grants
    WHERE bucket = $1
      AND tenant_id = $2
      AND (state <> 'revoked' OR oldest_key_version IS NOT NULL OR raw_json <> '')
    LIMIT $3
  )";

const CLIENTS_ERASE: &str = "-- {schema}.sealed_clients_erase
DELETE FROM {schema}.oauth_clients
WHERE bucket = $1
  AND tenant_id = $2
  AND oauth_client_id IN (
    SELECT oauth_client_id
    FROM {schema}.oauth_clients
    WHERE bucket = $1
      AND tenant_id = $2
    LIMIT $3
  )";

const REVOCATIONS_ERASE: &str = "-- {schema}.sealed_revocations_erase
DELETE FROM {schema}.revocations
WHERE bucket = $1
  AND tenant_id = $2
  AND revocation_id IN (
    SELECT revocation_id
    FROM {schema}.revocations
    WHERE bucket = $1
      AND tenant_id = $2
    LIMIT $3
  )";

/// A table of the vault's with sealed columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealedTable {
    Grants,
    OAuthClients,
    Revocations,
}

/// What a row has sealed.
#[derive(Clone, Debug)]
pub(crate) struct SealedRow {
    pub(crate) id: Uuid,
    /// In the order of [`SealedTable::columns`].
    pub(crate) values: Vec<Option<SealedValue>>,
}

/// One of its values.
#[derive(Clone, Debug)]
pub(crate) struct SealedValue {
    pub(crate) column: &'static str,
    /// The row's version that it is sealed with.
    pub(crate) row_version: i64,
    pub(crate) sealed: Vec<u8>,
}

impl SealedTable {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Grants, Self::OAuthClients, Self::Revocations];

    /// As the places of its values name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grants => "grants",
            Self::OAuthClients => "oauth_clients",
            Self::Revocations => "revocations",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Grants => &[
                "credential",
                "refresh_token",
                "previous_refresh_token",
                "alternate_refresh_token",
            ],
            Self::OAuthClients => &["secret", "previous_secret"],
            Self::Revocations => &["tokens"],
        }
    }
}

impl Store {
    /// The tenant's rows behind `after` with something that was sealed before `version`.
    pub(crate) async fn sealed_rows_older(
        &self,
        table: SealedTable,
        tenant: TenantKey,
        version: i32,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let sql = match table {
            SealedTable::Grants => GRANTS_OLDER,
            SealedTable::OAuthClients => CLIENTS_OLDER,
            SealedTable::Revocations => REVOCATIONS_OLDER,
        };
        let params: &[&(dyn ToSql + Sync)] =
            &[&tenant.bucket(), &tenant.id(), &version, &after, &limit];
        let rows = self.db.query(Scope::Tenant(tenant), sql, params).await?;
        rows.iter().map(|row| from(row, table)).collect()
    }

    /// Removes what the tenant has sealed, so many rows of each table; how many it were. Its keys are destroyed.
    pub(crate) async fn sealed_rows_erase(
        &self,
        tenant: TenantKey,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let mut erased = 0;
        for sql in [GRANTS_ERASE, CLIENTS_ERASE, REVOCATIONS_ERASE] {
            let params: &[&(dyn ToSql + Sync)] = &[&tenant.bucket(), &tenant.id(), &limit];
            erased += self.db.execute(Scope::Tenant(tenant), sql, params).await?;
        }
        Ok(erased)
    }

    /// Replaces the rows that are as they were read by values that `version` has sealed; how many that was. New values
    /// are in the order of the row's.
    pub(crate) async fn sealed_rows_replace(
        &self,
        table: SealedTable,
        tenant: TenantKey,
        version: i32,
        rows: &[(SealedRow, Vec<Option<Vec<u8>>>)],
    ) -> Result<u64, StoreError> {
        let sql = match table {
            SealedTable::Grants => GRANTS_RESEAL,
            SealedTable::OAuthClients => CLIENTS_RESEAL,
            SealedTable::Revocations => REVOCATIONS_RESEAL,
        };
        let (bucket, tenant_id) = (tenant.bucket(), tenant.id());
        let ids: Vec<Uuid> = rows.iter().map(|(row, _)| row.id).collect();
        let columns: Vec<[Vec<Option<&[u8]>>; 2]> = (0..table.columns().len())
            .map(|column| {
                let before = rows.iter().map(|(row, _)| {
                    row.values[column]
                        .as_ref()
                        .map(|value| value.sealed.as_slice())
                });
                let after = rows.iter().map(|(_, new)| new[column].as_deref());
                [before.collect(), after.collect()]
            })
            .collect();
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&bucket, &tenant_id, &version, &ids];
        for [before, after] in &columns {
            params.push(before);
            params.push(after);
        }
        Ok(self.db.execute(Scope::Tenant(tenant), sql, &params).await?)
    }
}

fn from(row: &Row, table: SealedTable) -> Result<SealedRow, StoreError> {
    let row_version: i64 = get(row, "row_version")?;
    let value = |column: &'static str| {
        let Some(sealed) = get::<Option<Vec<u8>>>(row, column)? else {
            return Ok(None);
        };
        let row_version = match column {
            "alternate_refresh_token" => get(row, "alternate_version")?,
            _ => row_version,
        };
        Ok(Some(SealedValue {
            column,
            row_version,
            sealed,
        }))
    };
    Ok(SealedRow {
        id: get(row, "id")?,
        values: table
            .columns()
            .iter()
            .map(|column| value(column))
            .collect::<Result<_, StoreError>>()?,
    })
}
