//! The end of a connection: forgotten here at once, revoked at the provider by the vault.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, audit};
use contracts::broker::v1::ConnectionEventKind;
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::Connection;
use crate::error::Error;
use crate::events;
use crate::store::accounts::account_replace;
use crate::store::connections::{connection_disconnect, connection_get, connection_lock};
use crate::store::exclusive_accounts::exclusive_release;
use crate::store::grant_duties::{Duty, duty_put};
use crate::store::routing_keys::routing_key_withdraw_all;

impl Broker {
    /// Disconnects it; says whether the provider has confirmed that the grant is revoked. NOT_FOUND the second time.
    pub(crate) async fn disconnect(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
        action: &str,
    ) -> Result<bool, Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_there()?;
        let claim = self.exclusive_claim_of(&found).await?;
        let (actor, action) = (caller.actor().clone(), action.to_owned());
        let gone = self
            .db
            .run_tx(
                "connection_disconnect",
                Scope::Tenant(tenant),
                async move |tx| {
                    let found = connection_lock(tx, tenant, connection_id)
                        .await?
                        .ok_or(Error::NotFound("connection"))?;
                    found.check_there()?;
                    let gone = connection_disconnect(tx, &found).await?;
                    account_replace(tx, &gone, &[]).await?;
                    routing_key_withdraw_all(tx, &gone).await?;
                    duty_put(tx, tenant, gone.grant.grant_id, Duty::Revoke).await?;
                    events::append(tx, ConnectionEventKind::Disconnected, &gone, None, None)
                        .await?;
                    let resource = format!("connections/{connection_id}");
                    audit::append(tx, tenant, &actor, &action, &resource, "").await?;
                    Ok::<_, Error>(gone)
                },
            )
            .await?;
        if let Some(claim) = claim {
            exclusive_release(&self.db, &claim).await?;
        }
        self.publish_now(tenant, connection_id).await;
        let revoked = self
            .settle_now(tenant, gone.grant.grant_id, Duty::Revoke)
            .await;
        tracing::info!(
            event = "connection_disconnected", tenant.id = %tenant, user.id = gone.user_id,
            connection.id = %connection_id, revoked, "a connection was disconnected"
        );
        Ok(revoked)
    }

    /// A connection that the caller may see.
    pub(crate) async fn connection_of(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
    ) -> Result<Connection, Error> {
        let found = connection_get(&self.db, tenant, connection_id).await?;
        let found =
            found.filter(|found| caller.own_user().is_none_or(|user| user == found.user_id));
        found.ok_or(Error::NotFound("connection"))
    }
}
