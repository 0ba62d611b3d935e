//! The first tokens of a grant, or new ones for a grant that is connected again.
//!
//! An intent lies under the caller's grant id before the code is sent, so that a repetition of the call finds it: a code
//! is sent once, and its tokens make one grant.

mod authorization;
mod claim;
mod identity;

use std::collections::BTreeMap;
use std::time::Duration;

use common::identity::Actor;
use common::problem::Chain;
use oauth_client::{Failure, TokenSet};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::failpoint;
use crate::grant::{Answer, ClientKey, ExchangeFacts, Grant, GrantKey, Settled, Strategy};
use crate::oauth_client::OAuthClient;
use crate::providers::{Resolved, at_database_time, is_client_refused};
use crate::refresh_grant::described;
use crate::refresh_grant::{Seals, seal_tokens};
use crate::spool::Slot;
use crate::store::Change;
use crate::vault::Vault;

use claim::Found;

pub(crate) use authorization::Authorization;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) grant: GrantKey,
    pub(crate) client: ClientKey,
    pub(crate) authorization: Authorization,
    /// 0 for a new grant.
    pub(crate) expected_version: i64,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) actor: Actor,
}

/// A request that brought nothing.
struct Unsuccessful {
    error: Error,
    /// The code is, or may be, used up.
    is_spent: bool,
}

const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

impl Vault {
    /// The grant with its new tokens. Goes on when the caller is gone: what a provider gives is never dropped.
    pub(crate) async fn exchange_authorization(&self, exchange: Exchange) -> Result<Grant, Error> {
        let (done, told) = oneshot::channel();
        let this = self.clone();
        self.tasks.spawn_work("exchange", async move {
            let _ = done.send(Box::pin(this.exchange(&exchange)).await);
        });
        told.await.unwrap_or(Err(Error::Stopping))
    }

    async fn exchange(&self, exchange: &Exchange) -> Result<Grant, Error> {
        let client = self
            .store
            .oauth_client_get(exchange.client)
            .await?
            .ok_or(Error::ClientNotFound)?;
        let resolved = self
            .providers
            .resolve(&client, &exchange.parameters, true)
            .await?;
        exchange.authorization.check(&client, &resolved)?;
        let hash = exchange.hash();
        let give_up = self.deps.clock.boottime() + PATIENCE;
        let _open = self.instance.open_intent();
        let (grant, lease_ends) = loop {
            let lease_ends = self.deps.clock.boottime() + self.lease();
            match self.exchange_claim(exchange, &hash, &resolved).await? {
                Found::Taken(grant) => {
                    failpoint::reach("exchange_claimed", grant.key.id);
                    break (*grant, lease_ends);
                }
                Found::Done(grant) => return Ok(*grant),
                Found::Failed { error } => return Err(Error::AuthorizationExpired { error }),
                Found::Exists => return Err(Error::GrantExists),
                Found::Version { actual } => return Err(Error::VersionMismatch { actual }),
                Found::Missing => return Err(Error::GrantNotFound),
                Found::Revoked => return Err(Error::GrantRevoked),
                Found::Busy if self.deps.clock.boottime() >= give_up => {
                    return Err(Error::ProviderUnavailable {
                        wait: Duration::from_secs(1),
                    });
                }
                Found::Busy => tokio::time::sleep(POLL).await,
            }
        };
        let under_lease =
            self.exchange_under_lease(exchange, &client, resolved, &grant, hash, lease_ends);
        match Box::pin(under_lease).await {
            Ok(grant) => Ok(grant),
            Err(unsuccessful) => {
                self.exchange_undo(&grant, &unsuccessful).await?;
                Err(unsuccessful.error)
            }
        }
    }

    async fn exchange_under_lease(
        &self,
        exchange: &Exchange,
        client: &OAuthClient,
        resolved: Resolved,
        grant: &Grant,
        hash: Vec<u8>,
        lease_ends: Duration,
    ) -> Result<Grant, Unsuccessful> {
        let key = grant.key;
        let unsent = |error: Error| Unsuccessful {
            error,
            is_spent: false,
        };
        let data_key = self
            .keys
            .newest(key.tenant)
            .await
            .map_err(|error| unsent(error.into()))?;
        let slot = self
            .spool
            .allocate(key.tenant.new_id(&self.deps))
            .await
            .map_err(|error| unsent(error.into()))?;
        failpoint::reach("exchange_in_hand", key.id);
        let (tokens, sent_at) = self
            .exchange_send(exchange, client, &resolved, grant, lease_ends)
            .await?;
        failpoint::reach("exchange_answered", key.id);
        let mut tokens = self
            .with_identity(exchange, &resolved, tokens, key, sent_at)
            .await?;
        failpoint::reach("exchange_identified", key.id);
        let strategy = exchange.strategy(&resolved, &tokens);
        tokens.refresh_token = exchange.renewed_with(strategy, &tokens);
        let resolved = resolved.renewed_by(strategy);
        let facts = ExchangeFacts {
            hash,
            strategy: strategy.as_str().to_owned(),
            client_tenant_id: exchange.client.tenant.id(),
            client_id: exchange.client.id,
            parameters: exchange.parameters.clone(),
        };
        let seals = Seals {
            keys: &self.keys,
            data_key: &data_key,
            resolved: &resolved,
            random: self.random(),
        };
        let base = Grant {
            scopes: exchange.authorization.scopes(),
            refresh_token: None,
            ..grant.clone()
        };
        let mut answer = seal_tokens(&seals, &base, None, &tokens, sent_at, Some(facts));
        if strategy == Strategy::TokenExchange {
            // The first one lives for an hour, what it is traded for, for months.
            answer.next_refresh_at = Some(sent_at);
        }
        self.exchange_settle(slot, answer, client, key)
            .await
            .map_err(|error| Unsuccessful {
                error,
                is_spent: true,
            })
    }

