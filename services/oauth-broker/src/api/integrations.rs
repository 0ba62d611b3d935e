//! `IntegrationService`.

use common::identity::Caller;
use common::validate::{Fields, page_size};
use common::{Problem, Secret, TenantKey};
use contracts::broker::v1::integration_service_server::IntegrationService;
use contracts::broker::v1::{
    self as contract, AuthMode, Cardinality, CreateIntegrationRequest, CreateIntegrationResponse,
    DeleteIntegrationRequest, DeleteIntegrationResponse, GetIntegrationRequest,
    GetIntegrationResponse, GetProviderRequest, GetProviderResponse, ListIntegrationsRequest,
    ListIntegrationsResponse, ListProvidersRequest, ListProvidersResponse,
    UpdateIntegrationRequest, UpdateIntegrationResponse,
};
use provider_catalog::{Catalog, Confidence, Provider};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::encode;
use crate::broker::SharedBroker;
use crate::error::Error;
use crate::integration::{
    Integration, catalog_mode, contract_cardinality, contract_mode, encode_provider,
    is_integration_id, origin_of,
};
use crate::page_token::{self, Query};
use crate::resolve_integration::Secrets;
use crate::store::integrations::{integration_get, integration_list};

const MOST_SCOPES: usize = 200;
const MOST_ORIGINS: usize = 50;

/// Answers by the shared parts.
#[derive(Debug)]
pub(crate) struct Integrations {
    broker: SharedBroker,
}

impl Integrations {
    pub(crate) fn new(broker: SharedBroker) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl IntegrationService for Integrations {
    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let request = request.into_inner();
        let query = Query::new("ListProviders", &[&request.search]);
        let mut fields = Fields::new();
        let size = page_size(&mut fields, request.page_size);
        let after = query.key(&mut fields, &request.page_token);
        fields.finish()?;
        let behind = |provider: &&Provider| {
            after
                .as_ref()
                .is_none_or(|after| provider.key.as_str() > after.as_str())
        };
        let taken = usize::try_from(size + 1).unwrap_or(usize::MAX);
        let mut found: Vec<_> = Catalog::builtin()
            .search(&request.search)
            .filter(behind)
            .take(taken)
            .collect();
        let next_page_token = page_token::cut(&mut found, size, &query, |provider| {
            provider.key.as_str().to_owned()
        });
        let providers = found.into_iter().map(described).collect();
        Ok(Response::new(ListProvidersResponse {
            providers,
            next_page_token,
        }))
    }

    async fn get_provider(
        &self,
        request: Request<GetProviderRequest>,
    ) -> Result<Response<GetProviderResponse>, Status> {
        let key = request.into_inner().provider;
        let found = Catalog::builtin()
            .get(&key)
            .ok_or_else(|| Problem::not_found("provider"))?;
        Ok(Response::new(GetProviderResponse {
            provider: Some(described(found)),
        }))
    }

