//! The task that appends.

use std::convert::Infallible;
use std::time::Duration;

use common::lifecycle::Shutdown;
use common::problem::Chain;
use common::{Deps, TenantKey};
use envelope::MacKey;
use opentelemetry::metrics::Gauge;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::chain::{Head, Message};
use super::{Access, Day, Mac, Record, Room, Waiting};
use crate::store::{Flush, Store, StoreError};

/// Appends what is waiting, again and again, and is the only one who knows the end of its chain.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: mpsc::Receiver<Waiting>,
    store: Store,
    key: MacKey,
    kek_id: String,
    room: Room,
    deps: Deps,
    head: Head,
    exported_to: i64,
    clock: Option<DatabaseClock>,
    latest: OffsetDateTime,
    sequence_gauge: Gauge<u64>,
    message: Message,
}

/// The database's time, told from ours: a vault whose clock is off records the right times.
#[derive(Clone, Copy, Debug)]
struct DatabaseClock {
    asked: OffsetDateTime,
    since: Duration,
}

/// Why a flush was not made, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error("the database does not take them")]
    Store(#[from] StoreError),
    #[error("the partition of the day has not been emptied yet")]
    NoRoom,
}

/// So many who wait are answered together, at most.
const BATCH: usize = 256;
/// So many records are written in one statement, but for those of one caller, which are never torn apart.
const MOST_RECORDS: usize = 1024;
/// How often the head goes to the log and the metrics, and the database is asked for its time.
const EXPORT_EVERY: Duration = Duration::from_mins(1);

impl Flusher {
    pub(super) fn new(
        queue: mpsc::Receiver<Waiting>,
        store: Store,
        key: MacKey,
        kek_id: &str,
        room: Room,
        deps: &Deps,
    ) -> Self {
        let sequence_gauge = deps
            .meter
            .u64_gauge("hawser.vault.access_chain.head")
            .with_unit("{record}")
            .with_description("Sequence of the last access record in this vault's chain")
            .build();
        Self {
            queue,
            store,
            key,
            kek_id: kek_id.to_owned(),
            room,
            deps: deps.clone(),
            head: new_chain(deps),
            exported_to: 0,
            clock: None,
            latest: OffsetDateTime::UNIX_EPOCH,
            sequence_gauge,
            message: Message::default(),
        }
    }

