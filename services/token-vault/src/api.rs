//! The contract's methods: each decodes and checks its request, calls a use case, and encodes the outcome.

mod access_records;
mod admin;
mod clients;
mod credentials;
mod decode;
mod events;
mod grants;
mod intake;
mod key_admin;
mod page;
mod service_key;

use contracts::vault::v1 as pb;
use contracts::vault::v1::token_vault_service_server::TokenVaultService;
use tonic::{Request, Response, Status};

use crate::get_credential::Handout;
use crate::refresh_grant::Refresher;
use crate::vault::Vault;

pub(crate) use admin::AdminApi;
pub(crate) use service_key::ServiceKeyApi;

/// `TokenVaultService`.
#[derive(Clone)]
pub(crate) struct VaultApi {
    vault: Vault,
    refresher: Refresher,
    handout: Handout,
}

impl VaultApi {
    pub(crate) fn new(vault: Vault, refresher: Refresher, handout: Handout) -> Self {
        Self {
            vault,
            refresher,
            handout,
        }
    }
}

#[tonic::async_trait]
impl TokenVaultService for VaultApi {
    type WatchGrantEventsStream = events::EventStream;

    async fn put_o_auth_client(
        &self,
        request: Request<pb::PutOAuthClientRequest>,
    ) -> Result<Response<pb::PutOAuthClientResponse>, Status> {
        self.put_client(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn delete_o_auth_client(
        &self,
        request: Request<pb::DeleteOAuthClientRequest>,
    ) -> Result<Response<pb::DeleteOAuthClientResponse>, Status> {
        self.delete_client(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn exchange_authorization(
        &self,
        request: Request<pb::ExchangeAuthorizationRequest>,
    ) -> Result<Response<pb::ExchangeAuthorizationResponse>, Status> {
        self.exchange(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn put_credential(
        &self,
        request: Request<pb::PutCredentialRequest>,
    ) -> Result<Response<pb::PutCredentialResponse>, Status> {
        self.put(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn get_credential(
        &self,
        request: Request<pb::GetCredentialRequest>,
    ) -> Result<Response<pb::GetCredentialResponse>, Status> {
        self.get(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn batch_get_credentials(
        &self,
        request: Request<pb::BatchGetCredentialsRequest>,
    ) -> Result<Response<pb::BatchGetCredentialsResponse>, Status> {
        self.batch_get(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn refresh_grant(
        &self,
        request: Request<pb::RefreshGrantRequest>,
    ) -> Result<Response<pb::RefreshGrantResponse>, Status> {
        self.refresh(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn confirm_grant(
        &self,
        request: Request<pb::ConfirmGrantRequest>,
    ) -> Result<Response<pb::ConfirmGrantResponse>, Status> {
        self.confirm(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn describe_grant(
        &self,
        request: Request<pb::DescribeGrantRequest>,
    ) -> Result<Response<pb::DescribeGrantResponse>, Status> {
        self.describe(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn list_grants(
        &self,
        request: Request<pb::ListGrantsRequest>,
    ) -> Result<Response<pb::ListGrantsResponse>, Status> {
        self.list(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn revoke_grant(
        &self,
        request: Request<pb::RevokeGrantRequest>,
    ) -> Result<Response<pb::RevokeGrantResponse>, Status> {
        self.revoke(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }

    async fn push_authorization_request(
        &self,
        request: Request<pb::PushAuthorizationRequestRequest>,
    ) -> Result<Response<pb::PushAuthorizationRequestResponse>, Status> {
        self.push(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn start_device_authorization(
        &self,
        request: Request<pb::StartDeviceAuthorizationRequest>,
    ) -> Result<Response<pb::StartDeviceAuthorizationResponse>, Status> {
        self.start_device(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn verify_macs(
        &self,
        request: Request<pb::VerifyMacsRequest>,
    ) -> Result<Response<pb::VerifyMacsResponse>, Status> {
        self.macs(&common::rpc::caller(&request)?, request.into_inner())
            .await
    }

    async fn watch_grant_events(
        &self,
        request: Request<pb::WatchGrantEventsRequest>,
    ) -> Result<Response<Self::WatchGrantEventsStream>, Status> {
        self.watch(&common::rpc::caller(&request)?, &request.into_inner())
            .await
    }
}
