//! The end of an integration, and of its connections where that is wanted.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, audit};

use crate::broker::Broker;
use crate::error::Error;
use crate::store::connections::connection_of_integration;
use crate::store::integrations::{integration_delete, integration_get};

const METHOD: &str = "IntegrationService/DeleteIntegration";
const BATCH: i64 = 100;

impl Broker {
    /// Deletes the tenant's own integration.
    pub(crate) async fn delete_integration(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        id: &str,
        disconnect_all: bool,
    ) -> Result<(), Error> {
        let found = integration_get(&self.db, tenant, id)
            .await?
            .ok_or(Error::NotFound("integration"))?;
        loop {
            let connections = connection_of_integration(&self.db, (tenant, id), BATCH).await?;
            if connections.is_empty() {
                break;
            }
            if !disconnect_all {
                return Err(Error::InUse);
            }
            for connection in connections {
                match self
                    .disconnect(caller, connection.tenant, connection.connection_id, METHOD)
                    .await
                {
                    // Somebody else was first.
                    Ok(_) | Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let (actor, id) = (caller.actor().clone(), id.to_owned());
        self.db
            .run_tx(
                "integration_delete",
                Scope::Tenant(tenant),
                async move |tx| {
                    if !integration_delete(tx, tenant, &id).await? {
                        return Err(Error::NotFound("integration"));
                    }
                    audit::append(
                        tx,
                        tenant,
                        &actor,
                        METHOD,
                        &format!("integrations/{id}"),
                        "",
                    )
                    .await?;
                    Ok(())
                },
            )
            .await?;
        if let Some(oauth_client_id) = found.oauth_client_id {
            self.vault
                .delete_oauth_client(tenant, oauth_client_id)
                .await?;
        }
        tracing::info!(
            event = "integration_deleted", tenant.id = %tenant, integration.id = found.integration_id,
            "an integration was deleted"
        );
        Ok(())
    }
}
