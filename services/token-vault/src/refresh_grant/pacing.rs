//! Who may go to a token endpoint when: so many at a time, none while it is away, and no client that it has told to wait.
//!
//! An endpoint is an origin and a path. All of this is this process's own: replicas find out for themselves, each with
//! one request.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use common::{Clock, Deps, Rng};
use egress::Url;
use oauth_client::{Class, Failure};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::RefreshError;
use super::breaker::{Admission, Breaker, State};
use crate::config::RefreshConfig;
use crate::grant::{ClientKey, FailureKind};

/// Knows the token endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pacing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    limits: Limits,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    openings: Counter<u64>,
}

/// How many at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// To one endpoint.
    pub(crate) per_endpoint: usize,
    /// Refreshes that nobody waits for, to all endpoints.
    pub(crate) in_background: usize,
}

impl From<&RefreshConfig> for Limits {
    fn from(config: &RefreshConfig) -> Self {
        Self {
            per_endpoint: config.per_endpoint,
            in_background: config.concurrency,
        }
    }
}

/// Whether somebody waits for the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Urgency {
    /// A caller does.
    Awaited,
    /// The time has come, and nobody does.
    Due,
}

/// One token endpoint.
#[derive(Debug)]
struct Gate {
    /// For logs and metrics; its path may name a tenant.
    host: String,
    all: Arc<Semaphore>,
    /// Fewer, so that callers do not wait behind what nobody waits for.
    due: Arc<Semaphore>,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
struct Asked {
    breaker: Breaker,
    /// Clients that were told to wait, and until when.
    held: HashMap<ClientKey, Duration>,
    /// Clients that have come here.
    clients: HashMap<ClientKey, Duration>,
    /// Refreshes that nobody waits for, here or on their way in.
    background: usize,
}

/// Leave to send one request at a time, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pass {
    inner: Arc<Inner>,
    gate: Arc<Gate>,
    client: ClientKey,
    urgency: Urgency,
    is_probe: bool,
    is_told: Mutex<bool>,
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// Nothing may be sent there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow {
    /// Come again after this.
    pub(crate) wait: Duration,
    /// Whether it is our client that was told to wait, and not the endpoint that is away.
    pub(crate) is_limited: bool,
}

/// A client is held back for no longer than this at a time, whatever it is told.
const LONGEST_HOLD: Duration = Duration::from_hours(1);
/// What was not asked for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(30);

impl Pacing {
    pub(crate) fn new(limits: Limits, deps: &Deps) -> Self {
        let inner = Arc::new(Inner {
            clock: Arc::clone(&deps.clock),
            rng: Arc::clone(&deps.rng),
            limits,
            gates: Mutex::default(),
            openings: deps
                .meter
                .u64_counter("hawser.vault.token_endpoint.openings")
                .with_unit("{opening}")
                .with_description("How often a token endpoint's breaker opened, by server")
                .build(),
        });
        observe(deps, &Arc::downgrade(&inner));
        Self(inner)
    }

    /// Waits for a place; whoever is not urgent waits behind whoever is.
    ///
    /// # Errors
    /// [`NotNow`] where waiting here is of no use.
    pub(crate) async fn enter(
        &self,
        endpoint: &Url,
        client: ClientKey,
        urgency: Urgency,
    ) -> Result<Pass, NotNow> {
        let gate = self.gate(endpoint);
        let mut queued = Queued::new(&gate, &self.0.clock, client, urgency)?;
        let due = match urgency {
            Urgency::Due => Some(place(&gate.due).await),
            Urgency::Awaited => None,
        };
        let all = place(&gate.all).await;
        // It may have gone away while we waited.
        let is_probe = gate.admit(client, self.0.clock.boottime())?;
        queued.has_entered = true;
        Ok(Pass {
            inner: Arc::clone(&self.0),
            gate: Arc::clone(&gate),
            client,
            urgency,
            is_probe,
            is_told: Mutex::new(false),
            _places: (all, due),
        })
    }

    /// Clients for whom nothing can be done in the background at present: wherever they have come, they would have to
    /// wait, or have as much under way as is their share.
    pub(crate) fn clients_without_way(&self) -> Vec<Uuid> {
        let now = self.0.clock.boottime();
        let share = (self.0.limits.in_background / 2).max(1);
        let mut has_way: HashMap<Uuid, bool> = HashMap::new();
        for gate in self.0.gates().values() {
            let asked = gate.asked();
            for client in asked.clients.keys() {
                let is_free = asked.wait(*client, now).is_none() && asked.background < share;
                *has_way.entry(client.id).or_default() |= is_free;
            }
        }
        has_way
            .into_iter()
            .filter_map(|(client, has_way)| (!has_way).then_some(client))
            .collect()
    }

