//! What the ingest keeps: one file for each aggregate, SQL and row mapping and nothing else.

pub(crate) mod calendar;
pub(crate) mod documents;
pub(crate) mod events;
pub(crate) mod queue;
pub(crate) mod sources;
pub(crate) mod streams;
pub(crate) mod usage;

use common::TenantKey;
use common::pg::Row;
use uuid::Uuid;

/// The tenant in a column; its id was checked before it was written.
fn tenant_in(row: &Row, column: &str) -> TenantKey {
    TenantKey::from_id(row.get::<_, Uuid>(column)).expect("only tenants' ids are written")
}