    async fn create_integration(
        &self,
        request: Request<CreateIntegrationRequest>,
    ) -> Result<Response<CreateIntegrationResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let wanted = request.integration.clone().unwrap_or_default();
        let mut fields = Fields::new();
        let tenant = owner(
            &caller,
            &mut fields,
            "integration.tenant_id",
            &wanted.tenant_id,
        )?;
        fields.at_most("request_id", &request.request_id, 128);
        let now = self.broker.deps.now();
        let provider = known_provider(&mut fields, &wanted.provider);
        let cardinality = provider.map_or(Cardinality::PerUser, |provider| {
            contract_cardinality(provider.cardinality)
        });
        let stub = tenant.unwrap_or(TenantKey::PLATFORM);
        let id = if wanted.integration_id.is_empty() {
            stub.new_id(&self.broker.deps).to_string()
        } else {
            wanted.integration_id.clone()
        };
        fields.check(
            is_integration_id(&id),
            "integration.integration_id",
            "must have 1 to 63 letters, digits, hyphens and underscores, beginning with a letter or digit",
        );
        let mode = provider.map_or(AuthMode::Unspecified, |provider| {
            chosen_mode(&mut fields, provider, wanted.auth_mode)
        });
        let is_oauth = !matches!(
            mode,
            AuthMode::ApiKey | AuthMode::Basic | AuthMode::Unspecified
        );
        let draft = Integration {
            tenant: stub,
            integration_id: id,
            provider: wanted.provider.clone(),
            display_name: display_name(&wanted, provider),
            auth_mode: mode,
            oauth_client_id: is_oauth.then(|| stub.new_id(&self.broker.deps)),
            client_id: wanted.client_id.clone(),
            scopes: wanted.scopes.clone(),
            cardinality: match Cardinality::try_from(wanted.cardinality) {
                Ok(Cardinality::Unspecified) => cardinality,
                Ok(given) => given,
                Err(_) => {
                    fields.violate(
                        "integration.cardinality",
                        "must be one of the contract's values",
                    );
                    cardinality
                }
            },
            exclusive_accounts: wanted.exclusive_accounts,
            overrides: wanted
                .overrides
                .as_ref()
                .map_or_else(|| Value::Object(serde_json::Map::new()), encode::json_of),
            discovered: None,
            allowed_origins: wanted.allowed_origins.clone(),
            accept_unverified: wanted.accept_unverified,
            configuration_error: String::new(),
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        let draft = check(&mut fields, draft, provider);
        fields.finish()?;
        let secrets = secrets(&wanted);
        let created = self
            .broker
            .create_integration(&caller, draft, secrets, request);
        let answer = Box::pin(created).await.map_err(Problem::from)?;
        Ok(Response::new(answer))
    }

    async fn get_integration(
        &self,
        request: Request<GetIntegrationRequest>,
    ) -> Result<Response<GetIntegrationResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let tenant = caller.tenant(&request.tenant_id)?;
        let mut fields = Fields::new();
        fields.require("integration_id", &request.integration_id);
        fields.finish()?;
        let found = self
            .broker
            .integration(tenant, &request.integration_id)
            .await
            .map_err(Problem::from)?;
        let integration = Some(encode::integration(&found, &self.broker.public_url));
        Ok(Response::new(GetIntegrationResponse { integration }))
    }

    async fn list_integrations(
        &self,
        request: Request<ListIntegrationsRequest>,
    ) -> Result<Response<ListIntegrationsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let query = Query::new("ListIntegrations", &[&request.tenant_id]);
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let size = page_size(&mut fields, request.page_size);
        let after = query.key(&mut fields, &request.page_token);
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let mut found = self
            .listed(tenant, after.as_deref(), size + 1)
            .await
            .map_err(Problem::from)?;
        let next_page_token = page_token::cut(&mut found, size, &query, place);
        let integrations = found
            .iter()
            .map(|found| encode::integration(found, &self.broker.public_url))
            .collect();
        Ok(Response::new(ListIntegrationsResponse {
            integrations,
            next_page_token,
        }))
    }

    async fn update_integration(
        &self,
        request: Request<UpdateIntegrationRequest>,
    ) -> Result<Response<UpdateIntegrationResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let wanted = request.integration.unwrap_or_default();
        let mut fields = Fields::new();
        let tenant = owner(
            &caller,
            &mut fields,
            "integration.tenant_id",
            &wanted.tenant_id,
        )?;
        fields.require("integration.integration_id", &wanted.integration_id);
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .unwrap_or_default();
        fields.check(
            !paths.is_empty(),
            "update_mask",
            "must name what is to change",
        );
        let Some(tenant) = tenant.filter(|_| fields.is_empty()) else {
            fields.finish()?;
            return Err(Problem::not_found("integration").into());
        };
        let found = integration_get(&self.broker.db, tenant, &wanted.integration_id)
            .await
            .map_err(Problem::from)?;
        let found = found.ok_or_else(|| Problem::not_found("integration"))?;
        if !wanted.etag.is_empty() && wanted.etag != found.etag() {
            return Err(Problem::from(Error::EtagMismatch).into());
        }
        let provider = Catalog::builtin().get(&found.provider);
        let mut destinations = false;
        let mut changed = found.clone();
        for path in &paths {
            destinations |= put(&mut fields, &mut changed, &wanted, path);
        }
        let changed = check(&mut fields, changed, provider);
        fields.finish()?;
        let secrets = secrets(&wanted);
        let saved = self
            .broker
            .update_integration(&caller, changed, secrets, destinations);
        let saved = Box::pin(saved).await.map_err(Problem::from)?;
        let integration = Some(encode::integration(&saved, &self.broker.public_url));
        Ok(Response::new(UpdateIntegrationResponse { integration }))
    }

    async fn delete_integration(
        &self,
        request: Request<DeleteIntegrationRequest>,
    ) -> Result<Response<DeleteIntegrationResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = owner(&caller, &mut fields, "tenant_id", &request.tenant_id)?;
        fields.require("integration_id", &request.integration_id);
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let deleted = self
            .broker
            .delete_integration(
                &caller,
                tenant,
                &request.integration_id,
                request.disconnect_all,
            )
            .await;
        deleted.map_err(Problem::from)?;
        Ok(Response::new(DeleteIntegrationResponse {}))
    }
}

