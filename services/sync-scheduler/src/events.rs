//! What others are told: written in the transaction that causes it.

use common::pg::outbox::{self, Event};
use common::pg::{self, Tx};
use contracts::scheduler::v1::{Job as ContractJob, SyncEventKind, WatchSyncEventsResponse};
use prost::Message as _;

use crate::encode;
use crate::job::Job;
use crate::lock::Override;

/// Tells of a job.
///
/// # Errors
/// Where the statement fails.
pub(crate) async fn append(tx: &Tx, kind: SyncEventKind, job: &Job) -> Result<(), pg::Error> {
    let resource = format!("jobs/{}", job.id);
    write(
        tx,
        kind,
        resource,
        job.revision,
        job.key.tenant,
        encode::job(job),
    )
    .await
}

/// Tells of a whole initial sync; `job` is one of its jobs.
///
/// # Errors
/// Where the statement fails.
pub(crate) async fn append_sync(
    tx: &Tx,
    kind: SyncEventKind,
    job: &Job,
    revision: i64,
) -> Result<(), pg::Error> {
    let resource = format!("initial-syncs/{}", job.run_id);
    write(
        tx,
        kind,
        resource,
        revision,
        job.key.tenant,
        encode::job(job),
    )
    .await
}

/// Tells of an override; `job` is the first of those that used it up.
///
/// # Errors
/// Where the statement fails.
pub(crate) async fn append_override(
    tx: &Tx,
    kind: SyncEventKind,
    granted: &Override,
    job: Option<&Job>,
) -> Result<(), pg::Error> {
    let resource = format!("overrides/{}", granted.id);
    let revision = if job.is_some() { 2 } else { 1 };
    let concerned = ContractJob {
        tenant_id: granted.tenant.to_string(),
        connection_id: granted
            .connection_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        ..ContractJob::default()
    };
    write(
        tx,
        kind,
        resource,
        revision,
        granted.tenant,
        job.map_or(concerned, encode::job),
    )
    .await
}

async fn write(
    tx: &Tx,
    kind: SyncEventKind,
    resource: String,
    revision: i64,
    tenant: common::TenantKey,
    job: ContractJob,
) -> Result<(), pg::Error> {
    let deps = tx.deps();
    let payload = WatchSyncEventsResponse {
        cursor: String::new(),
        occurred_at: Some(encode::timestamp(deps.now())),
        kind: kind.into(),
        job: Some(job),
    };
    let event = Event {
        event_id: tenant.new_id(deps),
        resource,
        revision,
        payload: payload.encode_to_vec(),
    };
    outbox::append(tx, tenant, &event).await
}
