//! How leased jobs end: completed, failed, or given back. What an old holder says changes nothing.
//!
//! What comes in one call is done bucket by bucket, each in one transaction whose statements travel together.

use std::time::Duration;

use common::pg::{Scope, Tx};
use common::problem::Chain;
use contracts::scheduler::v1::{
    FailureKind, InitialSyncState, JobCompletion, JobFailure, JobKind, JobState, SyncEventKind,
    TriggerSource,
};
use futures::future::try_join_all;
use uuid::Uuid;

use crate::app::Scheduler;
use crate::clients::check_usable;
use crate::error::Error;
use crate::events;
use crate::job::{AfterFailure, Job, Progress};
use crate::keep_leases::{Held, Standing, by_bucket, hold};
use crate::settle_sync::{give_up, settle};
use crate::store::cursors::{cursor_forget, cursor_move};
use crate::store::jobs::{job_insert, job_lock, job_requeue};
use crate::store::leases::job_finish;
use crate::store::streams::{stream_backfilled, stream_release};
use crate::stream::Stream;

/// What the provider's error text is cut to.
const LONGEST_ERROR: usize = 2000;

/// Ends jobs well: their cursors move, and an initial sync that is complete goes on by itself. Tells which leases were
/// the caller's no more; those jobs were left as they are.
///
/// # Errors
/// Database trouble; what was done by then is done, and gets its first answer when the call is repeated.
pub(crate) async fn complete_jobs(
    scheduler: &Scheduler,
    said: Vec<(Held, JobCompletion)>,
) -> Result<Vec<Uuid>, Error> {
    let mut lost = Vec::new();
    for (bucket, said) in by_bucket(said) {
        let lost_here = scheduler
            .database
            .run_tx("job_complete", Scope::System, async move |tx: &Tx| {
                complete(tx, bucket, &said).await
            })
            .await?;
        lost.extend(lost_here);
    }
    scheduler.wake.ring();
    Ok(in_order(lost))
}

async fn complete(
    tx: &Tx,
    bucket: i16,
    said: &[(usize, Held, JobCompletion)],
) -> Result<Vec<(usize, Uuid)>, Error> {
    let leases: Vec<_> = said.iter().map(|(_, held, _)| *held).collect();
    let mut lost = Vec::new();
    let mut ending = Vec::new();
    for ((index, held, completion), standing) in said.iter().zip(hold(tx, bucket, &leases).await?) {
        match standing {
            Standing::Held(found) => ending.push((*found, completion)),
            // The same call once more gets its first answer.
            Standing::LetGo(JobState::Succeeded) => {}
            _ => lost.push((*index, held.job_id)),
        }
    }
    let ended = try_join_all(
        ending
            .into_iter()
            .map(|((job, stream), completion)| succeed(tx, job, stream, completion)),
    )
    .await?;
    // One after the other: the last stream's end is the whole sync's.
    for (job, stream) in ended.iter().filter(|(job, _)| job.kind == JobKind::Initial) {
        if settle(tx, job, InitialSyncState::Completed).await? {
            move_cursor(tx, job, stream).await?;
            let next_run_at = Stream {
                next_run_at: None,
                ..stream.clone()
            }
            .next_tick(tx.deps().now());
            stream_backfilled(tx, &stream.key, job.window_start, next_run_at).await?;
        }
    }
    Ok(lost)
}

async fn succeed(
    tx: &Tx,
    job: Job,
    stream: Stream,
    completion: &JobCompletion,
) -> Result<(Job, Stream), Error> {
    let sent = |cursor: &[u8]| (!cursor.is_empty()).then(|| cursor.to_vec());
    let ended = Job {
        // What was cancelled and came to its end all the same has come to its end.
        state: JobState::Succeeded,
        cursor_json: sent(&completion.cursor_json).or(job.cursor_json),
        incremental_cursor_json: sent(&completion.incremental_cursor_json)
            .or(job.incremental_cursor_json),
        progress: completion.progress.map_or(job.progress, Progress::from),
        last_error: String::new(),
        waiting_for: String::new(),
        failures: 0,
        finished_at: Some(tx.deps().now()),
        ..job
    };
    let ended = job_finish(tx, &ended).await?;
    stream_release(tx, &ended.key, ended.id).await?;
    if ended.kind != JobKind::Initial {
        move_cursor(tx, &ended, &stream).await?;
    }
    events::append(tx, SyncEventKind::JobSucceeded, &ended).await?;
    tracing::info!(
        event = "job_succeeded",
        tenant.id = %ended.key.tenant,
        user.id = ended.user_id,
        job.id = %ended.id,
        stream = ended.key.stream,
        records = ended.progress.records_read,
        "a job has come to its end"
    );
    Ok((ended, stream))
}

