//! Which of a grant's accounts a connection works with.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, audit};
use contracts::broker::v1::ConnectionEventKind;
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::{Account, Connection};
use crate::error::Error;
use crate::events;
use crate::store::accounts::{
    account_activate, account_disconnect, account_list, account_list_now,
};
use crate::store::connections::{connection_lock, connection_touch};
use crate::store::exclusive_accounts::{
    Claim, exclusive_confirm, exclusive_release, exclusive_reserve,
};

const SELECT: &str = "ConnectionService/SelectAccount";
const DISCONNECT: &str = "ConnectionService/DisconnectAccount";

impl Broker {
    /// Makes one account the active one and every other inactive.
    pub(crate) async fn select_account(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
        account_id: String,
    ) -> Result<(Connection, Account), Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_there()?;
        let integration = self
            .integration_of(found.integration_tenant, &found.integration_id)
            .await?;
        let accounts = account_list_now(&self.db, tenant, connection_id).await?;
        selectable(&accounts, &account_id)?;
        let before = self
            .exclusive_claim_of(&found)
            .await?
            .filter(|_| integration.exclusive_accounts);
        let claim = integration.exclusive_accounts.then(|| Claim {
            integration_tenant: found.integration_tenant,
            integration_id: found.integration_id.clone(),
            external_account_id: account_id.clone(),
            connection_id,
            tenant,
        });
        if let Some(claim) = &claim
            && !exclusive_reserve(&self.db, claim).await?
        {
            return Err(Error::AlreadyConnected);
        }
        let actor = caller.actor().clone();
        let selected = self
            .db
            .run_tx("account_select", Scope::Tenant(tenant), async move |tx| {
                let found = connection_lock(tx, tenant, connection_id)
                    .await?
                    .ok_or(Error::NotFound("connection"))?;
                found.check_there()?;
                selectable(&account_list(tx, tenant, connection_id).await?, &account_id)?;
                account_activate(tx, &found, Some(&account_id)).await?;
                let changed = connection_touch(tx, &found).await?;
                let accounts = account_list(tx, tenant, connection_id).await?;
                let active = accounts
                    .into_iter()
                    .find(|account| account.active)
                    .ok_or(Error::NotFound("account"))?;
                events::append(
                    tx,
                    ConnectionEventKind::AccountSelected,
                    &changed,
                    Some(&active),
                    None,
                )
                .await?;
                let resource = format!("connections/{connection_id}/accounts/{account_id}");
                audit::append(tx, tenant, &actor, SELECT, &resource, "").await?;
                Ok::<_, Error>((changed, active))
            })
            .await?;
        if let Some(claim) = claim {
            exclusive_confirm(&self.db, &claim).await?;
            if let Some(before) = before.filter(|before| *before != claim) {
                exclusive_release(&self.db, &before).await?;
            }
        }
        tracing::info!(
            event = "account_selected", tenant.id = %tenant, user.id = selected.0.user_id,
            connection.id = %connection_id, account.id = selected.1.external_account_id, "an account was selected"
        );
        Ok(selected)
    }

    /// Leaves one account alone from now on. Where it was the active one, the first of the others is.
    pub(crate) async fn disconnect_account(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
        account_id: String,
    ) -> Result<(Connection, Option<Account>), Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_there()?;
        let actor = caller.actor().clone();
        let changed = self
            .db
            .run_tx(
                "account_disconnect",
                Scope::Tenant(tenant),
                async move |tx| {
                    let found = connection_lock(tx, tenant, connection_id)
                        .await?
                        .ok_or(Error::NotFound("connection"))?;
                    found.check_there()?;
                    if !account_disconnect(tx, &found, &account_id).await? {
                        return Err(Error::NotFound("account"));
                    }
                    let accounts = account_list(tx, tenant, connection_id).await?;
                    if !accounts.iter().any(|account| account.active) {
                        let next = accounts.iter().find(|account| is_selectable(account));
                        account_activate(
                            tx,
                            &found,
                            next.map(|account| account.external_account_id.as_str()),
                        )
                        .await?;
                    }
                    let changed = connection_touch(tx, &found).await?;
                    let accounts = account_list(tx, tenant, connection_id).await?;
                    let active = accounts.into_iter().find(|account| account.active);
                    events::append(
                        tx,
                        ConnectionEventKind::AccountSelected,
                        &changed,
                        active.as_ref(),
                        None,
                    )
                    .await?;
                    let resource = format!("connections/{connection_id}/accounts/{account_id}");
                    audit::append(tx, tenant, &actor, DISCONNECT, &resource, "").await?;
                    Ok::<_, Error>((changed, active))
                },
            )
            .await?;
        tracing::info!(
            event = "account_disconnected", tenant.id = %tenant, user.id = changed.0.user_id,
            connection.id = %connection_id, "an account was disconnected"
        );
        Ok(changed)
    }
}

fn is_selectable(account: &Account) -> bool {
    account.usable && account.disconnected_at.is_none()
}

fn selectable(accounts: &[Account], account_id: &str) -> Result<(), Error> {
    let account = accounts
        .iter()
        .find(|account| account.external_account_id == account_id);
    if is_selectable(account.ok_or(Error::NotFound("account"))?) {
        return Ok(());
    }
    Err(Error::NotUsable {
        advice: "the account was disconnected, or the provider does not let it be used; choose another",
    })
}
