//! Following another service's events: one replica at a time, by a fenced lease, with its place kept here.
//!
//! Invariant: *the cursor is stored after the effects of what it passes, and only by the holder of the lease.* So after a crash, or
//! where a holder was frozen and comes back, events are seen twice but never missed; what is applied is idempotent,
//! by the event's id or by [`advance`] on the resource's revision.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use uuid::Uuid;

use super::{Database, Error, Scope, Tx};
use crate::lifecycle::Shutdown;
use crate::problem::Chain;
use crate::rpc::CallError;
use crate::{Code, TenantKey};

/// A lease is for 30 s, as the statements say; who has not been able to renew it for so long stops before others begin.
const TRUST: Duration = Duration::from_secs(27);
const RENEWAL: Duration = Duration::from_secs(10);
/// How often to ask for a lease that somebody else holds.
const STANDBY: Duration = Duration::from_secs(10);
/// A stream that is silent for so long has been lost: an idle one gives a bookmark every 15 s.
const SILENCE: Duration = Duration::from_mins(1);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// At most this many are applied before the cursor is stored.
const CHUNK: usize = 64;

const CONSUMER_ADD: &str = "\
-- {schema}.consumer_add
INSERT INTO {schema}.consumers (name)
VALUES ($1)
ON CONFLICT (name) DO NOTHING";

const LEASE_CLAIM: &str = "\
-- {schema}.consumer_lease_claim
UPDATE {schema}.consumers
SET fence = fence + 1, holder = $2, lease_until = now() + '30 s'::interval
WHERE name = $1 AND lease_until < now()
RETURNING fence, cursor";

const LEASE_RENEW: &str = "\
-- {schema}.consumer_lease_renew
UPDATE {schema}.consumers
SET lease_until = now() + '30 s'::interval
WHERE name = $1 AND fence = $2";

const LEASE_RELEASE: &str = "\
-- {schema}.consumer_lease_release
UPDATE {schema}.consumers
SET lease_until = now()
WHERE name = $1 AND fence = $2";

const CURSOR_STORE: &str = "\
-- {schema}.consumer_cursor_store
UPDATE {schema}.consumers
SET cursor = $3, stored_at = now(), lease_until = now() + '30 s'::interval
WHERE name = $1 AND fence = $2";

const REVISION_ADVANCE: &str = "\
-- {schema}.applied_revision_advance
INSERT INTO {schema}.applied_revisions AS a (bucket, tenant_id, consumer, resource, revision)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (bucket, tenant_id, consumer, resource) DO UPDATE
SET revision = EXCLUDED.revision
WHERE a.revision < EXCLUDED.revision";

/// Notes in the transaction that applies an event that the resource has come to this revision. `false` where it was there
/// before, or further: then the event is old, and is not applied.
///
/// # Errors
/// Where the statement fails.
pub async fn advance(
    tx: &Tx,
    tenant: TenantKey,
    consumer: &str,
    resource: &str,
    revision: i64,
) -> Result<bool, Error> {
    let params: [&(dyn super::ToSql + Sync); 5] = [
        &tenant.bucket(),
        &tenant.id(),
        &consumer,
        &resource,
        &revision,
    ];
    Ok(tx.execute(REVISION_ADVANCE, &params).await? == 1)
}

/// From where a stream is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Behind this cursor.
    After(String),
    /// All that is kept: this consumer is new.
    Beginning,
    /// The cursor is too old. The stream watches from the head first, takes its bookmark's cursor, then gives every resource
    /// as it is now, without a cursor, then that bookmark, then what follows.
    Resync,
}

/// What a stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<M> {
    /// Where to go on after it; `None` for what has no place of its own, a listed resource.
    pub cursor: Option<String>,
    /// The message; a bookmark is one that changes nothing.
    pub message: M,
}

/// A stream cannot be opened, or read on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The cursor is too old.
    #[error("the events after the stored cursor are no longer kept")]
    OutOfRange,
    /// Anything else.
    #[error("the stream of events failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FeedError {
    /// Trouble that passes.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CallError> for FeedError {
    fn from(error: CallError) -> Self {
        match error.code {
            Code::OutOfRange => Self::OutOfRange,
            _ => Self::failed(error),
        }
    }
}

