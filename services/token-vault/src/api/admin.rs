//! `VaultAdminService`: for operators.

use contracts::vault::v1 as pb;
use contracts::vault::v1::vault_admin_service_server::VaultAdminService;
use tonic::{Request, Response, Status};

use super::{access_records, key_admin};
use crate::vault::Vault;

/// Answers operators.
#[derive(Clone, Debug)]
pub(crate) struct AdminApi {
    vault: Vault,
}

impl AdminApi {
    pub(crate) fn new(vault: Vault) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl VaultAdminService for AdminApi {
    async fn rewrap_data_keys(
        &self,
        request: Request<pb::RewrapDataKeysRequest>,
    ) -> Result<Response<pb::RewrapDataKeysResponse>, Status> {
        key_admin::rewrap(&self.vault, &request).await
    }

    async fn rotate_data_keys(
        &self,
        request: Request<pb::RotateDataKeysRequest>,
    ) -> Result<Response<pb::RotateDataKeysResponse>, Status> {
        key_admin::rotate(&self.vault, &request).await
    }

    async fn get_key_status(
        &self,
        request: Request<pb::GetKeyStatusRequest>,
    ) -> Result<Response<pb::GetKeyStatusResponse>, Status> {
        key_admin::status(&self.vault, &request).await
    }

    async fn shred_tenant(
        &self,
        request: Request<pb::ShredTenantRequest>,
    ) -> Result<Response<pb::ShredTenantResponse>, Status> {
        key_admin::shred(&self.vault, &request).await
    }

    async fn list_access_records(
        &self,
        request: Request<pb::ListAccessRecordsRequest>,
    ) -> Result<Response<pb::ListAccessRecordsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        access_records::list(&self.vault, &caller, request.into_inner()).await
    }

    async fn verify_access_records(
        &self,
        request: Request<pb::VerifyAccessRecordsRequest>,
    ) -> Result<Response<pb::VerifyAccessRecordsResponse>, Status> {
        access_records::verify(&self.vault, request.into_inner()).await
    }
}