async fn move_cursor(tx: &Tx, job: &Job, stream: &Stream) -> Result<(), Error> {
    if let Some(cursor) = job.moves_cursor_to(stream)
        && stream.cursor_json.as_deref() != Some(cursor)
    {
        cursor_move(tx, &job.key, cursor, job.id).await?;
    }
    Ok(())
}

/// Ends attempts that failed: again later, parked, or not again. Tells which leases were the caller's no more.
///
/// # Errors
/// As [`complete_jobs`].
pub(crate) async fn fail_jobs(
    scheduler: &Scheduler,
    said: Vec<(Held, JobFailure)>,
) -> Result<Vec<Uuid>, Error> {
    let mut lost = Vec::new();
    let mut parked = Vec::new();
    for (bucket, said) in by_bucket(said) {
        let (lost_here, ended) = scheduler
            .database
            .run_tx("job_fail", Scope::System, async move |tx: &Tx| {
                fail_all(tx, bucket, &said).await
            })
            .await?;
        lost.extend(lost_here);
        parked.extend(
            ended
                .into_iter()
                .filter(|job| job.state == JobState::Parked),
        );
    }
    for job in parked {
        if let Err(error) = resume_if_changed(scheduler, &job).await {
            tracing::warn!(
                event = "parked_unchecked",
                tenant.id = %job.key.tenant,
                job.id = %job.id,
                error = %Chain(&error),
                "whether the connection of a job that was parked has changed meanwhile is not known"
            );
        }
    }
    scheduler.wake.ring();
    Ok(in_order(lost))
}

type Failed = (Vec<(usize, Uuid)>, Vec<Job>);

async fn fail_all(
    tx: &Tx,
    bucket: i16,
    said: &[(usize, Held, JobFailure)],
) -> Result<Failed, Error> {
    let leases: Vec<_> = said.iter().map(|(_, held, _)| *held).collect();
    let (mut lost, mut ended) = (Vec::new(), Vec::new());
    for ((index, held, failure), standing) in said.iter().zip(hold(tx, bucket, &leases).await?) {
        match standing {
            Standing::Held(found) => ended.push(fail(tx, found.0, &found.1, failure).await?),
            Standing::LetGo(JobState::Succeeded) | Standing::Lost => {
                lost.push((*index, held.job_id));
            }
            // The same call once more gets its first answer.
            Standing::LetGo(_) => {}
        }
    }
    Ok((lost, ended))
}

async fn fail(tx: &Tx, job: Job, stream: &Stream, failure: &JobFailure) -> Result<Job, Error> {
    let deps = tx.deps();
    let kind = FailureKind::try_from(failure.kind).unwrap_or(FailureKind::Retry);
    let retry_after = failure
        .retry_after
        .and_then(|span| Duration::try_from(span).ok());
    let after = job.after_failure(kind, retry_after, stream, deps);
    let last_error: String = failure.error.chars().take(LONGEST_ERROR).collect();
    let failed = Job { last_error, ..job };
    let (ended, told) = ended(failed, after, &failure.missing_scopes, deps.now());
    let ended = job_finish(tx, &ended).await?;
    stream_release(tx, &ended.key, ended.id).await?;
    if let Some(kind) = told {
        events::append(tx, kind, &ended).await?;
    }
    match (ended.state, after) {
        (JobState::Failed, AfterFailure::FullPass) => {
            job_insert(tx, &full_pass(&ended, stream, tx)).await?;
        }
        (JobState::Failed | JobState::Cancelled, _) => give_up(tx, &ended).await?,
        (_, AfterFailure::Restart { .. }) if ended.kind == JobKind::Incremental => {
            cursor_forget(tx, &ended.key).await?;
        }
        _ => {}
    }
    tracing::info!(
        event = "job_attempt_failed",
        tenant.id = %ended.key.tenant,
        user.id = ended.user_id,
        job.id = %ended.id,
        stream = ended.key.stream,
        state = ended.state.as_str_name(),
        "an attempt at a job failed"
    );
    Ok(ended)
}

/// The job as it is afterwards, and what is told of it.
fn ended(
    failed: Job,
    after: AfterFailure,
    missing_scopes: &[String],
    now: time::OffsetDateTime,
) -> (Job, Option<SyncEventKind>) {
    if failed.state == JobState::Cancelling {
        let cancelled = Job {
            state: JobState::Cancelled,
            finished_at: Some(now),
            ..failed
        };
        return (cancelled, Some(SyncEventKind::JobCancelled));
    }
    let again = |pause, failures, failed: Job| Job {
        state: JobState::Retrying,
        due_at: now + pause,
        failures,
        waiting_for: format!("its next attempt, after a failure: {}", failed.last_error),
        ..failed
    };
    match after {
        AfterFailure::Retry { pause, failures } => (again(pause, failures, failed), None),
        AfterFailure::Restart { pause, failures } => (
            Job {
                cursor_json: None,
                ..again(pause, failures, failed)
            },
            None,
        ),
        AfterFailure::Park => {
            let waiting_for = if missing_scopes.is_empty() {
                format!("the connection: {}", failed.last_error)
            } else {
                format!(
                    "the connection to be given the scopes {}",
                    missing_scopes.join(", ")
                )
            };
            (
                Job {
                    state: JobState::Parked,
                    waiting_for,
                    ..failed
                },
                Some(SyncEventKind::JobParked),
            )
        }
        AfterFailure::End | AfterFailure::FullPass => (
            Job {
                state: JobState::Failed,
                finished_at: Some(now),
                ..failed
            },
            Some(SyncEventKind::JobFailed),
        ),
    }
}

