//! Changing a tenant and its configuration.

use common::TenantKey;
use common::identity::Caller;

use crate::claim_names::use_claims;
use crate::directory::Directory;
use crate::error::Error;
use crate::etag::{self, Etag};
use crate::name::{Claim, NameKind};
use crate::store::{self, Scope};
use crate::tenant::{State, Tenant, TenantChanges};
use crate::tenant_config::{ConfigChange, TenantConfig};
use crate::{access, events};

const ACTION: &str = "DirectoryService/UpdateTenant";
const CONFIG_ACTION: &str = "DirectoryService/UpdateTenantConfig";
/// A claim that was lost is taken anew so often.
const TRIES: u32 = 5;

impl Directory {
    /// Changes the tenant; `given` is the etag that the change was made against.
    pub(crate) async fn update_tenant(
        &self,
        caller: &Caller,
        key: TenantKey,
        changes: TenantChanges,
        given: Option<Etag>,
    ) -> Result<Tenant, Error> {
        access::administers(caller)?;
        if !changes.is_own_affair() {
            access::decides_for_platform(caller)?;
        }
        // Before names are reserved for a tenant that there is not.
        let before = self.get_tenant(key).await?;
        if before.is_ending() {
            return Err(Error::TenantEnding(before.state));
        }
        for _ in 0..TRIES {
            let claims = self.claim_names(key, changes.names()).await?;
            let outcome = self
                .write_changes(caller, key, changes.clone(), given.clone(), claims.clone())
                .await;
            self.settle_names(&claims).await;
            match outcome {
                Err(Error::ClaimLost) => {}
                Ok((tenant, released)) => {
                    self.settle_names(&released).await;
                    return Ok(tenant);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy)
    }

    async fn write_changes(
        &self,
        caller: &Caller,
        key: TenantKey,
        changes: TenantChanges,
        given: Option<Etag>,
        claims: Vec<Claim>,
    ) -> Result<(Tenant, Vec<Claim>), Error> {
        let (actor, now) = (caller.actor().clone(), self.now());
        self.db
            .run_tx("tenant_update", Scope::Tenant(key), async move |tx| {
                let before = store::tenant::tenant_lock(tx, key)
                    .await?
                    .ok_or(Error::TenantNotFound)?;
                if before.is_ending() {
                    return Err(Error::TenantEnding(before.state));
                }
                if !etag::permits(given.as_ref(), before.revision) {
                    return Err(Error::EtagMismatch {
                        current: Etag::of(before.revision),
                    });
                }
                use_claims(tx, &claims, now).await?;
                let Some(tenant) = before.changed(&changes, now)? else {
                    return Ok((before, Vec::new()));
                };
                let mut released = Vec::new();
                for kind in [
                    NameKind::Subdomain,
                    NameKind::ExternalId,
                    NameKind::BillingCustomerId,
                ] {
                    let (had, has) = (before.profile.name(kind), tenant.profile.name(kind));
                    if had != has {
                        released.extend(
                            store::name::name_claim_release(tx, key, kind, has.as_ref(), now)
                                .await?,
                        );
                    }
                }
                store::tenant::tenant_update(tx, &tenant).await?;
                store::log::event_append(tx, key, events::tenant_changed(&tenant, now)).await?;
                store::log::audit_append(tx, key, &actor, ACTION, &events::resource_of(&tenant))
                    .await?;
                Ok((tenant, released))
            })
            .await
    }

    /// Changes the tenant's configuration.
    pub(crate) async fn update_tenant_config(
        &self,
        caller: &Caller,
        key: TenantKey,
        changes: Vec<ConfigChange>,
        given: Option<Etag>,
    ) -> Result<TenantConfig, Error> {
        access::administers(caller)?;
        let (actor, now) = (caller.actor().clone(), self.now());
        self.db
            .run_tx(
                "tenant_config_update",
                Scope::Tenant(key),
                async move |tx| {
                    let state = store::tenant::tenant_state_hold(tx, key)
                        .await?
                        .ok_or(Error::TenantNotFound)?;
                    if matches!(state, State::Deleting | State::Deleted) {
                        return Err(Error::TenantEnding(state));
                    }
                    let before = store::tenant_config::tenant_config_lock(tx, key).await?;
                    let before = before.ok_or(Error::TenantNotFound)?;
                    if !etag::permits(given.as_ref(), before.revision) {
                        return Err(Error::EtagMismatch {
                            current: Etag::of(before.revision),
                        });
                    }
                    let Some(config) = before.changed(&changes, now) else {
                        return Ok(before);
                    };
                    let violations = config.violations();
                    if !violations.is_empty() {
                        return Err(Error::Config(violations));
                    }
                    store::tenant_config::tenant_config_update(tx, &config).await?;
                    let resource = format!("tenants/{key}/config");
                    store::log::audit_append(tx, key, &actor, CONFIG_ACTION, &resource).await?;
                    Ok(config)
                },
            )
            .await
    }
}
