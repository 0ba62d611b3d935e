//! Jobs in people's hands, cancelled and tried again; and those that wait for a connection, resumed by its events.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, Tx, audit};
use contracts::scheduler::v1::{InitialSyncState, JobKind, JobState, SyncEventKind};
use uuid::Uuid;

use crate::app::Scheduler;
use crate::error::Error;
use crate::events;
use crate::job::Job;
use crate::settle_sync::{give_up, settle};
use crate::store::jobs::{job_cancel, job_lock, job_parked, job_requeue};
use crate::store::streams::{stream_reschedule, stream_unschedule};

/// Cancels a job that has not begun; asks the worker of one that runs to let go.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`] where it is over.
pub(crate) async fn cancel_job(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    job_id: Uuid,
) -> Result<Job, Error> {
    let caller = caller.clone();
    let job = scheduler
        .database
        .run_tx("job_cancel", Scope::Tenant(tenant), async move |tx: &Tx| {
            let job = of_caller(&caller, job_lock(tx, tenant, job_id).await?)?;
            let now = tx.deps().now();
            let job = match job.state {
                JobState::Cancelling => return Ok::<_, Error>(job),
                JobState::Running => job_cancel(tx, &job, JobState::Cancelling, None).await?,
                JobState::Queued | JobState::Retrying | JobState::Parked => {
                    let job = job_cancel(tx, &job, JobState::Cancelled, Some(now)).await?;
                    events::append(tx, SyncEventKind::JobCancelled, &job).await?;
                    give_up(tx, &job).await?;
                    job
                }
                _ => return Err(Error::WrongState { state: "over" }),
            };
            audit::append(
                tx,
                tenant,
                caller.actor(),
                "SyncService/CancelJob",
                &format!("jobs/{job_id}"),
                "",
            )
            .await?;
            Ok(job)
        })
        .await?;
    scheduler.wake.ring();
    Ok(job)
}

/// Makes a failed, cancelled or waiting job due now. An initial sync needs no override for it: the lock is still its own.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`] where it runs, went well, or was started anew since.
pub(crate) async fn retry_job(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    job_id: Uuid,
) -> Result<Job, Error> {
    let caller = caller.clone();
    let job = scheduler
        .database
        .run_tx("job_retry", Scope::Tenant(tenant), async move |tx: &Tx| {
            let job = of_caller(&caller, job_lock(tx, tenant, job_id).await?)?;
            let now = tx.deps().now();
            match job.state {
                JobState::Failed | JobState::Cancelled | JobState::Parked | JobState::Retrying => {}
                JobState::Queued => return Ok::<_, Error>(job),
                JobState::Succeeded => {
                    return Err(Error::WrongState {
                        state: "over, and went well",
                    });
                }
                _ => return Err(Error::WrongState { state: "running" }),
            }
            if job.kind == JobKind::Initial
                && job.is_over()
                && !settle(tx, &job, InitialSyncState::Running).await?
            {
                return Err(Error::WrongState {
                    state: "of a sync that was started again since",
                });
            }
            let job = job_requeue(tx, tenant, job_id, now).await?;
            audit::append(
                tx,
                tenant,
                caller.actor(),
                "SyncService/RetryJob",
                &format!("jobs/{job_id}"),
                "",
            )
            .await?;
            Ok(job)
        })
        .await?;
    scheduler.wake.ring();
    Ok(job)
}

fn of_caller(caller: &Caller, job: Option<Job>) -> Result<Job, Error> {
    let job = job.ok_or(Error::NotFound("job"))?;
    if caller.own_user().is_some_and(|user| user != job.owner_id) {
        return Err(Error::NotFound("job"));
    }
    Ok(job)
}

/// A connection works again: what waited for it is due, and its schedules go on.
///
/// # Errors
/// Database trouble.
pub(crate) async fn resume_connection(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<usize, Error> {
    let now = tx.deps().now();
    let parked = job_parked(tx, tenant, connection_id).await?;
    for job_id in &parked {
        job_requeue(tx, tenant, *job_id, now).await?;
    }
    stream_reschedule(tx, tenant, connection_id, now).await?;
    Ok(parked.len())
}

/// A connection is gone, or needs its user: its schedules rest.
///
/// # Errors
/// Database trouble.
pub(crate) async fn rest_connection(
    tx: &Tx,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<(), Error> {
    Ok(stream_unschedule(tx, tenant, connection_id).await?)
}
