//! A stand-in for the directory: the tenants and API keys that a test knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::rpc::unimplemented;
use common::{Problem, TenantKey};
use contracts::directory::v1::api_key_service_server::ApiKeyService;
use contracts::directory::v1::directory_service_server::DirectoryService;
use contracts::directory::v1::*;
use prost_types::value::Kind;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct Directory {
    tenants: Arc<Mutex<HashMap<String, Tenant>>>,
    keys: Arc<Mutex<HashMap<String, ApiKey>>>,
}

impl Directory {
    pub(crate) fn put(&self, tenant: Tenant) {
        self.tenants
            .lock()
            .unwrap()
            .insert(tenant.tenant_id.clone(), tenant);
    }

    pub(crate) fn change(&self, tenant: TenantKey, change: impl FnOnce(&mut Tenant)) {
        change(
            self.tenants
                .lock()
                .unwrap()
                .get_mut(&tenant.to_string())
                .unwrap(),
        );
    }

    /// A worker's key of this tenant alone.
    pub(crate) fn put_worker_key(&self, secret: &str, tenant: TenantKey) {
        let key = ApiKey {
            api_key_id: tenant.to_string(),
            role: "worker".into(),
            tenant_ids: vec![tenant.to_string()],
            ..ApiKey::default()
        };
        self.keys.lock().unwrap().insert(secret.to_owned(), key);
    }
}

macro_rules! directory_service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl DirectoryService for Directory {
            type WatchDirectoryEventsStream = tokio_stream::Empty<Result<WatchDirectoryEventsResponse, Status>>;

            async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
                let found = self.tenants.lock().unwrap().get(&request.into_inner().tenant_id).cloned();
                let tenant = found.ok_or_else(|| Problem::not_found("tenant"))?;
                Ok(Response::new(GetTenantResponse { tenant: Some(tenant) }))
            }

            async fn get_tenant_config(
                &self,
                request: Request<GetTenantConfigRequest>,
            ) -> Result<Response<GetTenantConfigResponse>, Status> {
                let value = prost_types::Value { kind: Some(Kind::StringValue("Betrag__c".into())) };
                let mappings = prost_types::Struct { fields: [("amount".to_owned(), value)].into() };
                let config = TenantConfig {
                    tenant_id: request.into_inner().tenant_id,
                    field_mappings: Some(mappings),
                    ..TenantConfig::default()
                };
                Ok(Response::new(GetTenantConfigResponse { config: Some(config) }))
            }

            async fn watch_directory_events(
                &self,
                _: Request<WatchDirectoryEventsRequest>,
            ) -> Result<Response<Self::WatchDirectoryEventsStream>, Status> {
                Err(unimplemented("WatchDirectoryEvents"))
            }

            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(unimplemented(stringify!($method)))
            })*
        }
    };
}

directory_service! {
    create_tenant(CreateTenantRequest) -> CreateTenantResponse;
    get_tenant_by_subdomain(GetTenantBySubdomainRequest) -> GetTenantBySubdomainResponse;
    get_tenant_by_external_id(GetTenantByExternalIdRequest) -> GetTenantByExternalIdResponse;
    get_tenant_by_billing_customer_id(GetTenantByBillingCustomerIdRequest) -> GetTenantByBillingCustomerIdResponse;
    ensure_tenant(EnsureTenantRequest) -> EnsureTenantResponse;
    batch_get_tenants(BatchGetTenantsRequest) -> BatchGetTenantsResponse;
    list_tenants(ListTenantsRequest) -> ListTenantsResponse;
    update_tenant(UpdateTenantRequest) -> UpdateTenantResponse;
    delete_tenant(DeleteTenantRequest) -> DeleteTenantResponse;
    ensure_user(EnsureUserRequest) -> EnsureUserResponse;
    get_user(GetUserRequest) -> GetUserResponse;
    list_users(ListUsersRequest) -> ListUsersResponse;
    update_user(UpdateUserRequest) -> UpdateUserResponse;
    delete_user(DeleteUserRequest) -> DeleteUserResponse;
    update_tenant_config(UpdateTenantConfigRequest) -> UpdateTenantConfigResponse;
    list_deletions(ListDeletionsRequest) -> ListDeletionsResponse;
    report_deletion(ReportDeletionRequest) -> ReportDeletionResponse;
}

#[tonic::async_trait]
impl ApiKeyService for Directory {
    async fn create_api_key(
        &self,
        _: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        Err(unimplemented("CreateApiKey"))
    }

    async fn list_api_keys(
        &self,
        _: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        Err(unimplemented("ListApiKeys"))
    }

    async fn rotate_api_key(
        &self,
        _: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        Err(unimplemented("RotateApiKey"))
    }

    async fn revoke_api_key(
        &self,
        _: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        Err(unimplemented("RevokeApiKey"))
    }

    async fn authenticate_api_key(
        &self,
        request: Request<AuthenticateApiKeyRequest>,
    ) -> Result<Response<AuthenticateApiKeyResponse>, Status> {
        let found = self
            .keys
            .lock()
            .unwrap()
            .get(&request.into_inner().secret)
            .cloned();
        let api_key = Some(found.ok_or_else(|| Problem::not_found("API key"))?);
        Ok(Response::new(AuthenticateApiKeyResponse {
            api_key,
            cache_for: None,
        }))
    }
}
