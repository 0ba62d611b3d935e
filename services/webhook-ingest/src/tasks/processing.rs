//! Takes events from the queue and processes them, several at a time.

use std::collections::BTreeSet;
use std::convert::Infallible;

use common::lifecycle::Shutdown;
use common::problem::Chain;
use tokio::task::JoinSet;

use crate::app::Ingest;
use crate::error::Error;
use crate::process_event::process_event;
use crate::store::queue::{Claimed, queue_claim, queue_due_buckets};

/// Works until shutdown is requested, and then ends what it has begun.
///
/// What this process has taken in is processed at once. Whatever else becomes due, retries and what a dead process left, is
/// found by looking every `poll_interval`.
///
/// # Errors
/// None; it is what tasks return.
pub(crate) async fn run(ingest: Ingest, shutdown: Shutdown) -> Result<(), Infallible> {
    let concurrency = ingest.processing.concurrency;
    let poll = ingest.processing.poll_interval.get();
    let mut working = JoinSet::new();
    let mut failing = false;
    let mut look = true;
    while !shutdown.is_requested() {
        let woken = ingest.wake.take();
        match claim(&ingest, woken, look, concurrency - working.len()).await {
            Ok(claimed) => {
                if failing {
                    tracing::info!(
                        event = "processing_recovered",
                        "webhooks are processed again"
                    );
                }
                failing = false;
                for claimed in claimed {
                    let ingest = ingest.clone();
                    working.spawn(async move { process_event(&ingest, claimed).await });
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(event = "processing_failing", error = %Chain(&error), "the queue of webhooks cannot be read; trying on");
                }
                failing = true;
            }
        }
        // While every place is taken nothing is claimed; the next that ends makes room, and may have left work behind.
        let full = working.len() >= concurrency;
        look = tokio::select! {
            () = ingest.wake.rung(), if !full => false,
            Some(ended) = working.join_next(), if full => {
                report(ended);
                true
            }
            () = tokio::time::sleep(poll), if !full => true,
            () = shutdown.requested() => false,
        };
        while let Some(ended) = working.try_join_next() {
            report(ended);
        }
    }
    while let Some(ended) = working.join_next().await {
        report(ended);
    }
    Ok(())
}

async fn claim(
    ingest: &Ingest,
    mut buckets: BTreeSet<i16>,
    look: bool,
    room: usize,
) -> Result<Vec<Claimed>, Error> {
    if look {
        buckets.extend(queue_due_buckets(&ingest.database).await?);
    }
    let lease = ingest.processing.lease.get();
    let mut claimed = Vec::new();
    // No bucket gets all the room while others wait.
    let share = (room / buckets.len().max(1)).max(1);
    for bucket in &buckets {
        let limit = share.min(room - claimed.len());
        if limit == 0 {
            break;
        }
        claimed.extend(queue_claim(&ingest.database, *bucket, limit as i64, lease).await?);
    }
    if claimed.len() >= share {
        // There may be more where these came from.
        ingest.wake.ring(buckets);
    }
    Ok(claimed)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(event = "work_died", %error, "processing a webhook panicked; it is processed again after its lease");
    }
}
