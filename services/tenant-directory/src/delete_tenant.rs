//! Beginning a tenant's end; [`crate::advance_deletion`] carries it out.

use common::TenantKey;
use common::identity::Caller;

use crate::deletion::Deletion;
use crate::directory::Directory;
use crate::error::Error;
use crate::store::{self, Scope};
use crate::{access, events};

const ACTION: &str = "DirectoryService/DeleteTenant";

impl Directory {
    /// Lets the tenant end. Asked for again, nothing happens.
    pub(crate) async fn delete_tenant(
        &self,
        caller: &Caller,
        key: TenantKey,
        confirmation: String,
    ) -> Result<(), Error> {
        access::decides_for_platform(caller)?;
        let (actor, now, deletion_id) =
            (caller.actor().clone(), self.now(), key.new_id(&self.deps));
        let begun = self
            .db
            .run_tx("tenant_delete", Scope::Tenant(key), async move |tx| {
                let tenant = store::tenant::tenant_lock(tx, key)
                    .await?
                    .ok_or(Error::TenantNotFound)?;
                if tenant.state == crate::tenant::State::Deleted {
                    return Ok(false);
                }
                if !tenant.confirmation().eq_ignore_ascii_case(&confirmation) {
                    return Err(Error::NotConfirmed);
                }
                if tenant.is_ending() {
                    return Ok(false);
                }
                let deletion = Deletion::of_tenant(deletion_id, key, now);
                let mut tenant = tenant.deleting(now);
                tenant.deletion = deletion.progress();
                store::tenant::tenant_update(tx, &tenant).await?;
                store::deletion::deletion_create(tx, &deletion).await?;
                for change in [
                    events::tenant_changed(&tenant, now),
                    events::tenant_deleted(&tenant),
                    events::deletion_advanced(&deletion),
                ] {
                    store::log::event_append(tx, key, change).await?;
                }
                store::log::audit_append(tx, key, &actor, ACTION, &deletion.subject()).await?;
                Ok::<_, Error>(true)
            })
            .await?;
        if begun {
            tracing::info!(event = "tenant_deletion_begun", tenant.id = %key, "a tenant is being deleted in every service");
        }
        Ok(())
    }
}
