//! Saving a connection: one transaction for the connection, its accounts, its keys, the session, the event, and what the vault
//! is to be told; then the vault is told.

use std::collections::BTreeMap;

use common::TenantKey;
use common::identity::Actor;
use common::pg::{ErrorClass, Scope, Tx, audit};
use contracts::broker::v1::{Cardinality, ConnectionEventKind, ConnectionState};
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::{Connection, identity_key, unclaimed_key};
use crate::error::Error;
use crate::events;
use crate::integration::Integration;
use crate::routing_key::{ACCOUNT, EMAIL, RoutingKey, USER};
use crate::session::Authorized;
use crate::store::accounts::{account_activate, account_list, account_replace, account_revive};
use crate::store::connections::{
    connection_by_identity, connection_get, connection_insert, connection_lock, connection_replace,
};
use crate::store::exclusive_accounts::{
    Claim, exclusive_confirm, exclusive_release, exclusive_reserve,
};
use crate::store::grant_duties::{Duty, duty_put};
use crate::store::routing_keys::{routing_key_add, routing_key_keep};
use crate::store::sessions::session_succeed;

/// A save that met another one is looked at again so often.
const TRIES: u32 = 5;

/// What is to be saved, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saving<'a> {
    pub(crate) integration: &'a Integration,
    pub(crate) tenant: TenantKey,
    /// Empty makes an unclaimed connection.
    pub(crate) user_id: &'a str,
    pub(crate) user_email: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// The connection in whose place this one comes.
    pub(crate) reconnect: Option<Uuid>,
    pub(crate) session_id: Option<Uuid>,
    pub(crate) authorized: &'a Authorized,
    pub(crate) actor: &'a Actor,
    pub(crate) action: &'a str,
}

/// A grant that the saved one came in place of.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    grant_id: Uuid,
    duty: Duty,
}

