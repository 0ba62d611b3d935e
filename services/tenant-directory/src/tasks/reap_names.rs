//! Frees what was reserved and never used, and what was given up.

use std::convert::Infallible;
use std::time::Duration;

use common::lifecycle::Shutdown;

use super::note;
use crate::directory::Directory;
use crate::error::Error;
use crate::store;

/// As many of each kind are looked at in a step.
const AT_ONCE: i64 = 200;

/// Takes the step again and again until a shutdown is requested.
pub(crate) async fn run(
    directory: Directory,
    pause: Duration,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    loop {
        note("names", directory.reap_names().await);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

impl Directory {
    /// Settles names that were left alone, and forgets what is too old.
    ///
    /// # Errors
    /// Database trouble; what is left is for the next step.
    pub async fn reap_names(&self) -> Result<(), Error> {
        for name in store::across::names_left(&self.db, AT_ONCE).await? {
            self.settle_name(&name.claim).await?;
        }
        for claim in store::across::name_claims_released(&self.db, AT_ONCE).await? {
            self.settle_name(&claim).await?;
        }
        for claim in store::across::name_claims_old(&self.db, AT_ONCE).await? {
            store::name::name_claim_forget(&self.db, &claim).await?;
        }
        for bucket in store::across::creations_old(&self.db).await? {
            store::creation::creations_forget(&self.db, bucket).await?;
        }
        Ok(())
    }
}