    /// Forgets endpoints and clients that nobody has asked for in a while.
    pub(crate) fn sweep(&self) {
        let now = self.0.clock.boottime();
        let is_recent = |seen: &Duration| now.saturating_sub(*seen) < FORGOTTEN_AFTER;
        self.0.gates().retain(|_, gate| {
            let mut asked = gate.asked();
            asked.held.retain(|_, until| *until > now);
            asked.clients.retain(|_, seen| is_recent(seen));
            let is_used = asked.background > 0
                || gate.all.available_permits() < self.0.limits.per_endpoint
                || asked.breaker.wait(now).is_some();
            is_used || !asked.held.is_empty() || !asked.clients.is_empty()
        });
    }

    fn gate(&self, endpoint: &Url) -> Arc<Gate> {
        let key = format!(
            "{}{}",
            endpoint.origin().ascii_serialization(),
            endpoint.path()
        );
        let per_endpoint = self.0.limits.per_endpoint;
        let mut gates = self.0.gates();
        let gate = gates.entry(key).or_insert_with(|| {
            Arc::new(Gate {
                host: endpoint.host_str().unwrap_or_default().to_owned(),
                all: Arc::new(Semaphore::new(per_endpoint)),
                due: Arc::new(Semaphore::new((per_endpoint * 3 / 4).max(1))),
                asked: Mutex::new(Asked {
                    breaker: Breaker::new(),
                    held: HashMap::new(),
                    clients: HashMap::new(),
                    background: 0,
                }),
            })
        });
        Arc::clone(gate)
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let place = Arc::clone(places).acquire_owned().await;
    place.expect("the semaphore is never closed")
}

impl Inner {
    fn gates(&self) -> MutexGuard<'_, HashMap<String, Arc<Gate>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> f64 {
        let mut bytes = [0; 4];
        self.rng.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }
}

impl Gate {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request is the probe.
    fn admit(&self, client: ClientKey, now: Duration) -> Result<bool, NotNow> {
        let mut asked = self.asked();
        if let Some(not_now) = asked.wait(client, now) {
            return Err(not_now);
        }
        match asked.breaker.admit(now) {
            Admission::Free => Ok(false),
            Admission::Probe => Ok(true),
            Admission::Refused(wait) => Err(NotNow {
                wait,
                is_limited: false,
            }),
        }
    }
}

impl Asked {
    fn wait(&self, client: ClientKey, now: Duration) -> Option<NotNow> {
        let held = self.held.get(&client).filter(|until| **until > now);
        match (held, self.breaker.wait(now)) {
            (Some(until), _) => Some(NotNow {
                wait: until.saturating_sub(now),
                is_limited: true,
            }),
            (None, wait) => wait.map(|wait| NotNow {
                wait,
                is_limited: false,
            }),
        }
    }
}

/// Counts a refresh in the background from the moment it stands in line.
struct Queued {
    gate: Arc<Gate>,
    urgency: Urgency,
    has_entered: bool,
}

impl Queued {
    fn new(
        gate: &Arc<Gate>,
        clock: &Arc<dyn Clock>,
        client: ClientKey,
        urgency: Urgency,
    ) -> Result<Self, NotNow> {
        let now = clock.boottime();
        let mut asked = gate.asked();
        asked.clients.insert(client, now);
        if let Some(not_now) = asked.wait(client, now) {
            return Err(not_now);
        }
        if urgency == Urgency::Due {
            asked.background += 1;
        }
        drop(asked);
        Ok(Self {
            gate: Arc::clone(gate),
            urgency,
            has_entered: false,
        })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // From then on the pass counts.
        if !self.has_entered && self.urgency == Urgency::Due {
            self.gate.asked().background -= 1;
        }
    }
}

impl Pass {
    /// The endpoint answered as it should.
    pub(crate) fn answered(&self) {
        self.tell();
        if self.gate.asked().breaker.answered() {
            tracing::info!(event = "token_endpoint_back", server.address = %self.gate.host, "a token endpoint answers again");
        }
    }