impl Broker {
    /// Saves it, under the id of the connection that it is the same as, where there is one.
    pub(crate) async fn save_connection(&self, saving: Saving<'_>) -> Result<Connection, Error> {
        let mut tries = 1;
        loop {
            match Box::pin(self.save_once(saving)).await {
                Err(Error::Raced) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn save_once(&self, saving: Saving<'_>) -> Result<Connection, Error> {
        let Saving {
            integration,
            tenant,
            authorized,
            ..
        } = saving;
        let account_id = authorized
            .active()
            .map(|account| account.external_account_id.clone())
            .unwrap_or_default();
        let owner = (integration.tenant, integration.integration_id.as_str());
        let wanted_key = (!saving.user_id.is_empty())
            .then(|| {
                identity_key(integration.cardinality, saving.user_id, &account_id).ok_or_else(|| {
                    let what = "the integration's cardinality needs an account, and the provider names none";
                    Error::Misconfigured(what.to_owned())
                })
            })
            .transpose()?;
        let same = match (saving.reconnect, &wanted_key) {
            (Some(connection_id), _) => {
                let found = connection_get(&self.db, tenant, connection_id).await?;
                Some(found.ok_or(Error::NotFound("connection"))?)
            }
            (None, Some(key)) => connection_by_identity(&self.db, tenant, owner, key).await?,
            (None, None) => None,
        };
        let connection_id = same
            .as_ref()
            .map_or_else(|| tenant.new_id(&self.deps), |same| same.connection_id);
        let fresh = self.described(&saving, connection_id, wanted_key);

        let exclusive = integration
            .exclusive_accounts
            .then(|| exclusive_id(authorized, &account_id));
        let claim = exclusive
            .filter(|account| !account.is_empty())
            .map(|external_account_id| Claim {
                integration_tenant: integration.tenant,
                integration_id: integration.integration_id.clone(),
                external_account_id,
                connection_id,
                tenant,
            });
        let held_before = match (&claim, &same) {
            (Some(_), Some(same)) => self.exclusive_claim_of(same).await?,
            _ => None,
        };
        if let Some(claim) = &claim
            && !exclusive_reserve(&self.db, claim).await?
        {
            return Err(Error::AlreadyConnected);
        }
        let saved = self
            .save_in_one(saving, fresh, same.is_some(), account_id)
            .await;
        let (saved, replaced) = match saved {
            Ok(saved) => saved,
            Err(error) => {
                if let Some(claim) = claim.filter(|claim| Some(claim) != held_before.as_ref()) {
                    exclusive_release(&self.db, &claim).await?;
                }
                return Err(error);
            }
        };
        if let Some(claim) = claim {
            exclusive_confirm(&self.db, &claim).await?;
            if let Some(before) = held_before.filter(|held| *held != claim) {
                exclusive_release(&self.db, &before).await?;
            }
        }
        self.publish_now(tenant, saved.connection_id).await;
        self.settle_now(tenant, saved.grant.grant_id, Duty::Confirm)
            .await;
        if let Some(replaced) = replaced {
            self.settle_now(tenant, replaced.grant_id, replaced.duty)
                .await;
        }
        self.statistics
            .count(tenant, "connect_sessions", &[("outcome", "succeeded")]);
        tracing::info!(
            event = "connection_saved",
            tenant.id = %tenant,
            user.id = saved.user_id,
            connection.id = %saved.connection_id,
            integration.id = saved.integration_id,
            provider = saved.provider,
            session.id = saving.session_id.map(|id| id.to_string()),
            "a connection was saved"
        );
        Ok(saved)
    }

    /// The connection as it would be if it were new.
    fn described(
        &self,
        saving: &Saving<'_>,
        connection_id: Uuid,
        key: Option<String>,
    ) -> Connection {
        let Saving {
            integration,
            authorized,
            ..
        } = saving;
        let now = self.deps.now();
        let state = if key.is_some() {
            ConnectionState::Connected
        } else {
            ConnectionState::Unclaimed
        };
        Connection {
            tenant: saving.tenant,
            connection_id,
            integration_tenant: integration.tenant,
            integration_id: integration.integration_id.clone(),
            provider: integration.provider.clone(),
            identity_key: key.unwrap_or_else(|| unclaimed_key(connection_id)),
            user_id: saving.user_id.to_owned(),
            user_email: saving.user_email.to_owned(),
            external_user_id: authorized.person.user_id.clone(),
            state,
            grant: authorized.grant.clone(),
            requested_scopes: authorized.requested_scopes.clone(),
            parameters: authorized.parameters.clone(),
            labels: saving.labels.clone(),
            metadata_json: authorized.metadata_json.clone(),
            last_error: String::new(),
            reauthorization_cause: String::new(),
            connected_at: now,
            disconnected_at: None,
            revoked_at: None,
            updated_at: now,
            revision: 1,
        }
    }

    async fn save_in_one(
        &self,
        saving: Saving<'_>,
        fresh: Connection,
        exists: bool,
        account_id: String,
    ) -> Result<(Connection, Option<Replaced>), Error> {
        let tenant = saving.tenant;
        let (authorized, actor) = (saving.authorized.clone(), saving.actor.clone());
        let (session_id, action) = (saving.session_id, saving.action.to_owned());
        let reconnect = saving.reconnect.is_some();
        let cardinality = saving.integration.cardinality;
        let outcome = self
            .db
            .run_tx("connection_save", Scope::Tenant(tenant), async move |tx| {
                let (saved, replaced, kind) = if exists {
                    replace(tx, fresh.clone(), reconnect, cardinality).await?
                } else {
                    connection_insert(tx, &fresh).await?;
                    (fresh.clone(), None, ConnectionEventKind::Connected)
                };
                account_replace(tx, &saved, &authorized.accounts).await?;
                account_revive(tx, &saved).await?;
                let active = (!account_id.is_empty()).then_some(account_id.as_str());
                account_activate(tx, &saved, active).await?;
                give_keys(tx, &saved, &authorized).await?;
                duty_put(tx, tenant, saved.grant.grant_id, Duty::Confirm).await?;
                if let Some(replaced) = replaced {
                    duty_put(tx, tenant, replaced.grant_id, replaced.duty).await?;
                }
                if let Some(session_id) = session_id
                    && !session_succeed(
                        tx,
                        session_id,
                        saved.connection_id,
                        &saved.external_user_id,
                        &account_id,
                    )
                    .await?
                {
                    return Err(Error::SessionOver {
                        advice: "the link was used already; make a new one",
                    });
                }
                let accounts = account_list(tx, tenant, saved.connection_id).await?;
                let active = accounts.iter().find(|account| account.active);
                events::append(tx, kind, &saved, active, session_id).await?;
                let resource = format!("connections/{}", saved.connection_id);
                audit::append(tx, tenant, &actor, &action, &resource, "").await?;
                Ok::<_, Error>((saved, replaced))
            })
            .await;
        outcome.map_err(|error| match error {
            Error::Database(error)
                if matches!(error.class(), ErrorClass::UniqueViolation { .. }) =>
            {
                Error::Raced
            }
            error => error,
        })
    }
}

/// Puts the fresh values into the connection that is the same one; its id, and what it was told of it before, stay.
async fn replace(
    tx: &Tx,
    fresh: Connection,
    reconnect: bool,
    cardinality: Cardinality,
) -> Result<(Connection, Option<Replaced>, ConnectionEventKind), Error> {
    let found = connection_lock(tx, fresh.tenant, fresh.connection_id)
        .await?
        .ok_or(Error::Raced)?;
    let same_person = found.external_user_id.is_empty()
        || fresh.external_user_id.is_empty()
        || found.external_user_id == fresh.external_user_id;
    if reconnect && !same_person {
        return Err(Error::OtherAccount);
    }
    let was_there = found.state != ConnectionState::Disconnected;
    let others = !found.user_id.is_empty() && found.user_id != fresh.user_id;
    let one_for_all = matches!(
        cardinality,
        Cardinality::PerAccount | Cardinality::PerTenant
    );
    if was_there && others && (reconnect || one_for_all) {
        return Err(Error::AlreadyConnected);
    }
    let labels = if fresh.labels.is_empty() {
        found.labels.clone()
    } else {
        fresh.labels.clone()
    };
    let user_email = if fresh.user_email.is_empty() {
        found.user_email.clone()
    } else {
        fresh.user_email.clone()
    };
    let saved = Connection {
        labels,
        user_email,
        revision: found.revision + 1,
        ..fresh
    };
    connection_replace(tx, &saved).await?;
    let replaced =
        (was_there && found.grant.grant_id != saved.grant.grant_id).then_some(Replaced {
            grant_id: found.grant.grant_id,
            // Some providers end every grant of a user and client with one of them.
            duty: if same_person {
                Duty::RevokeHere
            } else {
                Duty::Revoke
            },
        });
    let kind = if same_person {
        ConnectionEventKind::Reconnected
    } else {
        ConnectionEventKind::Connected
    };
    Ok((saved, replaced, kind))
}

/// What webhooks name the connection by.
async fn give_keys(tx: &Tx, connection: &Connection, authorized: &Authorized) -> Result<(), Error> {
    let mut keys: Vec<_> = authorized
        .accounts
        .iter()
        .map(|account| RoutingKey::new(ACCOUNT, &account.external_account_id))
        .collect();
    keys.push(RoutingKey::new(EMAIL, &authorized.person.email));
    keys.push(RoutingKey::new(USER, &authorized.person.user_id));
    keys.retain(|key| !key.value.is_empty());
    routing_key_keep(tx, connection, &keys).await?;
    for key in &keys {
        routing_key_add(tx, connection, key).await?;
    }
    Ok(())
}

/// What may be connected only once: the account, or the person where there are no accounts.
pub(crate) fn exclusive_id(authorized: &Authorized, account_id: &str) -> String {
    if account_id.is_empty() {
        authorized.person.user_id.clone()
    } else {
        account_id.to_owned()
    }
}
