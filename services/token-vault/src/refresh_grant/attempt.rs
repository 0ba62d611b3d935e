//! One attempt under the lease: everything in hand, the request, and what becomes of its outcome.

use std::time::Duration;

use common::Secret;
use common::problem::Chain;
use envelope::DataKey;
use oauth_client::{Class, Failure as TokenFailure, TokenGrant, TokenSet};
use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;

use super::new_tokens::origin;
use super::{RefreshError, Seals, seal_tokens};
use crate::failpoint;
use crate::grant::{Failure, FailureKind, Grant, GrantKey, Recorded, Settled, Strategy, Verdict};
use crate::keys::KeysError;
use crate::oauth_client::OAuthClient;
use crate::providers::{Resolved, at_database_time};
use crate::secrets::{self, RefreshToken};
use crate::spool::Slot;
use crate::store::{Change, Store, StoreError};
use crate::vault::Vault;

const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);
const WRITE_PAUSE: Duration = Duration::from_millis(100);

/// Everything that the answer will need.
struct InHand<'a> {
    grant: Grant,
    client: &'a OAuthClient,
    resolved: &'a Resolved,
    data_key: DataKey,
    /// When the lease ends, by a clock that runs through suspension.
    lease_ends: Duration,
}

/// What a request brought.
enum Brought {
    Tokens(TokenSet, OffsetDateTime),
    Failure(TokenFailure),
    /// The lease is somebody else's; nothing was sent.
    LeaseLost,
}

/// What is traded for new tokens.
struct Candidate {
    /// `None`: the client's own credentials.
    token: Option<Secret<String>>,
}

impl Vault {
    /// `true` where there are newer tokens now, `false` where the lease was lost.
    pub(super) async fn attempt(
        &self,
        grant: Grant,
        client: &OAuthClient,
        resolved: &Resolved,
        lease_ends: Duration,
    ) -> Result<bool, RefreshError> {
        let (key, fence) = (grant.key, grant.fence);
        let in_hand = self.take_in_hand(grant, client, resolved, lease_ends).await;
        let (in_hand, candidates, slot) = match in_hand {
            Ok(all) => all,
            Err(error) => return self.give_back(key, fence, lease_ends, error).await,
        };
        let mut refused = None;
        for candidate in candidates {
            let brought = match self.send(&in_hand, &candidate).await {
                Ok(brought) => brought,
                Err(error) => return self.give_back(key, fence, lease_ends, error).await,
            };
            match brought {
                Brought::LeaseLost => return Ok(false),
                Brought::Tokens(tokens, sent_at) => {
                    failpoint::reach("answered");
                    return self
                        .take_answer(&in_hand, slot, &candidate, &tokens, sent_at)
                        .await
                        .map(|()| true);
                }
                Brought::Failure(failure) => match failure.class {
                    // Another token of the same grant may be the one that the provider wants.
                    Class::Reauthorization(cause) => drop(refused.get_or_insert((cause, failure))),
                    _ => return self.take_failure(&in_hand, &failure).await,
                },
            }
        }
        drop(slot);
        match refused {
            Some((cause, failure)) => self.take_refusal(&in_hand, cause, &failure).await,
            None => Ok(false),
        }
    }

    /// Nothing was sent. The lease is given back, so that nobody has to wait for its end.
    async fn give_back(
        &self,
        key: GrantKey,
        fence: i64,
        lease_ends: Duration,
        error: RefreshError,
    ) -> Result<bool, RefreshError> {
        let failure = self.own_failure(&error);
        self.record(key, fence, &failure, lease_ends).await?;
        Err(error)
    }

