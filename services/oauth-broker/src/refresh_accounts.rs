//! Asking the provider again which accounts there are.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, audit};
use contracts::broker::v1::ConnectionEventKind;
use provider_catalog::Person;
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::Account;
use crate::error::Error;
use crate::events;
use crate::provider_api::ProviderApi;
use crate::routing_key::{ACCOUNT, RoutingKey};
use crate::store::accounts::{account_activate, account_list, account_list_now, account_replace};
use crate::store::connections::{connection_lock, connection_touch};
use crate::store::routing_keys::routing_key_add;

const METHOD: &str = "ConnectionService/RefreshAccounts";

impl Broker {
    /// Keeps what the provider lists now. Where the active account is gone, the first of the others is active.
    pub(crate) async fn refresh_accounts(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
    ) -> Result<Vec<Account>, Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_usable()?;
        let integration = self
            .integration_of(found.integration_tenant, &found.integration_id)
            .await?;
        let resolved = integration.resolve()?;
        if resolved.provider().accounts.is_none() {
            return Ok(account_list_now(&self.db, tenant, connection_id).await?);
        }
        let credential = self
            .vault
            .credential(tenant, found.grant.grant_id, None, "list accounts")
            .await?;
        let api = ProviderApi {
            egress: &self.egress,
            resolved: &resolved,
            parameters: &found.parameters,
        };
        let listed = api.accounts(&Person::default(), &credential).await?;
        let actor = caller.actor().clone();
        let accounts = self
            .db
            .run_tx("accounts_refresh", Scope::Tenant(tenant), async move |tx| {
                let found = connection_lock(tx, tenant, connection_id)
                    .await?
                    .ok_or(Error::NotFound("connection"))?;
                found.check_there()?;
                account_replace(tx, &found, &listed).await?;
                for account in &listed {
                    routing_key_add(
                        tx,
                        &found,
                        &RoutingKey::new(ACCOUNT, &account.external_account_id),
                    )
                    .await?;
                }
                let mut accounts = account_list(tx, tenant, connection_id).await?;
                if !accounts.iter().any(|account| account.active) {
                    let usable =
                        |account: &&Account| account.usable && account.disconnected_at.is_none();
                    let next = accounts
                        .iter()
                        .find(usable)
                        .map(|account| account.external_account_id.clone());
                    account_activate(tx, &found, next.as_deref()).await?;
                    let changed = connection_touch(tx, &found).await?;
                    accounts = account_list(tx, tenant, connection_id).await?;
                    let active = accounts.iter().find(|account| account.active);
                    events::append(
                        tx,
                        ConnectionEventKind::AccountSelected,
                        &changed,
                        active,
                        None,
                    )
                    .await?;
                }
                let resource = format!("connections/{connection_id}");
                audit::append(tx, tenant, &actor, METHOD, &resource, "").await?;
                Ok::<_, Error>(accounts)
            })
            .await?;
        self.publish_now(tenant, connection_id).await;
        Ok(accounts)
    }
}
