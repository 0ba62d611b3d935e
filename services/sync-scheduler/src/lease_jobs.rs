//! Leasing: which jobs a worker gets, and waiting until there are some.

use std::collections::HashMap;
use std::time::Duration;

use common::identity::Caller;
use common::pg::{Scope, Tx};
use contracts::scheduler::v1::{LeasedJob, SyncEventKind};
use futures::future::{try_join, try_join_all};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::Scheduler;
use crate::error::Error;
use crate::job::Job;
use crate::settle_sync::give_up;
use crate::store::leases::{
    LeaseRequest, Servable, job_abandoned, job_candidates, job_due_buckets, job_due_lock,
    job_lease, job_leased_before, job_next_due,
};
use crate::store::streams::{stream_claim, stream_lease, stream_lock, stream_release};
use crate::store::turns::turn_take;
use crate::stream::{Stream, StreamKey};
use crate::{encode, events};

/// A worker without a say gets leases of this length.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// A shorter one is over before it is known.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_secs(1);
/// Nobody holds a job longer without a word.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_mins(10);
/// Nobody waits longer in one call.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Jobs in one call.
pub(crate) const MOST_JOBS: i32 = 64;
/// How long a replica that nobody woke takes to see the work that another one made.
const POLL: Duration = Duration::from_secs(2);
/// How soon a worker looks again whose work another one was about to take.
const CONTENDED: Duration = Duration::from_millis(20);
/// An answer that comes at the caller's deadline does not reach it, and its leases are lost.
const MARGIN: Duration = Duration::from_secs(1);

/// What a worker asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its name for itself.
    pub(crate) worker_id: String,
    /// By which a repeated call is known; may be empty.
    pub(crate) request_id: String,
    /// Which jobs it may have.
    pub(crate) servable: Servable,
    /// At most this many.
    pub(crate) most: usize,
    /// For this long.
    pub(crate) lease: Duration,
    /// Waiting this long.
    pub(crate) wait: Duration,
}

/// What one look at the work has brought.
#[derive(Debug, Default)]
struct Look {
    /// Leased jobs, with their streams' epochs.
    taken: Vec<(Job, i64)>,
    /// Somebody else was about to take some that were seen.
    contended: bool,
}

/// Jobs for the worker, as soon as there are some; none when the wait is over.
///
/// # Errors
/// Database trouble.
pub(crate) async fn lease_jobs(
    scheduler: &Scheduler,
    caller: &Caller,
    wanted: &Wanted,
) -> Result<Vec<LeasedJob>, Error> {
    let deadline = caller
        .deadline
        .and_then(|deadline| deadline.checked_sub(MARGIN));
    let until = Instant::now() + wanted.wait;
    let until = deadline.map_or(until, |deadline| until.min(deadline));
    let mut bell = scheduler.wake.listen();
    if let Some(again) = leased_before(scheduler, wanted).await? {
        return Ok(again);
    }
    loop {
        bell.mark_unchanged();
        let look = look(scheduler, wanted).await?;
        let now = Instant::now();
        if !look.taken.is_empty() || now >= until {
            return Ok(leased(scheduler, look.taken).await);
        }
        let pause = if look.contended {
            CONTENDED
        } else {
            next_due(scheduler, wanted).await?
        };
        tokio::select! {
            _ = bell.changed() => {}
            () = tokio::time::sleep_until(until.min(now + pause)) => {}
            () = scheduler.shutdown.requested() => return Ok(Vec::new()),
        }
    }
}

/// A repeated call gets what it got before.
async fn leased_before(
    scheduler: &Scheduler,
    wanted: &Wanted,
) -> Result<Option<Vec<LeasedJob>>, Error> {
    if wanted.request_id.is_empty() {
        return Ok(None);
    }
    let (request, servable) = (wanted.request(scheduler), wanted.servable.clone());
    let found = scheduler
        .database
        .run_tx("lease_repeat", Scope::System, async move |tx: &Tx| {
            let mut found = Vec::new();
            for job in job_leased_before(tx, &request, &servable).await? {
                let epoch = stream_lock(tx, &job.key)
                    .await?
                    .map_or(0, |stream| stream.epoch);
                found.push((job, epoch));
            }
            Ok::<_, Error>(found)
        })
        .await?;
    if found.is_empty() {
        Ok(None)
    } else {
        Ok(Some(leased(scheduler, found).await))
    }
}

/// How long there is nothing more, as far as is known here.
async fn next_due(scheduler: &Scheduler, wanted: &Wanted) -> Result<Duration, Error> {
    let servable = wanted.servable.clone();
    let seconds = scheduler
        .database
        .run_tx("lease_next", Scope::System, async move |tx: &Tx| {
            Ok::<_, Error>(job_next_due(tx, &servable).await?)
        })
        .await?;
    Ok(seconds.map_or(POLL, |seconds| {
        Duration::try_from_secs_f64(seconds)
            .unwrap_or_default()
            .min(POLL)
    }))
}

