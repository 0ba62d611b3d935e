//! A stand-in for the broker: the connections, accounts and providers that a test knows, and a log of what became of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use common::Problem;
use common::rpc::unimplemented;
use contracts::broker::v1::connection_service_server::ConnectionService;
use contracts::broker::v1::integration_service_server::IntegrationService;
use contracts::broker::v1::*;
use futures::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(crate) struct Broker {
    connections: Arc<Mutex<HashMap<String, Connection>>>,
    accounts: Arc<Mutex<HashMap<String, Vec<Account>>>>,
    providers: Arc<Mutex<HashMap<String, Provider>>>,
    log: Arc<watch::Sender<Vec<Connection>>>,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            connections: Arc::default(),
            accounts: Arc::default(),
            providers: Arc::default(),
            log: Arc::new(watch::Sender::new(Vec::new())),
        }
    }
}

impl Broker {
    /// Adds or replaces it, without an event.
    pub(crate) fn put(&self, connection: &Connection) {
        self.connections
            .lock()
            .unwrap()
            .insert(connection.connection_id.clone(), connection.clone());
    }

    /// Changes it, and tells of it.
    pub(crate) fn change(&self, connection_id: &str, change: impl FnOnce(&mut Connection)) {
        let mut connections = self.connections.lock().unwrap();
        let connection = connections.get_mut(connection_id).unwrap();
        change(connection);
        connection.revision += 1;
        self.log.send_modify(|log| log.push(connection.clone()));
    }

    pub(crate) fn set_state(&self, connection_id: &str, state: ConnectionState) {
        self.change(connection_id, |connection| connection.set_state(state));
    }

    pub(crate) fn put_provider(&self, provider: Provider) {
        self.providers
            .lock()
            .unwrap()
            .insert(provider.provider.clone(), provider);
    }

    pub(crate) fn put_accounts(&self, connection_id: &str, accounts: &[&str]) {
        let account = |id: &&str| Account {
            external_account_id: (*id).to_owned(),
            ..Account::default()
        };
        self.accounts.lock().unwrap().insert(
            connection_id.to_owned(),
            accounts.iter().map(account).collect(),
        );
    }

    fn watch(
        &self,
        after: usize,
    ) -> impl Stream<Item = Result<WatchConnectionEventsResponse, Status>> + use<> {
        futures::stream::unfold((after, self.log.subscribe()), async |(next, mut log)| {
            let found = log
                .wait_for(|log| log.len() > next)
                .await
                .ok()?
                .get(next)
                .cloned();
            let message = WatchConnectionEventsResponse {
                cursor: (next + 1).to_string(),
                connection: found,
                ..WatchConnectionEventsResponse::default()
            };
            Some((Ok(message), (next + 1, log)))
        })
    }
}

macro_rules! connection_service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl ConnectionService for Broker {
            type WatchConnectionEventsStream =
                Pin<Box<dyn Stream<Item = Result<WatchConnectionEventsResponse, Status>> + Send>>;

            async fn get_connection(&self, request: Request<GetConnectionRequest>) -> Result<Response<GetConnectionResponse>, Status> {
                let request = request.into_inner();
                let found = self.connections.lock().unwrap().get(&request.connection_id).cloned();
                let found = found.filter(|connection| connection.tenant_id == request.tenant_id);
                let connection = found.ok_or_else(|| Problem::not_found("connection"))?;
                Ok(Response::new(GetConnectionResponse { connection: Some(connection) }))
            }

            async fn list_connections(&self, _: Request<ListConnectionsRequest>) -> Result<Response<ListConnectionsResponse>, Status> {
                let connections = self.connections.lock().unwrap().values().cloned().collect();
                Ok(Response::new(ListConnectionsResponse { connections, next_page_token: String::new() }))
            }

            async fn list_accounts(&self, request: Request<ListAccountsRequest>) -> Result<Response<ListAccountsResponse>, Status> {
                let accounts = self.accounts.lock().unwrap().get(&request.into_inner().connection_id).cloned();
                Ok(Response::new(ListAccountsResponse { accounts: accounts.unwrap_or_default(), next_page_token: String::new() }))
            }

            async fn watch_connection_events(
                &self,
                request: Request<WatchConnectionEventsRequest>,
            ) -> Result<Response<Self::WatchConnectionEventsStream>, Status> {
                let after = request.into_inner().after_cursor;
                let after = if after.is_empty() { 0 } else { after.parse().unwrap() };
                Ok(Response::new(Box::pin(self.watch(after))))
            }

            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(unimplemented(stringify!($method)))
            })*
        }
    };
}

connection_service! {
    get_connection_status(GetConnectionStatusRequest) -> GetConnectionStatusResponse;
    disconnect(DisconnectRequest) -> DisconnectResponse;
    update_connection(UpdateConnectionRequest) -> UpdateConnectionResponse;
    test_connection(TestConnectionRequest) -> TestConnectionResponse;
    refresh_accounts(RefreshAccountsRequest) -> RefreshAccountsResponse;
    select_account(SelectAccountRequest) -> SelectAccountResponse;
    disconnect_account(DisconnectAccountRequest) -> DisconnectAccountResponse;
    get_request_context(GetRequestContextRequest) -> GetRequestContextResponse;
    batch_get_request_contexts(BatchGetRequestContextsRequest) -> BatchGetRequestContextsResponse;
    find_connections_by_routing_key(FindConnectionsByRoutingKeyRequest) -> FindConnectionsByRoutingKeyResponse;
    add_routing_keys(AddRoutingKeysRequest) -> AddRoutingKeysResponse;
}

macro_rules! integration_service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl IntegrationService for Broker {
            async fn get_provider(&self, request: Request<GetProviderRequest>) -> Result<Response<GetProviderResponse>, Status> {
                let found = self.providers.lock().unwrap().get(&request.into_inner().provider).cloned();
                let provider = found.ok_or_else(|| Problem::not_found("provider"))?;
                Ok(Response::new(GetProviderResponse { provider: Some(provider) }))
            }

            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(unimplemented(stringify!($method)))
            })*
        }
    };
}

integration_service! {
    list_providers(ListProvidersRequest) -> ListProvidersResponse;
    create_integration(CreateIntegrationRequest) -> CreateIntegrationResponse;
    get_integration(GetIntegrationRequest) -> GetIntegrationResponse;
    list_integrations(ListIntegrationsRequest) -> ListIntegrationsResponse;
    update_integration(UpdateIntegrationRequest) -> UpdateIntegrationResponse;
    delete_integration(DeleteIntegrationRequest) -> DeleteIntegrationResponse;
}
