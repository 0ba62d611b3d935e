//! Keeping leases: who holds one, for how much longer, and what it has reached. What an old holder says changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::TenantKey;
use common::pg::{Scope, Tx};
use contracts::scheduler::v1::{HeartbeatResponse, JobState};
use futures::future::{try_join, try_join_all};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::Scheduler;
use crate::encode;
use crate::error::Error;
use crate::job::{CONNECTORS, Job};
use crate::store::leases::{Checkpoint, job_checkpoint, job_extend, job_held_lock};
use crate::store::streams::{stream_extend, stream_held_lock};
use crate::stream::{Stream, StreamKey};

/// A lease as somebody names it who reaches its tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// The job's tenant.
    pub(crate) tenant: TenantKey,
    /// The job.
    pub(crate) job_id: Uuid,
    /// The lease's token.
    pub(crate) fence: i64,
    /// Whether it is the host application's worker, which holds no job of the built-in worker's.
    pub(crate) outsider: bool,
}

/// What a lease turns out to be.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It is held: the job, and its stream. Both are locked.
    Held(Box<(Job, Stream)>),
    /// The token is the job's last one, and the job does not run any more.
    LetGo(JobState),
    /// It is another's, or run out.
    Lost,
}

/// What is said of each lease, by the bucket it lies in, with its place in the call: a transaction touches one bucket.
pub(crate) fn by_bucket<T>(said: Vec<(Held, T)>) -> BTreeMap<i16, Vec<(usize, Held, T)>> {
    let mut buckets: BTreeMap<i16, Vec<_>> = BTreeMap::new();
    for (index, (held, what)) in said.into_iter().enumerate() {
        buckets
            .entry(held.tenant.bucket())
            .or_default()
            .push((index, held, what));
    }
    buckets
}

/// Finds out about leases of one bucket, in their order. The streams are locked first: a lease is taken and lost there.
pub(crate) async fn hold(tx: &Tx, bucket: i16, leases: &[Held]) -> Result<Vec<Standing>, Error> {
    let job_ids: Vec<_> = leases.iter().map(|held| held.job_id).collect();
    let streams = stream_held_lock(tx, bucket, &job_ids).await?;
    let streams: HashMap<StreamKey, Stream> = streams
        .into_iter()
        .map(|stream| (stream.key.clone(), stream))
        .collect();
    let jobs = job_held_lock(tx, bucket, &job_ids).await?;
    let jobs: HashMap<Uuid, (Job, bool)> = jobs
        .into_iter()
        .map(|(job, in_time)| (job.id, (job, in_time)))
        .collect();
    let standing = |held: &Held| {
        let Some((job, in_time)) = jobs.get(&held.job_id) else {
            return Standing::Lost;
        };
        let own = job.key.tenant == held.tenant
            && job.fence == held.fence
            && !(held.outsider && job.queue == CONNECTORS);
        if !own {
            return Standing::Lost;
        }
        if !matches!(job.state, JobState::Running | JobState::Cancelling) {
            return Standing::LetGo(job.state);
        }
        match streams.get(&job.key) {
            Some(stream) if *in_time && stream.running_job_id == Some(job.id) => {
                Standing::Held(Box::new((job.clone(), stream.clone())))
            }
            _ => Standing::Lost,
        }
    };
    Ok(leases.iter().map(standing).collect())
}

/// Extends leases, and tells which jobs were cancelled or lost.
///
/// # Errors
/// Database trouble.
pub(crate) async fn heartbeat(
    scheduler: &Scheduler,
    leases: Vec<Held>,
    lease: Duration,
) -> Result<HeartbeatResponse, Error> {
    let mut answer = HeartbeatResponse::default();
    for (bucket, leases) in by_bucket(leases.into_iter().map(|held| (held, ())).collect()) {
        let leases: Vec<_> = leases.into_iter().map(|(_, held, ())| held).collect();
        let named = leases.clone();
        let extended = scheduler
            .database
            .run_tx("lease_extend", Scope::System, async move |tx: &Tx| {
                let standings = hold(tx, bucket, &named).await?;
                try_join_all(standings.iter().map(|standing| extend(tx, standing, lease))).await
            })
            .await?;
        for (held, extended) in leases.iter().zip(extended) {
            let Some((state, until)) = extended else {
                answer.lost_job_ids.push(held.job_id.to_string());
                continue;
            };
            if state == JobState::Cancelling {
                answer.cancelled_job_ids.push(held.job_id.to_string());
            }
            let until = encode::timestamp(until);
            let earlier = |known: &prost_types::Timestamp| {
                (known.seconds, known.nanos) <= (until.seconds, until.nanos)
            };
            answer.lease_expires_at =
                Some(answer.lease_expires_at.filter(earlier).unwrap_or(until));
        }
    }
    Ok(answer)
}

async fn extend(
    tx: &Tx,
    standing: &Standing,
    lease: Duration,
) -> Result<Option<(JobState, OffsetDateTime)>, Error> {
    let Standing::Held(held) = standing else {
        return Ok(None);
    };
    let (job, stream) = held.as_ref();
    let seconds = lease.as_secs_f64();
    let ((), until) = try_join(
        stream_extend(tx, &stream.key, seconds),
        job_extend(tx, job, seconds),
    )
    .await?;
    Ok(Some((job.state, until)))
}

/// Stores where the worker is; tells whether the job was cancelled meanwhile. An older one changes nothing.
///
/// # Errors
/// [`Error::LeaseLost`].
pub(crate) async fn checkpoint(
    scheduler: &Scheduler,
    held: Held,
    at: Checkpoint,
) -> Result<bool, Error> {
    let state = scheduler
        .database
        .run_tx("job_checkpoint", Scope::System, async move |tx: &Tx| {
            if let Some((state, queue)) =
                job_checkpoint(tx, held.tenant, held.job_id, held.fence, &at).await?
            {
                let strange = held.outsider && queue == CONNECTORS;
                return if strange {
                    Err(Error::LeaseLost)
                } else {
                    Ok(state)
                };
            }
            // Either the lease is another's, or this checkpoint is an older one that comes late.
            match hold(tx, held.tenant.bucket(), &[held]).await?.pop() {
                Some(Standing::Held(found)) if found.0.checkpoint_number >= at.number => {
                    Ok(found.0.state)
                }
                _ => Err(Error::LeaseLost),
            }
        })
        .await?;
    Ok(state == JobState::Cancelling)
}
