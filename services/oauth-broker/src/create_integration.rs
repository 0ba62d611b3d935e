//! A new integration: its secret goes to the vault, the rest is kept here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::identity::Caller;
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, audit};
use contracts::broker::v1::{CreateIntegrationRequest, CreateIntegrationResponse};

use crate::api::encode;
use crate::broker::Broker;
use crate::error::Error;
use crate::integration::Integration;
use crate::resolve_integration::{Secrets, oauth_client};
use crate::store::integrations::integration_insert;

const METHOD: &str = "IntegrationService/CreateIntegration";

impl Broker {
    /// Makes it. Every attempt has an OAuth client of its own in the vault, so that one that loses a race, or is a
    /// repetition, cannot touch the winner's secret; the loser's is deleted again.
    pub(crate) async fn create_integration(
        &self,
        caller: &Caller,
        mut integration: Integration,
        secrets: Secrets,
        mut request: CreateIntegrationRequest,
    ) -> Result<CreateIntegrationResponse, Error> {
        let tenant = integration.tenant;
        integration.discovered = self.discovered(&integration).await?;
        let resolved = integration.resolve()?;
        let client = oauth_client(&integration, &resolved, &secrets, self.deps.now())?;
        if let Some(wanted) = &mut request.integration {
            wanted.client_secret = self
                .sealer
                .fingerprint(tenant, &wanted.client_secret)
                .await?;
            wanted.previous_client_secret = self
                .sealer
                .fingerprint(tenant, &wanted.previous_client_secret)
                .await?;
        }
        if let Some(client) = client {
            self.vault.put_oauth_client(client).await?;
        }
        let used = Arc::new(AtomicBool::new(false));
        let outcome = self
            .integration_save(caller, &integration, request, Arc::clone(&used))
            .await;
        if !used.load(Ordering::SeqCst)
            && let Some(unused) = integration.oauth_client_id
            && let Err(error) = self.vault.delete_oauth_client(tenant, unused).await
        {
            tracing::info!(
                event = "oauth_client_left", tenant.id = %tenant, error = %error,
                "an OAuth client that nothing uses could not be deleted from the vault"
            );
        }
        outcome
    }

    async fn integration_save(
        &self,
        caller: &Caller,
        integration: &Integration,
        request: CreateIntegrationRequest,
        used: Arc<AtomicBool>,
    ) -> Result<CreateIntegrationResponse, Error> {
        let (integration, actor) = (integration.clone(), caller.actor().clone());
        let (tenant, public_url) = (integration.tenant, self.public_url.clone());
        let saved = self
            .db
            .run_tx(
                "integration_create",
                Scope::Tenant(tenant),
                async move |tx| {
                    used.store(false, Ordering::SeqCst);
                    let call = Call {
                        tenant,
                        method: METHOD,
                        request_id: &request.request_id,
                        body: &request,
                    };
                    let work = async || -> Result<_, Error> {
                        if !integration_insert(tx, &integration).await? {
                            return Err(Error::Exists("integration"));
                        }
                        let resource = format!("integrations/{}", integration.integration_id);
                        audit::append(tx, tenant, &actor, METHOD, &resource, "").await?;
                        used.store(true, Ordering::SeqCst);
                        Ok(CreateIntegrationResponse {
                            integration: Some(encode::integration(&integration, &public_url)),
                        })
                    };
                    request_ids::run(tx, call, work).await
                },
            )
            .await?;
        tracing::info!(
            event = "integration_created",
            tenant.id = %tenant,
            integration.id = saved.integration.as_ref().map(|made| made.integration_id.as_str()),
            "an integration was created"
        );
        Ok(saved)
    }
}
