//! Does the directory's own part of deletions.

use std::convert::Infallible;
use std::time::Duration;

use common::lifecycle::Shutdown;

use super::note;
use crate::directory::Directory;
use crate::error::Error;

/// Takes the step again and again until a shutdown is requested; at once when a deletion comes to it in this process.
pub(crate) async fn run(
    directory: Directory,
    pause: Duration,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    loop {
        note("deletions", directory.finish_deletions().await);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = directory.deletion_due.notified() => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

impl Directory {
    /// Erases the users and the configuration of every tenant whose deletion waits for that.
    ///
    /// # Errors
    /// Database trouble; what is left is for the next step.
    pub async fn finish_deletions(&self) -> Result<(), Error> {
        while self.erase_what_is_due().await? > 0 {}
        Ok(())
    }
}
