//! Refreshing: one request in flight for a grant, however many callers and replicas want its new tokens.
//!
//! In this process callers share one run ([`Refresher`]); among processes the lease in the grant's row decides
//! ([`Grant::claim`](crate::grant::Grant::claim)). A run goes on when its callers are gone. Whether the token endpoint may
//! be asked at all is [`Pacing`]'s to say.

pub(crate) mod attempt;
mod breaker;
mod failed;
mod metrics;
pub(crate) mod new_tokens;
mod pacing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::problem::Chain;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::grant::{Claim, Claimant, FailureKind, Grant, GrantKey, Silence};
use crate::keys::KeysError;
use crate::oauth_client::OAuthClient;
use crate::providers::{ResolveError, Resolved};
use crate::spool::SpoolError;
use crate::store::{Change, StoreError};
use crate::vault::Vault;

use attempt::Terms;

pub(crate) use failed::described;
pub(crate) use metrics::RefreshMetrics;
pub(crate) use new_tokens::{Seals, seal_tokens};
pub(crate) use pacing::{Limits, Pacing, Pass, Urgency};

/// Runs refreshes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Refresher {
    vault: Vault,
    running: Arc<Mutex<Runs>>,
}

/// By grant, and by the version that is not good enough: who wants newer tokens than another run will bring runs its own.
type Runs = HashMap<(GrantKey, i64), Run>;

type Run = Shared<BoxFuture<'static, Result<(), RefreshError>>>;

/// Why there are no newer tokens. What became of the grant stands in its row.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    /// There is no such grant.
    #[error("there is no such grant")]
    NotFound,
    /// It hands out nothing any more.
    #[error("the grant has ended")]
    Ended,
    /// Nothing can renew it.
    #[error("the grant cannot be refreshed")]
    NotRefreshable,
    /// The provider failed.
    #[error("the provider gave no new tokens")]
    Provider {
        /// How.
        kind: FailureKind,
        /// The next attempt is not before this.
        wait: Duration,
    },
    /// The OAuth client is refused, or cannot be used as it is.
    #[error("the OAuth client cannot be used: {error}")]
    Misconfigured {
        /// The provider's error code, or what is wrong here.
        error: String,
    },
    /// Another vault is at it, and takes its time.
    #[error("another vault is refreshing the grant")]
    Pending,
    /// The vault's own parts failed.
    #[error("the vault failed")]
    Store(#[source] Arc<StoreError>),
    /// The vault's keys failed.
    #[error("the vault's keys failed")]
    Keys(#[source] Arc<KeysError>),
    /// The vault's disk failed.
    #[error("the vault's spool failed")]
    Spool(#[source] Arc<SpoolError>),
}

/// How long a run waits for another vault's.
const PATIENCE: Duration = Duration::from_mins(2);
const FIRST_POLL: Duration = Duration::from_millis(25);
const LONGEST_POLL: Duration = Duration::from_millis(200);
/// After this long of polling, less often will do.
const SLOW_POLL_AFTER: Duration = Duration::from_secs(10);
const SLOW_POLL: Duration = Duration::from_secs(1);
/// How often it is asked whether the lease can be taken from who has it.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

impl Refresher {
    pub(crate) fn new(vault: Vault) -> Self {
        Self {
            vault,
            running: Arc::default(),
        }
    }

    /// Waits for tokens newer than version `beyond`.
    ///
    /// # Errors
    /// [`RefreshError`] says why there are none.
    pub(crate) async fn refresh(&self, key: GrantKey, beyond: i64) -> Result<(), RefreshError> {
        self.start(key, beyond).await
    }

    /// Sees to it that newer tokens are on their way.
    pub(crate) fn start(
        &self,
        key: GrantKey,
        beyond: i64,
    ) -> impl Future<Output = Result<(), RefreshError>> + Send + use<> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = running.get(&(key, beyond)) {
            return run.clone();
        }
        let (done, told) = oneshot::channel();
        let run: Run = async { told.await.unwrap_or(Err(RefreshError::Pending)) }
            .boxed()
            .shared();
        running.insert((key, beyond), run.clone());
        drop(running);
        let this = self.clone();
        self.vault.tasks.spawn_work("refresh", async move {
            let mine = Forget {
                running: Arc::clone(&this.running),
                run: (key, beyond),
            };
            let outcome = Box::pin(this.vault.refresh(key, beyond, Urgency::Awaited)).await;
            // Whoever comes from here on reads the row for itself.
            drop(mine);
            // Nobody may be waiting any more.
            let _ = done.send(outcome);
        });
        run
    }

    /// Refreshes what nobody waits for, unless somebody is at it already.
    ///
    /// # Errors
    /// As [`Refresher::refresh`]; [`RefreshError::Pending`] where somebody is at it.
    pub(crate) async fn refresh_due(&self, key: GrantKey, beyond: i64) -> Result<(), RefreshError> {
        let awaited = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(&(key, beyond)).cloned()
        };
        match awaited {
            Some(run) => run.await,
            None => Box::pin(self.vault.refresh(key, beyond, Urgency::Due)).await,
        }
    }
}