    async fn exchange_send(
        &self,
        exchange: &Exchange,
        client: &OAuthClient,
        resolved: &Resolved,
        grant: &Grant,
        lease_ends: Duration,
    ) -> Result<(TokenSet, OffsetDateTime), Unsuccessful> {
        let unsent = |error: Error| Unsuccessful {
            error,
            is_spent: false,
        };
        let traded = exchange.authorization.traded(resolved);
        let prepared = resolved
            .prepare(
                &resolved.token_url,
                &traded,
                &self.providers.egress,
                self.provider_timeout,
                &self.deps,
            )
            .await
            .map_err(|error| {
                let failure = error.failure();
                unsent(exchange.authorization.error_of(&failure, self.deps.now()))
            })?;
        if self.deps.clock.boottime() + self.provider_timeout > lease_ends {
            return Err(unsent(Error::ProviderUnavailable { wait: POLL }));
        }
        let renewed_at = self.deps.clock.boottime();
        let sent_at = self
            .store
            .intent_send(grant, self.lease())
            .await
            .map_err(|error| unsent(error.into()))?;
        let sent_at = sent_at.ok_or_else(|| unsent(Error::ProviderUnavailable { wait: POLL }))?;
        failpoint::reach("exchange_before_send", grant.key.id);
        // The statement may have taken its time, and the machine may have slept.
        if self.deps.clock.boottime() + self.provider_timeout > renewed_at + self.lease() {
            return Err(unsent(Error::ProviderUnavailable { wait: POLL }));
        }
        let deps = at_database_time(&self.deps, sent_at);
        match prepared.send(&self.providers.egress, &deps).await {
            Ok(tokens) => Ok((tokens, sent_at)),
            Err(failure) => {
                self.exchange_failed(exchange, client, &failure)
                    .await
                    .map_err(unsent)?;
                Err(Unsuccessful {
                    error: exchange.authorization.error_of(&failure, deps.now()),
                    is_spent: exchange.authorization.is_spent(&failure),
                })
            }
        }
    }

    /// What a failure says besides what the caller is told.
    async fn exchange_failed(
        &self,
        exchange: &Exchange,
        client: &OAuthClient,
        failure: &Failure,
    ) -> Result<(), Error> {
        if exchange.authorization.is_pending(failure) {
            return Ok(());
        }
        let key = exchange.grant;
        tracing::warn!(
            event = "exchange_failed",
            tenant.id = %key.tenant,
            grant.id = %key.id,
            class = failure.class.as_str(),
            status = failure.status,
            error = %Chain(failure),
            "a provider gave no tokens for an authorization"
        );
        if is_client_refused(failure) {
            self.store
                .oauth_client_refused(client.key, client.version, &described(failure))
                .await?;
        }
        Ok(())
    }

    async fn exchange_settle(
        &self,
        slot: Slot,
        answer: Answer,
        client: &OAuthClient,
        key: GrantKey,
    ) -> Result<Grant, Error> {
        let settled = self.settle(slot, answer).await?;
        if client.refusal.is_some() {
            self.store.oauth_client_accepted(client.key).await?;
        }
        match settled {
            Settled::Committed(_) | Settled::AlreadyCommitted => {}
            Settled::Superseded => return Err(Error::ProviderUnavailable { wait: POLL }),
            Settled::TooLate => return Err(Error::GrantRevoked),
        }
        self.statistics
            .count(key.tenant, "authorizations_exchanged", &[]);
        tracing::info!(event = "authorization_exchanged", tenant.id = %key.tenant, grant.id = %key.id, "a grant has its first tokens");
        self.store.grant_get(key).await?.ok_or(Error::GrantNotFound)
    }

    /// Gives the lease back. A code that may be used up is not sent again; anything else may be tried again.
    async fn exchange_undo(&self, taken: &Grant, unsuccessful: &Unsuccessful) -> Result<(), Error> {
        let (key, fence) = (taken.key, taken.fence);
        if !taken.is_visible() && !unsuccessful.is_spent {
            return Ok(self.store.grant_forget(key, fence).await?);
        }
        let error = match &unsuccessful.error {
            Error::AuthorizationExpired { error } => error.clone(),
            error => error.to_string(),
        };
        let undone = self.store.grant_change("exchange_undo", key, move |grant| {
            let is_mine = grant.fence == fence && grant.intent.is_some();
            if is_mine && grant.is_visible() {
                grant.abandon_exchange(fence);
            } else if is_mine {
                grant.exchange_failed(&error);
            }
            Change {
                save: is_mine,
                ..Change::saved(())
            }
        });
        undone.await?;
        Ok(())
    }
}
