//! What the use cases work with; each of them stands in a file of its own.

use std::sync::Arc;

use common::Deps;
use common::pg::statistics::Statistics;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::config::ApiKeysConfig;
use crate::store::Database;

/// The directory: its database, and the time.
#[derive(Clone, Debug)]
pub struct Directory {
    pub(crate) db: Database,
    pub(crate) deps: Deps,
    pub(crate) statistics: Statistics,
    pub(crate) api_keys: ApiKeysConfig,
    /// A deletion waits for the directory itself.
    pub(crate) deletion_due: Arc<Notify>,
}

impl Directory {
    /// On this database.
    pub fn new(db: Database, deps: &Deps, statistics: Statistics, api_keys: ApiKeysConfig) -> Self {
        Self {
            db,
            deps: deps.clone(),
            statistics,
            api_keys,
            deletion_due: Arc::default(),
        }
    }

    /// The time, as exact as the database keeps it: what is answered is what will be read.
    pub(crate) fn now(&self) -> OffsetDateTime {
        let now = self.deps.now();
        now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000)
            .unwrap_or(now)
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// There are more behind it.
    pub(crate) more: bool,
}

impl<T> Page<T> {
    /// What was read with a limit of one more than the page has room for.
    pub(crate) fn of(mut items: Vec<T>, size: i64) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        Self { items, more }
    }
}
