//! Tenants and their configuration.

use common::Problem;
use common::identity::Caller;
use common::validate::{Fields, page_size};
use contracts::directory::v1 as contract;

use super::tenant_fields::{self, Needs};
use super::{config_fields, decode};
use crate::directory::Directory;
use crate::encode;
use crate::etag::Etag;
use crate::name::{Name, NameKind};
use crate::page_token::Query;
use crate::subdomain::Subdomain;

const LONGEST_REQUEST_ID: usize = 200;
const LONGEST_SEARCH: usize = 200;
const BATCH: usize = 1000;

pub(super) async fn create(
    directory: &Directory,
    caller: &Caller,
    request: contract::CreateTenantRequest,
) -> Result<contract::CreateTenantResponse, Problem> {
    let mut fields = Fields::new();
    request_id(&mut fields, &request.request_id);
    let tenant = request.tenant.clone().unwrap_or_default();
    let profile = tenant_fields::profile(&mut fields, &tenant, Needs::CompanyName);
    fields.finish()?;
    Ok(directory.create_tenant(caller, request, profile).await?)
}

pub(super) async fn ensure(
    directory: &Directory,
    caller: &Caller,
    request: contract::EnsureTenantRequest,
) -> Result<contract::EnsureTenantResponse, Problem> {
    let mut fields = Fields::new();
    let profile = tenant_fields::profile(
        &mut fields,
        &request.tenant.unwrap_or_default(),
        Needs::ExternalId,
    );
    fields.finish()?;
    let (tenant, created) = directory.ensure_tenant(caller, profile).await?;
    Ok(contract::EnsureTenantResponse {
        tenant: Some(tenant),
        created,
    })
}

pub(super) async fn get(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetTenantRequest,
) -> Result<contract::GetTenantResponse, Problem> {
    let tenant = directory
        .get_tenant(caller.tenant(&request.tenant_id)?)
        .await?;
    Ok(contract::GetTenantResponse {
        tenant: Some(encode::tenant(&tenant, directory.now())),
    })
}

pub(super) async fn get_by_subdomain(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetTenantBySubdomainRequest,
) -> Result<contract::GetTenantBySubdomainResponse, Problem> {
    let mut fields = Fields::new();
    fields.require("subdomain", &request.subdomain);
    fields.finish()?;
    // What could be no tenant's, reserved words among it, is not found: a router asks with whatever it was called by.
    let subdomain =
        Subdomain::parse(&request.subdomain).map_err(|_| Problem::not_found("tenant"))?;
    let tenant = named(directory, caller, NameKind::Subdomain, subdomain.as_str()).await?;
    Ok(contract::GetTenantBySubdomainResponse {
        tenant: Some(tenant),
    })
}

pub(super) async fn get_by_external_id(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetTenantByExternalIdRequest,
) -> Result<contract::GetTenantByExternalIdResponse, Problem> {
    let mut fields = Fields::new();
    decode::required_id(&mut fields, "external_id", &request.external_id);
    fields.finish()?;
    let tenant = named(
        directory,
        caller,
        NameKind::ExternalId,
        &request.external_id,
    )
    .await?;
    Ok(contract::GetTenantByExternalIdResponse {
        tenant: Some(tenant),
    })
}

pub(super) async fn get_by_billing_customer_id(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetTenantByBillingCustomerIdRequest,
) -> Result<contract::GetTenantByBillingCustomerIdResponse, Problem> {
    let mut fields = Fields::new();
    decode::required_id(
        &mut fields,
        "billing_customer_id",
        &request.billing_customer_id,
    );
    fields.finish()?;
    let tenant = named(
        directory,
        caller,
        NameKind::BillingCustomerId,
        &request.billing_customer_id,
    )
    .await?;
    Ok(contract::GetTenantByBillingCustomerIdResponse {
        tenant: Some(tenant),
    })
}

pub(super) async fn batch_get(
    directory: &Directory,
    caller: &Caller,
    request: contract::BatchGetTenantsRequest,
) -> Result<contract::BatchGetTenantsResponse, Problem> {
    let mut fields = Fields::new();
    let keys = decode::each(
        &mut fields,
        "tenant_ids",
        &request.tenant_ids,
        BATCH,
        Fields::tenant,
    )
    .unwrap_or_default();
    fields.finish()?;
    let now = directory.now();
    let tenants = directory.batch_get_tenants(caller, &keys).await?;
    let tenants = tenants.into_iter().map(|tenant| {
        tenant
            .map(|tenant| encode::tenant(&tenant, now))
            .unwrap_or_default()
    });
    Ok(contract::BatchGetTenantsResponse {
        tenants: tenants.collect(),
    })
}

