//! What the ingest asks of others: connections and integrations of the broker, syncs of the scheduler, quotas and users
//! of the directory.

use common::rpc::{CallError, Channel};
use common::{Code, TenantKey};
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::broker::v1::{
    Connection, ConnectionState, FindConnectionsByRoutingKeyRequest, GetIntegrationRequest,
    ListConnectionsRequest, RoutingKey,
};
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::{GetTenantRequest, GetUserRequest};
use contracts::scheduler::v1::TriggerSyncRequest;
use contracts::scheduler::v1::sync_service_client::SyncServiceClient;
use uuid::Uuid;

use crate::error::Error;
use crate::source::Integration;

const PAGE: i32 = 1000;

/// Channels to the services that the ingest calls.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) broker: Channel,
    pub(crate) scheduler: Channel,
    pub(crate) directory: Channel,
}

/// A connection that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Routed {
    pub(crate) tenant: TenantKey,
    pub(crate) connection_id: Uuid,
    /// What events may name it by.
    pub(crate) routing_keys: Vec<(String, String)>,
}

impl Clients {
    /// The integration that a tenant means by this id: its own, else the platform's.
    pub(crate) async fn integration(
        &self,
        tenant: TenantKey,
        integration_id: &str,
    ) -> Result<Option<Integration>, Error> {
        let mut client = IntegrationServiceClient::new(self.broker.clone());
        let request = GetIntegrationRequest {
            tenant_id: tenant.to_string(),
            integration_id: integration_id.to_owned(),
        };
        match client
            .get_integration(request)
            .await
            .map_err(CallError::from)
        {
            Ok(answer) => Ok(answer.into_inner().integration.and_then(|integration| {
                Some(Integration {
                    tenant: TenantKey::parse(&integration.tenant_id).ok()?,
                    integration_id: integration.integration_id,
                })
            })),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(Error::Broker(error)),
        }
    }

    /// The connections of an integration that have one of these keys, within `tenant` where one is given.
    pub(crate) async fn connections_by_key(
        &self,
        integration: &Integration,
        tenant: Option<TenantKey>,
        routing_keys: &[(String, String)],
    ) -> Result<Vec<Routed>, Error> {
        let routing_keys = routing_keys.iter().map(|(name, value)| RoutingKey {
            name: name.clone(),
            value: value.clone(),
        });
        let mut request = FindConnectionsByRoutingKeyRequest {
            integration_tenant_id: integration.tenant.to_string(),
            integration_id: integration.integration_id.clone(),
            tenant_id: tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
            routing_keys: routing_keys.collect(),
            page_size: PAGE,
            page_token: String::new(),
        };
        let mut found = Vec::new();
        loop {
            let mut client = ConnectionServiceClient::new(self.broker.clone());
            let answer = client
                .find_connections_by_routing_key(request.clone())
                .await
                .map_err(|status| Error::Broker(CallError::from(status)))?
                .into_inner();
            found.extend(usable(answer.connections, tenant));
            if answer.next_page_token.is_empty() {
                return Ok(found);
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// All connections of an integration that the tenant has.
    pub(crate) async fn connections_of(
        &self,
        integration: &Integration,
        tenant: TenantKey,
    ) -> Result<Vec<Routed>, Error> {
        let mut request = ListConnectionsRequest {
            tenant_id: tenant.to_string(),
            integration_id: integration.integration_id.clone(),
            page_size: PAGE,
            ..ListConnectionsRequest::default()
        };
        let mut found = Vec::new();
        loop {
            let mut client = ConnectionServiceClient::new(self.broker.clone());
            let mut answer = client
                .list_connections(request.clone())
                .await
                .map_err(|status| Error::Broker(CallError::from(status)))?
                .into_inner();
            // The tenant's own integration and the platform's may be called the same.
            let owner = integration.tenant.to_string();
            answer
                .connections
                .retain(|connection| connection.integration_tenant_id == owner);
            found.extend(usable(answer.connections, Some(tenant)));
            if answer.next_page_token.is_empty() {
                return Ok(found);
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// Makes the jobs, and gives their ids.
    pub(crate) async fn trigger_sync(
        &self,
        request: TriggerSyncRequest,
    ) -> Result<Vec<String>, CallError> {
        let mut client = SyncServiceClient::new(self.scheduler.clone());
        let answer = client.trigger_sync(request).await?.into_inner();
        Ok(answer.jobs.into_iter().map(|job| job.job_id).collect())
    }

    /// How many documents a user of the tenant may bring in a day; `None` for no limit.
    pub(crate) async fn documents_a_day(&self, tenant: TenantKey) -> Result<Option<i64>, Error> {
        let mut client = DirectoryServiceClient::new(self.directory.clone());
        let request = GetTenantRequest {
            tenant_id: tenant.to_string(),
        };
        let answer = client
            .get_tenant(request)
            .await
            .map_err(CallError::from)
            .map_err(|error| match error.code {
                Code::NotFound => Error::NotFound("tenant"),
                _ => Error::Directory(error),
            })?;
        let quotas = answer.into_inner().tenant.and_then(|tenant| tenant.quotas);
        let quota = quotas.map_or(0, |quotas| quotas.documents_per_user_per_day);
        Ok((quota > 0).then_some(quota))
    }

    /// The e-mail address of a user, where the directory knows one.
    pub(crate) async fn email(&self, tenant: TenantKey, user_id: &str) -> Result<String, Error> {
        let mut client = DirectoryServiceClient::new(self.directory.clone());
        let request = GetUserRequest {
            tenant_id: tenant.to_string(),
            user_id: user_id.to_owned(),
        };
        match client.get_user(request).await.map_err(CallError::from) {
            Ok(answer) => Ok(answer.into_inner().user.unwrap_or_default().email),
            Err(error) if error.code == Code::NotFound => Ok(String::new()),
            Err(error) => Err(Error::Directory(error)),
        }
    }
}

/// Those that can be synced. What is another tenant's although one was asked for is left out, and said: it would be the
/// broker's mistake, and must not become ours.
fn usable(connections: Vec<Connection>, only: Option<TenantKey>) -> impl Iterator<Item = Routed> {
    connections.into_iter().filter_map(move |connection| {
        let tenant = TenantKey::parse(&connection.tenant_id).ok()?;
        let connection_id = connection.connection_id.parse().ok()?;
        if only.is_some_and(|only| only != tenant) {
            tracing::error!(
                event = "foreign_connection_ignored",
                tenant.id = %tenant,
                connection_id = %connection_id,
                "the broker named another tenant's connection, which is left alone"
            );
            return None;
        }
        let gone = matches!(
            connection.state(),
            ConnectionState::Disconnected | ConnectionState::Unclaimed
        );
        (!gone).then(|| Routed {
            tenant,
            connection_id,
            routing_keys: connection
                .routing_keys
                .into_iter()
                .map(|key| (key.name, key.value))
                .collect(),
        })
    })
}
