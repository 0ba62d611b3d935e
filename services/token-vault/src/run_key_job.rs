//! Running a job on keys: one runner over all vaults, proved by a fence; what it did is in the rows that it has done it
//! to, so whoever takes it over goes on where it ended.

use common::problem::Chain;

use crate::keys::KeysError;
use crate::store::{KeyJob, KeyJobKind, StoreError, Superseded};
use crate::vault::Vault;

/// Why a job was left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// Another vault is at it, or it was overruled.
    #[error("the job is somebody else's now")]
    Lost,
    /// The process is to end.
    #[error("the vault is stopping")]
    Stopping,
    /// The job's row names no tenant.
    #[error("the job is about no tenant")]
    Subject,
    /// The database.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The keys.
    #[error("the keys failed")]
    Keys(#[from] KeysError),
}

/// Retired keys are looked for this many at a time.
const BATCH: i64 = 500;

impl Vault {
    /// Takes a job that nobody is at, and works on it. `false` where there is none.
    pub(crate) async fn run_key_job(&self) -> Result<bool, StoreError> {
        let Some(job) = self.store.key_job_claim(self.keys.kek_id()).await? else {
            return Ok(false);
        };
        let worked = match job.kind {
            KeyJobKind::Rewrap => Box::pin(self.rewrap_data_keys(&job)).await,
            KeyJobKind::Rotate => Box::pin(self.rotate_data_keys(&job)).await,
            KeyJobKind::Erase => self.erase_sealed(&job).await,
        };
        match worked {
            Ok(()) if job.kind == KeyJobKind::Rotate && job.passes == 0 => {
                self.store.key_job_rest(&job).await?;
            }
            Ok(()) => self.finish_key_job(&job).await?,
            Err(JobError::Lost) => {}
            Err(JobError::Stopping) => self.store.key_job_put_off(&job).await?,
            Err(error) => {
                tracing::warn!(
                    event = "key_job_failed",
                    kind = job.kind.as_str(),
                    subject = job.subject,
                    error = %Chain(&error),
                    "work on the keys failed, and is taken up again"
                );
                self.store.key_job_put_off(&job).await?;
            }
        }
        Ok(true)
    }

    /// Notes how far a job is. Whoever works on one calls this every few seconds, and stops where it fails.
    pub(crate) async fn keep_key_job(
        &self,
        job: &KeyJob,
        done: u64,
        failed: u64,
    ) -> Result<(), JobError> {
        let (done, failed) = (done.cast_signed(), failed.cast_signed());
        if !self.store.key_job_advance(job, done, failed).await? {
            return Err(JobError::Lost);
        }
        if self.shutdown.is_requested() {
            return Err(JobError::Stopping);
        }
        Ok(())
    }

    /// Destroys data keys that were superseded a month ago and that nothing is sealed under any more.
    pub(crate) async fn retire_data_keys(&self) -> Result<(), StoreError> {
        let mut last: Option<Superseded> = None;
        loop {
            let found = self.store.retire_list(last.as_ref(), BATCH).await?;
            for key in &found {
                if self.store.data_key_retire(key).await? {
                    tracing::info!(
                        event = "data_key_retired",
                        tenant.id = %key.tenant,
                        version = key.version,
                        "a data key that nothing is sealed under any more is destroyed"
                    );
                }
            }
            last = found.last().copied();
            if last.is_none() || self.shutdown.is_requested() {
                return Ok(());
            }
        }
    }

    async fn finish_key_job(&self, job: &KeyJob) -> Result<(), StoreError> {
        if let Some((done, failed)) = self.store.key_job_finish(job).await? {
            tracing::info!(
                event = "key_job_finished",
                kind = job.kind.as_str(),
                subject = job.subject,
                done,
                failed,
                "work on the keys is done"
            );
        }
        Ok(())
    }
}