/// Everything once more, without a cursor, as far back as the initial sync reached: the provider knows the cursor no more.
fn full_pass(job: &Job, stream: &Stream, tx: &Tx) -> Job {
    Job {
        kind: JobKind::Full,
        queue: job.queue.clone(),
        triggered_by: TriggerSource::Schedule,
        user_id: job.user_id.clone(),
        traceparent: job.traceparent.clone(),
        window_start: stream.backfilled_from,
        ..Job::queued(stream, job.run_id, tx.deps().now(), tx.deps())
    }
}

/// A job is parked on what its worker saw of the connection. Where that changed while it worked, the event that would
/// resume the job has been and gone.
async fn resume_if_changed(scheduler: &Scheduler, job: &Job) -> Result<(), Error> {
    let tenant = job.key.tenant;
    let connection = scheduler
        .clients
        .connection(tenant, job.key.connection_id)
        .await?;
    let changed_at = connection
        .updated_at
        .and_then(|at| crate::encode::moment(at).ok());
    if check_usable(&connection).is_err() || changed_at <= job.leased_at {
        return Ok(());
    }
    let (job_id, fence) = (job.id, job.fence);
    scheduler
        .database
        .run_tx("job_unpark", Scope::System, async move |tx: &Tx| {
            let found = job_lock(tx, tenant, job_id).await?;
            if found.is_some_and(|job| job.state == JobState::Parked && job.fence == fence) {
                job_requeue(tx, tenant, job_id, tx.deps().now()).await?;
            }
            Ok(())
        })
        .await
}

/// Gives jobs back unfinished, at once and without counting an attempt. Tells which leases were the caller's no more.
///
/// # Errors
/// As [`complete_jobs`].
pub(crate) async fn release_jobs(
    scheduler: &Scheduler,
    leases: Vec<Held>,
) -> Result<Vec<Uuid>, Error> {
    let mut lost = Vec::new();
    for (bucket, leases) in by_bucket(leases.into_iter().map(|held| (held, ())).collect()) {
        let lost_here = scheduler
            .database
            .run_tx("job_release", Scope::System, async move |tx: &Tx| {
                release_all(tx, bucket, &leases).await
            })
            .await?;
        lost.extend(lost_here);
    }
    scheduler.wake.ring();
    Ok(in_order(lost))
}

async fn release_all(
    tx: &Tx,
    bucket: i16,
    said: &[(usize, Held, ())],
) -> Result<Vec<(usize, Uuid)>, Error> {
    let leases: Vec<_> = said.iter().map(|(_, held, ())| *held).collect();
    let mut lost = Vec::new();
    for ((index, held, ()), standing) in said.iter().zip(hold(tx, bucket, &leases).await?) {
        match standing {
            Standing::Held(found) => release(tx, found.0).await?,
            // The same call once more gets its first answer.
            Standing::LetGo(JobState::Retrying | JobState::Cancelled) => {}
            _ => lost.push((*index, held.job_id)),
        }
    }
    Ok(lost)
}

async fn release(tx: &Tx, job: Job) -> Result<(), Error> {
    let now = tx.deps().now();
    let cancelled = job.state == JobState::Cancelling;
    let released = if cancelled {
        Job {
            state: JobState::Cancelled,
            finished_at: Some(now),
            ..job
        }
    } else {
        // A queued one may wait beside it by now; this one has begun, and goes on as one that waits.
        Job {
            state: JobState::Retrying,
            due_at: now,
            attempt: job.attempt - 1,
            ..job
        }
    };
    let released = job_finish(tx, &released).await?;
    stream_release(tx, &released.key, released.id).await?;
    if cancelled {
        events::append(tx, SyncEventKind::JobCancelled, &released).await?;
        give_up(tx, &released).await?;
    }
    Ok(())
}

/// The lost jobs as the call named them.
fn in_order(mut lost: Vec<(usize, Uuid)>) -> Vec<Uuid> {
    lost.sort_unstable();
    lost.into_iter().map(|(_, job_id)| job_id).collect()
}