impl Integrations {
    /// The tenant's own, then the platform's that it may use.
    async fn listed(
        &self,
        tenant: TenantKey,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Integration>, Error> {
        let db = &self.broker.db;
        let mut found = Vec::new();
        let platform_after = after.and_then(|after| after.strip_prefix("platform:"));
        if platform_after.is_none() {
            let own_after = after.and_then(|after| after.strip_prefix("own:"));
            found = integration_list(db, tenant, own_after, limit).await?;
        }
        let mut behind = platform_after.map(str::to_owned);
        while !tenant.is_platform() && (found.len() as i64) < limit {
            let page = integration_list(db, TenantKey::PLATFORM, behind.as_deref(), limit).await?;
            behind = page.last().map(|last| last.integration_id.clone());
            let is_last = (page.len() as i64) < limit;
            for candidate in page {
                // The tenant's own of the same id hides it.
                if integration_get(db, tenant, &candidate.integration_id)
                    .await?
                    .is_none()
                {
                    found.push(candidate);
                }
            }
            if is_last {
                break;
            }
        }
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }
}

fn place(integration: &Integration) -> String {
    let whose = if integration.tenant.is_platform() {
        "platform"
    } else {
        "own"
    };
    format!("{whose}:{}", integration.integration_id)
}

fn described(provider: &Provider) -> contract::Provider {
    encode_provider(provider, crate::integration::streams(provider.key.as_str()))
}

/// Whose integration is to be changed. The platform's are changed by operators alone.
fn owner(
    caller: &Caller,
    fields: &mut Fields,
    field: &str,
    tenant_id: &str,
) -> Result<Option<TenantKey>, Problem> {
    let tenant = fields.absorb(caller.tenant_in(field, tenant_id))?;
    if tenant.is_some_and(|tenant| tenant.is_platform()) && !caller.is_operator() {
        return Err(Problem::permission_denied(
            "the platform's integrations are changed by operators alone",
        ));
    }
    Ok(tenant)
}

fn secrets(wanted: &contract::Integration) -> Secrets {
    Secrets {
        client_secret: Secret::from(wanted.client_secret.as_str()),
        previous_client_secret: Secret::from(wanted.previous_client_secret.as_str()),
    }
}

fn known_provider(fields: &mut Fields, key: &str) -> Option<&'static Provider> {
    if !fields.require("integration.provider", key) {
        return None;
    }
    let provider = Catalog::builtin().get(key);
    fields.check(
        provider.is_some(),
        "integration.provider",
        "is in no entry of the catalogue; see ListProviders",
    );
    provider
}

fn chosen_mode(fields: &mut Fields, provider: &Provider, wanted: i32) -> AuthMode {
    let mode = match AuthMode::try_from(wanted) {
        Ok(AuthMode::Unspecified) => contract_mode(provider.default_mode()),
        Ok(mode) => mode,
        Err(_) => AuthMode::Unspecified,
    };
    let takes = mode != AuthMode::Unspecified && provider.auth_modes.contains(&catalog_mode(mode));
    fields.check(
        takes,
        "integration.auth_mode",
        "must be one of the provider's",
    );
    mode
}

