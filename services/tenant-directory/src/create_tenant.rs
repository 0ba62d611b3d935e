//! Making a tenant: with a request id once only, or the one with an external id if there is none yet.
//!
//! A tenant lives in a bucket of its own, so what tells a repeated request from a new one lives elsewhere: the request id
//! is tied to the tenant's id before there is a tenant, and the tenant's own transaction keeps the answer.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use common::identity::Caller;
use common::pg::request_ids;
use common::{Problem, TenantKey};
use contracts::directory::v1 as contract;
use prost::Message as _;

use crate::claim_names::use_claims;
use crate::directory::Directory;
use crate::error::Error;
use crate::name::{Claim, Name, NameKind};
use crate::store::{self, Scope};
use crate::tenant::{Profile, Tenant};
use crate::tenant_config::TenantConfig;
use crate::{access, encode, events};

const CREATE: &str = "DirectoryService/CreateTenant";
const ENSURE: &str = "DirectoryService/EnsureTenant";
/// A claim that was lost is taken anew so often.
const TRIES: u32 = 5;
/// Another instance is given so long to finish making the tenant that it has begun.
const WAITS: [u64; 7] = [25, 50, 100, 200, 400, 400, 400];

/// How a new tenant is asked for.
#[derive(Clone, Debug)]
struct Order {
    request: contract::CreateTenantRequest,
    action: &'static str,
    key: TenantKey,
    profile: Profile,
}

impl Directory {
    /// Makes the tenant; a repeated request has the first answer.
    pub(crate) async fn create_tenant(
        &self,
        caller: &Caller,
        request: contract::CreateTenantRequest,
        profile: Profile,
    ) -> Result<contract::CreateTenantResponse, Error> {
        access::every_tenant(caller)?;
        let mut key = TenantKey::new_tenant(&self.deps);
        let request_id = request.request_id.clone();
        if !request_id.is_empty() {
            let hash = digest(&SHA256, &request.encode_to_vec());
            let creation =
                store::creation::creation_begin(&self.db, &request_id, hash.as_ref(), key).await?;
            if creation.body_hash != hash.as_ref() {
                return Err(Error::RequestIdReused);
            }
            key = creation.tenant;
            if creation.repeated && store::tenant::tenant_get(&self.db, key).await?.is_some() {
                return self.first_answer(request, key).await;
            }
        }
        let outcome = self
            .make_tenant(
                caller,
                Order {
                    request,
                    action: CREATE,
                    key,
                    profile,
                },
            )
            .await;
        if let Err(Error::NameTaken(_)) = &outcome
            && !request_id.is_empty()
        {
            // Nothing was made: the caller may choose another name and keep its id.
            store::creation::creation_forget(&self.db, &request_id, key).await?;
        }
        outcome
    }

    /// The tenant with the profile's external id, and whether it was made now.
    pub(crate) async fn ensure_tenant(
        &self,
        caller: &Caller,
        profile: Profile,
    ) -> Result<(contract::Tenant, bool), Error> {
        access::every_tenant(caller)?;
        let Some(name) = profile.name(NameKind::ExternalId) else {
            return Err(Problem::invalid_field("tenant.external_id", "is required").into());
        };
        for wait in WAITS {
            if let Some(tenant) = self.tenant_by_name(&name).await? {
                return Ok((encode::tenant(&tenant, self.now()), false));
            }
            let key = TenantKey::new_tenant(&self.deps);
            let request = contract::CreateTenantRequest::default();
            let order = Order {
                request,
                action: ENSURE,
                key,
                profile: profile.clone(),
            };
            match self.make_tenant(caller, order).await {
                Ok(made) => return Ok((made.tenant.unwrap_or_default(), true)),
                // Somebody else is making it.
                Err(Error::NameTaken(NameKind::ExternalId)) => {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy)
    }

    /// The tenant that has this name now.
    pub(crate) async fn tenant_by_name(&self, name: &Name) -> Result<Option<Tenant>, Error> {
        let Some(found) = store::name::name_get(&self.db, name).await? else {
            return Ok(None);
        };
        let tenant = store::tenant::tenant_get(&self.db, found.claim.tenant).await?;
        // The tenant's row says what holds: the name may be reserved only, or given up already.
        Ok(tenant.filter(|tenant| tenant.profile.name(name.kind).as_ref() == Some(name)))
    }

    async fn make_tenant(
        &self,
        caller: &Caller,
        order: Order,
    ) -> Result<contract::CreateTenantResponse, Error> {
        for _ in 0..TRIES {
            let claims = self.claim_names(order.key, order.profile.names()).await?;
            let outcome = self
                .write_tenant(caller, order.clone(), claims.clone())
                .await;
            self.settle_names(&claims).await;
            match outcome {
                Err(Error::ClaimLost) => {}
                Ok(answer) => {
                    self.statistics.count(order.key, "tenants_created", &[]);
                    tracing::info!(event = "tenant_created", tenant.id = %order.key, "a tenant was created");
                    return Ok(answer);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy)
    }

    async fn write_tenant(
        &self,
        caller: &Caller,
        order: Order,
        claims: Vec<Claim>,
    ) -> Result<contract::CreateTenantResponse, Error> {
        let Order {
            request,
            action,
            key,
            profile,
        } = order;
        // Owned: what a transaction captures by reference keeps its future from being sent to another thread.
        let (actor, action, now) = (caller.actor().clone(), action.to_owned(), self.now());
        let tenant = Tenant::new(key, profile, now);
        self.db
            .run_tx("tenant_create", Scope::Tenant(key), async move |tx| {
                let call = request_ids::Call {
                    tenant: key,
                    method: CREATE,
                    request_id: &request.request_id,
                    body: &request,
                };
                let work = async || -> Result<_, Error> {
                    if !store::tenant::tenant_create(tx, &tenant).await? {
                        let made = store::tenant::tenant_lock(tx, key)
                            .await?
                            .ok_or(Error::Busy)?;
                        return Ok(contract::CreateTenantResponse {
                            tenant: Some(encode::tenant(&made, now)),
                        });
                    }
                    use_claims(tx, &claims, now).await?;
                    store::tenant_config::tenant_config_create(tx, &TenantConfig::new(key, now))
                        .await?;
                    store::log::event_append(tx, key, events::tenant_changed(&tenant, now)).await?;
                    store::log::audit_append(
                        tx,
                        key,
                        &actor,
                        &action,
                        &events::resource_of(&tenant),
                    )
                    .await?;
                    Ok(contract::CreateTenantResponse {
                        tenant: Some(encode::tenant(&tenant, now)),
                    })
                };
                request_ids::run(tx, call, work).await
            })
            .await
    }

    /// What was answered when the tenant was made; what it is now, where that has been forgotten.
    async fn first_answer(
        &self,
        request: contract::CreateTenantRequest,
        key: TenantKey,
    ) -> Result<contract::CreateTenantResponse, Error> {
        let now = self.now();
        self.db
            .run_tx(
                "tenant_create_repeat",
                Scope::Tenant(key),
                async move |tx| {
                    let call = request_ids::Call {
                        tenant: key,
                        method: CREATE,
                        request_id: &request.request_id,
                        body: &request,
                    };
                    request_ids::run(tx, call, async || -> Result<_, Error> {
                        let tenant = store::tenant::tenant_lock(tx, key)
                            .await?
                            .ok_or(Error::TenantNotFound)?;
                        Ok(contract::CreateTenantResponse {
                            tenant: Some(encode::tenant(&tenant, now)),
                        })
                    })
                    .await
                },
            )
            .await
    }
}
