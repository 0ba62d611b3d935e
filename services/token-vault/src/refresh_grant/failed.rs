//! What becomes of a grant, and of its client, where a request brought no tokens.

use std::time::Duration;

use common::problem::Chain;
use oauth_client::{Class, Failure as TokenFailure};
use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;

use super::RefreshError;
use super::attempt::InHand;
use crate::grant::{Failure, FailureKind, Grant, GrantKey, Recorded, Refused, Verdict};
use crate::keys::KeysError;
use crate::oauth_client::OAuthClient;
use crate::providers::is_client_refused;
use crate::store::{Change, Store, StoreError};
use crate::vault::Vault;

const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// What is wrong with a grant's own request is seldom put right within this.
const MISCONFIGURED_PAUSE: Duration = Duration::from_mins(1);

impl Vault {
    /// The provider has taken the client, whatever it said of the grant.
    pub(super) async fn client_accepted(&self, client: &OAuthClient) {
        if client.refusal.is_none() {
            return;
        }
        // Where this fails, the next refresh of one of its grants says so again.
        if let Err(error) = self.store.oauth_client_accepted(client.key).await {
            tracing::warn!(
                event = "client_not_accepted",
                tenant.id = %client.key.tenant,
                oauth_client.id = %client.key.id,
                error = %Chain(&error),
                "a provider takes a client again, and that could not be stored"
            );
        }
    }

    /// What says nothing of the grant: it waits, and so does everybody else.
    pub(super) async fn take_failure(
        &self,
        in_hand: &InHand<'_>,
        failure: &TokenFailure,
        asked_at: OffsetDateTime,
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
            let recorded = if blames_client(failure, grant, client) {
                let wait = self
                    .store
                    .oauth_client_refused(client.key, client.version, &error)
                    .await?;
                Failure::of_client(&error, wait.unwrap_or(FIRST_BACKOFF))
            } else {
                let wait = MISCONFIGURED_PAUSE.mul_f64(1.0 + self.random());
                Failure {
                    kind: FailureKind::Configuration,
                    error: error.clone(),
                    wait,
                    is_clients: false,
                }
            };
            self.record(grant.key, grant.fence, &recorded, in_hand.lease_ends)
                .await?;
            return Err(RefreshError::Misconfigured { error });
        }
        let (kind, told) = match failure.class {
            Class::RateLimited { until } => (
                FailureKind::RateLimited,
                Duration::try_from(until - asked_at).ok(),
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
                &Failure {
                    kind,
                    error,
                    wait,
                    is_clients: false,
                },
                in_hand.lease_ends,
            )
            .await?
        {
            Recorded::Written(_) => Err(RefreshError::Provider { kind, wait }),
            Recorded::NotMine => Ok(false),
        }
    }

    /// The provider's last word, unless the row has a newer one.
    pub(super) async fn take_refusal(
        &self,
        in_hand: &InHand<'_>,
        cause: ReauthorizationCause,
        failure: &TokenFailure,
    ) -> Result<bool, RefreshError> {
        self.client_accepted(in_hand.client).await;
        let (key, error) = (in_hand.grant.key, described(failure));
        let refused = Refused {
            fence: in_hand.grant.fence,
            version: in_hand.grant.version,
            alternate: in_hand.grant.alternate.as_ref().map(|kept| kept.version),
            rotates: in_hand.resolved.rules.rotates,
            cause,
        };
        let verdict = self.write_within(in_hand.lease_ends, |store| {
            let error = error.clone();
            async move {
                let change = store.grant_change("grant_refuse", key, move |grant| {
                    match grant.refuse(&refused, &error) {
                        Verdict::Ended(event) => Change::told(Verdict::Ended(event), Some(event)),
                        Verdict::TryAlternate => Change::saved(Verdict::TryAlternate),
                        verdict => Change::none(verdict),
                    }
                });
                change.await
            }
        });
        match verdict.await?.ok_or(RefreshError::NotFound)? {
            Verdict::Newer => Ok(true),
            Verdict::NotMine | Verdict::TryAlternate => Ok(false),
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

    pub(super) async fn record(
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
    pub(super) fn own_failure(&self, error: &RefreshError) -> Failure {
        let (kind, first) = match error {
            RefreshError::Misconfigured { .. } => (FailureKind::Configuration, MISCONFIGURED_PAUSE),
            RefreshError::Keys(cause) if !matches!(**cause, KeysError::Store(_)) => {
                tracing::error!(event = "secrets_unreadable", error = %Chain(error), "a grant's secrets cannot be read");
                (FailureKind::Configuration, MISCONFIGURED_PAUSE)
            }
            _ => (FailureKind::Transient, FIRST_BACKOFF),
        };
        Failure {
            kind,
            error: error.to_string(),
            wait: self.backoff(0, first, first),
            is_clients: false,
        }
    }
}

/// Whether it is the client's owner who has to do something. What may lie with the one grant (its endpoint, where its own
/// parameters are in it; its token, where the request does not please) stops no other one.
fn blames_client(failure: &TokenFailure, grant: &Grant, client: &OAuthClient) -> bool {
    let is_own_endpoint = !grant.parameters.is_empty();
    if is_own_endpoint && client.key.tenant != grant.key.tenant {
        // One tenant's account at the provider says nothing about a client that serves them all.
        return false;
    }
    let is_about_request = matches!(
        failure.code.as_deref(),
        Some("invalid_request" | "invalid_scope" | "invalid_target")
    );
    is_client_refused(failure) || (!is_own_endpoint && !is_about_request)
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
