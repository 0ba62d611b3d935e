//! How a historical sync stands: the lock of each stream, and what the last of them makes of the whole.

use common::pg::Tx;
use contracts::scheduler::v1::{InitialSyncState, JobKind, SyncEventKind};

use crate::error::Error;
use crate::events;
use crate::job::Job;
use crate::lock::{SyncLock, overall};
use crate::store::locks::{lock_of_run, lock_settle};

/// Writes how the initial sync of one stream stands; the last stream's end is the whole sync's. `false` where another
/// start took the lock since, so that this job speaks for nothing any more.
///
/// # Errors
/// Where a statement fails.
pub(crate) async fn settle(tx: &Tx, job: &Job, state: InitialSyncState) -> Result<bool, Error> {
    let now = tx.deps().now();
    let locks = lock_of_run(tx, job.key.tenant, job.run_id).await?;
    let Some(own) = locks.iter().find(|lock| lock.key.stream == job.key.stream) else {
        return Ok(false);
    };
    let reason = match state {
        InitialSyncState::Failed => own.broken_off(&job.last_error),
        _ => SyncLock::used(&own.provider, own.locked_at),
    };
    let completed_at = (state == InitialSyncState::Completed).then_some(now);
    lock_settle(
        tx,
        &SyncLock {
            state,
            reason,
            completed_at,
            ..own.clone()
        },
    )
    .await?;
    let others = locks
        .iter()
        .filter(|lock| lock.key.stream != job.key.stream)
        .map(|lock| lock.state);
    // The lock of each stream counts its changes, so their sum counts those of the whole.
    let revision = locks.iter().map(|lock| lock.revision).sum::<i64>() + 1;
    match overall(others.chain([state])) {
        InitialSyncState::Completed => {
            events::append_sync(tx, SyncEventKind::InitialSyncCompleted, job, revision).await?;
            tracing::info!(
                event = "initial_sync_completed",
                tenant.id = %job.key.tenant,
                user.id = job.user_id,
                connection.id = %job.key.connection_id,
                "initial sync complete, auto-sync enabled"
            );
        }
        InitialSyncState::Failed | InitialSyncState::Partial => {
            events::append_sync(tx, SyncEventKind::InitialSyncFailed, job, revision).await?;
            tracing::warn!(
                event = "initial_sync_failed",
                tenant.id = %job.key.tenant,
                user.id = job.user_id,
                connection.id = %job.key.connection_id,
                "an initial sync did not come to its end"
            );
        }
        _ => {}
    }
    Ok(true)
}

/// What the end of a job that did not succeed means for the historical sync, where it was part of one.
///
/// # Errors
/// Where a statement fails.
pub(crate) async fn give_up(tx: &Tx, job: &Job) -> Result<(), Error> {
    if job.kind == JobKind::Initial {
        settle(tx, job, InitialSyncState::Failed).await?;
    }
    Ok(())
}
