//! `VaultAdminService`: its methods about keys. They belong to whoever runs the platform; no tenant's administrator has
//! a part in them.

use common::identity::{Acting, Caller};
use common::validate::Fields;
use common::{Problem, TenantKey};
use contracts::vault::v1 as pb;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::vault::Vault;

pub(super) async fn rewrap(
    vault: &Vault,
    request: &Request<pb::RewrapDataKeysRequest>,
) -> Result<Response<pb::RewrapDataKeysResponse>, Status> {
    let caller = keeper(request)?;
    vault
        .request_rewrap(caller.actor())
        .await
        .map_err(Problem::from)?;
    Ok(Response::new(pb::RewrapDataKeysResponse {}))
}

pub(super) async fn rotate(
    vault: &Vault,
    request: &Request<pb::RotateDataKeysRequest>,
) -> Result<Response<pb::RotateDataKeysResponse>, Status> {
    let caller = keeper(request)?;
    let tenant = caller.tenant_or_all(&request.get_ref().tenant_id)?;
    vault
        .request_rotation(tenant, caller.actor())
        .await
        .map_err(Problem::from)?;
    Ok(Response::new(pb::RotateDataKeysResponse {}))
}

pub(super) async fn status(
    vault: &Vault,
    request: &Request<pb::GetKeyStatusRequest>,
) -> Result<Response<pb::GetKeyStatusResponse>, Status> {
    keeper(request)?;
    let status = vault.store.key_status(vault.keys.kek_id()).await;
    let status = status.map_err(|error| error.problem())?;
    Ok(Response::new(pb::GetKeyStatusResponse {
        current_kek_id: vault.keys.kek_id().to_owned(),
        data_keys: status.data_keys,
        data_keys_under_older_keks: status.under_older_keks,
        values_under_older_data_keys: status.under_older_data_keys,
    }))
}

pub(super) async fn shred(
    vault: &Vault,
    request: &Request<pb::ShredTenantRequest>,
) -> Result<Response<pb::ShredTenantResponse>, Status> {
    let caller = keeper(request)?;
    let tenant = caller.tenant(&request.get_ref().tenant_id)?;
    let mut fields = Fields::new();
    fields.check(
        tenant != TenantKey::PLATFORM,
        "tenant_id",
        "must not be the platform's: its keys are never destroyed",
    );
    fields.finish()?;
    let destroyed = vault.shred_tenant(tenant, caller.actor()).await;
    Ok(Response::new(pb::ShredTenantResponse {
        data_keys_destroyed: destroyed.map_err(|error| Problem::from(Error::from(error)))?,
    }))
}

/// Whoever may touch keys.
fn keeper<T>(request: &Request<T>) -> Result<Caller, Problem> {
    let caller = common::rpc::caller(request)?;
    if caller.acting < Acting::Service {
        return Err(Problem::permission_denied(
            "keys are the business of whoever runs the platform",
        ));
    }
    Ok(caller)
}
