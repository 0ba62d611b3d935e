//! The record of who was handed what: durable before the secret leaves.
//!
//! One task appends what has come together since its last flush, in one statement, and only then answers. Each record
//! carries an HMAC over itself and the one before it, in a chain of this run of this vault. Where it is not known whether
//! a flush was committed, a new chain begins.

mod chain;
mod day;
mod flusher;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use common::identity::Caller;
use common::telemetry::context;
use common::{Deps, TenantKey};
use envelope::MacKey;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::store::Store;

pub(crate) use chain::{Anchor, Check, Head, Linked, Mac, Misfit, Record};
pub(crate) use day::Day;
pub(crate) use flusher::Flusher;

/// What is about to be handed out, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) tenant: TenantKey,
    pub(crate) grant_id: Option<Uuid>,
    /// What it is where it is no grant: `service-key/ingest`.
    pub(crate) resource: String,
    pub(crate) recipient: Recipient,
    /// The method.
    pub(crate) action: &'static str,
    /// Of the call; empty for that of what began it.
    pub(crate) purpose: String,
}

/// Who is handed something.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    /// The service that asked.
    pub(crate) caller: String,
    /// The person on whose behalf, where there is one.
    pub(crate) user_id: String,
    /// Of what began it.
    pub(crate) purpose: String,
    pub(crate) trace_id: String,
}

/// Appends records. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Waiting>,
}

/// Nothing may be handed out: its record cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the access record cannot be written")]
pub(crate) struct NotRecorded;

/// Up to which day there is room for records. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<AtomicI32>);

#[derive(Debug)]
struct Waiting {
    accesses: Accesses,
    durable: oneshot::Sender<bool>,
}

#[derive(Debug)]
enum Accesses {
    One(Access),
    Many(Vec<Access>),
}

const QUEUE: usize = 4096;

impl Recipient {
    /// The caller of a method.
    pub(crate) fn of(caller: &Caller) -> Self {
        Self {
            caller: caller.identity.to_string(),
            user_id: caller.user_id().to_owned(),
            purpose: caller.actor().purpose.clone(),
            trace_id: context::current_trace_id().unwrap_or_default(),
        }
    }
}

impl Access {
    fn record(&self) -> Record<'_> {
        let recipient = &self.recipient;
        Record {
            tenant_id: self.tenant.id(),
            grant_id: self.grant_id,
            resource: &self.resource,
            caller: &recipient.caller,
            user_id: &recipient.user_id,
            action: self.action,
            purpose: if self.purpose.is_empty() {
                &recipient.purpose
            } else {
                &self.purpose
            },
            trace_id: &recipient.trace_id,
        }
    }
}

impl Recorder {
    /// A recorder, and the task that has to run for it.
    pub(crate) fn new(
        store: Store,
        key: MacKey,
        kek_id: &str,
        room: Room,
        deps: &Deps,
    ) -> (Self, Flusher) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let flusher = Flusher::new(waiting, store, key, kek_id, room, deps);
        (Self { queue }, flusher)
    }

    /// Returns once the record is durable.
    pub(crate) async fn append(&self, access: Access) -> Result<(), NotRecorded> {
        self.wait_for(Accesses::One(access)).await
    }

    /// Returns once all of them are durable, which they are together.
    pub(crate) async fn append_all(&self, accesses: Vec<Access>) -> Result<(), NotRecorded> {
        if accesses.is_empty() {
            return Ok(());
        }
        self.wait_for(Accesses::Many(accesses)).await
    }

    async fn wait_for(&self, accesses: Accesses) -> Result<(), NotRecorded> {
        let (durable, told) = oneshot::channel();
        self.queue
            .send(Waiting { accesses, durable })
            .await
            .map_err(|_| NotRecorded)?;
        if told.await.unwrap_or(false) {
            Ok(())
        } else {
            Err(NotRecorded)
        }
    }
}

impl Accesses {
    fn as_slice(&self) -> &[Access] {
        match self {
            Self::One(access) => std::slice::from_ref(access),
            Self::Many(accesses) => accesses,
        }
    }
}

impl Room {
    /// None, until somebody has looked.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI32::new(i32::MIN)))
    }

    /// There is room up to that day.
    pub(crate) fn reaches(&self, day: Day) {
        self.0.fetch_max(day.number(), Ordering::SeqCst);
    }

    pub(crate) fn is_there_on(&self, day: Day) -> bool {
        day.number() <= self.0.load(Ordering::SeqCst)
    }
}
