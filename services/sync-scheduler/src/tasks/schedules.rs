//! Makes the incremental jobs of streams whose time has come. A tick that was missed runs once, late.

use std::convert::Infallible;
use std::time::Duration;

use common::pg::{Scope, Tx};
use common::problem::Chain;
use contracts::scheduler::v1::TriggerSource;
use time::OffsetDateTime;

use crate::app::Scheduler;
use crate::error::Error;
use crate::job::Job;
use crate::store::jobs::{job_insert, job_unfinished};
use crate::store::streams::{stream_due, stream_due_buckets, stream_next_run, stream_tick};
use crate::stream::Stream;

/// How long it sleeps at most, for schedules that another replica made.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
/// Ticks in one transaction.
const BATCH: i64 = 256;

/// Ticks until a shutdown is requested.
///
/// # Errors
/// None: database trouble is waited out.
pub(crate) async fn run(scheduler: Scheduler) -> Result<(), Infallible> {
    let mut bell = scheduler.wake.listen();
    loop {
        bell.mark_unchanged();
        let pause = match tick(&scheduler).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(event = "schedules_failed", error = %Chain(&error), "due schedules cannot be looked for");
                LONGEST_SLEEP
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = bell.changed() => {}
            () = scheduler.shutdown.requested() => return Ok(()),
        }
    }
}

/// Makes what is due; tells how long there is nothing more.
///
/// # Errors
/// Database trouble.
pub(crate) async fn tick(scheduler: &Scheduler) -> Result<Duration, Error> {
    let now = scheduler.deps.now();
    let (buckets, next) = scheduler
        .database
        .run_tx("schedule_look", Scope::System, async move |tx: &Tx| {
            Ok::<_, Error>((
                stream_due_buckets(tx, now).await?,
                stream_next_run(tx).await?,
            ))
        })
        .await?;
    let mut made = 0;
    for bucket in &buckets {
        let bucket = *bucket;
        made += scheduler
            .database
            .run_tx("schedule_tick", Scope::System, async move |tx: &Tx| {
                let mut made = 0;
                for stream in stream_due(tx, bucket, now, BATCH).await? {
                    made += usize::from(make_job(tx, &stream, now).await?);
                }
                Ok::<_, Error>(made)
            })
            .await?;
    }
    if made > 0 {
        scheduler.wake.ring();
    }
    if !buckets.is_empty() {
        return Ok(SHORTEST_SLEEP);
    }
    let left = next.map_or(LONGEST_SLEEP, |next| {
        Duration::try_from(next - now).unwrap_or_default()
    });
    Ok(left.clamp(SHORTEST_SLEEP, LONGEST_SLEEP))
}

/// A run that is not over is this tick's run too.
async fn make_job(tx: &Tx, stream: &Stream, now: OffsetDateTime) -> Result<bool, Error> {
    stream_tick(tx, &stream.key, stream.next_tick(now)).await?;
    if job_unfinished(tx, &stream.key).await? {
        return Ok(false);
    }
    let job = Job {
        triggered_by: TriggerSource::Schedule,
        ..Job::queued(stream, stream.key.tenant.new_id(tx.deps()), now, tx.deps())
    };
    job_insert(tx, &job).await?;
    Ok(true)
}
