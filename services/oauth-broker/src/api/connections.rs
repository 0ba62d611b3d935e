//! `ConnectionService`.

use std::pin::Pin;

use common::identity::Caller;
use common::lifecycle::Shutdown;
use common::pg::outbox;
use common::validate::{Fields, page_size};
use common::{Problem, TenantKey};
use contracts::broker::v1::connection_service_server::ConnectionService;
use contracts::broker::v1::{
    self as contract, AddRoutingKeysRequest, AddRoutingKeysResponse,
    BatchGetRequestContextsRequest, BatchGetRequestContextsResponse, ConnectionState,
    DisconnectAccountRequest, DisconnectAccountResponse, DisconnectRequest, DisconnectResponse,
    FindConnectionsByRoutingKeyRequest, FindConnectionsByRoutingKeyResponse, GetConnectionRequest,
    GetConnectionResponse, GetConnectionStatusRequest, GetConnectionStatusResponse,
    GetRequestContextRequest, GetRequestContextResponse, ListAccountsRequest, ListAccountsResponse,
    ListConnectionsRequest, ListConnectionsResponse, RefreshAccountsRequest,
    RefreshAccountsResponse, SelectAccountRequest, SelectAccountResponse, TestConnectionRequest,
    TestConnectionResponse, UpdateConnectionRequest, UpdateConnectionResponse,
    WatchConnectionEventsRequest, WatchConnectionEventsResponse,
};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::connect::entries;
use super::encode;
use crate::broker::SharedBroker;
use crate::connection::{Account, Connection};
use crate::page_token::{self, Query};
use crate::routing_key::RoutingKey;
use crate::store::accounts::{account_active, account_list_now};
use crate::store::connections::{Filter, connection_list};
use crate::store::routing_keys::routing_key_list;

const MOST_KEYS: usize = 100;
const MOST_IN_A_BATCH: usize = 100;

/// Answers by the shared parts.
#[derive(Debug)]
pub(crate) struct Connections {
    broker: SharedBroker,
    shutdown: Shutdown,
}

/// A request about one connection, once it is known to be well-formed.
struct Named {
    caller: Caller,
    tenant: TenantKey,
    connection_id: Uuid,
}

impl Connections {
    pub(crate) fn new(broker: SharedBroker, shutdown: Shutdown) -> Self {
        Self { broker, shutdown }
    }

    async fn encoded_all(
        &self,
        connections: &[Connection],
    ) -> Result<Vec<contract::Connection>, Problem> {
        let mut by_tenant: std::collections::BTreeMap<TenantKey, Vec<Uuid>> =
            std::collections::BTreeMap::new();
        for connection in connections {
            by_tenant
                .entry(connection.tenant)
                .or_default()
                .push(connection.connection_id);
        }
        let mut active: std::collections::HashMap<Uuid, Account> = std::collections::HashMap::new();
        for (tenant, ids) in by_tenant {
            active.extend(account_active(&self.broker.db, tenant, &ids).await?);
        }
        Ok(connections
            .iter()
            .map(|of| encode::connection(of, active.get(&of.connection_id), &[]))
            .collect())
    }
}

fn named(
    caller: Caller,
    mut fields: Fields,
    tenant_id: &str,
    connection_id: &str,
) -> Result<Named, Problem> {
    let tenant = fields.absorb(caller.tenant(tenant_id))?;
    let connection_id = fields.id("connection_id", connection_id);
    fields.finish()?;
    match (tenant, connection_id) {
        (Some(tenant), Some(connection_id)) => Ok(Named {
            caller,
            tenant,
            connection_id,
        }),
        _ => Err(Problem::not_found("connection")),
    }
}

fn purpose(fields: &mut Fields, purpose: &str) {
    fields.at_most("purpose", purpose, 255);
}

fn routing_keys(fields: &mut Fields, given: &[contract::RoutingKey]) -> Vec<RoutingKey> {
    fields.check(
        !given.is_empty() && given.len() <= MOST_KEYS,
        "routing_keys",
        format_args!("must be between 1 and {MOST_KEYS}"),
    );
    for (index, key) in given.iter().enumerate() {
        let name_fits = !key.name.is_empty()
            && key.name.len() <= 63
            && key
                .name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        fields.check(
            name_fits,
            format!("routing_keys[{index}].name"),
            "must have 1 to 63 letters, digits, dots, hyphens and underscores",
        );
        fields.check(
            !key.value.trim().is_empty() && key.value.len() <= 1024,
            format!("routing_keys[{index}].value"),
            "must have 1 to 1024 bytes",
        );
    }
    given
        .iter()
        .map(|key| RoutingKey::new(&key.name, &key.value))
        .collect()
}

