//! Whose key is this?

use std::time::Duration;

use common::identity::Caller;
use common::problem::Chain;
use common::{Secret, TenantKey};

use crate::access;
use crate::api_key::{ApiKey, SECRET_PREFIX, SecretHash};
use crate::directory::Directory;
use crate::error::Error;
use crate::store;

const NOTED_EVERY: time::Duration = time::Duration::MINUTE;

impl Directory {
    /// The key behind the secret, and for how long the answer may be kept. One that is unknown, revoked, or past its end
    /// is not found, and not told apart.
    pub(crate) async fn authenticate_api_key(
        &self,
        caller: &Caller,
        secret: &Secret<String>,
    ) -> Result<(ApiKey, Duration), Error> {
        access::service(caller)?;
        let outcome = self.find_good(secret).await;
        let label = match &outcome {
            Ok(_) => "good",
            Err(Error::ApiKeyNotFound) => "refused",
            Err(_) => return outcome,
        };
        self.statistics.count(
            TenantKey::PLATFORM,
            "api_key_authentications",
            &[("outcome", label)],
        );
        outcome
    }

    pub(crate) async fn find_good(
        &self,
        secret: &Secret<String>,
    ) -> Result<(ApiKey, Duration), Error> {
        if !secret.expose().starts_with(SECRET_PREFIX) {
            return Err(Error::ApiKeyNotFound);
        }
        let now = self.now();
        let found = store::api_key::api_key_find(&self.db, SecretHash::of(secret)).await?;
        let (mut key, good_until) = found.ok_or(Error::ApiKeyNotFound)?;
        if !key.is_good(good_until, now) {
            return Err(Error::ApiKeyNotFound);
        }
        if key.use_is_news(now) {
            // The key is good whether or not this can be written down.
            match store::api_key::api_key_use(&self.db, key.id, now, now - NOTED_EVERY).await {
                Ok(()) => key.last_used_at = Some(now),
                Err(error) => tracing::warn!(
                    event = "api_key_use_unnoted",
                    api_key.id = %key.id,
                    error = %Chain(&error),
                    "that an API key was used could not be noted",
                ),
            }
        }
        let cache_for = key.cache_for(good_until, now);
        Ok((key, cache_for))
    }
}
