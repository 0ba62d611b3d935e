//! What the scheduler asks of others: connections and streams of the broker, quotas of the directory.

use std::time::Duration;

use common::rpc::{CallError, Channel};
use common::{Code, TenantKey};
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::broker::v1::{
    Account, Connection, ConnectionState, GetConnectionRequest, GetProviderRequest,
    ListAccountsRequest, Provider, StreamInfo,
};
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::{GetTenantConfigRequest, GetTenantRequest, Tenant, TenantState};
use uuid::Uuid;

use crate::error::Error;

/// Channels to the services that the scheduler calls.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    broker: Channel,
    directory: Channel,
}

/// Days that an initial sync reaches back at most where the tenant's quota says nothing.
const DEFAULT_BACKFILL_DAYS: i32 = 365;
/// How often a stream runs where its connector says nothing.
const DEFAULT_CADENCE: Duration = Duration::from_hours(1);

impl Clients {
    /// Calls these.
    pub(crate) fn new(broker: Channel, directory: Channel) -> Self {
        Self { broker, directory }
    }

    /// The connection.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the tenant has no such connection.
    pub(crate) async fn connection(
        &self,
        tenant: TenantKey,
        connection_id: Uuid,
    ) -> Result<Connection, Error> {
        let mut client = ConnectionServiceClient::new(self.broker.clone());
        let request = GetConnectionRequest {
            tenant_id: tenant.to_string(),
            connection_id: connection_id.to_string(),
        };
        let answer = client
            .get_connection(request)
            .await
            .map_err(CallError::from)
            .map_err(|error| {
                if error.code == Code::NotFound {
                    Error::NotFound("connection")
                } else {
                    Error::Broker(error)
                }
            })?;
        answer
            .into_inner()
            .connection
            .ok_or(Error::NotFound("connection"))
    }

    /// The connection's accounts.
    ///
    /// # Errors
    /// [`Error::Broker`].
    pub(crate) async fn accounts(
        &self,
        tenant: TenantKey,
        connection_id: &str,
    ) -> Result<Vec<Account>, Error> {
        let mut client = ConnectionServiceClient::new(self.broker.clone());
        let mut request = ListAccountsRequest {
            tenant_id: tenant.to_string(),
            connection_id: connection_id.to_owned(),
            page_size: 1000,
            page_token: String::new(),
        };
        let mut accounts = Vec::new();
        loop {
            let answer = client
                .list_accounts(request.clone())
                .await
                .map_err(CallError::from)
                .map_err(Error::Broker)?;
            let page = answer.into_inner();
            accounts.extend(page.accounts);
            if page.next_page_token.is_empty() {
                return Ok(accounts);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The provider, with what can be synced from it; nothing where the catalogue does not know it.
    ///
    /// # Errors
    /// [`Error::Broker`].
    pub(crate) async fn provider(&self, provider: &str) -> Result<Provider, Error> {
        let mut client = IntegrationServiceClient::new(self.broker.clone());
        let request = GetProviderRequest {
            provider: provider.to_owned(),
        };
        let unknown = || Provider {
            provider: provider.to_owned(),
            ..Provider::default()
        };
        match client.get_provider(request).await.map_err(CallError::from) {
            Ok(answer) => Ok(answer.into_inner().provider.unwrap_or_else(unknown)),
            Err(error) if error.code == Code::NotFound => Ok(unknown()),
            Err(error) => Err(Error::Broker(error)),
        }
    }

    /// The tenant, which has to be active and paid for.
    ///
    /// # Errors
    /// [`Error::SubscriptionInactive`] where nothing new may be synced.
    pub(crate) async fn usable_tenant(&self, tenant: TenantKey) -> Result<Tenant, Error> {
        let found = self.tenant(tenant).await?;
        let usable = found
            .subscription
            .as_ref()
            .is_none_or(|subscription| subscription.usable);
        if found.state() == TenantState::Active && usable {
            Ok(found)
        } else {
            Err(Error::SubscriptionInactive)
        }
    }

    /// The tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none.
    pub(crate) async fn tenant(&self, tenant: TenantKey) -> Result<Tenant, Error> {
        let mut client = DirectoryServiceClient::new(self.directory.clone());
        let request = GetTenantRequest {
            tenant_id: tenant.to_string(),
        };
        let answer = client
            .get_tenant(request)
            .await
            .map_err(CallError::from)
            .map_err(|error| {
                if error.code == Code::NotFound {
                    Error::NotFound("tenant")
                } else {
                    Error::Directory(error)
                }
            })?;
        answer.into_inner().tenant.ok_or(Error::NotFound("tenant"))
    }

    /// The tenant's own field names at the provider, as JSON.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub(crate) async fn field_mappings(&self, tenant: TenantKey) -> Result<String, Error> {
        let mut client = DirectoryServiceClient::new(self.directory.clone());
        let request = GetTenantConfigRequest {
            tenant_id: tenant.to_string(),
        };
        let answer = client
            .get_tenant_config(request)
            .await
            .map_err(CallError::from)
            .map_err(Error::Directory)?;
        let mappings = answer
            .into_inner()
            .config
            .and_then(|config| config.field_mappings)
            .unwrap_or_default();
        Ok(crate::json::of_struct(&mappings).to_string())
    }
}

/// Days that an initial sync of the tenant reaches back at most.
pub(crate) fn most_backfill_days(tenant: &Tenant) -> i32 {
    let quota = tenant
        .quotas
        .as_ref()
        .map_or(0, |quotas| quotas.max_backfill_days);
    if quota == 0 {
        DEFAULT_BACKFILL_DAYS
    } else {
        quota
    }
}

/// How often the stream runs after its initial sync.
pub(crate) fn cadence(stream: &StreamInfo) -> Duration {
    let given = stream
        .default_cadence
        .and_then(|span| Duration::try_from(span).ok());
    given
        .filter(|span| !span.is_zero())
        .unwrap_or(DEFAULT_CADENCE)
}

/// The connection has to be one that works.
///
/// # Errors
/// [`Error::NotUsable`] with what to do.
pub(crate) fn check_usable(connection: &Connection) -> Result<(), Error> {
    let advice = match connection.state() {
        ConnectionState::Connected | ConnectionState::Degraded => return Ok(()),
        ConnectionState::ReauthorizationRequired => {
            "the provider wants the user to connect again; do that first"
        }
        ConnectionState::Disconnected => "the connection was disconnected; connect again first",
        ConnectionState::Unclaimed => {
            "the connection has no user yet; a user has to connect in its place first"
        }
        ConnectionState::Unspecified => {
            "the connection is in no known state; look at it in the broker"
        }
    };
    Err(Error::NotUsable {
        advice: advice.to_owned(),
    })
}
