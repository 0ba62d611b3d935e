//! What the scheduler keeps: one file for each aggregate, SQL and row mapping and nothing else.

pub(crate) mod jobs;
pub(crate) mod locks;
pub(crate) mod overrides;
pub(crate) mod streams;
pub(crate) mod turns;

use common::TenantKey;
use common::pg::Row;
use uuid::Uuid;

/// The tenant of a row; its id was checked before it was written.
fn tenant(row: &Row) -> TenantKey {
    TenantKey::from_id(row.get::<_, Uuid>("tenant_id")).expect("only tenants' ids are written")
}
