//! Grants without their secrets: seen, refreshed, confirmed, ended.

use common::identity::Caller;
use common::validate::{Fields, page_size};
use common::{Problem, TenantKey};
use contracts::vault::v1 as pb;
use tonic::{Response, Status};
use uuid::Uuid;

use super::decode::grant_key;
use super::{VaultApi, page};
use crate::contract;
use crate::error::Error;
use crate::get_credential::refuse_ended;
use crate::grant::{Grant, GrantKey};
use crate::store::{Attribution, Change, GrantFilter};

impl VaultApi {
    pub(super) async fn refresh(
        &self,
        caller: &Caller,
        request: &pb::RefreshGrantRequest,
    ) -> Result<Response<pb::RefreshGrantResponse>, Status> {
        let mut fields = Fields::new();
        let key = fields.absorb(grant_key(caller, &request.tenant_id, &request.grant_id))?;
        fields.check(
            request.refused_version >= 1,
            "refused_version",
            "must be the version that the provider refused, at least 1",
        );
        fields.finish()?;
        let key = key.ok_or_else(|| Problem::not_found("grant"))?;
        let found = self.visible(key).await?;
        refuse_ended(&found).map_err(Problem::from)?;
        if found.version > request.refused_version {
            return Ok(Response::new(pb::RefreshGrantResponse {
                grant: Some(contract::grant(&found)),
            }));
        }
        let refreshed = self.refresher.refresh(key, request.refused_version).await;
        let now = self.visible(key).await?;
        if let Err(error) = refreshed {
            // A grant that has ended says why.
            refuse_ended(&now).map_err(Problem::from)?;
            return Err(Problem::from(Error::from(error)).into());
        }
        Ok(Response::new(pb::RefreshGrantResponse {
            grant: Some(contract::grant(&now)),
        }))
    }

    pub(super) async fn confirm(
        &self,
        caller: &Caller,
        request: &pb::ConfirmGrantRequest,
    ) -> Result<Response<pb::ConfirmGrantResponse>, Status> {
        let key = grant_key(caller, &request.tenant_id, &request.grant_id)?;
        let by = Attribution {
            actor: caller.actor().clone(),
            action: "TokenVaultService/ConfirmGrant",
            reason: String::new(),
        };
        let confirmed = self
            .vault
            .store
            .grant_change("grant_confirm", key, move |grant| {
                if !grant.is_visible() {
                    return Change::none(None);
                }
                if refuse_ended(grant).is_err() || grant.confirm_until.is_none() {
                    return Change::none(Some(grant.clone()));
                }
                grant.confirm();
                Change::saved(Some(grant.clone())).by(by.clone())
            });
        let found = confirmed.await.map_err(|error| error.problem())?.flatten();
        let found = found.ok_or_else(|| Problem::from(Error::GrantNotFound))?;
        refuse_ended(&found).map_err(Problem::from)?;
        Ok(Response::new(pb::ConfirmGrantResponse {
            grant: Some(contract::grant(&found)),
        }))
    }

    pub(super) async fn describe(
        &self,
        caller: &Caller,
        request: &pb::DescribeGrantRequest,
    ) -> Result<Response<pb::DescribeGrantResponse>, Status> {
        let key = grant_key(caller, &request.tenant_id, &request.grant_id)?;
        let grant = self.visible(key).await?;
        Ok(Response::new(pb::DescribeGrantResponse {
            grant: Some(contract::grant(&grant)),
        }))
    }

    pub(super) async fn list(
        &self,
        caller: &Caller,
        request: &pb::ListGrantsRequest,
    ) -> Result<Response<pb::ListGrantsResponse>, Status> {
        let mut fields = Fields::new();
        let tenant = fields
            .absorb(caller.tenant_or_all(&request.tenant_id))?
            .flatten();
        let state = pb::GrantState::try_from(request.state);
        fields.check(state.is_ok(), "state", "must be one of the contract's");
        let limit = page_size(&mut fields, request.page_size);
        let behind = page::decode::<(Uuid, Uuid)>(&mut fields, &request.page_token);
        let behind =
            behind.and_then(|(tenant, grant)| Some((TenantKey::from_id(tenant).ok()?, grant)));
        fields.finish()?;
        let state = contract::state_from(state.unwrap_or_default());
        let filter = GrantFilter {
            tenant,
            state,
            behind,
            limit,
        };
        let found = self
            .vault
            .store
            .grants_list(&filter)
            .await
            .map_err(|error| error.problem())?;
        let next = found.last().filter(|_| found.len() as i64 == limit);
        let next_page_token = next
            .map(|last| page::encode(&(last.key.tenant.id(), last.key.id)))
            .unwrap_or_default();
        Ok(Response::new(pb::ListGrantsResponse {
            grants: found.iter().map(contract::grant).collect(),
            next_page_token,
        }))
    }

    pub(super) async fn revoke(
        &self,
        caller: &Caller,
        request: &pb::RevokeGrantRequest,
    ) -> Result<Response<pb::RevokeGrantResponse>, Status> {
        let mut fields = Fields::new();
        let key = fields.absorb(grant_key(caller, &request.tenant_id, &request.grant_id))?;
        let mode = pb::RevocationMode::try_from(request.mode);
        fields.check(mode.is_ok(), "mode", "must be one of the contract's");
        fields.finish()?;
        let key = key.ok_or_else(|| Problem::not_found("grant"))?;
        let at_provider = mode != Ok(pb::RevocationMode::Local);
        let revoked = self
            .vault
            .revoke_grant(key, at_provider, caller.actor(), "")
            .await;
        Ok(Response::new(pb::RevokeGrantResponse {
            revoked_at_provider: revoked.map_err(Problem::from)?,
        }))
    }

    async fn visible(&self, key: GrantKey) -> Result<Grant, Problem> {
        let found = self
            .vault
            .store
            .grant_get(key)
            .await
            .map_err(|error| error.problem())?;
        found
            .filter(Grant::is_visible)
            .ok_or_else(|| Error::GrantNotFound.into())
    }
}
