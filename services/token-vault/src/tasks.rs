//! Background loops: each one step that may be repeated, and a loop around it. Any number of vaults may run them at once.

mod access_retention;
mod key_jobs;
mod reaper;
mod revoker;
mod sweeper;

use std::time::Duration;

use common::lifecycle::Shutdown;

pub(crate) use access_retention::drop_old_records;
pub(crate) use key_jobs::work_on_keys;
pub(crate) use reaper::reap;
pub(crate) use revoker::revoke;
pub(crate) use sweeper::Sweeper;

/// `false` once the process is to end.
async fn pause(shutdown: &Shutdown, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = shutdown.requested() => false,
    }
}