/// Bucket by bucket, beginning behind the one that was served last, and no bucket takes it all while others wait.
async fn look(scheduler: &Scheduler, wanted: &Wanted) -> Result<Look, Error> {
    let servable = wanted.servable.clone();
    let mut buckets = scheduler
        .database
        .run_tx("lease_buckets", Scope::System, async move |tx: &Tx| {
            Ok::<_, Error>(job_due_buckets(tx, &servable).await?)
        })
        .await?;
    scheduler.turns.begin_behind_last(&mut buckets);
    let mut found = Look::default();
    for (index, bucket) in buckets.iter().copied().enumerate() {
        let room = wanted.most - found.taken.len();
        let share = room.div_ceil(buckets.len() - index);
        if share == 0 {
            break;
        }
        let (request, servable) = (wanted.request(scheduler), wanted.servable.clone());
        let look = scheduler
            .database
            .run_tx("lease_claim", Scope::System, async move |tx: &Tx| {
                claim(tx, bucket, &request, &servable, share).await
            })
            .await?;
        if !look.taken.is_empty() {
            scheduler.turns.served(bucket);
        }
        found.taken.extend(look.taken);
        found.contended |= look.contended;
    }
    Ok(found)
}

/// The stream's row is taken before the job's, by everybody: whoever holds it sees the job as it is.
async fn claim(
    tx: &Tx,
    bucket: i16,
    request: &LeaseRequest,
    servable: &Servable,
    room: usize,
) -> Result<Look, Error> {
    end_abandoned(tx, bucket, request).await?;
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let candidates = job_candidates(tx, bucket, servable, limit).await?;
    if candidates.is_empty() {
        return Ok(Look::default());
    }
    let streams = stream_claim(tx, bucket, &candidates).await?;
    let streams: HashMap<StreamKey, Stream> = streams
        .into_iter()
        .map(|stream| (stream.key.clone(), stream))
        .collect();
    let jobs = job_due_lock(tx, bucket, &candidates).await?;
    let mut jobs: HashMap<Uuid, Job> = jobs.into_iter().map(|job| (job.id, job)).collect();
    let free = candidates.iter().filter_map(|job_id| {
        let job = jobs.remove(job_id)?;
        let stream = streams.get(&job.key)?;
        Some((job, stream))
    });
    let taken = try_join_all(free.map(|(job, stream)| take(tx, job, stream, request))).await?;
    let tenants: Vec<_> = taken.iter().map(|(job, _)| job.key.tenant.id()).collect();
    if !tenants.is_empty() {
        turn_take(tx, bucket, &tenants).await?;
    }
    Ok(Look {
        contended: taken.len() < candidates.len(),
        taken,
    })
}

/// A cancelled job whose worker never let go is over with its lease.
async fn end_abandoned(tx: &Tx, bucket: i16, request: &LeaseRequest) -> Result<(), Error> {
    for job in job_abandoned(tx, bucket, request.now).await? {
        stream_release(tx, &job.key, job.id).await?;
        events::append(tx, SyncEventKind::JobCancelled, &job).await?;
        give_up(tx, &job).await?;
    }
    Ok(())
}

async fn take(
    tx: &Tx,
    job: Job,
    stream: &Stream,
    request: &LeaseRequest,
) -> Result<(Job, i64), Error> {
    let first = job.started_at.is_none();
    let begun = job.begin(stream);
    let leased = job_lease(tx, &begun, request);
    let (epoch, job) = try_join(
        stream_lease(tx, &stream.key, begun.id, request.lease),
        leased,
    )
    .await?;
    if first {
        events::append(tx, SyncEventKind::JobStarted, &job).await?;
    }
    Ok((job, epoch))
}

async fn leased(scheduler: &Scheduler, jobs: Vec<(Job, i64)>) -> Vec<LeasedJob> {
    let mut leased = Vec::with_capacity(jobs.len());
    for (job, epoch) in jobs {
        tracing::info!(
            event = "job_leased",
            tenant.id = %job.key.tenant,
            user.id = job.user_id,
            job.id = %job.id,
            connection.id = %job.key.connection_id,
            stream = job.key.stream,
            attempt = job.attempt,
            "a job was leased"
        );
        leased.push(LeasedJob {
            lease_token: job.fence,
            lease_expires_at: Some(encode::timestamp(job.due_at)),
            stream_epoch: epoch,
            field_mappings_json: scheduler
                .field_mappings
                .get(&scheduler.clients, job.key.tenant)
                .await,
            job: Some(encode::job(&job)),
        });
    }
    leased
}

impl Wanted {
    fn request(&self, scheduler: &Scheduler) -> LeaseRequest {
        LeaseRequest {
            worker_id: self.worker_id.clone(),
            request_id: self.request_id.clone(),
            lease: self.lease.as_secs_f64(),
            now: scheduler.deps.now(),
        }
    }
}
