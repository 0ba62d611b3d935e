//! From what a webhook says to the connections that it is about.

use std::collections::{BTreeMap, BTreeSet};

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, audit};
use contracts::broker::v1::ConnectionState;
use uuid::Uuid;

use crate::broker::Broker;
use crate::connection::{Account, Connection};
use crate::error::Error;
use crate::routing_key::RoutingKey;
use crate::store::accounts::account_active;
use crate::store::connections::{connection_batch, connection_lock};
use crate::store::routing_keys::{Wanted, routing_key_add, routing_key_find, routing_key_holders};

const METHOD: &str = "ConnectionService/AddRoutingKeys";

/// A page of connections, and where the next one begins.
pub(crate) type Page = (Vec<(Connection, Option<Account>)>, Option<Uuid>);

impl Broker {
    /// The connections of an integration that have any of the keys, of one tenant or of all. Disconnected ones have none.
    pub(crate) async fn find_by_routing_key(
        &self,
        integration: (TenantKey, &str),
        tenant: Option<TenantKey>,
        keys: &[RoutingKey],
        after: Option<Uuid>,
        page_size: i64,
    ) -> Result<Page, Error> {
        let mut candidates: BTreeMap<Uuid, TenantKey> = BTreeMap::new();
        for key in keys {
            let wanted = Wanted {
                integration,
                key,
                tenant,
                after,
            };
            candidates.extend(routing_key_find(&self.db, wanted, page_size + 1).await?);
        }
        let size = usize::try_from(page_size).unwrap_or(usize::MAX);
        let more = candidates.len() > size;
        let page: Vec<_> = candidates.into_iter().take(size).collect();
        let next = page.last().filter(|_| more).map(|(id, _)| *id);
        let mut by_tenant: BTreeMap<TenantKey, Vec<Uuid>> = BTreeMap::new();
        for (id, tenant) in page {
            by_tenant.entry(tenant).or_default().push(id);
        }
        let mut found = Vec::new();
        for (tenant, ids) in by_tenant {
            let holders: BTreeSet<_> = routing_key_holders(&self.db, tenant, &ids, keys)
                .await?
                .into_iter()
                .collect();
            let active = account_active(&self.db, tenant, &ids).await?;
            for connection in connection_batch(&self.db, tenant, &ids).await? {
                let is_live = connection.state != ConnectionState::Disconnected;
                if is_live && holders.contains(&connection.connection_id) {
                    let account = active
                        .iter()
                        .find(|(id, _)| *id == connection.connection_id);
                    let account = account.map(|(_, account)| account.clone());
                    found.push((connection, account));
                }
            }
        }
        found.sort_by_key(|(connection, _)| connection.connection_id);
        Ok((found, next))
    }

    /// Gives a connection keys that came to be after connecting.
    pub(crate) async fn add_routing_keys(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        connection_id: Uuid,
        keys: Vec<RoutingKey>,
    ) -> Result<(), Error> {
        let found = self.connection_of(caller, tenant, connection_id).await?;
        found.check_there()?;
        let actor = caller.actor().clone();
        self.db
            .run_tx("routing_keys_add", Scope::Tenant(tenant), async move |tx| {
                let found = connection_lock(tx, tenant, connection_id)
                    .await?
                    .ok_or(Error::NotFound("connection"))?;
                found.check_there()?;
                for key in &keys {
                    routing_key_add(tx, &found, key).await?;
                }
                let resource = format!("connections/{connection_id}");
                audit::append(tx, tenant, &actor, METHOD, &resource, "").await?;
                Ok::<_, Error>(())
            })
            .await?;
        self.publish_now(tenant, connection_id).await;
        Ok(())
    }
}
