//! `ConnectService`.

use std::collections::{BTreeMap, BTreeSet};

use common::pg::Scope;
use common::validate::Fields;
use common::{Problem, TenantKey};
use contracts::broker::v1::connect_service_server::ConnectService;
use contracts::broker::v1::{
    CompleteConnectSessionRequest, CompleteConnectSessionResponse, ConnectSessionState,
    CreateConnectSessionRequest, CreateConnectSessionResponse, CreateMigrationSourceRequest,
    CreateMigrationSourceResponse, DeleteMigrationSourceRequest, DeleteMigrationSourceResponse,
    GetConnectSessionRequest, GetConnectSessionResponse, ImportConnectionRequest,
    ImportConnectionResponse, ListMigrationSourcesRequest, ListMigrationSourcesResponse,
    MigrateConnectionRequest, MigrateConnectionResponse,
};
use time::Duration;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::encode;
use crate::broker::SharedBroker;
use crate::session::{DEFAULT_TTL, LONGEST_TTL, Session};
use crate::store::sessions::session_get;

/// Of labels, parameters, and the like.
pub(crate) const MOST_ENTRIES: usize = 16;
const MOST_INTEGRATIONS: usize = 20;

/// Answers by the shared parts.
#[derive(Debug)]
pub(crate) struct Connect {
    broker: SharedBroker,
}

impl Connect {
    pub(crate) fn new(broker: SharedBroker) -> Self {
        Self { broker }
    }

    /// A session that the caller may see.
    async fn session(
        &self,
        caller: &common::identity::Caller,
        tenant: TenantKey,
        id: Uuid,
    ) -> Result<Session, Problem> {
        let found = session_get(&self.broker.db, Scope::Tenant(tenant), id).await?;
        let found =
            found.filter(|found| caller.own_user().is_none_or(|user| user == found.user_id));
        found.ok_or_else(|| Problem::not_found("session"))
    }
}

#[tonic::async_trait]
impl ConnectService for Connect {
    async fn create_connect_session(
        &self,
        request: Request<CreateConnectSessionRequest>,
    ) -> Result<Response<CreateConnectSessionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let user_id = if request.user_id.is_empty() {
            caller.user_id()
        } else {
            &request.user_id
        };
        if fields.require("user_id", user_id) {
            fields.at_most("user_id", user_id, 255);
        }
        fields.at_most("user_email", &request.user_email, 320);
        fields.at_most("request_id", &request.request_id, 128);
        fields.at_most("return_url", &request.return_url, 2048);
        fields.at_most("opener_origin", &request.opener_origin, 255);
        fields.at_most("locale", &request.locale, 35);
        let integrations = wanted_integrations(&mut fields, &request);
        let reconnect = match request.reconnect_connection_id.as_str() {
            "" => None,
            text => fields.id("reconnect_connection_id", text),
        };
        let ttl = ttl(&mut fields, request.ttl.as_ref());
        let parameters = entries(
            &mut fields,
            "connection_parameters",
            &request.connection_parameters,
        );
        let authorization_params = entries(
            &mut fields,
            "authorization_params",
            &request.authorization_params,
        );
        let labels = entries(&mut fields, "labels", &request.labels);
        let is_scope =
            |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
        fields.check(
            request.scopes.len() <= 100 && request.scopes.iter().all(is_scope),
            "scopes",
            "must be at most 100 words of visible ASCII",
        );
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        caller.user(user_id)?;
        let now = self.broker.deps.now();
        let session = Session {
            tenant,
            session_id: tenant.new_id(&self.broker.deps),
            token_hash: Vec::new(),
            browser_hash: None,
            state: ConnectSessionState::Pending,
            user_id: user_id.to_owned(),
            user_email: request.user_email.clone(),
            integration: None,
            allowed_integration_ids: integrations,
            return_url: request.return_url.clone(),
            opener_origin: request.opener_origin.clone(),
            locale: request.locale.clone(),
            connection_parameters: parameters,
            labels,
            scopes: request.scopes.clone(),
            authorization_params,
            reconnect_connection_id: reconnect,
            require_confirmation: request.require_confirmation,
            confirmation_hash: None,
            authorized: None,
            connection_id: None,
            external_user_id: String::new(),
            external_account_id: String::new(),
            error: String::new(),
            error_reason: String::new(),
            created_at: now,
            expires_at: now + ttl,
            finished_at: None,
        };
        let answer = self
            .broker
            .create_session(&caller, session, request)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(answer))
    }

    async fn get_connect_session(
        &self,
        request: Request<GetConnectSessionRequest>,
    ) -> Result<Response<GetConnectSessionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let id = fields.id("session_id", &request.session_id);
        fields.finish()?;
        let (Some(tenant), Some(id)) = (tenant, id) else {
            return Err(Problem::not_found("session").into());
        };
        let found = self.session(&caller, tenant, id).await?;
        let session = Some(encode::session(&found, self.broker.deps.now()));
        Ok(Response::new(GetConnectSessionResponse { session }))
    }

    async fn complete_connect_session(
        &self,
        request: Request<CompleteConnectSessionRequest>,
    ) -> Result<Response<CompleteConnectSessionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let id = fields.id("session_id", &request.session_id);
        fields.require("user_id", &request.user_id);
        fields.require("confirmation_code", &request.confirmation_code);
        fields.finish()?;
        let (Some(tenant), Some(id)) = (tenant, id) else {
            return Err(Problem::not_found("session").into());
        };
        let found = self.session(&caller, tenant, id).await?;
        let saved = self
            .broker
            .complete_session(
                &caller,
                &found,
                &request.user_id,
                &request.confirmation_code,
            )
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(CompleteConnectSessionResponse {
            connection: Some(saved),
        }))
    }

    async fn import_connection(
        &self,
        request: Request<ImportConnectionRequest>,
    ) -> Result<Response<ImportConnectionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        fields.require("integration_id", &request.integration_id);
        fields.at_most("request_id", &request.request_id, 128);
        fields.at_most("user_id", &request.user_id, 255);
        fields.at_most("user_email", &request.user_email, 320);
        fields.check(
            request.credential.is_some(),
            "credential",
            "is required: tokens, api_key, password, or client_credentials",
        );
        entries(
            &mut fields,
            "connection_parameters",
            &request.connection_parameters,
        );
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        caller.user(&request.user_id)?;
        let imported = self.broker.import_connection(&caller, tenant, request);
        let answer = Box::pin(imported).await.map_err(Problem::from)?;
        Ok(Response::new(answer))
    }

    async fn create_migration_source(
        &self,
        _: Request<CreateMigrationSourceRequest>,
    ) -> Result<Response<CreateMigrationSourceResponse>, Status> {
        Err(common::rpc::unimplemented(
            "ConnectService/CreateMigrationSource",
        ))
    }

    async fn list_migration_sources(
        &self,
        _: Request<ListMigrationSourcesRequest>,
    ) -> Result<Response<ListMigrationSourcesResponse>, Status> {
        Err(common::rpc::unimplemented(
            "ConnectService/ListMigrationSources",
        ))
    }

    async fn delete_migration_source(
        &self,
        _: Request<DeleteMigrationSourceRequest>,
    ) -> Result<Response<DeleteMigrationSourceResponse>, Status> {
        Err(common::rpc::unimplemented(
            "ConnectService/DeleteMigrationSource",
        ))
    }

    async fn migrate_connection(
        &self,
        _: Request<MigrateConnectionRequest>,
    ) -> Result<Response<MigrateConnectionResponse>, Status> {
        Err(common::rpc::unimplemented(
            "ConnectService/MigrateConnection",
        ))
    }
}

