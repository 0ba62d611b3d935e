//! Telling others: events, written in the transaction that causes them, numbered, and watched.
//!
//! Invariant: *no event appears behind a cursor that was given out.* Transactions commit in another order than they began,
//! so an event gets its number only once it is committed. [`append`] writes it to the `outbox`; a [`Publisher`] moves what is
//! committed to the `event_log`, in one transaction that locks the row `event_head`, counts on from it, and deletes
//! what it moved. What commits late is numbered late; and because the lock is held until the numbers are committed, they
//! become visible in their order.
//!
//! The lock on the row takes the place of a fenced lease on the task. A lease has to be proved in the same transaction,
//! by a statement on a row that nobody else may change meanwhile: that is this lock already. Without the lease any replica
//! may number, the one that has just committed does so at once, and none has to be missed first when it dies: the server
//! ends its transaction, or, where it was frozen in the middle, ends that after some seconds. Since moving is one transaction,
//! an event is in the log exactly once.
//!
//! The log is kept 30 days at least, in partitions that take turns; a cursor that is older is refused
//! ([`WatchError::OutOfRange`]), never continued with a gap.

mod cursor;
mod head;
mod publisher;
mod watch;

use tokio::sync::{Notify, watch as channel};
use uuid::Uuid;

use super::{Error, Tx};
use crate::TenantKey;
use crate::telemetry::context;

pub use publisher::Publisher;
pub use watch::{Logged, WatchError, Watched, watch};

use head::Head;

/// Something that others are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, one of the tenant's.
    pub event_id: Uuid,
    /// What it is about: `connections/0190…`.
    pub resource: String,
    /// The resource's revision after the change; higher than any before.
    pub revision: i64,
    /// The service's watch response, encoded, without its cursor.
    pub payload: Vec<u8>,
}

const OUTBOX_APPEND: &str = "\
-- {schema}.outbox_append
INSERT INTO {schema}.outbox (bucket, tenant_id, event_id, resource, revision, occurred_at, traceparent, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// Writes an event in the transaction that causes it, after the change to its resource: the lock on the resource is what
/// keeps its events in order. The publisher is woken by the commit.
///
/// # Errors
/// Where the statement fails.
pub async fn append(tx: &Tx, tenant: TenantKey, event: &Event) -> Result<(), Error> {
    let traceparent = context::current_traceparent().unwrap_or_default();
    tx.execute(
        OUTBOX_APPEND,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &event.event_id,
            &event.resource,
            &event.revision,
            &tx.deps().now(),
            &traceparent,
            &event.payload,
        ],
    )
    .await?;
    tx.note_append();
    Ok(())
}

/// What appenders, the publisher, and watchers in one process share.
pub(super) struct Shared {
    wake: Notify,
    head: channel::Sender<News>,
}

/// What the publisher tells the watchers.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// The newest that is known of the log; `None` until the publisher has looked.
    known: Option<Head>,
    /// The process is on its way out.
    ended: bool,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            wake: Notify::new(),
            head: channel::Sender::new(News::default()),
        }
    }

    /// There is something to number.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}
