//! Changing an integration. What the vault keeps is changed first: it refuses to send a secret where its owner did not.

use common::identity::Caller;
use common::pg::{Scope, audit};

use crate::broker::Broker;
use crate::error::Error;
use crate::integration::Integration;
use crate::resolve_integration::{Secrets, oauth_client};
use crate::store::integrations::integration_update;

const METHOD: &str = "IntegrationService/UpdateIntegration";

impl Broker {
    /// Writes `changed`, which was read at its revision. `destinations` says that endpoints, client or secrets are among
    /// what changes.
    pub(crate) async fn update_integration(
        &self,
        caller: &Caller,
        mut changed: Integration,
        secrets: Secrets,
        destinations: bool,
    ) -> Result<Integration, Error> {
        if destinations {
            changed.discovered = self.discovered(&changed).await?;
            changed.configuration_error = String::new();
            let resolved = changed.resolve()?;
            if let Some(client) = oauth_client(&changed, &resolved, &secrets, self.deps.now())? {
                self.vault.put_oauth_client(client).await?;
            }
        }
        changed.updated_at = self.deps.now();
        let actor = caller.actor().clone();
        let tenant = changed.tenant;
        let changed = self
            .db
            .run_tx(
                "integration_update",
                Scope::Tenant(tenant),
                async move |tx| {
                    if !integration_update(tx, &changed).await? {
                        return Err(Error::EtagMismatch);
                    }
                    let resource = format!("integrations/{}", changed.integration_id);
                    audit::append(tx, tenant, &actor, METHOD, &resource, "").await?;
                    Ok(Integration {
                        revision: changed.revision + 1,
                        ..changed.clone()
                    })
                },
            )
            .await?;
        tracing::info!(
            event = "integration_updated", tenant.id = %tenant, integration.id = changed.integration_id,
            "an integration was changed"
        );
        Ok(changed)
    }
}
