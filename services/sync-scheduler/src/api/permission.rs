//! `SyncPermissionService`: for operators.

use std::collections::HashMap;

use common::identity::Caller;
use common::rpc::caller;
use common::validate::{Fields, page_size};
use common::{Problem, TenantKey};
use contracts::scheduler::v1::sync_permission_service_server::SyncPermissionService;
use contracts::scheduler::v1::{
    GrantOverrideRequest, GrantOverrideResponse, ListOverridesRequest, ListOverridesResponse,
    ListSyncLocksRequest, ListSyncLocksResponse, RevokeOverrideRequest, RevokeOverrideResponse,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::checks::{MOST_REASON, check_request_id};
use crate::app::Scheduler;
use crate::read_syncs::{lock_list, override_list};
use crate::store::locks::Locked;
use crate::sync_state::locked_state;
use crate::{allow_sync, encode};

pub(super) struct Permission(pub(super) Scheduler);

#[tonic::async_trait]
impl SyncPermissionService for Permission {
    async fn grant_override(
        &self,
        request: Request<GrantOverrideRequest>,
    ) -> Result<Response<GrantOverrideResponse>, Status> {
        let caller = operator(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = match request.connection_id.as_str() {
            "" => None,
            id => fields.id("connection_id", id),
        };
        fields.require("reason", &request.reason);
        fields.at_most("reason", &request.reason, MOST_REASON);
        check_request_id(&mut fields, &request.request_id);
        let expires_at = request
            .expires_at
            .and_then(|at| fields.value("expires_at", encode::moment(at)));
        if let Some(at) = expires_at {
            fields.check(
                at > self.0.deps.now(),
                "expires_at",
                "must be in the future",
            );
        }
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let answer = allow_sync::grant_override(
            &self.0,
            &caller,
            tenant,
            connection_id,
            expires_at,
            request,
        )
        .await;
        Ok(Response::new(answer.map_err(Problem::from)?))
    }

    async fn revoke_override(
        &self,
        request: Request<RevokeOverrideRequest>,
    ) -> Result<Response<RevokeOverrideResponse>, Status> {
        let caller = operator(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let override_id = fields.id("override_id", &request.override_id);
        fields.at_most("reason", &request.reason, MOST_REASON);
        fields.finish()?;
        let (Some(tenant), Some(override_id)) = (tenant, override_id) else {
            return Err(Problem::not_found("override").into());
        };
        let revoked =
            allow_sync::revoke_override(&self.0, &caller, tenant, override_id, request.reason)
                .await;
        revoked.map_err(Problem::from)?;
        Ok(Response::new(RevokeOverrideResponse {}))
    }

    async fn list_overrides(
        &self,
        request: Request<ListOverridesRequest>,
    ) -> Result<Response<ListOverridesResponse>, Status> {
        let caller = operator(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields
            .absorb(caller.tenant_or_all(&request.tenant_id))?
            .flatten();
        let size = page_size(&mut fields, request.page_size);
        let before = fields
            .absorb(encode::page_token(&request.page_token))?
            .flatten();
        fields.finish()?;
        let found = override_list(&self.0, tenant, request.include_used, before, size)
            .await
            .map_err(Problem::from)?;
        let next_page_token = next_page(&found, size, |granted| granted.id);
        let mut names = CompanyNames::of(&self.0);
        let mut overrides = Vec::new();
        for granted in &found {
            overrides.push(encode::granted(granted, names.get(granted.tenant).await));
        }
        Ok(Response::new(ListOverridesResponse {
            overrides,
            next_page_token,
        }))
    }

    async fn list_sync_locks(
        &self,
        request: Request<ListSyncLocksRequest>,
    ) -> Result<Response<ListSyncLocksResponse>, Status> {
        let caller = operator(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields
            .absorb(caller.tenant_or_all(&request.tenant_id))?
            .flatten();
        let size = page_size(&mut fields, request.page_size);
        let after = fields
            .value("page_token", behind(&request.page_token))
            .flatten();
        fields.finish()?;
        let found = lock_list(&self.0, tenant, after, size)
            .await
            .map_err(Problem::from)?;
        let last = found.last().filter(|_| found.len() as i64 == size);
        let next_page_token = last.map(page_of).unwrap_or_default();
        let mut names = CompanyNames::of(&self.0);
        let mut sync_states = Vec::new();
        for locked in found {
            let Ok(tenant) = TenantKey::from_id(locked.tenant) else {
                continue;
            };
            let name = names.get(tenant).await;
            sync_states.extend(
                locked_state(&self.0, tenant, locked, name)
                    .await
                    .map_err(Problem::from)?,
            );
        }
        Ok(Response::new(ListSyncLocksResponse {
            sync_states,
            next_page_token,
        }))
    }
}

/// The platform's operators alone: no customer's administrator is one, whoever forwards the call.
fn operator<T>(request: &Request<T>) -> Result<Caller, Problem> {
    let caller = caller(request)?;
    if caller.is_operator() {
        Ok(caller)
    } else {
        Err(Problem::permission_denied(
            "only an operator of the platform may do this",
        ))
    }
}

/// Tenants' names, each asked for once; a list is not refused for want of one.
struct CompanyNames<'a> {
    scheduler: &'a Scheduler,
    known: HashMap<TenantKey, String>,
}

impl<'a> CompanyNames<'a> {
    fn of(scheduler: &'a Scheduler) -> Self {
        Self {
            scheduler,
            known: HashMap::new(),
        }
    }

    async fn get(&mut self, tenant: TenantKey) -> String {
        if let Some(name) = self.known.get(&tenant) {
            return name.clone();
        }
        let name = self
            .scheduler
            .clients
            .tenant(tenant)
            .await
            .map(|tenant| tenant.company_name)
            .unwrap_or_default();
        self.known.insert(tenant, name.clone());
        name
    }
}

/// The account may have any letters in it, so it comes last.
fn page_of(last: &Locked) -> String {
    format!("{}.{}.{}", last.tenant, last.connection, last.account)
}

fn behind(page_token: &str) -> Result<Option<Locked>, &'static str> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let mut parts = page_token.splitn(3, '.');
    let mut next = || {
        parts
            .next()
            .ok_or("must be the `next_page_token` of the page before")
    };
    let id = |text: &str| {
        text.parse::<Uuid>()
            .map_err(|_| "must be the `next_page_token` of the page before")
    };
    Ok(Some(Locked {
        tenant: id(next()?)?,
        connection: id(next()?)?,
        account: next()?.to_owned(),
    }))
}

/// The token of the next page: the last id of a page that is full.
pub(super) fn next_page<T>(page: &[T], size: i64, id: impl Fn(&T) -> Uuid) -> String {
    let last = page.last().filter(|_| page.len() as i64 == size);
    last.map(|last| id(last).to_string()).unwrap_or_default()
}
