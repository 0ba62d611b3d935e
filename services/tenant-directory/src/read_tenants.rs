//! Reading tenants and their configuration.

use std::collections::HashMap;

use common::TenantKey;
use common::identity::Caller;
use uuid::Uuid;

use crate::access::{self, Reach};
use crate::directory::{Directory, Page};
use crate::error::Error;
use crate::name::Name;
use crate::store;
use crate::tenant::{State, Tenant};
use crate::tenant_config::TenantConfig;

impl Directory {
    /// The tenant, which the caller is known to reach.
    pub(crate) async fn get_tenant(&self, key: TenantKey) -> Result<Tenant, Error> {
        store::tenant::tenant_get(&self.db, key)
            .await?
            .ok_or(Error::TenantNotFound)
    }

    /// The tenant with this name, if the caller reaches it.
    pub(crate) async fn get_tenant_by_name(
        &self,
        caller: &Caller,
        name: &Name,
    ) -> Result<Tenant, Error> {
        let tenant = self
            .tenant_by_name(name)
            .await?
            .ok_or(Error::TenantNotFound)?;
        access::found(caller, tenant.key)?;
        Ok(tenant)
    }

    /// These tenants, in this order; `None` for what there is not, or is not for the caller.
    pub(crate) async fn batch_get_tenants(
        &self,
        caller: &Caller,
        keys: &[TenantKey],
    ) -> Result<Vec<Option<Tenant>>, Error> {
        let reached: Vec<_> = keys
            .iter()
            .copied()
            .filter(|key| caller.reaches(*key))
            .collect();
        let found = store::tenant::tenants_get(&self.db, &reached).await?;
        let found: HashMap<_, _> = found
            .into_iter()
            .map(|tenant| (tenant.key, tenant))
            .collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    /// A page of the tenants that the caller reaches, deleted ones left out, in the order of their ids: one that is added
    /// meanwhile comes last, and none is shown twice or left out.
    pub(crate) async fn list_tenants(
        &self,
        caller: &Caller,
        search: &str,
        after: Uuid,
        size: i64,
    ) -> Result<Page<Tenant>, Error> {
        let search = search.to_lowercase();
        let tenants = match access::reach(caller) {
            Reach::All => store::across::tenants_list(&self.db, &search, after, size + 1).await?,
            Reach::Only(keys) => {
                let mut tenants = store::tenant::tenants_get(&self.db, &keys).await?;
                tenants.retain(|tenant| {
                    tenant.key.id() > after
                        && tenant.state != State::Deleted
                        && tenant.search_text().contains(&search)
                });
                tenants.sort_by_key(|tenant| tenant.key);
                tenants
            }
        };
        Ok(Page::of(tenants, size))
    }

    /// The tenant's configuration.
    pub(crate) async fn get_tenant_config(&self, key: TenantKey) -> Result<TenantConfig, Error> {
        store::tenant_config::tenant_config_get(&self.db, key)
            .await?
            .ok_or(Error::TenantNotFound)
    }
}
