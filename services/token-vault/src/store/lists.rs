//! Grants, page by page.

use common::TenantKey;
use common::pg::{Scope, ToSql};
use uuid::Uuid;

use super::data_keys::is_shredded;
use super::grant_row::{grant_columns, grant_from, key_from};
use super::{Store, StoreError};
use crate::grant::{Grant, State};

const GRANTS_LIST: &str = concat!(
    "-- {schema}.grants_list
SELECT ",
    grant_columns!(),
    ", now() AS read_at, ",
    is_shredded!("grants"),
    " AS is_shredded
FROM {schema}.grants
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id > $3
  AND state = ANY($4)
ORDER BY grant_id
LIMIT $5"
);

/// Every tenant's; the bucket comes first in the order, so that a page is one range of the primary key.
const GRANTS_LIST_ALL: &str = concat!(
    "-- {schema}.grants_list_all
SELECT ",
    grant_columns!(),
    ", now() AS read_at, ",
    is_shredded!("grants"),
    " AS is_shredded
FROM {schema}.grants
WHERE (bucket, tenant_id, grant_id) > ($1, $2, $3)
  AND state = ANY($4)
ORDER BY bucket, tenant_id, grant_id
LIMIT $5"
);

/// Which grants are asked for.
#[derive(Clone, Debug)]
pub(crate) struct GrantFilter {
    /// `None` for every tenant's.
    pub(crate) tenant: Option<TenantKey>,
    /// `None` for all that can be seen.
    pub(crate) state: Option<State>,
    /// The last one of the page before.
    pub(crate) behind: Option<(TenantKey, Uuid)>,
    pub(crate) limit: i64,
}

const VISIBLE: [State; 6] = [
    State::Unconfirmed,
    State::Active,
    State::RefreshFailing,
    State::ReauthorizationRequired,
    State::Revoking,
    State::Revoked,
];

impl Store {
    pub(crate) async fn grants_list(&self, filter: &GrantFilter) -> Result<Vec<Grant>, StoreError> {
        let states: Vec<&str> = match filter.state {
            Some(state) => vec![state.as_str()],
            None => VISIBLE.into_iter().map(State::as_str).collect(),
        };
        let behind = filter.behind.map_or(Uuid::nil(), |(_, grant)| grant);
        let rows = if let Some(tenant) = filter.tenant {
            let params: &[&(dyn ToSql + Sync)] = &[
                &tenant.bucket(),
                &tenant.id(),
                &behind,
                &states,
                &filter.limit,
            ];
            self.db
                .query(Scope::Tenant(tenant), GRANTS_LIST, params)
                .await?
        } else {
            let (bucket, tenant) = filter.behind.map_or((-1, Uuid::nil()), |(tenant, _)| {
                (tenant.bucket(), tenant.id())
            });
            let params: &[&(dyn ToSql + Sync)] =
                &[&bucket, &tenant, &behind, &states, &filter.limit];
            self.db
                .query(Scope::System, GRANTS_LIST_ALL, params)
                .await?
        };
        rows.iter()
            .map(|row| grant_from(row, key_from(row)?))
            .collect()
    }
}