/// Takes a run off the list however it ends.
struct Forget {
    running: Arc<Mutex<Runs>>,
    run: (GrantKey, i64),
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.run);
    }
}

impl Vault {
    /// One run: until there are newer tokens, or there will be none.
    async fn refresh(
        &self,
        key: GrantKey,
        beyond: i64,
        urgency: Urgency,
    ) -> Result<(), RefreshError> {
        let give_up = self.deps.clock.boottime() + PATIENCE;
        loop {
            let grant = self.readable(key).await?;
            if grant.version > beyond {
                return Ok(());
            }
            if !grant.is_alive() {
                return Err(RefreshError::Ended);
            }
            if !grant.is_refreshable() {
                return self.expire(key).await;
            }
            if Box::pin(self.take_turn(&grant, beyond, urgency)).await? {
                return Ok(());
            }
            if urgency == Urgency::Due || !self.wait_for_another(key, beyond, give_up).await? {
                return Err(RefreshError::Pending);
            }
        }
    }

    /// Asks the provider, if it may be asked and nobody else is at it. `true` where there are newer tokens now.
    async fn take_turn(
        &self,
        seen: &Grant,
        beyond: i64,
        urgency: Urgency,
    ) -> Result<bool, RefreshError> {
        let (client, resolved) = self.client_of(seen).await?;
        if let Some(wait) = resolved.wait_to_renew(seen) {
            self.postpone(seen.key, wait).await?;
            let kind = FailureKind::Transient;
            return Err(RefreshError::Provider { kind, wait });
        }
        let endpoint = &resolved.refresh_url;
        let pass = match self.pacing.enter(endpoint, client.key, urgency).await {
            Ok(pass) => pass,
            // Whoever is at it was let in before.
            Err(_) if seen.is_under_way() => return Ok(false),
            Err(not_now) => {
                if urgency == Urgency::Awaited {
                    self.postpone(seen.key, not_now.wait).await?;
                }
                return Err(not_now.into());
            }
        };
        if self.shutdown.is_requested() && urgency == Urgency::Due {
            return Ok(false);
        }
        let _open = self.instance.open_intent();
        let claimed_at = self.deps.clock.boottime();
        match self.claim(seen, beyond, &resolved).await? {
            (Claim::Taken, grant) => {
                crate::failpoint::reach("claimed", seen.key.id);
                let terms = Terms {
                    client: &client,
                    resolved: &resolved,
                    pass: &pass,
                    lease_ends: claimed_at + self.lease(),
                };
                // Where the lease was lost, whoever has it now will bring the tokens.
                self.attempt(grant, terms).await
            }
            (Claim::Current, _) => Ok(true),
            (Claim::Ended, _) => Err(RefreshError::Ended),
            (Claim::NotRefreshable, _) => Err(RefreshError::NotRefreshable),
            (
                Claim::NotBefore {
                    last: FailureKind::Configuration,
                    ..
                },
                grant,
            ) => Err(RefreshError::Misconfigured {
                error: grant.last_error,
            }),
            (Claim::NotBefore { at, last }, grant) => {
                let wait = Duration::try_from(at - grant.read_at).unwrap_or_default();
                Err(RefreshError::Provider { kind: last, wait })
            }
            (Claim::Busy, _) => Ok(false),
        }
    }

    async fn readable(&self, key: GrantKey) -> Result<Grant, RefreshError> {
        let grant = self
            .store
            .grant_get(key)
            .await
            .map_err(RefreshError::from)?;
        grant
            .filter(Grant::is_visible)
            .ok_or(RefreshError::NotFound)
    }