    /// Runs until nobody is left who could hand something out.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut minutes = tokio::time::interval(EXPORT_EVERY);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = std::pin::pin!(shutdown.drained());
        loop {
            tokio::select! {
                biased;
                _ = minutes.tick() => {
                    self.export();
                    self.ask_the_time().await;
                }
                taken = self.queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    self.flush_all(&mut batch).await;
                }
                () = &mut drained => break,
            }
        }
        self.export();
        Ok(())
    }

    async fn flush_all(&mut self, batch: &mut Vec<Waiting>) {
        while !batch.is_empty() {
            let together = together(batch);
            let is_durable = self.flush_or_begin_anew(&batch[..together]).await;
            for waiting in batch.drain(..together) {
                // Who is not there any more is recorded all the same.
                let _ = waiting.durable.send(is_durable);
            }
        }
    }

    async fn flush_or_begin_anew(&mut self, batch: &[Waiting]) -> bool {
        let records: Vec<Record<'_>> = batch
            .iter()
            .flat_map(|waiting| waiting.accesses.as_slice())
            .map(Access::record)
            .collect();
        let error = match self.flush(&records).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        tracing::warn!(
            event = "access_not_recorded",
            error = %Chain(&error),
            records = records.len(),
            "access records cannot be written, so no secret leaves"
        );
        if let FlushError::Store(_) = error {
            // The records may be there or not; nothing is linked to what is not known.
            self.export();
            self.head = new_chain(&self.deps);
            self.exported_to = 0;
        }
        false
    }

    async fn flush(&mut self, records: &[Record<'_>]) -> Result<(), FlushError> {
        let occurred_at = self.now().await?;
        self.append(records, occurred_at).await
    }

    /// Appends to the chain; as of a time that is the database's, or a test's.
    pub(super) async fn append(
        &mut self,
        records: &[Record<'_>],
        occurred_at: OffsetDateTime,
    ) -> Result<(), FlushError> {
        if !self.room.is_there_on(Day::of(occurred_at)) {
            return Err(FlushError::NoRoom);
        }
        let macs = self.link(records, occurred_at);
        let flush = Flush {
            chain_id: self.head.chain_id,
            begins_under: (self.head.sequence == 0).then_some(&*self.kek_id),
            behind: self.head.sequence,
            occurred_at,
            records,
            macs: &macs,
        };
        self.store.records_append(&flush).await?;
        self.head.sequence += records.len() as i64;
        if let Some(last) = macs.last() {
            self.head.mac.clear();
            self.head.mac.extend_from_slice(last);
        }
        Ok(())
    }

    /// The records' MACs, each over the record and the MAC before it.
    fn link(&mut self, records: &[Record<'_>], occurred_at: OffsetDateTime) -> Vec<Mac> {
        let mut macs: Vec<Mac> = Vec::with_capacity(records.len());
        for (record, sequence) in records.iter().zip(self.head.sequence + 1..) {
            let before = macs.last().map_or(self.head.mac.as_slice(), Mac::as_slice);
            self.message.begin(self.head.chain_id, before);
            self.message.record(sequence, occurred_at, record);
            macs.push(self.message.mac(&self.key));
        }
        macs
    }

    /// The database's time, counted on from when it was asked. Never before the last one, so that the records of a chain
    /// lie in the order of their days.
    async fn now(&mut self) -> Result<OffsetDateTime, StoreError> {
        let clock = match self.clock {
            Some(clock) => clock,
            None => self.ask().await?,
        };
        let now = clock.asked + self.deps.clock.boottime().saturating_sub(clock.since);
        self.latest = self.latest.max(micros(now));
        Ok(self.latest)
    }

    async fn ask(&mut self) -> Result<DatabaseClock, StoreError> {
        let asked = self.store.server_time().await?;
        let since = self.deps.clock.boottime();
        Ok(*self.clock.insert(DatabaseClock { asked, since }))
    }

    async fn ask_the_time(&mut self) {
        if let Err(error) = self.ask().await {
            tracing::debug!(event = "database_time_unknown", error = %Chain(&error), "the database does not say its time");
        }
    }

    /// Tells the log and the metrics how far the chain goes: what is deleted afterwards up to there will be missed.
    fn export(&mut self) {
        if self.head.sequence == self.exported_to {
            return;
        }
        self.exported_to = self.head.sequence;
        self.sequence_gauge
            .record(self.head.sequence.unsigned_abs(), &[]);
        tracing::info!(
            event = "access_chain_head",
            chain.id = %self.head.chain_id,
            sequence = self.head.sequence,
            mac = hex::encode(&self.head.mac),
            "the chain of access records has {} records",
            self.head.sequence
        );
    }

    #[cfg(test)]
    pub(super) fn head(&self) -> &Head {
        &self.head
    }
}

/// A chain without records, in a log bucket of its own.
fn new_chain(deps: &Deps) -> Head {
    Head {
        chain_id: TenantKey::new_tenant(deps).id(),
        sequence: 0,
        mac: Vec::new(),
    }
}

/// How many of those who wait are written together.
fn together(batch: &[Waiting]) -> usize {
    let mut records = 0;
    let fitting = batch.iter().take_while(|waiting| {
        records += waiting.accesses.as_slice().len();
        records <= MOST_RECORDS
    });
    fitting.count().max(1)
}

/// As exactly as the database keeps it.
fn micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1000 * 1000)
        .expect("it is less than a second still")
}
