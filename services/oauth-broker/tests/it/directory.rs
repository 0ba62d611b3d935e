//! A stand-in for the directory: the tenants and users that a test knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::rpc::unimplemented;
use common::{Problem, TenantKey};
use contracts::directory::v1::directory_service_server::DirectoryService;
use contracts::directory::v1::*;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct Directory {
    tenants: Arc<Mutex<HashMap<String, Tenant>>>,
    emails: Arc<Mutex<HashMap<(String, String), String>>>,
}

impl Directory {
    pub(crate) fn add(&self, tenant: TenantKey, company_name: &str, origins: &[&str]) {
        let tenant = Tenant {
            tenant_id: tenant.to_string(),
            external_id: format!("ext-{company_name}"),
            company_name: company_name.into(),
            support_contact: "help@example.com".into(),
            allowed_origins: origins.iter().map(ToString::to_string).collect(),
            state: TenantState::Active.into(),
            ..Tenant::default()
        };
        self.tenants
            .lock()
            .unwrap()
            .insert(tenant.tenant_id.clone(), tenant);
    }

    pub(crate) fn add_user(&self, tenant: TenantKey, user_id: &str, email: &str) {
        self.emails
            .lock()
            .unwrap()
            .insert((tenant.to_string(), user_id.into()), email.into());
    }
}

macro_rules! unimplemented_methods {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl DirectoryService for Directory {
            type WatchDirectoryEventsStream = tokio_stream::Empty<Result<WatchDirectoryEventsResponse, Status>>;

            async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
                let found = self.tenants.lock().unwrap().get(&request.into_inner().tenant_id).cloned();
                let tenant = found.ok_or_else(|| Problem::not_found("tenant"))?;
                Ok(Response::new(GetTenantResponse { tenant: Some(tenant) }))
            }

            async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
                let request = request.into_inner();
                let key = (request.tenant_id.clone(), request.user_id.clone());
                let email = self.emails.lock().unwrap().get(&key).cloned().ok_or_else(|| Problem::not_found("user"))?;
                let user = User { tenant_id: request.tenant_id, user_id: request.user_id, email, ..User::default() };
                Ok(Response::new(GetUserResponse { user: Some(user) }))
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

unimplemented_methods! {
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
    list_users(ListUsersRequest) -> ListUsersResponse;
    update_user(UpdateUserRequest) -> UpdateUserResponse;
    delete_user(DeleteUserRequest) -> DeleteUserResponse;
    get_tenant_config(GetTenantConfigRequest) -> GetTenantConfigResponse;
    update_tenant_config(UpdateTenantConfigRequest) -> UpdateTenantConfigResponse;
    list_deletions(ListDeletionsRequest) -> ListDeletionsResponse;
    report_deletion(ReportDeletionRequest) -> ReportDeletionResponse;
}