/// Follows one stream of events.
#[derive(Debug)]
pub struct Consumer {
    db: Database,
    name: &'static str,
    holder: Uuid,
    applied: Counter<u64>,
    failures: Counter<u64>,
}

/// A claim on the consumer's row.
#[derive(Debug)]
struct Lease {
    fence: i64,
    cursor: String,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the lease is not ours any more")]
    LeaseLost,
    #[error("the place among the events cannot be read or stored")]
    Database(#[from] Error),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("nothing was heard for {SILENCE:?}")]
    Silent,
    #[error("the stream ended")]
    Ended,
    #[error("an event could not be applied")]
    Apply(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Consumer {
    /// `name` says whose events and what for, "directory.events"; it is the row's key.
    pub fn new(db: &Database, name: &'static str) -> Self {
        let meter = &db.deps().meter;
        Self {
            db: db.clone(),
            name,
            holder: TenantKey::PLATFORM.new_id(db.deps()),
            applied: meter
                .u64_counter("hawser.consumer.applied")
                .with_unit("{event}")
                .with_description("Events that were applied")
                .build(),
            failures: meter
                .u64_counter("hawser.consumer.failures")
                .with_unit("{failure}")
                .with_description("Streams that failed, and events that could not be applied")
                .build(),
        }
    }

    /// Follows the events until shutdown is requested, through every failure: of the other service, of the database, of `apply`, which
    /// sees the same event again then.
    ///
    /// # Errors
    /// None; it is what tasks return.
    pub async fn run<M, S, O, OF, A, AF, E>(
        self,
        shutdown: Shutdown,
        open: O,
        apply: A,
    ) -> Result<(), std::convert::Infallible>
    where
        O: Fn(Start) -> OF,
        OF: Future<Output = Result<S, FeedError>>,
        S: Stream<Item = Result<Received<M>, FeedError>>,
        A: Fn(M) -> AF,
        AF: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut backoff = BACKOFF.0;
        while !shutdown.is_requested() {
            let claimed = tokio::select! {
                claimed = self.claim() => claimed,
                () = shutdown.requested() => break,
            };
            let pause = match claimed {
                Ok(Some(lease)) => {
                    backoff = BACKOFF.0;
                    self.hold(&lease, &shutdown, &open, &apply).await;
                    Duration::ZERO
                }
                Ok(None) => STANDBY,
                Err(error) => {
                    self.failed(&error);
                    backoff = (backoff * 2).min(BACKOFF.1);
                    backoff
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => {}
            }
        }
        Ok(())
    }

    /// Works as long as the lease is ours; gives it back on shutdown.
    async fn hold<M, S, O, OF, A, AF, E>(
        &self,
        lease: &Lease,
        shutdown: &Shutdown,
        open: &O,
        apply: &A,
    ) where
        O: Fn(Start) -> OF,
        OF: Future<Output = Result<S, FeedError>>,
        S: Stream<Item = Result<Received<M>, FeedError>>,
        A: Fn(M) -> AF,
        AF: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        tracing::info!(
            event = "consumer_started",
            consumer = self.name,
            fence = lease.fence,
            "following the events of {}",
            self.name
        );
        tokio::select! {
            () = self.keep(lease) => {
                tracing::info!(event = "consumer_lease_lost", consumer = self.name, fence = lease.fence, "another replica follows the events now");
            }
            () = self.follow(lease, open, apply) => {}
            () = shutdown.requested() => {
                // If this fails, the lease ends by itself.
                let _ = self.db.execute(Scope::System, LEASE_RELEASE, &[&self.name, &lease.fence]).await;
            }
        }
    }

    /// Ends when the lease is lost, or may be: where the database has not confirmed it for long.
    async fn keep(&self, lease: &Lease) {
        let clock = &self.db.deps().clock;
        let mut confirmed = clock.boottime();
        while clock.boottime().saturating_sub(confirmed) < TRUST {
            tokio::time::sleep(RENEWAL).await;
            let asked = clock.boottime();
            let left = TRUST.saturating_sub(asked.saturating_sub(confirmed));
            let renewal = async {
                self.db
                    .execute(Scope::System, LEASE_RENEW, &[&self.name, &lease.fence])
                    .await
            };
            match tokio::time::timeout(left, renewal).await {
                Ok(Ok(0)) => return,
                Ok(Ok(_)) => confirmed = asked,
                Ok(Err(error)) => self.failed(&error),
                Err(_) => {}
            }
        }
    }

    /// Session after session; ends when one finds the lease lost.
    async fn follow<M, S, O, OF, A, AF, E>(&self, lease: &Lease, open: &O, apply: &A)
    where
        O: Fn(Start) -> OF,
        OF: Future<Output = Result<S, FeedError>>,
        S: Stream<Item = Result<Received<M>, FeedError>>,
        A: Fn(M) -> AF,
        AF: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut cursor = lease.cursor.clone();
        let mut resync = false;
        let mut backoff = BACKOFF.0;
        loop {
            let start = match cursor.as_str() {
                _ if resync => Start::Resync,
                "" => Start::Beginning,
                after => Start::After(after.to_owned()),
            };
            let before = cursor.clone();
            let error = self.session(lease, start, &mut cursor, open, apply).await;
            if cursor != before {
                resync = false;
                backoff = BACKOFF.0;
            }
            match &error {
                SessionError::LeaseLost => return,
                SessionError::Feed(FeedError::OutOfRange) if !resync => {
                    tracing::warn!(
                        event = "consumer_resync",
                        consumer = self.name,
                        "the stored place is no longer kept; everything is listed anew"
                    );
                    resync = true;
                    continue;
                }
                SessionError::Ended => {}
                error => self.failed(error),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// One stream, until it fails or ends.
    async fn session<M, S, O, OF, A, AF, E>(
        &self,
        lease: &Lease,
        start: Start,
        stored: &mut String,
        open: &O,
        apply: &A,
    ) -> SessionError
    where
        O: Fn(Start) -> OF,
        OF: Future<Output = Result<S, FeedError>>,
        S: Stream<Item = Result<Received<M>, FeedError>>,
        A: Fn(M) -> AF,
        AF: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = match open(start).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let mut chunks = std::pin::pin!(stream.ready_chunks(CHUNK));
        loop {
            let chunk = match tokio::time::timeout(SILENCE, chunks.next()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return SessionError::Ended,
                Err(_) => return SessionError::Silent,
            };
            let mut reached = None;
            let mut outcome = Ok(());
            for item in chunk {
                let received = match item {
                    Ok(received) => received,
                    Err(error) => {
                        outcome = Err(error.into());
                        break;
                    }
                };
                if let Err(error) = apply(received.message).await {
                    outcome = Err(SessionError::Apply(error.into()));
                    break;
                }
                self.applied.add(1, &[KeyValue::new("consumer", self.name)]);
                reached = received.cursor.or(reached);
            }
            // What was applied before a failure is not applied again.
            if let Some(reached) = reached.filter(|reached| reached != stored) {
                match self
                    .db
                    .execute(
                        Scope::System,
                        CURSOR_STORE,
                        &[&self.name, &lease.fence, &reached],
                    )
                    .await
                {
                    Ok(0) => return SessionError::LeaseLost,
                    Ok(_) => *stored = reached,
                    Err(error) => return error.into(),
                }
            }
            if let Err(error) = outcome {
                return error;
            }
        }
    }

    /// `None` where another replica has the lease.
    async fn claim(&self) -> Result<Option<Lease>, Error> {
        let claim = async || {
            self.db
                .query_opt(Scope::System, LEASE_CLAIM, &[&self.name, &self.holder])
                .await
        };
        let row = match claim().await? {
            Some(row) => Some(row),
            None if self
                .db
                .execute(Scope::System, CONSUMER_ADD, &[&self.name])
                .await?
                == 1 =>
            {
                claim().await?
            }
            None => None,
        };
        Ok(row.map(|row| Lease {
            fence: row.get("fence"),
            cursor: row.get("cursor"),
        }))
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        self.failures
            .add(1, &[KeyValue::new("consumer", self.name)]);
        tracing::warn!(event = "consumer_failed", consumer = self.name, error = %Chain(error), "following {} failed; trying again", self.name);
    }
}
