//! What the broker keeps: one file for each aggregate, SQL and row mapping and nothing else.

pub(crate) mod accounts;
pub(crate) mod authorizations;
pub(crate) mod connections;
pub(crate) mod exclusive_accounts;
pub(crate) mod grant_duties;
pub(crate) mod imports;
pub(crate) mod integrations;
pub(crate) mod routing_keys;
pub(crate) mod sessions;

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Json, Row};
use uuid::Uuid;

/// The tenant in a column; its id was checked before it was written.
fn tenant(row: &Row, column: &str) -> TenantKey {
    TenantKey::from_id(row.get::<_, Uuid>(column)).expect("only tenants' ids are written")
}

/// A JSON object of texts.
fn texts(row: &Row, column: &str) -> BTreeMap<String, String> {
    row.get::<_, Json<BTreeMap<String, String>>>(column).0
}

/// An enum of the contract's, by its number.
fn number<E: TryFrom<i32> + Default>(row: &Row, column: &str) -> E {
    E::try_from(i32::from(row.get::<_, i16>(column))).unwrap_or_default()
}