    /// The grant's client, if its provider may be asked.
    async fn client_of(&self, grant: &Grant) -> Result<(OAuthClient, Resolved), RefreshError> {
        let missing = || RefreshError::Misconfigured {
            error: "the OAuth client was deleted".to_owned(),
        };
        let key = grant.client.ok_or_else(missing)?;
        let client = self
            .store
            .oauth_client_get(key)
            .await?
            .ok_or_else(missing)?;
        if let Some(refusal) = client
            .refusal
            .as_ref()
            .filter(|refusal| refusal.until > client.read_at)
        {
            let wait = Duration::try_from(refusal.until - client.read_at).unwrap_or_default();
            self.postpone(grant.key, wait).await?;
            return Err(RefreshError::Misconfigured {
                error: refusal.error.clone(),
            });
        }
        match self
            .providers
            .resolve(&client, &grant.parameters, false)
            .await
        {
            Ok(resolved) => Ok((client, resolved.renewed_by(grant.strategy))),
            Err(error) if error.is_transient() => {
                tracing::warn!(event = "client_not_resolved", error = %Chain(&error), "an OAuth client cannot be used at the moment");
                Err(RefreshError::Provider {
                    kind: FailureKind::Transient,
                    wait: Duration::from_secs(5),
                })
            }
            Err(ResolveError::Keys(error)) => Err(error.into()),
            Err(error) => {
                let error = Chain(&error).to_string();
                if let Some(wait) = self
                    .store
                    .oauth_client_refused(key, client.version, &error)
                    .await?
                {
                    self.postpone(grant.key, wait).await?;
                }
                Err(RefreshError::Misconfigured { error })
            }
        }
    }

    /// The sweeper need not come back before `wait` has passed, and not for all grants at once then.
    pub(crate) async fn postpone(&self, key: GrantKey, wait: Duration) -> Result<(), StoreError> {
        let wait = wait + Duration::from_secs(5).mul_f64(self.random());
        let postponed = self
            .store
            .grant_change("refresh_postpone", key, move |grant| {
                let until = grant.read_at + wait;
                let is_due =
                    grant.next_refresh_at.is_some_and(|at| at < until) && grant.intent.is_none();
                if is_due {
                    grant.next_refresh_at = Some(until);
                }
                Change {
                    save: is_due,
                    ..Change::saved(())
                }
            });
        postponed.await?;
        Ok(())
    }

    async fn claim(
        &self,
        seen: &Grant,
        beyond: i64,
        resolved: &Resolved,
    ) -> Result<(Claim, Grant), RefreshError> {
        let claimant = Claimant {
            instance: self.instance.id(),
            lease: self.lease(),
        };
        let rules = resolved.rules;
        let silence = self.silence(seen).await?;
        let claimed = self
            .store
            .grant_change("refresh_claim", seen.key, move |grant| {
                let claim = grant.claim(claimant, beyond, &rules, silence);
                let save = claim == Claim::Taken;
                Change {
                    save,
                    ..Change::saved((claim, grant.clone()))
                }
            });
        claimed.await?.ok_or(RefreshError::NotFound)
    }

    /// For how long whoever is at the grant has been silent.
    pub(crate) async fn silence(&self, seen: &Grant) -> Result<Option<Silence>, StoreError> {
        let Some(intent) = seen.intent else {
            return Ok(None);
        };
        Ok(Some(self.store.instance_silence(intent.instance).await?))
    }

    /// A grant that cannot be renewed ends when its token does.
    async fn expire(&self, key: GrantKey) -> Result<(), RefreshError> {
        let expired = self.store.grant_change("grant_expire", key, |grant| {
            let event = grant.expire();
            Change::told(event, event)
        });
        match expired.await? {
            Some(Some(_)) => {
                tracing::info!(event = "grant_expired", tenant.id = %key.tenant, grant.id = %key.id, "a grant that cannot be refreshed has expired");
                Err(RefreshError::Ended)
            }
            _ => Err(RefreshError::NotRefreshable),
        }
    }

    /// Until the version changes, or it is time to ask for the lease again. `false` where it has taken too long.
    async fn wait_for_another(
        &self,
        key: GrantKey,
        beyond: i64,
        give_up: Duration,
    ) -> Result<bool, RefreshError> {
        let began = self.deps.clock.boottime();
        let mut pause = FIRST_POLL;
        loop {
            tokio::time::sleep(pause).await;
            let now = self.deps.clock.boottime();
            if now >= give_up || self.shutdown.is_requested() {
                return Ok(false);
            }
            let grant = self.readable(key).await?;
            let is_free = !grant.is_under_way() || grant.version > beyond || !grant.is_alive();
            if is_free || now.saturating_sub(began) >= CLAIM_EVERY {
                return Ok(true);
            }
            let is_late = give_up.saturating_sub(now) < PATIENCE.saturating_sub(SLOW_POLL_AFTER);
            pause = if is_late {
                SLOW_POLL
            } else {
                (pause * 2).min(LONGEST_POLL)
            };
        }
    }
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<KeysError> for RefreshError {
    fn from(error: KeysError) -> Self {
        Self::Keys(Arc::new(error))
    }
}

impl From<SpoolError> for RefreshError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(Arc::new(error))
    }
}
