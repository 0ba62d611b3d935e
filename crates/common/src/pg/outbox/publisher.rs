//! The task that numbers events, and tells this process's watchers how far the log goes.

use std::convert::Infallible;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

use super::head::{Head, SLOTS, slot};
use crate::lifecycle::Shutdown;
use crate::pg::{Database, Error, Scope, Tx};
use crate::problem::Chain;

/// At most this many are numbered in a transaction.
const BATCH: i64 = 500;
/// How soon to look again after another process has numbered something, which comes in bursts.
const EAGER: Duration = Duration::from_millis(50);

const HEAD_LOCK: &str = "\
-- {schema}.event_head_lock
SELECT log_id, number, day, floor, emptied_to, (extract(epoch FROM now()) / 86400)::integer AS today
FROM {schema}.event_head
FOR UPDATE";

const HEAD_PEEK: &str = "\
-- {schema}.event_head_peek
SELECT log_id, number, day, floor, emptied_to, (extract(epoch FROM now()) / 86400)::integer AS today,
    EXISTS (SELECT FROM {schema}.outbox) AS pending
FROM {schema}.event_head";

const EVENTS_NUMBER: &str = "\
-- {schema}.events_number
WITH due AS (
    SELECT bucket, event_id
    FROM {schema}.outbox
    ORDER BY appended_at, revision, event_id
    LIMIT $3
), taken AS (
    DELETE FROM {schema}.outbox AS o
    USING due
    WHERE o.bucket = due.bucket AND o.event_id = due.event_id
    RETURNING o.*
)
INSERT INTO {schema}.event_log
    (slot, number, bucket, tenant_id, event_id, resource, revision, occurred_at, traceparent, payload)
SELECT $1::smallint, $2::bigint + row_number() OVER (ORDER BY appended_at, revision, event_id),
    bucket, tenant_id, event_id, resource, revision, occurred_at, traceparent, payload
FROM taken";

const HEAD_ADVANCE: &str = "\
-- {schema}.event_head_advance
UPDATE {schema}.event_head
SET number = $1, day = $2, floor = $3, emptied_to = $4";

const SLOT_NEWEST: &str = "\
-- {schema}.event_slot_newest
SELECT max(number)
FROM {schema}.event_log
WHERE slot = $1";

/// Numbers what is committed. Every process that appends or is watched runs one; they share the work as it comes.
#[derive(Debug)]
pub struct Publisher {
    db: Database,
    idle: Duration,
    published: Counter<u64>,
}

impl Publisher {
    /// For this database's outbox.
    pub fn new(db: &Database) -> Self {
        let published = db
            .deps()
            .meter
            .u64_counter("hawser.outbox.published")
            .with_unit("{event}")
            .with_description("Events that were numbered")
            .build();
        Self {
            db: db.clone(),
            idle: db.event_poll_interval(),
            published,
        }
    }