pub(super) async fn list(
    directory: &Directory,
    caller: &Caller,
    request: contract::ListTenantsRequest,
) -> Result<contract::ListTenantsResponse, Problem> {
    let mut fields = Fields::new();
    let size = page_size(&mut fields, request.page_size);
    let search =
        decode::text(&mut fields, "search", &request.search, LONGEST_SEARCH).unwrap_or_default();
    let query = Query::new("ListTenants", &[&search]);
    let after = decode::after_id(&mut fields, &query, &request.page_token);
    fields.finish()?;
    let page = directory.list_tenants(caller, &search, after, size).await?;
    let next_page_token = match page.items.last() {
        Some(last) if page.more => query.token(&[&last.key.to_string()]),
        _ => String::new(),
    };
    let now = directory.now();
    let tenants = page
        .items
        .iter()
        .map(|tenant| encode::tenant(tenant, now))
        .collect();
    Ok(contract::ListTenantsResponse {
        tenants,
        next_page_token,
    })
}

pub(super) async fn update(
    directory: &Directory,
    caller: &Caller,
    request: contract::UpdateTenantRequest,
) -> Result<contract::UpdateTenantResponse, Problem> {
    let mut fields = Fields::new();
    let tenant = request.tenant.unwrap_or_default();
    let key = fields.tenant("tenant.tenant_id", &tenant.tenant_id);
    let changes = tenant_fields::changes(&mut fields, &tenant, request.update_mask.as_ref());
    fields.finish()?;
    let key = decode::reached(caller, key)?;
    let updated = directory
        .update_tenant(caller, key, changes, Etag::given(&tenant.etag))
        .await?;
    Ok(contract::UpdateTenantResponse {
        tenant: Some(encode::tenant(&updated, directory.now())),
    })
}

pub(super) async fn delete(
    directory: &Directory,
    caller: &Caller,
    request: contract::DeleteTenantRequest,
) -> Result<contract::DeleteTenantResponse, Problem> {
    let mut fields = Fields::new();
    let key = fields.tenant("tenant_id", &request.tenant_id);
    fields.require("confirm_subdomain", &request.confirm_subdomain);
    fields.finish()?;
    directory
        .delete_tenant(
            caller,
            decode::reached(caller, key)?,
            request.confirm_subdomain,
        )
        .await?;
    Ok(contract::DeleteTenantResponse {})
}

pub(super) async fn get_config(
    directory: &Directory,
    caller: &Caller,
    request: contract::GetTenantConfigRequest,
) -> Result<contract::GetTenantConfigResponse, Problem> {
    let config = directory
        .get_tenant_config(caller.tenant(&request.tenant_id)?)
        .await?;
    Ok(contract::GetTenantConfigResponse {
        config: Some(encode::tenant_config(&config)),
    })
}

pub(super) async fn update_config(
    directory: &Directory,
    caller: &Caller,
    request: contract::UpdateTenantConfigRequest,
) -> Result<contract::UpdateTenantConfigResponse, Problem> {
    let mut fields = Fields::new();
    let config = request.config.unwrap_or_default();
    let key = fields.tenant("config.tenant_id", &config.tenant_id);
    let changes = config_fields::changes(&mut fields, &config, request.update_mask.as_ref());
    fields.finish()?;
    let key = decode::reached(caller, key)?;
    let updated = directory
        .update_tenant_config(caller, key, changes, Etag::given(&config.etag))
        .await?;
    Ok(contract::UpdateTenantConfigResponse {
        config: Some(encode::tenant_config(&updated)),
    })
}

/// A key by which a caller may repeat its request.
pub(super) fn request_id(fields: &mut Fields, id: &str) {
    fields.at_most("request_id", id, LONGEST_REQUEST_ID);
    fields.check(
        !id.contains(char::is_control),
        "request_id",
        "must not have control characters in it",
    );
}

async fn named(
    directory: &Directory,
    caller: &Caller,
    kind: NameKind,
    name: &str,
) -> Result<contract::Tenant, Problem> {
    let tenant = directory
        .get_tenant_by_name(caller, &Name::new(kind, name))
        .await?;
    Ok(encode::tenant(&tenant, directory.now()))
}
