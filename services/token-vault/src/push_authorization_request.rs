//! Authorization requests that go to the provider directly (RFC 9126), since only the vault can prove the client.

use std::collections::BTreeMap;

use common::TenantKey;
use common::problem::Chain;
use oauth_client::{Class, Failure, PushEndpoint, PushedRequest};

use crate::error::Error;
use crate::grant::ClientKey;
use crate::oauth_client::OAuthClient;
use crate::providers::{Wanted, at_database_time, is_client_refused};
use crate::refresh_grant::described;
use crate::vault::Vault;

/// What is pushed.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    /// Whose authorization it is to be.
    pub(crate) tenant: TenantKey,
    pub(crate) client: ClientKey,
    /// What the browser would have carried.
    pub(crate) request: BTreeMap<String, String>,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Vault {
    /// What stands for the request in the browser.
    pub(crate) async fn push_authorization_request(
        &self,
        push: &Push,
    ) -> Result<PushedRequest, Error> {
        let client = self.known_client(push.client).await?;
        let resolved = self
            .providers
            .resolve_for(&client, &push.parameters, Wanted::PushedRequests)
            .await?;
        let url = resolved
            .push_url
            .as_ref()
            .ok_or_else(|| Error::Misconfigured {
                error: "the provider takes no pushed authorization requests".to_owned(),
            })?;
        let deps = at_database_time(&self.deps, client.read_at);
        let mut outcome = Err(Failure::new(Class::Configuration));
        for known in resolved.clients() {
            let endpoint = PushEndpoint {
                url,
                client: known,
                dialect: &resolved.dialect,
            };
            let call = endpoint.call(&push.request, &deps).map_err(bad_key)?;
            let call = call.timeout(self.provider_timeout);
            outcome = call.send(&self.providers.egress, &deps).await;
            if !outcome.as_ref().is_err_and(is_client_refused) {
                break;
            }
        }
        let pushed = self.client_judged(&client, outcome).await?;
        self.statistics
            .count(push.tenant, "authorization_requests_pushed", &[]);
        Ok(pushed)
    }

    pub(crate) async fn known_client(&self, key: ClientKey) -> Result<OAuthClient, Error> {
        self.store
            .oauth_client_get(key)
            .await?
            .ok_or(Error::ClientNotFound)
    }

    /// The outcome of a request that is made before there is a grant, and what it says of the client.
    pub(crate) async fn client_judged<T>(
        &self,
        client: &OAuthClient,
        outcome: Result<T, Failure>,
    ) -> Result<T, Error> {
        let failure = match outcome {
            Ok(value) => {
                if client.refusal.is_some() {
                    self.store.oauth_client_accepted(client.key).await?;
                }
                return Ok(value);
            }
            Err(failure) => failure,
        };
        tracing::warn!(
            event = "authorization_request_failed",
            tenant.id = %client.key.tenant,
            oauth_client.id = %client.key.id,
            class = failure.class.as_str(),
            status = failure.status,
            error = %Chain(&failure),
            "a provider does not take an authorization request"
        );
        if is_client_refused(&failure) {
            self.store
                .oauth_client_refused(client.key, client.version, &described(&failure))
                .await?;
        }
        let wait = failure.retry_after.unwrap_or(COME_AGAIN);
        Err(match failure.class {
            Class::Transient | Class::Ambiguous | Class::ProviderBug => {
                Error::ProviderUnavailable { wait }
            }
            Class::RateLimited { .. } => Error::RateLimited { wait },
            Class::Configuration | Class::Reauthorization(_) => Error::Misconfigured {
                error: described(&failure),
            },
        })
    }
}

const COME_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) fn bad_key(error: oauth_client::BadKey) -> Error {
    Error::Misconfigured {
        error: error.to_string(),
    }
}
