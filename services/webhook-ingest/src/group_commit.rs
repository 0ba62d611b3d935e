//! Writing webhooks many at a time: one statement and one flush of the disk for all that came while the last were written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::lifecycle::Shutdown;
use common::pg::{Database, Scope, Tx};
use common::problem::Chain;
use opentelemetry::metrics::Histogram;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::Error;
use crate::event::NewEvent;
use crate::store::events::events_take;
use crate::wake::Wake;

/// Events in a statement.
const BATCH: usize = 64;
/// Bytes of bodies in a statement, but for one that is longer by itself.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long the first of a batch waits for more.
const GATHER: Duration = Duration::from_millis(2);
/// Statements at a time; while they run, the next batch grows.
const FLUSHES: usize = 4;
/// Events that wait; further ones are refused, to be sent again.
const WAITING: usize = 1024;

/// Hands events to whoever writes them; clones hand them to the same one.
#[derive(Clone, Debug)]
pub(crate) struct GroupCommit(mpsc::Sender<Waiting>);

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is durable, and was not known before.
    New,
    /// The provider has sent it before, and it has been durable since.
    Repeat,
}

#[derive(Debug)]
struct Waiting {
    event: NewEvent,
    answer: oneshot::Sender<Option<Taken>>,
}

/// Writes what is handed over.
#[derive(Debug)]
pub(crate) struct Writer {
    waiting: mpsc::Receiver<Waiting>,
    database: Database,
    wake: Wake,
    sizes: Histogram<u64>,
}

/// The two ends.
pub(crate) fn group_commit(database: &Database, wake: &Wake) -> (GroupCommit, Writer) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let sizes = database
        .deps()
        .meter
        .u64_histogram("hawser.webhooks.batch")
        .with_unit("{event}")
        .with_description("Webhooks written in one statement")
        .build();
    let writer = Writer {
        waiting,
        database: database.clone(),
        wake: wake.clone(),
        sizes,
    };
    (GroupCommit(sender), writer)
}

impl GroupCommit {
    /// Returns once the event is durable; what is cancelled half-way may become so all the same.
    ///
    /// # Errors
    /// [`Error::Full`] where too many wait, [`Error::Unwritten`] where the database does not take it.
    pub(crate) async fn take(&self, event: NewEvent) -> Result<Taken, Error> {
        let (answer, answered) = oneshot::channel();
        self.0
            .try_send(Waiting { event, answer })
            .map_err(|_| Error::Full)?;
        answered.await.ok().flatten().ok_or(Error::Unwritten)
    }
}

impl Writer {
    /// Writes until everything that hands over has ended, and what was handed over is written.
    ///
    /// # Errors
    /// None; it is what tasks return.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        let flushes = Arc::new(Semaphore::new(FLUSHES));
        loop {
            let permit = Arc::clone(&flushes)
                .acquire_owned()
                .await
                .expect("it is never closed");
            let first = tokio::select! {
                biased;
                first = self.waiting.recv() => first,
                () = shutdown.drained() => None,
            };
            let Some(first) = first else { break };
            let batch = self.gather(first).await;
            self.sizes.record(batch.len() as u64, &[]);
            let (database, wake) = (self.database.clone(), self.wake.clone());
            tokio::spawn(async move {
                flush(&database, &wake, batch).await;
                drop(permit);
            });
        }
        // What is being written still has to be answered.
        let _ = flushes.acquire_many(FLUSHES as u32).await;
        Ok(())
    }

    async fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let until = Instant::now() + GATHER;
        let mut bytes = first.event.body.len();
        let mut batch = vec![first];
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            match tokio::time::timeout_at(until, self.waiting.recv()).await {
                Ok(Some(next)) => {
                    bytes += next.event.body.len();
                    batch.push(next);
                }
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }
}

async fn flush(database: &Database, wake: &Wake, batch: Vec<Waiting>) {
    let (mut events, answers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|waiting| (waiting.event, waiting.answer))
        .unzip();
    let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
    // In one order for everybody, so that no two batches wait for each other.
    events.sort_by_cached_key(|event| (event.tenant.bucket(), event.source_key, event.key_hash()));
    let events: Arc<[NewEvent]> = events.into();
    let written = database
        .run_tx("events_take", Scope::System, {
            let events = Arc::clone(&events);
            async move |tx: &Tx| events_take(tx, &events).await
        })
        .await;
    match written {
        Ok(new) => {
            wake.ring(
                events
                    .iter()
                    .filter(|event| new.contains(&event.event_id))
                    .map(|event| event.tenant.bucket()),
            );
            for (id, answer) in ids.iter().zip(answers) {
                let taken = if new.contains(id) {
                    Taken::New
                } else {
                    Taken::Repeat
                };
                // Whoever waited may have given up.
                let _ = answer.send(Some(taken));
            }
        }
        Err(error) => {
            tracing::warn!(
                event = "webhooks_not_written",
                events = events.len(),
                error = %Chain(&error),
                "webhooks could not be written; their providers are told to send them again"
            );
            for answer in answers {
                let _ = answer.send(None);
            }
        }
    }
}