    /// Keys, tokens, and the room for the answer. What fails here fails before anything is sent.
    async fn take_in_hand<'a>(
        &self,
        grant: Grant,
        client: &'a OAuthClient,
        resolved: &'a Resolved,
        lease_ends: Duration,
    ) -> Result<(InHand<'a>, Vec<Candidate>, Slot), RefreshError> {
        let data_key = self.keys.newest(grant.key.tenant).await?;
        let candidates = self.candidates(&grant, resolved).await?;
        let slot = self
            .spool
            .allocate(grant.key.tenant.new_id(&self.deps))
            .await?;
        Ok((
            InHand {
                grant,
                client,
                resolved,
                data_key,
                lease_ends,
            },
            candidates,
            slot,
        ))
    }

    /// The present token first; then one that came too late, and the one before while the provider still takes it.
    async fn candidates(
        &self,
        grant: &Grant,
        resolved: &Resolved,
    ) -> Result<Vec<Candidate>, RefreshError> {
        if grant.strategy != Strategy::RefreshToken {
            return Ok(vec![Candidate { token: None }]);
        }
        let key = grant.key;
        let present = grant
            .refresh_token
            .as_ref()
            .map(|sealed| (secrets::refresh_token_place(key, grant.version), sealed));
        let alternate = grant
            .alternate
            .as_ref()
            .map(|kept| (secrets::alternate_place(key, kept.version), &kept.sealed));
        let previous = grant
            .previous
            .as_ref()
            .filter(|kept| kept.until > grant.read_at);
        let previous =
            previous.map(|kept| (secrets::previous_place(key, grant.version), &kept.sealed));
        let mut candidates = Vec::new();
        for (place, sealed) in [present, alternate, previous].into_iter().flatten() {
            let token: RefreshToken = secrets::open(&self.keys, &place, sealed).await?;
            if token.origin != origin(&resolved.refresh_url) {
                let error = format!(
                    "the token endpoint is not at {}, where the grant came from",
                    token.origin
                );
                return Err(RefreshError::Misconfigured { error });
            }
            candidates.push(Candidate {
                token: Some(token.value()),
            });
        }
        Ok(candidates)
    }

    /// The request: the connection first, then the last look at lease and fence, then the first byte.
    async fn send(
        &self,
        in_hand: &InHand<'_>,
        candidate: &Candidate,
    ) -> Result<Brought, RefreshError> {
        let resolved = in_hand.resolved;
        let traded = match &candidate.token {
            Some(refresh_token) => TokenGrant::RefreshToken {
                refresh_token,
                scopes: &[],
            },
            None => TokenGrant::ClientCredentials {
                scopes: &in_hand.grant.scopes,
            },
        };
        let url = if candidate.token.is_some() {
            &resolved.refresh_url
        } else {
            &resolved.token_url
        };
        let prepared = match resolved
            .prepare(
                url,
                &traded,
                &self.providers.egress,
                self.provider_timeout,
                &self.deps,
            )
            .await
        {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Brought::Failure(error.failure())),
        };
        if self.deps.clock.boottime() + self.provider_timeout > in_hand.lease_ends {
            return Ok(Brought::LeaseLost);
        }
        let Some(sent_at) = self
            .store
            .intent_send(in_hand.grant.key, in_hand.grant.fence)
            .await?
        else {
            return Ok(Brought::LeaseLost);
        };
        failpoint::reach("before_send");
        let deps = at_database_time(&self.deps, sent_at);
        Ok(match prepared.send(&self.providers.egress, &deps).await {
            Ok(tokens) => Brought::Tokens(tokens, sent_at),
            Err(failure) => Brought::Failure(failure),
        })
    }

    async fn take_answer(
        &self,
        in_hand: &InHand<'_>,
        slot: Slot,
        candidate: &Candidate,
        tokens: &TokenSet,
        sent_at: OffsetDateTime,
    ) -> Result<(), RefreshError> {
        let grant = &in_hand.grant;
        let random = self.random();
        let seals = Seals {
            keys: &self.keys,
            data_key: &in_hand.data_key,
            resolved: in_hand.resolved,
            random,
        };
        let answer = seal_tokens(
            &seals,
            grant,
            candidate.token.as_ref(),
            tokens,
            sent_at,
            None,
        );
        let settled = self.settle(slot, answer).await.map_err(|error| {
            tracing::error!(
                event = "answer_not_stored",
                tenant.id = %grant.key.tenant,
                grant.id = %grant.key.id,
                error = %Chain(&error),
                "new tokens cannot be stored; they stay in the spool"
            );
            RefreshError::Pending
        })?;
        self.statistics.count(
            grant.key.tenant,
            "grant_refreshes",
            &[("outcome", "refreshed")],
        );
        tracing::info!(
            event = "grant_refreshed",
            tenant.id = %grant.key.tenant,
            grant.id = %grant.key.id,
            version = grant.version + 1,
            outcome = ?settled,
            "a grant has new tokens"
        );
        if in_hand.client.refusal.is_some() {
            self.store.oauth_client_accepted(in_hand.client.key).await?;
        }
        if settled == Settled::TooLate {
            Err(RefreshError::Ended)
        } else {
            Ok(())
        }
    }

    /// What says nothing of the grant: it waits, and so does everybody else.
    async fn take_failure(
        &self,
        in_hand: &InHand<'_>,
        failure: &TokenFailure,
    ) -> Result<bool, RefreshError> {
        let (grant, client) = (&in_hand.grant, in_hand.client);
        let error = described(failure);
        self.statistics.count(
            grant.key.tenant,
            "grant_refreshes",
            &[("outcome", failure.class.as_str())],
        );
        tracing::warn!(
            event = "refresh_failed",
            tenant.id = %grant.key.tenant,
            grant.id = %grant.key.id,
            class = failure.class.as_str(),
            status = failure.status,
            error = %Chain(failure),
            "a refresh failed"
        );
        if failure.class == Class::Configuration {
            let wait = self
                .store
                .oauth_client_refused(client.key, client.version, &error)
                .await?;
            let wait = wait.unwrap_or(FIRST_BACKOFF);
            let recorded = Failure {
                kind: FailureKind::Configuration,
                error: error.clone(),
                wait,
            };
            self.record(grant.key, grant.fence, &recorded, in_hand.lease_ends)
                .await?;
            return Err(RefreshError::Misconfigured { error });
        }
        let (kind, told) = match failure.class {
            Class::RateLimited { until } => (
                FailureKind::RateLimited,
                Duration::try_from(until - grant.read_at).ok(),
            ),
            // Whatever else it says.
            Class::Transient if failure.status == Some(429) => {
                (FailureKind::RateLimited, failure.retry_after)
            }
            Class::Ambiguous => (FailureKind::Ambiguous, failure.retry_after),
            Class::ProviderBug => (FailureKind::ProviderBug, failure.retry_after),
            _ => (FailureKind::Transient, failure.retry_after),
        };
        let backoff = self.backoff(grant.consecutive_failures, FIRST_BACKOFF, LONGEST_BACKOFF);
        let wait = match told {
            // Not all at once when the time has come.
            Some(told) => told.max(backoff) + Duration::from_secs(1).mul_f64(self.random()),
            None => backoff,
        };
        match self
            .record(
                grant.key,
                grant.fence,
                &Failure { kind, error, wait },
                in_hand.lease_ends,
            )
            .await?
        {
            Recorded::Written(_) => Err(RefreshError::Provider { kind, wait }),
            Recorded::NotMine => Ok(false),
        }
    }

    /// The provider's last word, unless the row has a newer one.
    async fn take_refusal(
        &self,
        in_hand: &InHand<'_>,
        cause: ReauthorizationCause,
        failure: &TokenFailure,
    ) -> Result<bool, RefreshError> {
        let (key, fence, version) = (
            in_hand.grant.key,
            in_hand.grant.fence,
            in_hand.grant.version,
        );
        let (rotates, error) = (in_hand.resolved.rules.rotates, described(failure));
        let verdict = self.write_within(in_hand.lease_ends, |store| {
            let error = error.clone();
            async move {
                let change = store.grant_change("grant_refuse", key, move |grant| {
                    match grant.refuse(fence, version, rotates, cause, &error) {
                        Verdict::Ended(event) => Change::told(Verdict::Ended(event), Some(event)),
                        verdict => Change::none(verdict),
                    }
                });
                change.await
            }
        });
        match verdict.await?.ok_or(RefreshError::NotFound)? {
            Verdict::Newer => Ok(true),
            Verdict::NotMine => Ok(false),
            Verdict::Ended(_) => {
                self.statistics.count(
                    key.tenant,
                    "grant_refreshes",
                    &[("outcome", "reauthorization")],
                );
                tracing::warn!(
                    event = "grant_ended",
                    tenant.id = %key.tenant,
                    grant.id = %key.id,
                    code = failure.code.as_deref().unwrap_or_default(),
                    "the provider refuses a grant for good: its user has to connect again"
                );
                Err(RefreshError::Ended)
            }
        }
    }

    async fn record(
        &self,
        key: GrantKey,
        fence: i64,
        failure: &Failure,
        lease_ends: Duration,
    ) -> Result<Recorded, RefreshError> {
        let recorded = self.write_within(lease_ends, |store| {
            let failure = failure.clone();
            async move {
                let change = store.grant_change("refresh_fail", key, move |grant| {
                    match grant.fail(fence, &failure) {
                        Recorded::Written(event) => Change::told(Recorded::Written(event), event),
                        Recorded::NotMine => Change::none(Recorded::NotMine),
                    }
                });
                change.await
            }
        });
        Ok(recorded.await?.unwrap_or(Recorded::NotMine))
    }

    /// Tries again while the database is away and the lease lasts; what is not written by then, others find out.
    async fn write_within<T, W>(
        &self,
        lease_ends: Duration,
        write: impl Fn(Store) -> W,
    ) -> Result<T, RefreshError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match write(self.store.clone()).await {
                Err(error) if error.is_unavailable() && self.deps.clock.boottime() < lease_ends => {
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// A failure of ours, before anything was sent.
    fn own_failure(&self, error: &RefreshError) -> Failure {
        let (kind, first) = match error {
            RefreshError::Misconfigured { .. } => {
                (FailureKind::Configuration, Duration::from_mins(1))
            }
            RefreshError::Keys(cause) if !matches!(**cause, KeysError::Store(_)) => {
                tracing::error!(event = "secrets_unreadable", error = %Chain(error), "a grant's secrets cannot be read");
                (FailureKind::Configuration, Duration::from_mins(1))
            }
            _ => (FailureKind::Transient, FIRST_BACKOFF),
        };
        Failure {
            kind,
            error: error.to_string(),
            wait: self.backoff(0, first, first),
        }
    }
}

/// The provider's code and description; neither holds a secret.
pub(crate) fn described(failure: &TokenFailure) -> String {
    match (&failure.code, &failure.description) {
        (Some(code), Some(description)) => format!("{code}: {description}"),
        (Some(code), None) => code.clone(),
        (None, Some(description)) => description.clone(),
        (None, None) => failure.to_string(),
    }
}
