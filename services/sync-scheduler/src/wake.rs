//! Wakes those who wait for work in this process; others find it by their poll.

use std::sync::Arc;

use tokio::sync::watch;

/// A bell; clones ring the same one.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<watch::Sender<u64>>);

impl Default for Wake {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Wake {
    /// There is new work.
    pub(crate) fn ring(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Hears every ring from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
