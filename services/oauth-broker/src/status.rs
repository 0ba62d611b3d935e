//! What a settings page shows of one provider for one user: from what is stored, without asking the provider.

use common::TenantKey;
use contracts::broker::v1::{AuthMode, Cardinality, ConnectionState, GetConnectionStatusResponse};
use time::OffsetDateTime;

use crate::api::encode;
use crate::broker::Broker;
use crate::connection::{Account, Connection};
use crate::error::Error;
use crate::integration::Integration;
use crate::pages::words::status as words;
use crate::store::accounts::account_list_now;
use crate::store::connections::connection_of_user;

impl Broker {
    /// The status; answers also where there is no connection.
    pub(crate) async fn status(
        &self,
        tenant: TenantKey,
        user_id: &str,
        integration_id: &str,
    ) -> Result<GetConnectionStatusResponse, Error> {
        let integration = self.integration(tenant, integration_id).await?;
        let owner = (integration.tenant, integration.integration_id.as_str());
        // Where there is one for the whole tenant, it is everybody's.
        let whose = if integration.cardinality == Cardinality::PerTenant {
            ""
        } else {
            user_id
        };
        let found = connection_of_user(&self.db, tenant, owner, whose).await?;
        let accounts = match &found {
            Some(found) => account_list_now(&self.db, tenant, found.connection_id).await?,
            None => Vec::new(),
        };
        let mut status = describe(&integration, found.as_ref(), &accounts, self.deps.now());
        if let Some(action) = status.actions.first() {
            status.action_url = self.action_url(action, integration_id);
        }
        Ok(status)
    }

    fn action_url(&self, action: &str, integration_id: &str) -> String {
        // Both are plain words.
        self.pages
            .action_url
            .replace("{action}", action)
            .replace("{integration_id}", integration_id)
    }
}

fn describe(
    integration: &Integration,
    found: Option<&Connection>,
    accounts: &[Account],
    now: OffsetDateTime,
) -> GetConnectionStatusResponse {
    let has_client = integration.oauth_client_id.is_some() && !integration.client_id.is_empty();
    let needs_client = !matches!(integration.auth_mode, AuthMode::ApiKey | AuthMode::Basic);
    let configured = integration.configuration_error.is_empty() && (has_client || !needs_client);
    let state = found.map_or(ConnectionState::Unspecified, |found| found.state);
    let works = matches!(
        state,
        ConnectionState::Connected | ConnectionState::Degraded
    );
    let in_time =
        found.is_some_and(|found| found.grant.token_expires_at.is_none_or(|end| end > now));
    let selectable = accounts
        .iter()
        .filter(|account| account.usable && account.disconnected_at.is_none())
        .count();
    let warning = match state {
        _ if !configured => words::NOT_CONFIGURED,
        ConnectionState::Degraded => words::DEGRADED,
        ConnectionState::ReauthorizationRequired => words::RECONNECT,
        ConnectionState::Unclaimed => words::UNCLAIMED,
        _ if works && !accounts.is_empty() && !accounts.iter().any(|account| account.active) => {
            words::NO_ACCOUNT
        }
        _ => "",
    };
    let mut actions = Vec::new();
    match state {
        ConnectionState::Connected | ConnectionState::Degraded => {
            if selectable > 1 {
                actions.push("select_account");
            }
            actions.push("disconnect");
        }
        ConnectionState::ReauthorizationRequired => actions.extend(["reconnect", "disconnect"]),
        _ if configured => actions.push("connect"),
        _ => {}
    }
    let active = accounts.iter().find(|account| account.active);
    GetConnectionStatusResponse {
        connected: works || state == ConnectionState::ReauthorizationRequired,
        authenticated: works && in_time,
        has_refresh: found.is_some_and(|found| found.grant.has_refresh_token),
        configured,
        state: state.into(),
        warning: warning.to_owned(),
        actions: actions.into_iter().map(str::to_owned).collect(),
        connection: found.map(|found| encode::connection(found, active, &[])),
        action_url: String::new(),
    }
}