fn display_name(wanted: &contract::Integration, provider: Option<&Provider>) -> String {
    match (wanted.display_name.as_str(), provider) {
        ("", Some(provider)) => provider.display_name.clone(),
        (given, _) => given.to_owned(),
    }
}

/// What has to hold of every integration, new or changed.
fn check(fields: &mut Fields, mut draft: Integration, provider: Option<&Provider>) -> Integration {
    fields.at_most("integration.display_name", &draft.display_name, 200);
    fields.at_most("integration.client_id", &draft.client_id, 500);
    let is_scope = |scope: &String| {
        !scope.is_empty() && scope.len() <= 500 && scope.bytes().all(|byte| byte.is_ascii_graphic())
    };
    fields.check(
        draft.scopes.len() <= MOST_SCOPES && draft.scopes.iter().all(is_scope),
        "integration.scopes",
        format_args!("must be at most {MOST_SCOPES} words of visible ASCII"),
    );
    let origins: Vec<_> = draft
        .allowed_origins
        .iter()
        .filter_map(|origin| origin_of(origin))
        .collect();
    fields.check(
        origins.len() == draft.allowed_origins.len() && origins.len() <= MOST_ORIGINS,
        "integration.allowed_origins",
        format_args!("must be at most {MOST_ORIGINS} exact origins, as `https://app.example.com`"),
    );
    draft.allowed_origins = origins;
    let Some(provider) = provider else {
        return draft;
    };
    if draft.oauth_client_id.is_some() {
        fields.require("integration.client_id", &draft.client_id);
    }
    fields.check(
        provider.confidence != Confidence::Unverified || draft.accept_unverified,
        "integration.accept_unverified",
        "must be set: nobody has verified what the catalogue says of this provider",
    );
    if draft.auth_mode == AuthMode::Unspecified {
        return draft;
    }
    match provider.with_overrides_for(catalog_mode(draft.auth_mode), &draft.overrides) {
        Err(problems) => {
            for problem in problems {
                fields.violate(
                    format!("integration.{}", problem.field),
                    problem.description,
                );
            }
        }
        Ok(resolved) => {
            let may = !resolved.hosts_replaced()
                || !draft.tenant.is_platform()
                || !provider.required_overrides.is_empty();
            fields.check(
                may,
                "integration.overrides",
                "replaces hosts of the provider, which only a tenant that brings its own client may",
            );
        }
    }
    draft
}

/// Puts one field of the mask in; says whether the vault has to know.
fn put(
    fields: &mut Fields,
    changed: &mut Integration,
    wanted: &contract::Integration,
    path: &str,
) -> bool {
    match path {
        "display_name" => changed.display_name.clone_from(&wanted.display_name),
        "scopes" => changed.scopes.clone_from(&wanted.scopes),
        "exclusive_accounts" => changed.exclusive_accounts = wanted.exclusive_accounts,
        "allowed_origins" => changed.allowed_origins.clone_from(&wanted.allowed_origins),
        "accept_unverified" => changed.accept_unverified = wanted.accept_unverified,
        "client_id" => {
            changed.client_id.clone_from(&wanted.client_id);
            return needs_secret(fields, wanted);
        }
        "overrides" => {
            changed.overrides = wanted
                .overrides
                .as_ref()
                .map_or_else(|| Value::Object(serde_json::Map::new()), encode::json_of);
            return needs_secret(fields, wanted);
        }
        "client_secret" | "previous_client_secret" => return needs_secret(fields, wanted),
        "cardinality" | "provider" | "auth_mode" => {
            fields.violate(
                format!("integration.{path}"),
                "cannot be changed; make a new integration",
            );
        }
        _ => {
            fields.violate(
                "update_mask",
                format_args!("`{path}` is not a field that can be changed"),
            );
        }
    }
    false
}

/// A secret goes only where its owner sent it, so it comes with every change of where that is.
fn needs_secret(fields: &mut Fields, wanted: &contract::Integration) -> bool {
    fields.require("integration.client_secret", &wanted.client_secret);
    true
}
