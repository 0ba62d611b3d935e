//! What the vault tells of a grant moves its connection.

use common::TenantKey;
use common::pg::{Scope, consumer};
use contracts::broker::v1::{ConnectionEventKind, ConnectionState};
use contracts::vault::v1::{GrantEventKind, WatchGrantEventsResponse};
use uuid::Uuid;

use crate::api::encode;
use crate::broker::Broker;
use crate::connection::{Connection, GrantFacts, Transition};
use crate::error::Error;
use crate::events;
use crate::store::accounts::account_list;
use crate::store::connections::{
    connection_by_grant, connection_grant_move, connection_revoked, connection_state,
};
use crate::store::integrations::integration_blame;

/// Whose events they are.
pub(crate) const CONSUMER: &str = "vault.grants";

impl Broker {
    /// Applies an event; one that is older than what was applied before changes nothing.
    pub(crate) async fn follow_grant(&self, event: WatchGrantEventsResponse) -> Result<(), Error> {
        let Some(grant) = event.grant.clone() else {
            return self.follow_client(&event).await;
        };
        let (Ok(tenant), Some(facts)) =
            (TenantKey::parse(&grant.tenant_id), GrantFacts::of(&grant))
        else {
            return Ok(());
        };
        let kind = event.kind();
        let moved = self
            .db
            .run_tx("grant_follow", Scope::Tenant(tenant), async move |tx| {
                // Of a grant that is no connection's, or not yet, nothing is noted: it is looked at when it is confirmed.
                let Some(found) = connection_by_grant(tx, tenant, facts.grant_id).await? else {
                    return Ok(None);
                };
                let resource = format!("grants/{}", facts.grant_id);
                if !consumer::advance(tx, tenant, CONSUMER, &resource, grant.revision).await? {
                    return Ok(None);
                }
                let revoked_at = grant
                    .revoked_at
                    .as_ref()
                    .and_then(encode::moment)
                    .or(found.revoked_at);
                if found.state == ConnectionState::Disconnected {
                    connection_revoked(tx, &found, revoked_at).await?;
                } else {
                    connection_grant_move(tx, &found, &facts, &grant.last_error, revoked_at)
                        .await?;
                }
                let (connection, told) = match found.follow(&grant) {
                    Some(transition) => {
                        let changed = connection_state(tx, &found, &transition).await?;
                        (changed, Some(transition.event))
                    }
                    None => (found, told(kind)),
                };
                let Some(told) = told else { return Ok(None) };
                let accounts = account_list(tx, tenant, connection.connection_id).await?;
                let active = accounts.iter().find(|account| account.active);
                events::append(tx, told, &connection, active, None).await?;
                Ok::<_, Error>(Some(connection))
            })
            .await?;
        if let Some(connection) = moved {
            log_move(&connection);
        }
        Ok(())
    }

    /// The vault has lost the grant, or revoked it before it was confirmed.
    pub(crate) async fn grant_lost(&self, tenant: TenantKey, grant_id: Uuid) -> Result<(), Error> {
        let transition = Transition {
            state: ConnectionState::ReauthorizationRequired,
            cause: "REVOKED".to_owned(),
            event: ConnectionEventKind::ReauthorizationRequired,
        };
        self.db
            .run_tx("grant_lost", Scope::Tenant(tenant), async move |tx| {
                let Some(found) = connection_by_grant(tx, tenant, grant_id).await? else {
                    return Ok(());
                };
                if !matches!(
                    found.state,
                    ConnectionState::Connected | ConnectionState::Degraded
                ) {
                    return Ok(());
                }
                let changed = connection_state(tx, &found, &transition).await?;
                let accounts = account_list(tx, tenant, changed.connection_id).await?;
                let active = accounts.iter().find(|account| account.active);
                events::append(tx, transition.event, &changed, active, None).await?;
                Ok::<_, Error>(())
            })
            .await
    }

    /// The provider refuses an OAuth client, or takes it again: that is its integration's matter, and no connection's.
    async fn follow_client(&self, event: &WatchGrantEventsResponse) -> Result<(), Error> {
        let (Ok(tenant), Ok(client)) = (
            TenantKey::parse(&event.tenant_id),
            event.oauth_client_id.parse(),
        ) else {
            return Ok(());
        };
        let error = match event.kind() {
            GrantEventKind::ClientRefused if event.error.is_empty() => {
                "the provider refuses the client"
            }
            GrantEventKind::ClientRefused => &event.error,
            GrantEventKind::ClientAccepted => "",
            _ => return Ok(()),
        };
        integration_blame(&self.db, tenant, client, error).await?;
        Ok(())
    }
}

/// What is told although the connection's state stays.
fn told(kind: GrantEventKind) -> Option<ConnectionEventKind> {
    match kind {
        GrantEventKind::ReauthorizationDue => Some(ConnectionEventKind::ReauthorizationDue),
        GrantEventKind::ScopesChanged => Some(ConnectionEventKind::ScopesChanged),
        _ => None,
    }
}

fn log_move(connection: &Connection) {
    tracing::info!(
        event = "connection_state_changed", tenant.id = %connection.tenant, user.id = connection.user_id,
        connection.id = %connection.connection_id, state = connection.state.as_str_name(),
        cause = connection.reauthorization_cause, "a connection followed its grant"
    );
}
