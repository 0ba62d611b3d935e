//! What a page shows of a connection's syncing, and what to offer.

use common::TenantKey;
use common::pg::{Scope, Tx};
use contracts::broker::v1::Connection;
use contracts::scheduler::v1::{InitialSyncState, JobKind, SyncState};
use uuid::Uuid;

use crate::app::Scheduler;
use crate::clients::check_usable;
use crate::encode;
use crate::error::Error;
use crate::job::{Job, Progress};
use crate::lock::{LockKey, Override, SyncLock, overall};
use crate::store::jobs::{job_current, job_last, job_run};
use crate::store::locks::{Locked, lock_of_account, lock_of_connection};
use crate::store::overrides::override_find;
use crate::store::streams::stream_list;

/// Whose state it is.
#[derive(Clone, Debug)]
struct Subject {
    tenant: TenantKey,
    connection_id: Uuid,
    provider: String,
    user_id: String,
    user_email: String,
    external_account_id: String,
    company_name: String,
    /// Whether the connection can be synced at all.
    usable: bool,
}

/// What is kept of it.
struct Kept {
    locks: Vec<SyncLock>,
    granted: Option<Override>,
    current: Vec<Job>,
    last: Option<Job>,
    initial: Vec<Job>,
    scheduled: bool,
}

/// The state of one connection, for its active account.
///
/// # Errors
/// Database trouble.
pub(crate) async fn sync_state(
    scheduler: &Scheduler,
    tenant: TenantKey,
    connection: &Connection,
    company_name: String,
) -> Result<SyncState, Error> {
    let connection_id = connection
        .connection_id
        .parse()
        .map_err(|_| Error::NotFound("connection"))?;
    let subject = Subject {
        tenant,
        connection_id,
        provider: connection.provider.clone(),
        user_id: connection.user_id.clone(),
        user_email: connection.user_email.clone(),
        external_account_id: connection
            .active_account
            .clone()
            .unwrap_or_default()
            .external_account_id,
        company_name,
        usable: check_usable(connection).is_ok(),
    };
    let key = LockKey {
        tenant,
        integration_id: connection.integration_id.clone(),
        user_id: subject.user_id.clone(),
        external_account_id: subject.external_account_id.clone(),
        stream: String::new(),
    };
    let kept = scheduler
        .database
        .run_tx(
            "sync_state_read",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let locks = lock_of_connection(tx, &key).await?;
                read(tx, tenant, connection_id, locks).await
            },
        )
        .await?;
    Ok(compose(&subject, &kept))
}

/// The state of what is locked, as the locks tell it: the connection may be gone. `None` where the locks are gone too.
///
/// # Errors
/// Database trouble.
pub(crate) async fn locked_state(
    scheduler: &Scheduler,
    tenant: TenantKey,
    locked: Locked,
    company_name: String,
) -> Result<Option<SyncState>, Error> {
    let connection_id = locked.connection;
    let kept = scheduler
        .database
        .run_tx(
            "locked_state_read",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let locks = lock_of_account(tx, tenant, connection_id, &locked.account).await?;
                read(tx, tenant, connection_id, locks).await
            },
        )
        .await?;
    let Some(lock) = kept.locks.first() else {
        return Ok(None);
    };
    let subject = Subject {
        tenant,
        connection_id,
        provider: lock.provider.clone(),
        user_id: lock.key.user_id.clone(),
        user_email: lock.user_email.clone(),
        external_account_id: lock.key.external_account_id.clone(),
        company_name,
        usable: true,
    };
    Ok(Some(compose(&subject, &kept)))
}

async fn read(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
    locks: Vec<SyncLock>,
) -> Result<Kept, Error> {
    let run_id = locks
        .iter()
        .max_by_key(|lock| lock.locked_at)
        .map(|lock| lock.run_id);
    Ok(Kept {
        granted: override_find(tx, tenant, connection_id, tx.deps().now()).await?,
        current: job_current(tx, tenant, connection_id).await?,
        last: job_last(tx, tenant, connection_id).await?,
        initial: match run_id {
            Some(run_id) => job_run(tx, tenant, run_id).await?,
            None => Vec::new(),
        },
        scheduled: stream_list(tx, tenant, connection_id)
            .await?
            .iter()
            .any(|stream| stream.next_run_at.is_some()),
        locks,
    })
}

fn compose(subject: &Subject, kept: &Kept) -> SyncState {
    let state = overall(kept.locks.iter().map(|lock| lock.state));
    let newest = kept.locks.iter().max_by_key(|lock| lock.locked_at);
    let completed = state == InitialSyncState::Completed;
    let completed_at = kept.locks.iter().filter_map(|lock| lock.completed_at).max();
    let may_start = state == InitialSyncState::NeverStarted || kept.granted.is_some();
    let initial = kept
        .initial
        .iter()
        .filter(|job| job.kind == JobKind::Initial);
    let progress = initial.fold(Progress::default(), |sum, job| sum + job.progress);
    let company = || subject.company_name.clone();
    SyncState {
        tenant_id: subject.tenant.to_string(),
        connection_id: subject.connection_id.to_string(),
        provider: subject.provider.clone(),
        user_id: subject.user_id.clone(),
        can_start_initial_sync: subject.usable && may_start,
        initial_sync_completed: completed,
        initial_sync_started_at: newest.map(|lock| encode::timestamp(lock.locked_at)),
        initial_sync_completed_at: completed_at.filter(|_| completed).map(encode::timestamp),
        lock_reason: newest.map(|lock| lock.reason.clone()).unwrap_or_default(),
        auto_sync_enabled: kept.scheduled,
        current_jobs: kept.current.iter().map(encode::job).collect(),
        last_job: kept.last.as_ref().map(encode::job),
        external_account_id: subject.external_account_id.clone(),
        company_name: company(),
        user_email: subject.user_email.clone(),
        initial_sync_progress: newest.map(|_| progress.into()),
        estimated_initial_sync: None,
        r#override: kept
            .granted
            .as_ref()
            .map(|granted| encode::granted(granted, company())),
        initial_sync_state: state.into(),
    }
}
