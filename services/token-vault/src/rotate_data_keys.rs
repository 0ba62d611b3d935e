//! New data keys, and everything that older ones have sealed sealed under them. What is being sealed anew stays readable:
//! a row is replaced at once, and only if it is still as it was read, so a refresh or a revocation in between wins.
//!
//! Vaults go on sealing under an older version for as long as they have it in hand. So a rotation makes a second pass
//! when all of them must have got the new one.
//!
//! Keys that services derive from an older version stay: what they have sealed is theirs to seal anew, and the vault
//! never destroys a version that it has handed a key out of.

use std::time::Duration;

use common::TenantKey;
use common::identity::Actor;
use common::problem::Chain;
use uuid::Uuid;

use crate::error::Error;
use crate::failpoint;
use crate::keys::{KeysError, Place, SealingKey};
use crate::run_key_job::JobError;
use crate::store::{EVERY_TENANT, KeyJob, KeyJobKind, SealedRow, SealedTable, SealedValue};
use crate::vault::Vault;

/// Tenants that are looked for together.
const TENANTS: i64 = 100;
/// Rows that are sealed anew together.
const ROWS: i64 = 64;
/// Uses of a key that a batch may need: each row of grants has four values.
const USES: u32 = 64 * 4;
/// What is changed by somebody else while it is sealed is looked at again this often.
const PASSES: u32 = 3;

impl Vault {
    /// Asks for it, for one tenant or for all; once, however often it is asked for before it is done.
    pub(crate) async fn request_rotation(
        &self,
        tenant: Option<TenantKey>,
        actor: &Actor,
    ) -> Result<(), Error> {
        if let Some(tenant) = tenant
            && self
                .keys
                .of_tenant(tenant)
                .await?
                .is_some_and(|keys| keys.is_shredded)
        {
            return Err(KeysError::Shredded.into());
        }
        let subject = tenant.map_or(EVERY_TENANT.to_owned(), |tenant| tenant.to_string());
        self.store
            .key_job_add(
                KeyJobKind::Rotate,
                &subject,
                tenant.unwrap_or(TenantKey::PLATFORM),
                actor,
                "VaultAdminService/RotateDataKeys",
            )
            .await?;
        self.keys.job_added();
        Ok(())
    }

    /// Goes through the tenants whose key is older than the job, or whose values are older than their key.
    pub(crate) async fn rotate_data_keys(&self, job: &KeyJob) -> Result<(), JobError> {
        let only = match job.subject.as_str() {
            EVERY_TENANT => None,
            tenant => Some(TenantKey::parse(tenant).map_err(|_| JobError::Subject)?),
        };
        let buckets = match only {
            Some(tenant) => vec![tenant.bucket()],
            None => self.store.rotation_buckets(job.requested_at).await?,
        };
        for bucket in buckets {
            let mut after = Uuid::nil();
            loop {
                let tenants = self
                    .store
                    .rotation_list(bucket, job.requested_at, after, only, TENANTS)
                    .await?;
                let Some(last) = tenants.last() else { break };
                after = last.id();
                for tenant in tenants {
                    match Box::pin(self.rotate_tenant(job, tenant)).await {
                        // It has no keys any more that could be rotated.
                        Ok(()) | Err(JobError::Keys(KeysError::Shredded)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    async fn rotate_tenant(&self, job: &KeyJob, tenant: TenantKey) -> Result<(), JobError> {
        let Some(keys) = self.keys.of_tenant(tenant).await? else {
            return Ok(());
        };
        if keys.current_version == 0 {
            return Ok(());
        }
        if keys.current_made_at < job.requested_at {
            self.keys
                .advance(tenant, keys.current_version, "a rotation was asked for")
                .await?;
            failpoint::reach("key_rotated", job.id);
        }
        let version = self.keys.sealing_now(tenant, 0).await?.version();
        let version = version.cast_signed();
        let mut failed = 0;
        for table in SealedTable::ALL {
            failed += self.reseal_table(job, tenant, table, version).await?;
        }
        if failed == 0 {
            self.store.tenant_keys_resealed(tenant, version).await?;
        }
        self.keep_key_job(job, 0, 0).await
    }

    /// Seals the tenant's rows of a table anew, and says how many could not be opened.
    async fn reseal_table(
        &self,
        job: &KeyJob,
        tenant: TenantKey,
        table: SealedTable,
        version: i32,
    ) -> Result<u64, JobError> {
        let mut failed = 0;
        for _ in 0..PASSES {
            let (mut after, mut changed) = (Uuid::nil(), 0);
            failed = 0;
            loop {
                let began = self.deps.clock.boottime();
                let rows = self
                    .store
                    .sealed_rows_older(table, tenant, version, after, ROWS)
                    .await?;
                let Some(last) = rows.last() else { break };
                after = last.id;
                let found = rows.len() as u64;
                let resealed = self.resealed(tenant, table, rows, version).await?;
                let failed_here = found - resealed.len() as u64;
                let replaced = self
                    .store
                    .sealed_rows_replace(table, tenant, version, &resealed)
                    .await?;
                failpoint::reach("values_resealed", job.id);
                changed += resealed.len() as u64 - replaced;
                failed += failed_here;
                self.keep_key_job(job, replaced, failed_here).await?;
                // Half of the time is everybody else's.
                let took = self.deps.clock.boottime().saturating_sub(began);
                tokio::time::sleep(took.min(Duration::from_secs(1))).await;
            }
            if changed == 0 {
                break;
            }
        }
        Ok(failed)
    }

    /// The rows that could be opened, with their values under the key of that version or a later one.
    async fn resealed(
        &self,
        tenant: TenantKey,
        table: SealedTable,
        rows: Vec<SealedRow>,
        version: i32,
    ) -> Result<Vec<(SealedRow, Vec<Option<Vec<u8>>>)>, KeysError> {
        let key = self.keys.sealing(tenant, USES).await?;
        let mut resealed = Vec::with_capacity(rows.len());
        for row in rows {
            let mut values = Vec::with_capacity(row.values.len());
            for value in &row.values {
                let anew = match value {
                    Some(value) => self
                        .resealed_value(tenant, table, &row, value, &key, version)
                        .await
                        .map(Some),
                    None => Ok(None),
                };
                match anew {
                    Ok(anew) => values.push(anew),
                    Err(error @ (KeysError::Sealed { .. } | KeysError::Missing(_))) => {
                        tracing::error!(
                            event = "value_not_resealed",
                            tenant.id = %tenant,
                            table = table.name(),
                            row.id = %row.id,
                            error = %Chain(&error),
                            "a sealed value cannot be opened, and stays as it is"
                        );
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if values.len() == row.values.len() {
                resealed.push((row, values));
            }
            tokio::task::yield_now().await;
        }
        Ok(resealed)
    }

    async fn resealed_value(
        &self,
        tenant: TenantKey,
        table: SealedTable,
        row: &SealedRow,
        value: &SealedValue,
        key: &SealingKey,
        version: i32,
    ) -> Result<Vec<u8>, KeysError> {
        if envelope::data_key_version(&value.sealed)
            .is_ok_and(|sealed| sealed >= version.cast_unsigned())
        {
            return Ok(value.sealed.clone());
        }
        let place = Place {
            table: table.name(),
            column: value.column,
            tenant,
            row: row.id,
            version: value.row_version,
        };
        let opened = self.keys.open(&place, &value.sealed).await?;
        Ok(self.keys.seal(key, &place, &opened))
    }
}