fn wanted_integrations(fields: &mut Fields, request: &CreateConnectSessionRequest) -> Vec<String> {
    let several = &request.allowed_integration_ids;
    fields.check(
        request.integration_id.is_empty() != several.is_empty(),
        "integration_id",
        "name either this or allowed_integration_ids",
    );
    let distinct: BTreeSet<_> = several.iter().collect();
    fields.check(
        several.len() <= MOST_INTEGRATIONS && distinct.len() == several.len(),
        "allowed_integration_ids",
        format_args!("must be at most {MOST_INTEGRATIONS}, each of them once"),
    );
    let one = (!request.integration_id.is_empty()).then(|| request.integration_id.clone());
    one.map_or_else(|| several.clone(), |one| vec![one])
}

fn ttl(fields: &mut Fields, ttl: Option<&prost_types::Duration>) -> Duration {
    let Some(ttl) = ttl.filter(|ttl| ttl.seconds != 0 || ttl.nanos != 0) else {
        return DEFAULT_TTL;
    };
    let ttl = Duration::new(ttl.seconds, ttl.nanos);
    let holds = ttl.is_positive() && ttl <= LONGEST_TTL;
    fields.check(
        holds,
        "ttl",
        "must be longer than nothing, and at most an hour",
    );
    if holds { ttl } else { DEFAULT_TTL }
}

/// A map of texts of bounded size.
pub(crate) fn entries(
    fields: &mut Fields,
    field: &str,
    given: &std::collections::HashMap<String, String>,
) -> BTreeMap<String, String> {
    let fits = |(name, value): (&String, &String)| {
        !name.is_empty() && name.len() <= 63 && value.len() <= 255
    };
    fields.check(
        given.len() <= MOST_ENTRIES && given.iter().all(fits),
        field,
        format_args!("must be at most {MOST_ENTRIES} entries, with names of 1 to 63 and values of up to 255 bytes"),
    );
    given
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
