//! Tells the processing that there is something to do, and where.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Buckets that have got work since somebody looked; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: Mutex<BTreeSet<i16>>,
    rung: Notify,
}

impl Wake {
    /// There is work in these.
    pub(crate) fn ring(&self, buckets: impl IntoIterator<Item = i16>) {
        let mut known = self
            .0
            .buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.extend(buckets);
        drop(known);
        self.0.rung.notify_one();
    }

    /// Waits until somebody has rung.
    pub(crate) async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// The buckets that were named, each once.
    pub(crate) fn take(&self) -> BTreeSet<i16> {
        std::mem::take(
            &mut *self
                .0
                .buckets
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