    /// The request failed: which says something of the endpoint, of our client there, or of the grant alone. `asked_at` is
    /// the time that the failure counts from.
    pub(crate) fn failed(&self, failure: &Failure, asked_at: OffsetDateTime) {
        match Sign::of(failure, asked_at) {
            Sign::Alive => self.answered(),
            Sign::Limited(wait) => {
                self.answered();
                let until = self.inner.clock.boottime() + wait.min(LONGEST_HOLD);
                self.gate.asked().held.insert(self.client, until);
            }
            Sign::Away(told) => self.unanswered(told),
            Sign::Nothing => {}
        }
    }

    fn unanswered(&self, told: Option<Duration>) {
        self.tell();
        let (now, random) = (self.inner.clock.boottime(), self.inner.random());
        let opened = self
            .gate
            .asked()
            .breaker
            .failed(self.is_probe, told, now, random);
        let Some(wait) = opened else { return };
        let host = KeyValue::new("server.address", self.gate.host.clone());
        self.inner.openings.add(1, &[host]);
        tracing::warn!(
            event = "token_endpoint_away",
            server.address = %self.gate.host,
            wait_s = wait.as_secs_f64(),
            "a token endpoint does not answer; for a while nothing is sent there"
        );
    }

    fn tell(&self) {
        *self.is_told.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let is_told = *self.is_told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.inner.clock.boottime();
        let mut asked = self.gate.asked();
        if self.is_probe && !is_told {
            asked.breaker.not_probed(now);
        }
        if self.urgency == Urgency::Due {
            asked.background -= 1;
        }
    }
}

/// What a failure says besides what it says of the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// The endpoint works.
    Alive,
    /// It works, and our client is to wait.
    Limited(Duration),
    /// It does not, perhaps for this long.
    Away(Option<Duration>),
    /// Nothing was sent, and for reasons of our own.
    Nothing,
}

impl Sign {
    fn of(failure: &Failure, asked_at: OffsetDateTime) -> Self {
        let told = failure.retry_after;
        match (failure.status, failure.class) {
            // The status counts for the client; a code in another answer may be about the one token.
            (Some(429), Class::RateLimited { until }) => {
                Self::Limited(Duration::try_from(until - asked_at).unwrap_or_default())
            }
            (Some(429), _) => Self::Limited(told.unwrap_or(Duration::from_mins(1))),
            (Some(503), Class::Transient | Class::Ambiguous) => Self::Away(told),
            (None, Class::Configuration) => Self::Nothing,
            // The last one is a page for people where tokens should be: the endpoint is being worked on.
            (None, _)
            | (Some(408 | 500..), Class::Transient | Class::Ambiguous)
            | (Some(200..=399), Class::ProviderBug) => Self::Away(None),
            (Some(_), _) => Self::Alive,
        }
    }
}

impl From<NotNow> for RefreshError {
    fn from(NotNow { wait, is_limited }: NotNow) -> Self {
        let kind = if is_limited {
            FailureKind::RateLimited
        } else {
            FailureKind::Transient
        };
        Self::Provider { kind, wait }
    }
}

/// The gauges. They hold the endpoints weakly, so that a vault that has ended can go.
fn observe(deps: &Deps, inner: &Weak<Inner>) {
    let weak = Weak::clone(inner);
    deps.meter
        .i64_observable_up_down_counter("hawser.vault.token_endpoint.count")
        .with_unit("{endpoint}")
        .with_description("Token endpoints by what their breaker says")
        .with_callback(move |observer| {
            let Some(inner) = weak.upgrade() else { return };
            let now = inner.clock.boottime();
            let mut counts = [0_i64; 3];
            for gate in inner.gates().values() {
                let place = match gate.asked().breaker.state() {
                    State::Closed { .. } => 0,
                    State::Open { until } if until > now => 1,
                    State::Open { .. } | State::HalfOpen => 2,
                };
                counts[place] += 1;
            }
            for (count, state) in counts.iter().zip(["closed", "open", "half_open"]) {
                observer.observe(*count, &[KeyValue::new("state", state)]);
            }
        })
        .build();
    let weak = Weak::clone(inner);
    deps.meter
        .i64_observable_up_down_counter("hawser.vault.token_endpoint.active_requests")
        .with_unit("{request}")
        .with_description("Refreshes that have a place at a token endpoint")
        .with_callback(move |observer| {
            let Some(inner) = weak.upgrade() else { return };
            let limit = inner.limits.per_endpoint;
            let used = inner
                .gates()
                .values()
                .map(|gate| limit.saturating_sub(gate.all.available_permits()))
                .sum::<usize>();
            observer.observe(used as i64, &[]);
        })
        .build();
}
