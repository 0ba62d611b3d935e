//! Drops access records that are kept no longer.

use std::convert::Infallible;
use std::time::Duration;

use common::lifecycle::Shutdown;

use super::pause;
use crate::drop_access_records::Retention;

const HOUR: Duration = Duration::from_hours(1);

/// Once an hour, beginning after `first`, so that replicas do not all come at once.
pub(crate) async fn drop_old_records(
    retention: Retention,
    shutdown: Shutdown,
    first: Duration,
) -> Result<(), Infallible> {
    let mut wait = first;
    while pause(&shutdown, wait).await {
        wait = HOUR;
        if let Err(error) = retention.catch_up().await {
            error.log();
        }
    }
    Ok(())
}
