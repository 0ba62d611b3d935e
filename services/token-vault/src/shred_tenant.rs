//! The end of a tenant: its data keys are destroyed, and with them everything that they have sealed, in every copy and
//! backup of it that there is.
//!
//! From the moment on that this is committed, every statement that reads something sealed of the tenant's says so; a key
//! that some vault still has in its memory opens nothing. No key is ever made for the tenant again.

use common::TenantKey;
use common::identity::Actor;

use crate::run_key_job::JobError;
use crate::store::{KeyJob, StoreError};
use crate::vault::Vault;

/// Rows that are erased together.
const BATCH: i64 = 500;

impl Vault {
    /// Destroys the tenant's data keys. Says how many there were; asked again, the same.
    pub(crate) async fn shred_tenant(
        &self,
        tenant: TenantKey,
        actor: &Actor,
    ) -> Result<i64, StoreError> {
        let destroyed = self.store.tenant_shred(tenant, actor).await?;
        self.keys.forget(tenant);
        self.keys.job_added();
        tracing::info!(
            event = "tenant_shredded",
            tenant.id = %tenant,
            data_keys = destroyed,
            "a tenant's data keys are destroyed"
        );
        Ok(destroyed)
    }

    /// Ends the tenant's grants, and removes what is sealed in its rows: it is of no use to anybody.
    pub(crate) async fn erase_sealed(&self, job: &KeyJob) -> Result<(), JobError> {
        let tenant = TenantKey::parse(&job.subject).map_err(|_| JobError::Subject)?;
        loop {
            let erased = self.store.sealed_rows_erase(tenant, BATCH).await?;
            if erased == 0 {
                return Ok(());
            }
            self.keep_key_job(job, erased, 0).await?;
        }
    }
}
