//! Grants, read to be handed out: many tenants' in one statement.

use super::data_keys::is_shredded;
use super::grant_row::cause_from;
use super::{Store, StoreError, get, opt_word, word};
use crate::grant::{GrantKey, Readable, State, Strategy};
use common::pg::{Row, Scope};

const TABLE: &str = "grants";

/// Spans tenants: whoever opens what it finds uses the request's tenant, never the row's.
const GRANTS_READ: &str = concat!(
    "-- {schema}.grants_read
SELECT asked.place, state, reauthorization_cause, version, credential, token_type, scopes, strategy,
    refresh_token IS NOT NULL AS has_refresh_token, issued_at, expires_at, next_refresh_at, now() AS read_at, ",
    is_shredded!("grants"),
    " AS is_shredded
FROM unnest($1::smallint[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS asked (in_bucket, of_tenant, id, place)
JOIN {schema}.grants ON bucket = asked.in_bucket
  AND tenant_id = asked.of_tenant
  AND grant_id = asked.id"
);

impl Store {
    /// Several tenants' grants in one statement, in the order asked. A row that is impossible is nobody else's trouble.
    pub(crate) async fn grants_read(
        &self,
        keys: &[GrantKey],
    ) -> Result<Vec<Result<Option<Readable>, StoreError>>, StoreError> {
        let buckets: Vec<i16> = keys.iter().map(|key| key.tenant.bucket()).collect();
        let tenants: Vec<_> = keys.iter().map(|key| key.tenant.id()).collect();
        let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
        let mut found: Vec<_> = keys.iter().map(|_| Ok(None)).collect();
        for row in self
            .db
            .query(Scope::System, GRANTS_READ, &[&buckets, &tenants, &ids])
            .await?
        {
            let place = get::<i64>(&row, "place")? as usize - 1;
            found[place] = readable_from(&row).map(Some);
        }
        Ok(found)
    }
}

fn readable_from(row: &Row) -> Result<Readable, StoreError> {
    let mut readable = Readable {
        state: word(row, TABLE, "state", State::from_word)?,
        cause: opt_word(row, TABLE, "reauthorization_cause", cause_from)?,
        version: get(row, "version")?,
        credential: get(row, "credential")?,
        token_type: get(row, "token_type")?,
        scopes: get(row, "scopes")?,
        strategy: word(row, TABLE, "strategy", Strategy::from_word)?,
        has_refresh_token: get(row, "has_refresh_token")?,
        issued_at: get(row, "issued_at")?,
        expires_at: get(row, "expires_at")?,
        next_refresh_at: get(row, "next_refresh_at")?,
        read_at: get(row, "read_at")?,
    };
    if get(row, "is_shredded")? {
        // As for the whole row: it hands out nothing, whatever its columns still say.
        readable.state = State::Revoked;
        readable.credential = None;
    }
    Ok(readable)
}
