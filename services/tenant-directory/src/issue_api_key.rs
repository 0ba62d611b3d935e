//! API keys: made, rotated, revoked, listed; only by operators.

use common::TenantKey;
use common::identity::Caller;
use common::pg::request_ids;
use contracts::directory::v1 as contract;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::api_key::{ApiKey, NewSecret};
use crate::directory::{Directory, Page};
use crate::error::Error;
use crate::store::{self, api_key::SCOPE};
use crate::{access, encode};

const CREATE: &str = "ApiKeyService/CreateApiKey";
const ROTATE: &str = "ApiKeyService/RotateApiKey";
const REVOKE: &str = "ApiKeyService/RevokeApiKey";
/// So many missing tenants are named.
const MOST_NAMED: usize = 10;
const OWNER: TenantKey = TenantKey::PLATFORM;

/// What a key is to be.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeyOrder {
    pub(crate) display_name: String,
    pub(crate) tenants: Vec<TenantKey>,
    pub(crate) role: String,
    /// `None` for as long as the configuration says.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl Directory {
    /// Makes a key. The secret is in the first answer alone: a repeated request has the key without it, and whoever lost
    /// the secret rotates the key.
    pub(crate) async fn create_api_key(
        &self,
        caller: &Caller,
        request: contract::CreateApiKeyRequest,
        order: ApiKeyOrder,
    ) -> Result<contract::CreateApiKeyResponse, Error> {
        access::operator(caller)?;
        self.check_tenants(&order.tenants).await?;
        let (actor, now) = (caller.actor().clone(), self.now());
        let new = NewSecret::generate(&self.deps);
        let key = ApiKey {
            id: OWNER.new_id(&self.deps),
            display_name: order.display_name,
            tenants: order.tenants,
            role: order.role,
            prefix: new.prefix.clone(),
            expires_at: order
                .expires_at
                .unwrap_or_else(|| now + self.api_keys.default_lifetime.get()),
            last_used_at: None,
            revoked_at: None,
            created_at: now,
        };
        let (id, hash) = (key.id, new.hash);
        store::api_key::api_key_hash_create(&self.db, hash, id).await?;
        let outcome = self
            .db
            .run_tx("api_key_create", SCOPE, async move |tx| {
                let call = request_ids::Call {
                    tenant: OWNER,
                    method: CREATE,
                    request_id: &request.request_id,
                    body: &request,
                };
                let work = async || -> Result<_, Error> {
                    store::api_key::api_key_create(tx, &key, &new).await?;
                    store::log::audit_append(tx, OWNER, &actor, CREATE, &key.resource()).await?;
                    Ok(contract::CreateApiKeyResponse {
                        api_key: Some(encode::api_key(&key)),
                        secret: new.secret.expose().clone(),
                    })
                };
                let without = |answer| contract::CreateApiKeyResponse {
                    secret: String::new(),
                    ..answer
                };
                request_ids::run_without(tx, call, work, without).await
            })
            .await;
        let made = outcome
            .as_ref()
            .is_ok_and(|answer| !answer.secret.is_empty());
        if made {
            tracing::info!(event = "api_key_created", api_key.id = %id, "an API key was created");
        } else if !matches!(outcome, Err(Error::Store(_))) {
            // Not made, for sure: of a commit whose outcome is not known the hash may be needed.
            store::api_key::api_key_hash_delete(&self.db, hash).await?;
        }
        outcome
    }

    /// Gives the key another secret; those before stay good for `overlap`, and no longer than they would have been.
    pub(crate) async fn rotate_api_key(
        &self,
        caller: &Caller,
        id: Uuid,
        overlap: Duration,
    ) -> Result<contract::RotateApiKeyResponse, Error> {
        access::operator(caller)?;
        let (actor, now) = (caller.actor().clone(), self.now());
        let new = NewSecret::generate(&self.deps);
        let hash = new.hash;
        store::api_key::api_key_hash_create(&self.db, hash, id).await?;
        let outcome = self
            .db
            .run_tx(
                "api_key_rotate",
                SCOPE,
                async move |tx| -> Result<_, Error> {
                    let before = store::api_key::api_key_lock(tx, id)
                        .await?
                        .ok_or(Error::ApiKeyNotFound)?;
                    if !before.is_good(None, now) {
                        return Err(Error::ApiKeyEnded);
                    }
                    store::api_key::api_key_secrets_limit(tx, id, now + overlap).await?;
                    let ended = store::api_key::api_key_secrets_prune(tx, id, now).await?;
                    store::api_key::api_key_secret_create(tx, id, &new, now).await?;
                    store::log::audit_append(tx, OWNER, &actor, ROTATE, &before.resource()).await?;
                    let key = ApiKey {
                        prefix: new.prefix.clone(),
                        ..before
                    };
                    let secret = new.secret.expose().clone();
                    Ok((
                        contract::RotateApiKeyResponse {
                            api_key: Some(encode::api_key(&key)),
                            secret,
                        },
                        ended,
                    ))
                },
            )
            .await;
        match outcome {
            Ok((answer, ended)) => {
                for hash in ended {
                    store::api_key::api_key_hash_delete(&self.db, hash).await?;
                }
                tracing::info!(event = "api_key_rotated", api_key.id = %id, "an API key was rotated");
                Ok(answer)
            }
            Err(error) => {
                if !matches!(error, Error::Store(_)) {
                    store::api_key::api_key_hash_delete(&self.db, hash).await?;
                }
                Err(error)
            }
        }
    }

    /// Ends the key now. Ended already, nothing happens.
    pub(crate) async fn revoke_api_key(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        access::operator(caller)?;
        let (actor, now) = (caller.actor().clone(), self.now());
        self.db
            .run_tx(
                "api_key_revoke",
                SCOPE,
                async move |tx| -> Result<_, Error> {
                    let key = store::api_key::api_key_lock(tx, id)
                        .await?
                        .ok_or(Error::ApiKeyNotFound)?;
                    if key.revoked_at.is_none() {
                        store::api_key::api_key_revoke(tx, id, now).await?;
                        store::log::audit_append(tx, OWNER, &actor, REVOKE, &key.resource())
                            .await?;
                    }
                    Ok(())
                },
            )
            .await?;
        tracing::info!(event = "api_key_revoked", api_key.id = %id, "an API key was revoked");
        Ok(())
    }

    /// A page of the keys, the oldest first.
    pub(crate) async fn list_api_keys(
        &self,
        caller: &Caller,
        after: Uuid,
        size: i64,
    ) -> Result<Page<ApiKey>, Error> {
        access::operator(caller)?;
        Ok(Page::of(
            store::api_key::api_keys_list(&self.db, after, size + 1).await?,
            size,
        ))
    }

    /// A key for a tenant that there is not would be found out late.
    async fn check_tenants(&self, tenants: &[TenantKey]) -> Result<(), Error> {
        let found = store::tenant::tenants_get(&self.db, tenants).await?;
        let missing = |key: &TenantKey| !found.iter().any(|tenant| tenant.key == *key);
        let places = tenants
            .iter()
            .enumerate()
            .filter(|(_, key)| missing(key))
            .map(|(place, _)| place);
        let places: Vec<_> = places.take(MOST_NAMED).collect();
        if places.is_empty() {
            Ok(())
        } else {
            Err(Error::NoSuchTenants(places))
        }
    }
}
