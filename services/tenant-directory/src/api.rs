//! The contract: requests are decoded and checked as a whole, a use case is called, its answer encoded. No SQL, no policy.

mod api_keys;
mod config_fields;
mod decode;
mod deletions;
mod mask;
mod tenant_fields;
mod tenants;
mod user_fields;
mod users;
mod watch;

use common::Problem;
use common::lifecycle::Shutdown;
use common::rpc::{Operations, Server, caller};
use contracts::directory::v1 as contract;
use contracts::directory::v1::api_key_service_server::{ApiKeyService, ApiKeyServiceServer};
use contracts::directory::v1::directory_service_server::{
    DirectoryService, DirectoryServiceServer,
};
use contracts::operations::v1::operations_service_server::OperationsServiceServer;
use tonic::{Request, Response, Status};

use crate::directory::Directory;

/// Everything that the directory serves.
pub(crate) fn register(server: Server, directory: &Directory, shutdown: &Shutdown) -> Server {
    let api = Api {
        directory: directory.clone(),
        shutdown: shutdown.clone(),
    };
    server
        .service(DirectoryServiceServer::new(api.clone()))
        .service(ApiKeyServiceServer::new(api))
        .service(OperationsServiceServer::new(Operations::new(
            directory.db.clone(),
        )))
}

/// Both services.
#[derive(Clone, Debug)]
struct Api {
    directory: Directory,
    shutdown: Shutdown,
}

fn answer<T>(outcome: Result<T, Problem>) -> Result<Response<T>, Status> {
    Ok(Response::new(outcome?))
}

#[tonic::async_trait]
impl DirectoryService for Api {
    type WatchDirectoryEventsStream = watch::Events;

    async fn create_tenant(
        &self,
        request: Request<contract::CreateTenantRequest>,
    ) -> Result<Response<contract::CreateTenantResponse>, Status> {
        answer(tenants::create(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn get_tenant(
        &self,
        request: Request<contract::GetTenantRequest>,
    ) -> Result<Response<contract::GetTenantResponse>, Status> {
        answer(tenants::get(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn get_tenant_by_subdomain(
        &self,
        request: Request<contract::GetTenantBySubdomainRequest>,
    ) -> Result<Response<contract::GetTenantBySubdomainResponse>, Status> {
        answer(
            tenants::get_by_subdomain(&self.directory, &caller(&request)?, request.into_inner())
                .await,
        )
    }

    async fn get_tenant_by_external_id(
        &self,
        request: Request<contract::GetTenantByExternalIdRequest>,
    ) -> Result<Response<contract::GetTenantByExternalIdResponse>, Status> {
        answer(
            tenants::get_by_external_id(&self.directory, &caller(&request)?, request.into_inner())
                .await,
        )
    }

    async fn get_tenant_by_billing_customer_id(
        &self,
        request: Request<contract::GetTenantByBillingCustomerIdRequest>,
    ) -> Result<Response<contract::GetTenantByBillingCustomerIdResponse>, Status> {
        answer(
            tenants::get_by_billing_customer_id(
                &self.directory,
                &caller(&request)?,
                request.into_inner(),
            )
            .await,
        )
    }

    async fn ensure_tenant(
        &self,
        request: Request<contract::EnsureTenantRequest>,
    ) -> Result<Response<contract::EnsureTenantResponse>, Status> {
        answer(tenants::ensure(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn batch_get_tenants(
        &self,
        request: Request<contract::BatchGetTenantsRequest>,
    ) -> Result<Response<contract::BatchGetTenantsResponse>, Status> {
        answer(tenants::batch_get(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn list_tenants(
        &self,
        request: Request<contract::ListTenantsRequest>,
    ) -> Result<Response<contract::ListTenantsResponse>, Status> {
        answer(tenants::list(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn update_tenant(
        &self,
        request: Request<contract::UpdateTenantRequest>,
    ) -> Result<Response<contract::UpdateTenantResponse>, Status> {
        answer(tenants::update(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn delete_tenant(
        &self,
        request: Request<contract::DeleteTenantRequest>,
    ) -> Result<Response<contract::DeleteTenantResponse>, Status> {
        answer(tenants::delete(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn ensure_user(
        &self,
        request: Request<contract::EnsureUserRequest>,
    ) -> Result<Response<contract::EnsureUserResponse>, Status> {
        answer(users::ensure(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn get_user(
        &self,
        request: Request<contract::GetUserRequest>,
    ) -> Result<Response<contract::GetUserResponse>, Status> {
        answer(users::get(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn list_users(
        &self,
        request: Request<contract::ListUsersRequest>,
    ) -> Result<Response<contract::ListUsersResponse>, Status> {
        answer(users::list(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn update_user(
        &self,
        request: Request<contract::UpdateUserRequest>,
    ) -> Result<Response<contract::UpdateUserResponse>, Status> {
        answer(users::update(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn delete_user(
        &self,
        request: Request<contract::DeleteUserRequest>,
    ) -> Result<Response<contract::DeleteUserResponse>, Status> {
        answer(users::delete(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn get_tenant_config(
        &self,
        request: Request<contract::GetTenantConfigRequest>,
    ) -> Result<Response<contract::GetTenantConfigResponse>, Status> {
        answer(tenants::get_config(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn update_tenant_config(
        &self,
        request: Request<contract::UpdateTenantConfigRequest>,
    ) -> Result<Response<contract::UpdateTenantConfigResponse>, Status> {
        answer(
            tenants::update_config(&self.directory, &caller(&request)?, request.into_inner()).await,
        )
    }

    async fn list_deletions(
        &self,
        request: Request<contract::ListDeletionsRequest>,
    ) -> Result<Response<contract::ListDeletionsResponse>, Status> {
        answer(deletions::list(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn report_deletion(
        &self,
        request: Request<contract::ReportDeletionRequest>,
    ) -> Result<Response<contract::ReportDeletionResponse>, Status> {
        answer(deletions::report(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn watch_directory_events(
        &self,
        request: Request<contract::WatchDirectoryEventsRequest>,
    ) -> Result<Response<Self::WatchDirectoryEventsStream>, Status> {
        answer(
            watch::watch(
                &self.directory,
                &caller(&request)?,
                request.into_inner(),
                self.shutdown.clone(),
            )
            .await,
        )
    }
}

#[tonic::async_trait]
impl ApiKeyService for Api {
    async fn create_api_key(
        &self,
        request: Request<contract::CreateApiKeyRequest>,
    ) -> Result<Response<contract::CreateApiKeyResponse>, Status> {
        answer(api_keys::create(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn list_api_keys(
        &self,
        request: Request<contract::ListApiKeysRequest>,
    ) -> Result<Response<contract::ListApiKeysResponse>, Status> {
        answer(api_keys::list(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn rotate_api_key(
        &self,
        request: Request<contract::RotateApiKeyRequest>,
    ) -> Result<Response<contract::RotateApiKeyResponse>, Status> {
        answer(api_keys::rotate(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn revoke_api_key(
        &self,
        request: Request<contract::RevokeApiKeyRequest>,
    ) -> Result<Response<contract::RevokeApiKeyResponse>, Status> {
        answer(api_keys::revoke(&self.directory, &caller(&request)?, request.into_inner()).await)
    }

    async fn authenticate_api_key(
        &self,
        request: Request<contract::AuthenticateApiKeyRequest>,
    ) -> Result<Response<contract::AuthenticateApiKeyResponse>, Status> {
        answer(
            api_keys::authenticate(&self.directory, &caller(&request)?, request.into_inner()).await,
        )
    }
}
