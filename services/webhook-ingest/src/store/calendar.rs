//! The turns of the tables that dedup keys lie in, and of the partitions that events lie in.

use common::pg::{Error, Tx};
use time::OffsetDateTime;

const CALENDAR_LOCK: &str = "\
-- ingest.calendar_lock
SELECT generation, turned_at, emptied_to
FROM ingest.calendar
FOR UPDATE";

const CALENDAR_SET: &str = "\
-- ingest.calendar_set
UPDATE ingest.calendar
SET generation = $1,
    turned_at = $2,
    emptied_to = $3";

const EVENTS_FORGET: &str = "\
-- ingest.events_forget
DELETE FROM ingest.events
WHERE slot = $1
    AND received_at < $2";

const PATIENCE_SET: &str = "\
-- ingest.patience_set
SET LOCAL lock_timeout = '2s'";

/// Whose turn it is, and which partitions are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// The table that new dedup keys go into: 0 or 1.
    pub(crate) generation: i16,
    pub(crate) turned_at: OffsetDateTime,
    /// The newest day whose partition of events has been emptied.
    pub(crate) emptied_to: i32,
}

/// The calendar, for one alone: nobody takes events in until the transaction ends. Locks are waited for briefly, as
/// whoever comes later waits behind us.
pub(crate) async fn calendar_lock(tx: &Tx) -> Result<Calendar, Error> {
    tx.execute(PATIENCE_SET, &[]).await?;
    let row = tx.query_one(CALENDAR_LOCK, &[]).await?;
    Ok(Calendar {
        generation: row.get("generation"),
        turned_at: row.get("turned_at"),
        emptied_to: row.get("emptied_to"),
    })
}

/// Writes it.
pub(crate) async fn calendar_set(tx: &Tx, calendar: &Calendar) -> Result<(), Error> {
    tx.execute(
        CALENDAR_SET,
        &[
            &calendar.generation,
            &calendar.turned_at,
            &calendar.emptied_to,
        ],
    )
    .await
    .map(drop)
}

/// Empties the table of dedup keys whose turn it is not.
pub(crate) async fn dedup_keys_empty(tx: &Tx, generation: i16) -> Result<(), Error> {
    let statement = format!("-- ingest.dedup_keys_empty\nTRUNCATE ingest.dedup_keys_{generation}");
    tx.execute(&statement, &[]).await.map(drop)
}

/// Empties a partition of events that nothing is written to yet.
pub(crate) async fn events_empty(tx: &Tx, slot: i16) -> Result<(), Error> {
    let statement = format!("-- ingest.events_empty\nTRUNCATE ingest.events_{slot:02}");
    tx.execute(&statement, &[]).await.map(drop)
}

/// Removes a partition's events from before then, and leaves the newer ones.
pub(crate) async fn events_forget(
    tx: &Tx,
    slot: i16,
    before: OffsetDateTime,
) -> Result<u64, Error> {
    tx.execute(EVENTS_FORGET, &[&slot, &before]).await
}
