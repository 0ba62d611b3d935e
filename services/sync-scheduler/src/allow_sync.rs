//! Operators allow another initial sync, and take that back.

use common::TenantKey;
use common::identity::Caller;
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, Tx, audit};
use contracts::scheduler::v1::{GrantOverrideRequest, GrantOverrideResponse, SyncEventKind};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::Scheduler;
use crate::error::Error;
use crate::lock::Override;
use crate::store::overrides::{override_get, override_insert, override_revoke};
use crate::{encode, events};

/// Allows one more start.
///
/// # Errors
/// Database trouble.
pub(crate) async fn grant_override(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    connection_id: Option<Uuid>,
    expires_at: Option<OffsetDateTime>,
    request: GrantOverrideRequest,
) -> Result<GrantOverrideResponse, Error> {
    let company = scheduler.clients.tenant(tenant).await?.company_name;
    if let Some(connection_id) = connection_id {
        scheduler.clients.connection(tenant, connection_id).await?;
    }
    let caller = caller.clone();
    scheduler
        .database
        .run_tx("override_grant", Scope::Tenant(tenant), async move |tx: &Tx| {
            let call =
                Call { tenant, method: "SyncPermissionService/GrantOverride", request_id: &request.request_id, body: &request };
            request_ids::run(tx, call, async || {
                let granted = Override {
                    tenant,
                    id: tenant.new_id(tx.deps()),
                    connection_id,
                    reason: request.reason.clone(),
                    granted_by: who(&caller),
                    granted_at: tx.deps().now(),
                    expires_at,
                    used_at: None,
                    used_by_job_id: None,
                    revoked_at: None,
                };
                override_insert(tx, &granted).await?;
                events::append_override(tx, SyncEventKind::OverrideGranted, &granted, None).await?;
                let resource = format!("overrides/{}", granted.id);
                audit::append(tx, tenant, caller.actor(), "SyncPermissionService/GrantOverride", &resource, &granted.reason).await?;
                tracing::info!(event = "override_granted", tenant.id = %tenant, granted.by = granted.granted_by, "another initial sync was allowed");
                Ok::<_, Error>(GrantOverrideResponse { r#override: Some(encode::granted(&granted, company.clone())) })
            })
            .await
        })
        .await
}

/// The operator, and the person where the console forwarded one.
fn who(caller: &Caller) -> String {
    let actor = caller.actor();
    if actor.user_id.is_empty() {
        actor.identity.clone()
    } else {
        format!("{} ({})", actor.identity, actor.user_id)
    }
}

/// Takes an override back that has not been used.
///
/// # Errors
/// [`Error::NotFound`], [`Error::WrongState`] where it was used or taken back before.
pub(crate) async fn revoke_override(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    override_id: Uuid,
    reason: String,
) -> Result<(), Error> {
    let caller = caller.clone();
    scheduler
        .database
        .run_tx(
            "override_revoke",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let now = tx.deps().now();
                if override_revoke(tx, tenant, override_id, now)
                    .await?
                    .is_none()
                {
                    let found = override_get(tx, tenant, override_id)
                        .await?
                        .ok_or(Error::NotFound("override"))?;
                    // Taking it back twice is taking it back.
                    return if found.revoked_at.is_some() {
                        Ok(())
                    } else {
                        Err(Error::WrongState { state: "used up" })
                    };
                }
                let resource = format!("overrides/{override_id}");
                Ok(audit::append(
                    tx,
                    tenant,
                    caller.actor(),
                    "SyncPermissionService/RevokeOverride",
                    &resource,
                    &reason,
                )
                .await?)
            },
        )
        .await
}
