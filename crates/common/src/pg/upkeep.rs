//! The background tasks that every service with a schema has.

use std::convert::Infallible;
use std::time::Duration;

use super::outbox::Publisher;
use super::statistics::Statistics;
use super::{Database, request_ids, statistics};
use crate::lifecycle::{Shutdown, Tasks};
use crate::problem::Chain;

/// How often to look for what is too old.
const HOUR: Duration = Duration::from_hours(1);

/// Spawns them: numbering events, writing statistics, forgetting what is too old. Gives the counters to count with.
pub fn spawn_upkeep(
    publisher: Publisher,
    db: &Database,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Statistics {
    let statistics = Statistics::new(db);
    tasks.spawn_until_drained("outbox", publisher.run_until_drained(shutdown.clone()));
    tasks.spawn_until_drained("statistics", statistics.clone().run(shutdown.clone()));
    tasks.spawn("purge", purge(db.clone(), shutdown.clone()));
    statistics
}

/// Once an hour, beginning at a random moment of the first, so that replicas do not all come at once.
async fn purge(db: Database, shutdown: Shutdown) -> Result<(), Infallible> {
    let mut pause =
        HOUR.mul_f64(f64::from(u16::from_be_bytes(db.deps().random())) / f64::from(u16::MAX));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
        pause = HOUR;
        for outcome in [request_ids::purge(&db).await, statistics::purge(&db).await] {
            if let Err(error) = outcome {
                tracing::warn!(event = "purge_failed", error = %Chain(&error), "what is too old cannot be removed; trying again in an hour");
            }
        }
    }
}
