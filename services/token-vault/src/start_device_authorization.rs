//! The beginning of an authorization on another device (RFC 8628).

use std::collections::BTreeMap;

use common::TenantKey;
use oauth_client::{Class, DeviceAuthorization, DeviceEndpoint, Failure};

use crate::error::Error;
use crate::grant::ClientKey;
use crate::providers::{Wanted, at_database_time, is_client_refused};
use crate::push_authorization_request::bad_key;
use crate::vault::Vault;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// Whose authorization it is to be.
    pub(crate) tenant: TenantKey,
    pub(crate) client: ClientKey,
    pub(crate) scopes: Vec<String>,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Vault {
    /// What the person needs, and what is polled with.
    pub(crate) async fn start_device_authorization(
        &self,
        start: &Start,
    ) -> Result<DeviceAuthorization, Error> {
        let client = self.known_client(start.client).await?;
        let resolved = self
            .providers
            .resolve_for(&client, &start.parameters, Wanted::DeviceAuthorizations)
            .await?;
        let url = resolved
            .device_url
            .as_ref()
            .ok_or_else(|| Error::Misconfigured {
                error: "the provider has no device authorization endpoint".to_owned(),
            })?;
        let deps = at_database_time(&self.deps, client.read_at);
        let mut outcome = Err(Failure::new(Class::Configuration));
        for known in resolved.clients() {
            let endpoint = DeviceEndpoint {
                url,
                client: known,
                dialect: &resolved.dialect,
            };
            let call = endpoint.call(&start.scopes, &deps).map_err(bad_key)?;
            let call = call.timeout(self.provider_timeout);
            outcome = call.send(&self.providers.egress, &deps).await;
            if !outcome.as_ref().is_err_and(is_client_refused) {
                break;
            }
        }
        let started = self.client_judged(&client, outcome).await?;
        self.statistics
            .count(start.tenant, "device_authorizations_started", &[]);
        Ok(started)
    }
}
