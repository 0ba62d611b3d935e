//! Turns the tables of dedup keys over, and empties partitions of events before their turn comes again.

use std::convert::Infallible;
use std::time::Duration;

use common::Deps;
use common::lifecycle::Shutdown;
use common::pg::{Database, Scope, Tx};
use common::problem::Chain;
use time::OffsetDateTime;
use webhook_signatures::schemes;

use crate::error::Error;
use crate::event::{SLOTS, day_of, slot};
use crate::store::calendar::{
    calendar_lock, calendar_set, dedup_keys_empty, events_empty, events_forget,
};

const INTERVAL: Duration = Duration::from_hours(1);
/// After trouble it is tried again sooner.
const RETRY: Duration = Duration::from_mins(1);
/// A partition is emptied so many days before it is written to: whatever the clocks of several machines say, nothing new
/// is in it.
const AHEAD: i32 = 2;

/// Looks once an hour, until shutdown is requested.
///
/// # Errors
/// None; it is what tasks return.
pub(crate) async fn run(
    database: Database,
    deps: Deps,
    retention_days: u16,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    loop {
        let pause = match turn(&database, &deps, retention_days).await {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::warn!(event = "calendar_failing", error = %Chain(&error), "old webhooks cannot be removed; trying again in a minute");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

/// One look; does whatever is due.
pub(crate) async fn turn(
    database: &Database,
    deps: &Deps,
    retention_days: u16,
) -> Result<(), Error> {
    let now = deps.now();
    database
        .run_tx("dedup_turn", Scope::System, async move |tx: &Tx| {
            turn_dedup_keys(tx, now).await
        })
        .await?;
    // Apart from the other: nobody takes events in while a table waits to be emptied.
    database
        .run_tx("events_forget", Scope::System, async move |tx: &Tx| {
            forget_events(tx, now, retention_days).await
        })
        .await
}

async fn turn_dedup_keys(tx: &Tx, now: OffsetDateTime) -> Result<(), Error> {
    let mut calendar = calendar_lock(tx).await?;
    if now - calendar.turned_at < longest_retry_span() {
        return Ok(());
    }
    // What is in it is older than the present turn.
    calendar.generation = 1 - calendar.generation;
    calendar.turned_at = now;
    dedup_keys_empty(tx, calendar.generation).await?;
    calendar_set(tx, &calendar).await?;
    tracing::info!(
        event = "dedup_keys_turned",
        generation = calendar.generation,
        "event ids that no provider repeats any more were forgotten"
    );
    Ok(())
}

/// Any provider may repeat an event for so long.
fn longest_retry_span() -> Duration {
    let spans = schemes().iter().map(|scheme| scheme.retry_span);
    spans.max().unwrap_or_default()
}

async fn forget_events(tx: &Tx, now: OffsetDateTime, retention_days: u16) -> Result<(), Error> {
    let mut calendar = calendar_lock(tx).await?;
    let today = day_of(now);
    let newest = today + AHEAD;
    if calendar.emptied_to >= newest {
        return Ok(());
    }
    let oldest_kept = now - time::Duration::days(retention_days.into());
    for day in (calendar.emptied_to + 1).max(newest + 1 - SLOTS)..=newest {
        if day == newest {
            events_empty(tx, slot(day)).await?;
        } else {
            // It may be written to already.
            events_forget(tx, slot(day), oldest_kept).await?;
        }
    }
    // The days that are no longer kept although their partitions' turn has not come. Nothing new is in those either.
    for day in (newest - SLOTS + 1)..(today - i32::from(retention_days)) {
        events_empty(tx, slot(day)).await?;
    }
    calendar.emptied_to = newest;
    calendar_set(tx, &calendar).await?;
    tracing::info!(
        event = "events_forgotten",
        "webhooks older than {retention_days} days were removed"
    );
    Ok(())
}