type EventStream =
    Pin<Box<dyn Stream<Item = Result<WatchConnectionEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ConnectionService for Connections {
    type WatchConnectionEventsStream = EventStream;

    async fn get_connection(
        &self,
        request: Request<GetConnectionRequest>,
    ) -> Result<Response<GetConnectionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let named = named(
            caller,
            Fields::new(),
            &request.tenant_id,
            &request.connection_id,
        )?;
        let found = self
            .broker
            .connection_of(&named.caller, named.tenant, named.connection_id)
            .await;
        let found = found.map_err(Problem::from)?;
        let keys = routing_key_list(&self.broker.db, named.tenant, named.connection_id)
            .await
            .map_err(Problem::from)?;
        let active = account_active(&self.broker.db, named.tenant, &[named.connection_id]).await;
        let active = active.map_err(Problem::from)?;
        let connection =
            encode::connection(&found, active.first().map(|(_, account)| account), &keys);
        Ok(Response::new(GetConnectionResponse {
            connection: Some(connection),
        }))
    }

    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant_or_all(&request.tenant_id))?;
        let size = page_size(&mut fields, request.page_size);
        let state = ConnectionState::try_from(request.state);
        fields.check(
            state.is_ok(),
            "state",
            "must be one of the contract's values",
        );
        let labels = entries(&mut fields, "labels", &request.labels);
        let user_id = caller.own_user().unwrap_or(&request.user_id).to_owned();
        let state = state.unwrap_or_default();
        let narrowed = serde_json::to_string(&(
            &request.tenant_id,
            &user_id,
            &request.integration_id,
            &request.provider,
            request.state,
            &request.external_user_id,
            &request.external_account_id,
            &labels,
        ));
        let query = Query::new("ListConnections", &[&narrowed.unwrap_or_default()]);
        let after = query.id(&mut fields, &request.page_token);
        fields.finish()?;
        caller.user(&user_id)?;
        if caller
            .own_user()
            .is_some_and(|own| !request.user_id.is_empty() && own != request.user_id)
        {
            return Err(Problem::not_found("user").into());
        }
        let filter = Filter {
            user_id,
            integration_id: request.integration_id,
            provider: request.provider,
            state,
            external_user_id: request.external_user_id,
            external_account_id: request.external_account_id,
            labels,
            after,
        };
        let found = connection_list(&self.broker.db, tenant.flatten(), &filter, size + 1).await;
        let mut found = found.map_err(Problem::from)?;
        let next_page_token = page_token::cut(&mut found, size, &query, |last| {
            last.connection_id.to_string()
        });
        let connections = self.encoded_all(&found).await?;
        Ok(Response::new(ListConnectionsResponse {
            connections,
            next_page_token,
        }))
    }

    async fn get_connection_status(
        &self,
        request: Request<GetConnectionStatusRequest>,
    ) -> Result<Response<GetConnectionStatusResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let user_id = if request.user_id.is_empty() {
            caller.user_id()
        } else {
            &request.user_id
        };
        fields.require("user_id", user_id);
        fields.require("integration_id", &request.integration_id);
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        caller.user(user_id)?;
        let status = self
            .broker
            .status(tenant, user_id, &request.integration_id)
            .await;
        Ok(Response::new(status.map_err(Problem::from)?))
    }

    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let named = named(
            caller,
            Fields::new(),
            &request.tenant_id,
            &request.connection_id,
        )?;
        let action = if request.delete_documents {
            "ConnectionService/Disconnect and delete documents"
        } else {
            "ConnectionService/Disconnect"
        };
        let revoked = self
            .broker
            .disconnect(&named.caller, named.tenant, named.connection_id, action)
            .await;
        Ok(Response::new(DisconnectResponse {
            revoked_at_provider: revoked.map_err(Problem::from)?,
        }))
    }

    async fn update_connection(
        &self,
        _: Request<UpdateConnectionRequest>,
    ) -> Result<Response<UpdateConnectionResponse>, Status> {
        Err(common::rpc::unimplemented(
            "ConnectionService/UpdateConnection",
        ))
    }

    async fn test_connection(
        &self,
        request: Request<TestConnectionRequest>,
    ) -> Result<Response<TestConnectionResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let named = named(
            caller,
            Fields::new(),
            &request.tenant_id,
            &request.connection_id,
        )?;
        let tested = self
            .broker
            .test_connection(&named.caller, named.tenant, named.connection_id)
            .await;
        Ok(Response::new(tested.map_err(Problem::from)?))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let size = page_size(&mut fields, request.page_size);
        let query = Query::new(
            "ListAccounts",
            &[&request.tenant_id, &request.connection_id],
        );
        let after = query.key(&mut fields, &request.page_token);
        let named = named(caller, fields, &request.tenant_id, &request.connection_id)?;
        let found = self
            .broker
            .connection_of(&named.caller, named.tenant, named.connection_id)
            .await;
        found
            .and_then(|found| found.check_there())
            .map_err(Problem::from)?;
        let accounts = account_list_now(&self.broker.db, named.tenant, named.connection_id).await;
        let accounts = accounts.map_err(Problem::from)?;
        let begin = after.map_or(0, |after| {
            let place = accounts
                .iter()
                .position(|account| account.external_account_id == after);
            place.map_or(accounts.len(), |place| place + 1)
        });
        let taken = usize::try_from(size + 1).unwrap_or(usize::MAX);
        let mut page: Vec<_> = accounts.into_iter().skip(begin).take(taken).collect();
        let next_page_token = page_token::cut(&mut page, size, &query, |last| {
            last.external_account_id.clone()
        });
        let accounts = page.iter().map(encode::account).collect();
        Ok(Response::new(ListAccountsResponse {
            accounts,
            next_page_token,
        }))
    }

    async fn refresh_accounts(
        &self,
        request: Request<RefreshAccountsRequest>,
    ) -> Result<Response<RefreshAccountsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let named = named(
            caller,
            Fields::new(),
            &request.tenant_id,
            &request.connection_id,
        )?;
        let accounts = self
            .broker
            .refresh_accounts(&named.caller, named.tenant, named.connection_id)
            .await;
        let accounts = accounts
            .map_err(Problem::from)?
            .iter()
            .map(encode::account)
            .collect();
        Ok(Response::new(RefreshAccountsResponse { accounts }))
    }

    async fn select_account(
        &self,
        request: Request<SelectAccountRequest>,
    ) -> Result<Response<SelectAccountResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.require("external_account_id", &request.external_account_id);
        let named = named(caller, fields, &request.tenant_id, &request.connection_id)?;
        let account_id = request.external_account_id;
        let selected = self
            .broker
            .select_account(&named.caller, named.tenant, named.connection_id, account_id)
            .await;
        let (connection, account) = selected.map_err(Problem::from)?;
        let connection = Some(encode::connection(&connection, Some(&account), &[]));
        Ok(Response::new(SelectAccountResponse { connection }))
    }

    async fn disconnect_account(
        &self,
        request: Request<DisconnectAccountRequest>,
    ) -> Result<Response<DisconnectAccountResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.require("external_account_id", &request.external_account_id);
        let named = named(caller, fields, &request.tenant_id, &request.connection_id)?;
        let account_id = request.external_account_id;
        let changed = self
            .broker
            .disconnect_account(&named.caller, named.tenant, named.connection_id, account_id)
            .await;
        let (connection, active) = changed.map_err(Problem::from)?;
        let connection = Some(encode::connection(&connection, active.as_ref(), &[]));
        Ok(Response::new(DisconnectAccountResponse { connection }))
    }

    async fn get_request_context(
        &self,
        request: Request<GetRequestContextRequest>,
    ) -> Result<Response<GetRequestContextResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        purpose(&mut fields, &request.purpose);
        fields.check(
            request.refused_credential_version >= 0,
            "refused_credential_version",
            "must be the credential_version that the provider refused",
        );
        let min_validity = request.min_validity.as_ref();
        fields.check(
            min_validity.is_none_or(|span| span.seconds >= 0),
            "min_validity",
            "must not be negative",
        );
        let named = named(caller, fields, &request.tenant_id, &request.connection_id)?;
        let context = self
            .broker
            .request_context(&named.caller, named.tenant, named.connection_id, request)
            .await;
        Ok(Response::new(context.map_err(Problem::from)?))
    }

    async fn batch_get_request_contexts(
        &self,
        request: Request<BatchGetRequestContextsRequest>,
    ) -> Result<Response<BatchGetRequestContextsResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        purpose(&mut fields, &request.purpose);
        fields.check(
            request.connection_ids.len() <= MOST_IN_A_BATCH,
            "connection_ids",
            format_args!("must be at most {MOST_IN_A_BATCH}"),
        );
        let ids = request.connection_ids.iter().enumerate();
        let ids: Vec<_> = ids
            .filter_map(|(index, id)| fields.id(&format!("connection_ids[{index}]"), id))
            .collect();
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let contexts = self
            .broker
            .request_contexts(&caller, tenant, &ids, &request)
            .await;
        Ok(Response::new(contexts.map_err(Problem::from)?))
    }

    async fn find_connections_by_routing_key(
        &self,
        request: Request<FindConnectionsByRoutingKeyRequest>,
    ) -> Result<Response<FindConnectionsByRoutingKeyResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant_or_all(&request.tenant_id))?;
        let owner = fields.tenant("integration_tenant_id", &request.integration_tenant_id);
        fields.require("integration_id", &request.integration_id);
        let keys = routing_keys(&mut fields, &request.routing_keys);
        let size = page_size(&mut fields, request.page_size);
        let named: Vec<_> = keys.iter().map(|key| (&key.name, &key.value)).collect();
        let narrowed = serde_json::to_string(&(
            &request.tenant_id,
            &request.integration_tenant_id,
            &request.integration_id,
            named,
        ));
        let query = Query::new(
            "FindConnectionsByRoutingKey",
            &[&narrowed.unwrap_or_default()],
        );
        let after = query.id(&mut fields, &request.page_token);
        fields.finish()?;
        let owner = owner.ok_or_else(|| Problem::not_found("integration"))?;
        let integration = (owner, request.integration_id.as_str());
        let found = self
            .broker
            .find_by_routing_key(integration, tenant.flatten(), &keys, after, size)
            .await;
        let (found, next) = found.map_err(Problem::from)?;
        let own = caller.own_user();
        let visible = found
            .iter()
            .filter(|(connection, _)| own.is_none_or(|user| user == connection.user_id));
        let connections = visible
            .map(|(connection, active)| encode::connection(connection, active.as_ref(), &[]))
            .collect();
        let next_page_token = next
            .map(|next| query.token(&next.to_string()))
            .unwrap_or_default();
        Ok(Response::new(FindConnectionsByRoutingKeyResponse {
            connections,
            next_page_token,
        }))
    }

    async fn add_routing_keys(
        &self,
        request: Request<AddRoutingKeysRequest>,
    ) -> Result<Response<AddRoutingKeysResponse>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let keys = routing_keys(&mut fields, &request.routing_keys);
        let named = named(caller, fields, &request.tenant_id, &request.connection_id)?;
        let added = self
            .broker
            .add_routing_keys(&named.caller, named.tenant, named.connection_id, keys)
            .await;
        added.map_err(Problem::from)?;
        Ok(Response::new(AddRoutingKeysResponse {}))
    }

    async fn watch_connection_events(
        &self,
        request: Request<WatchConnectionEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let caller = common::rpc::caller(&request)?;
        let request = request.into_inner();
        let tenant = caller.tenant_or_all(&request.tenant_id)?;
        let events = outbox::watch(
            &self.broker.db,
            &request.after_cursor,
            request.from_head,
            tenant,
        )
        .await;
        let events = events.map_err(Problem::from)?;
        let broker = self.broker.clone();
        let stream = events.then(move |item| {
            let broker = broker.clone();
            async move {
                let watched = item.map_err(Problem::from)?;
                let Some(logged) = watched.event else {
                    return Ok(WatchConnectionEventsResponse {
                        cursor: watched.cursor,
                        ..Default::default()
                    });
                };
                let mut event = WatchConnectionEventsResponse::decode(logged.payload.as_slice())
                    .map_err(|error| Problem::internal(&error))?;
                event.cursor = watched.cursor;
                // A host application knows its tenants by its own ids; without the directory the event goes all the same.
                if let Ok(Some(known)) = broker.directory.tenant(logged.tenant).await {
                    event.tenant_external_id = known.external_id;
                }
                Ok(event)
            }
        });
        let shutdown = self.shutdown.clone();
        let stream = stream.take_until(async move { shutdown.requested().await });
        Ok(Response::new(Box::pin(stream)))
    }
}
