//! `hawser.operations.v1`, which every service serves about itself.

use contracts::operations::v1::operations_service_server::OperationsService;
use contracts::operations::v1::{
    GetStatisticsRequest, GetStatisticsResponse, ListAuditEventsRequest, ListAuditEventsResponse,
};
use tonic::{Request, Response, Status};

use crate::identity::Caller;
use crate::pg::{Database, audit, statistics};
use crate::validate::Fields;
use crate::{Problem, TenantKey};

/// Answers from the service's own schema.
#[derive(Clone, Debug)]
pub struct Operations {
    database: Database,
}

impl Operations {
    /// About the service that keeps its data in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[tonic::async_trait]
impl OperationsService for Operations {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let caller = super::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields
            .absorb(whole_tenant(&caller, &request.tenant_id))?
            .flatten();
        Ok(Response::new(
            audit::list(&self.database, tenant, &request, fields).await?,
        ))
    }

    async fn get_statistics(
        &self,
        request: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        let caller = super::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields
            .absorb(whole_tenant(&caller, &request.tenant_id))?
            .flatten();
        Ok(Response::new(
            statistics::get(&self.database, tenant, &request, fields).await?,
        ))
    }
}

/// What everybody of a tenant did is not for each of its users to see.
fn whole_tenant(caller: &Caller, tenant_id: &str) -> Result<Option<TenantKey>, Problem> {
    if caller.own_user().is_some() {
        return Err(Problem::permission_denied(
            "only an administrator of the tenant sees this",
        ));
    }
    caller.tenant_or_all(tenant_id)
}