    /// Works through every outage of the database until shutdown is requested, and ends the streams of [`super::watch`] then.
    ///
    /// # Errors
    /// None; it is what tasks return.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Infallible> {
        let ended = async { shutdown.requested().await };
        self.run_until(ended, &shutdown).await
    }

    /// As [`Publisher::run`], and goes on numbering until everything has drained.
    pub(in crate::pg) async fn run_until_drained(
        self,
        shutdown: Shutdown,
    ) -> Result<(), Infallible> {
        let ended = async { shutdown.drained().await };
        self.run_until(ended, &shutdown).await
    }

    async fn run_until(
        self,
        ended: impl Future<Output = ()>,
        shutdown: &Shutdown,
    ) -> Result<(), Infallible> {
        let ending = async {
            shutdown.requested().await;
            self.db.outbox().head.send_modify(|news| news.ended = true);
            ended.await;
        };
        tokio::select! {
            () = self.work() => {}
            () = ending => {}
        }
        // The last ones, unless the database is away: then others will, or the next start.
        if let Err(error) = self.number_all().await {
            tracing::info!(
                event = "outbox_left",
                error = %Chain(&error),
                "the last events are left to be numbered by others"
            );
        }
        Ok(())
    }

    async fn work(&self) {
        let shared = self.db.outbox();
        let mut pause = self.idle;
        let mut failing = false;
        let mut woken = true;
        loop {
            let before = shared.head.borrow().known;
            match self.step(woken).await {
                Ok(()) => {
                    if failing {
                        tracing::info!(
                            event = "outbox_recovered",
                            schema = self.db.schema(),
                            "events are numbered again"
                        );
                    }
                    failing = false;
                    let moved = before != shared.head.borrow().known;
                    pause = if moved {
                        EAGER
                    } else {
                        (pause * 2).min(self.idle)
                    };
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            event = "outbox_failing", schema = self.db.schema(), error = %Chain(&error),
                            "events cannot be numbered; trying on"
                        );
                    }
                    failing = true;
                    pause = self.idle;
                }
            }
            woken = tokio::select! {
                () = shared.wake.notified() => true,
                () = tokio::time::sleep(pause.min(self.idle)) => false,
            };
        }
    }

    /// Numbers what there is. Without a call, one statement finds out whether there is anything.
    async fn step(&self, woken: bool) -> Result<(), Error> {
        if !woken {
            let row = self.db.query_one(Scope::System, HEAD_PEEK, &[]).await?;
            let head = Head::of(&row);
            let today: i32 = row.get("today");
            self.tell(head);
            if !row.get::<_, bool>("pending") && head.emptied_to > today {
                return Ok(());
            }
        }
        self.number_all().await
    }

    async fn number_all(&self) -> Result<(), Error> {
        loop {
            let (head, moved) = self
                .db
                .run_tx("events_number", Scope::System, number)
                .await?;
            self.tell(head);
            self.published
                .add(moved, &[KeyValue::new("db.namespace", self.db.schema())]);
            if (moved as i64) < BATCH {
                return Ok(());
            }
        }
    }

    fn tell(&self, head: Head) {
        self.db.outbox().head.send_if_modified(|news| {
            let changed = news.known != Some(head);
            news.known = Some(head);
            changed
        });
    }
}

/// One batch, in one transaction.
async fn number(tx: &Tx) -> Result<(Head, u64), Error> {
    let row = tx.query_one(HEAD_LOCK, &[]).await?;
    let today: i32 = row.get("today");
    let mut head = Head::of(&row);
    let before = head;
    // Numbers and days grow together, also where the server's clock was set back.
    head.day = head.day.max(today);
    // The partition of tomorrow is emptied today.
    if head.emptied_to <= head.day {
        let first = (head.emptied_to + 1).max(head.day + 2 - SLOTS);
        for day in first..=head.day + 1 {
            empty(tx, &mut head, slot(day)).await?;
        }
        head.emptied_to = head.day + 1;
    }
    let moved = tx
        .execute(EVENTS_NUMBER, &[&slot(head.day), &head.number, &BATCH])
        .await?;
    head.number += moved as i64;
    if moved == 0 {
        head.day = before.day;
    }
    if head != before {
        tx.execute(
            HEAD_ADVANCE,
            &[&head.number, &head.day, &head.floor, &head.emptied_to],
        )
        .await?;
    }
    Ok((head, moved))
}

async fn empty(tx: &Tx, head: &mut Head, slot: i16) -> Result<(), Error> {
    let newest: Option<i64> = tx.query_one(SLOT_NEWEST, &[&slot]).await?.get(0);
    if let Some(newest) = newest {
        head.floor = head.floor.max(newest);
        let truncate =
            format!("-- {{schema}}.event_slot_empty\nTRUNCATE {{schema}}.event_log_{slot:02}");
        tx.execute(&truncate, &[]).await?;
    }
    Ok(())
}
