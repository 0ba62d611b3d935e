//! This vault among others: its id, and its heartbeat while it has requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::lifecycle::Shutdown;
use common::problem::Chain;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::Store;

const BEAT: Duration = Duration::from_secs(1);

/// This instance. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Instance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: Uuid,
    store: Store,
    open: AtomicUsize,
    changed: Notify,
}

/// While this value lives, the instance says that it does.
#[derive(Debug)]
pub(crate) struct OpenIntent(Instance);

impl Instance {
    pub(crate) fn new(id: Uuid, store: Store) -> Self {
        Self(Arc::new(Inner {
            id,
            store,
            open: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn id(&self) -> Uuid {
        self.0.id
    }

    /// Something is about to be under way. Whoever judges our silence counts from the intent itself, so that the first
    /// heartbeat need not be waited for.
    pub(crate) fn open_intent(&self) -> OpenIntent {
        self.0.open.fetch_add(1, Ordering::SeqCst);
        self.0.changed.notify_one();
        OpenIntent(self.clone())
    }

    /// Writes the heartbeat every second while there is something under way, and nothing else.
    pub(crate) async fn beat(self, shutdown: Shutdown) {
        loop {
            while self.0.open.load(Ordering::SeqCst) == 0 {
                tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = shutdown.drained() => return,
                }
            }
            if let Err(error) = self.0.store.instance_beat(self.0.id).await {
                tracing::warn!(event = "heartbeat_failed", error = %Chain(&error), "the heartbeat could not be written");
            }
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = shutdown.drained() => return,
            }
        }
    }
}

impl Drop for OpenIntent {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
