//! Reading the log as it grows.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use futures::future::join;
use time::OffsetDateTime;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::News;
use super::cursor::Position;
use super::head::Head;
use crate::pg::{Database, Error, Scope};
use crate::{Problem, TenantKey};

/// At most this many are read at once.
const BATCH: i64 = 200;
/// An idle stream says so often that it lives, and where it stands.
const BOOKMARK: Duration = Duration::from_secs(15);

const HEAD_GET: &str = "\
-- {schema}.event_head_get
SELECT log_id, number, day, floor, emptied_to
FROM {schema}.event_head";

const EVENTS_READ: &str = "\
-- {schema}.events_read
SELECT number, slot, tenant_id, event_id, resource, revision, occurred_at, traceparent, payload
FROM {schema}.event_log
WHERE slot = ANY($1) AND number > $2 AND number <= $3
ORDER BY number
LIMIT $4";

/// An event, or a bookmark, and the cursor behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Where to go on.
    pub cursor: String,
    /// `None` is a bookmark.
    pub event: Option<Logged>,
}

/// An event in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Its id.
    pub event_id: Uuid,
    /// Whose it is.
    pub tenant: TenantKey,
    /// What it is about.
    pub resource: String,
    /// The resource's revision.
    pub revision: i64,
    /// When it was appended.
    pub occurred_at: OffsetDateTime,
    /// The trace that caused it; empty where none did.
    pub traceparent: String,
    /// The service's watch response, encoded, without its cursor.
    pub payload: Vec<u8>,
}

/// Why a log cannot be watched from there.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Not one of our cursors.
    #[error("the cursor is not one that this service gave out")]
    InvalidCursor,
    /// What followed is gone.
    #[error(
        "the events after this cursor are no longer kept: watch with `from_head`, list the resources, and apply what follows"
    )]
    OutOfRange,
    /// Database trouble.
    #[error("the events cannot be read")]
    Database(#[from] Error),
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::InvalidCursor => Self::invalid_field("after_cursor", error.to_string()),
            WatchError::OutOfRange => Self::out_of_range(error.to_string()),
            WatchError::Database(error) => error.problem(),
        }
    }
}

/// The events behind `after_cursor`, or all that are kept where it is empty, and then each as it is numbered; with
/// `from_head` only those from now on, after a bookmark. Of one tenant, where one is given. Idle, it gives a bookmark every 15 s.
///
/// This process must run a [`Publisher`](super::Publisher) on the database; the stream ends with that.
///
/// # Errors
/// A cursor that is malformed or too old; later, an error is the stream's last item.
pub async fn watch(
    db: &Database,
    after_cursor: &str,
    from_head: bool,
    tenant: Option<TenantKey>,
) -> Result<impl Stream<Item = Result<Watched, WatchError>> + Send + use<>, WatchError> {
    let asked = match after_cursor {
        "" => None,
        cursor => Some(Position::decode(cursor).ok_or(WatchError::InvalidCursor)?),
    };
    let mut news = db.outbox().head.subscribe();
    news.mark_changed();
    let head = Head::of(&db.query_one(Scope::System, HEAD_GET, &[]).await?);
    let position = match asked {
        _ if from_head => head.end(),
        None => head.beginning(),
        Some(position) if head.keeps(&position) => position,
        Some(_) => return Err(WatchError::OutOfRange),
    };
    let bookmark = from_head.then(|| Watched {
        cursor: position.encode(),
        event: None,
    });
    let watcher = Watcher {
        db: db.clone(),
        tenant,
        head,
        position,
        ready: bookmark.into_iter().collect(),
        next_bookmark: Instant::now() + BOOKMARK,
        news,
    };
    Ok(futures::stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(Some(item)) => Some((Ok(item), Some(watcher))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Watcher {
    db: Database,
    tenant: Option<TenantKey>,
    /// The newest that is known.
    head: Head,
    /// Behind what has been read.
    position: Position,
    ready: VecDeque<Watched>,
    next_bookmark: Instant,
    news: channel::Receiver<News>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<Watched>, WatchError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.next_bookmark = Instant::now() + BOOKMARK;
                return Ok(Some(item));
            }
            if Instant::now() >= self.next_bookmark {
                self.ready.push_back(Watched {
                    cursor: self.position.encode(),
                    event: None,
                });
            } else if self.head.number > self.position.number {
                self.read().await?;
            } else if !self.wait().await {
                return Ok(None);
            }
        }
    }

    /// Until there may be more, or a bookmark is due. `false` where there will be no more.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            changed = self.news.changed() => {
                let news = *self.news.borrow_and_update();
                // What the publisher knows may be older than what we asked for ourselves.
                if let Some(head) = news.known.filter(|head| head.number >= self.head.number) {
                    self.head = head;
                }
                changed.is_ok() && !news.ended
            }
            () = tokio::time::sleep_until(self.next_bookmark) => true,
        }
    }

    async fn read(&mut self) -> Result<(), WatchError> {
        let slots = self.head.slots_behind(&self.position);
        let (position, to) = (self.position.number, self.head.number);
        let (rows, head) = self
            .db
            .run_tx("events_read", Scope::System, async move |tx| {
                // The head is looked at after the events: a partition that was emptied in between, which no snapshot
                // sees as it was, has raised the floor by then.
                let (rows, head) = join(
                    tx.query(EVENTS_READ, &[&slots, &position, &to, &BATCH]),
                    tx.query_one(HEAD_GET, &[]),
                )
                .await;
                Ok::<_, Error>((rows?, Head::of(&head?)))
            })
            .await?;
        if !head.keeps(&self.position) {
            return Err(WatchError::OutOfRange);
        }
        let complete = (rows.len() as i64) < BATCH;
        for row in rows {
            let event = logged(&row)?;
            self.position.number = row.get("number");
            self.position.day = self.day_of(row.get("slot"));
            if self.tenant.is_none_or(|tenant| tenant == event.tenant) {
                self.ready.push_back(Watched {
                    cursor: self.position.encode(),
                    event: Some(event),
                });
            }
        }
        if complete {
            self.position = Position {
                number: to,
                ..self.head.end()
            };
        }
        Ok(())
    }

    /// The day that has this partition, of those up to the head's.
    fn day_of(&self, slot: i16) -> i32 {
        let back = (super::head::slot(self.head.day) - slot).rem_euclid(super::head::SLOTS as i16);
        self.head.day - i32::from(back)
    }
}

fn logged(row: &Row) -> Result<Logged, Error> {
    Ok(Logged {
        event_id: row.try_get("event_id")?,
        tenant: TenantKey::from_id(row.try_get("tenant_id")?)
            .expect("events are appended under a tenant's key"),
        resource: row.try_get("resource")?,
        revision: row.try_get("revision")?,
        occurred_at: row.try_get("occurred_at")?,
        traceparent: row.try_get("traceparent")?,
        payload: row.try_get("payload")?,
    })
}
