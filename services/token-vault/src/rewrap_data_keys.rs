//! Wrapping every data key under the key-encryption key that wraps now, so that older ones can be taken away. The data
//! keys themselves stay as they are, and so does what they have sealed.

use common::TenantKey;
use common::identity::Actor;
use common::problem::Chain;
use envelope::KeyError;
use futures::StreamExt as _;
use uuid::Uuid;

use crate::error::Error;
use crate::failpoint;
use crate::keys::KeysError;
use crate::run_key_job::JobError;
use crate::store::{KeyJob, KeyJobKind, WrappedKey};
use crate::vault::Vault;

/// Keys that are read and written together.
const BATCH: i64 = 256;
/// Keys that are at a key service at a time.
const CONCURRENCY: usize = 16;

impl Vault {
    /// Asks for it; once, however often it is asked for before it is done.
    pub(crate) async fn request_rewrap(&self, actor: &Actor) -> Result<(), Error> {
        self.store
            .key_job_add(
                KeyJobKind::Rewrap,
                self.keys.kek_id(),
                TenantKey::PLATFORM,
                actor,
                "VaultAdminService/RewrapDataKeys",
            )
            .await?;
        self.keys.job_added();
        Ok(())
    }

    /// Goes through the data keys that are not under the job's key-encryption key.
    pub(crate) async fn rewrap_data_keys(&self, job: &KeyJob) -> Result<(), JobError> {
        for bucket in self.store.rewrap_buckets(&job.subject).await? {
            let mut after = (Uuid::nil(), 0);
            loop {
                let keys = self
                    .store
                    .rewrap_list(bucket, &job.subject, after, BATCH)
                    .await?;
                let Some(last) = keys.last() else { break };
                after = (last.tenant.id(), last.version);
                let found = keys.len();
                let wrapped = self.rewrapped(keys).await?;
                let failed = found - wrapped.len();
                let done = self
                    .store
                    .rewrap_store(bucket, &job.subject, &wrapped)
                    .await?;
                failpoint::reach("keys_rewrapped", job.id);
                self.keep_key_job(job, done, failed as u64).await?;
            }
        }
        Ok(())
    }

    /// The keys that could be wrapped anew, with what they are wrapped as now.
    async fn rewrapped(
        &self,
        keys: Vec<WrappedKey>,
    ) -> Result<Vec<(WrappedKey, Vec<u8>)>, KeysError> {
        let mut wrapping = futures::stream::iter(keys)
            .map(|key| async move {
                let wrapped = self
                    .keys
                    .rewrap(key.tenant, key.version, &key.wrapped)
                    .await;
                (key, wrapped)
            })
            .buffered(CONCURRENCY);
        let mut wrapped = Vec::new();
        while let Some((key, outcome)) = wrapping.next().await {
            match outcome {
                Ok(anew) => wrapped.push((key, anew)),
                Err(error @ KeyError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => tracing::error!(
                    event = "data_key_not_rewrapped",
                    tenant.id = %key.tenant,
                    version = key.version,
                    error = %Chain(&error),
                    "a data key cannot be unwrapped, and stays as it is"
                ),
            }
            tokio::task::yield_now().await;
        }
        Ok(wrapped)
    }
}
