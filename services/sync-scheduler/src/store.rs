//! What the scheduler keeps: one file for each aggregate, SQL and row mapping and nothing else.

// What every statement that gives jobs gives of them.
macro_rules! job_columns {
    () => {
        "bucket, tenant_id, job_id, run_id, connection_id, external_account_id, stream, provider, integration_id, queue,
    kind, state, triggered_by, user_id, owner_id, priority, window_start, window_end, external_ids, due_at, fence,
    attempt, failures, max_attempts, cursor_json, cursor_version, incremental_cursor_json, progress, last_error,
    waiting_for, traceparent, checkpoint_number, scheduled_at, started_at, leased_at, finished_at, revision"
    };
}

pub(crate) mod cursors;
pub(crate) mod jobs;
pub(crate) mod leases;
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
