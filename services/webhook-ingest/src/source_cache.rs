//! Sources that webhooks come to, with their secrets open, kept for a second.
//!
//! So a rotation or a deletion holds in every process after a second at most. A secret that does not fit is not blamed on
//! the sender before the source has been read again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::pg::Database;
use common::{Deps, Secret};
use tokio::sync::Mutex as AsyncMutex;
use webhook_signatures::{Scheme, SchemeOptions};

use crate::error::Error;
use crate::keys::{Place, ServiceKeys};
use crate::source::{OpenSource, Source};
use crate::source_token::TokenHash;
use crate::store::sources::source_find;

const KEPT: Duration = Duration::from_secs(1);
/// No source is read again sooner, however many forged requests come.
const SOONEST: Duration = Duration::from_millis(100);
/// Places at most; beyond, those that nobody uses are dropped.
const MOST: usize = 20_000;

/// Reads sources and opens their secrets.
pub(crate) struct SourceCache {
    database: Database,
    keys: Arc<ServiceKeys>,
    deps: Deps,
    places: Mutex<HashMap<TokenHash, Arc<Entry>>>,
}

type Entry = AsyncMutex<Option<(Duration, Arc<OpenSource>)>>;

impl SourceCache {
    /// Sources in `database`.
    pub(crate) fn new(database: Database, keys: Arc<ServiceKeys>, deps: &Deps) -> Self {
        Self {
            database,
            keys,
            deps: deps.clone(),
            places: Mutex::default(),
        }
    }

    /// The source whose address has this token.
    pub(crate) async fn get(&self, token: TokenHash) -> Result<Option<Arc<OpenSource>>, Error> {
        self.read(token, KEPT).await
    }

    /// The source again, where it has changed since `known` was read.
    pub(crate) async fn newer(
        &self,
        token: TokenHash,
        known: &OpenSource,
    ) -> Result<Option<Arc<OpenSource>>, Error> {
        let found = self.read(token, SOONEST).await?;
        Ok(found.filter(|found| {
            found.source.revision != known.source.revision
                || found.source.source_key != known.source.source_key
        }))
    }

    async fn read(
        &self,
        token: TokenHash,
        freshness: Duration,
    ) -> Result<Option<Arc<OpenSource>>, Error> {
        let entry = self.entry(token);
        // Of those who ask at the same time one reads.
        let mut entry = entry.lock().await;
        let now = self.deps.clock.boottime();
        if let Some((read_at, source)) = &*entry
            && now.saturating_sub(*read_at) < freshness
        {
            return Ok(Some(Arc::clone(source)));
        }
        let Some(source) = source_find(&self.database, token).await? else {
            *entry = None;
            drop(entry);
            self.places().remove(&token);
            return Ok(None);
        };
        let source = Arc::new(self.open(source).await?);
        *entry = Some((now, Arc::clone(&source)));
        Ok(Some(source))
    }

    async fn open(&self, source: Source) -> Result<OpenSource, Error> {
        let scheme = Scheme::find(&source.scheme).ok_or(Error::Scheme)?;
        let options = SchemeOptions::parse(scheme, source.scheme_options.clone())
            .map_err(|_| Error::Scheme)?;
        let secrets = &source.secrets;
        let current = self
            .secret(&source, secrets.version, &secrets.current)
            .await?;
        let previous = match &secrets.previous {
            Some(previous) if self.deps.now() < previous.until => {
                let secret = self
                    .secret(&source, secrets.version - 1, &previous.sealed)
                    .await?;
                Some((secret, previous.until))
            }
            _ => None,
        };
        Ok(OpenSource {
            source,
            scheme,
            options,
            current,
            previous,
        })
    }

    async fn secret(
        &self,
        source: &Source,
        version: i64,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, Error> {
        let place = Place::SourceSecret {
            source_key: source.source_key,
            version,
        };
        self.keys.open(source.tenant, place, sealed).await
    }

    fn entry(&self, token: TokenHash) -> Arc<Entry> {
        let mut places = self.places();
        if places.len() >= MOST {
            places.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(places.entry(token).or_default())
    }

    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<TokenHash, Arc<Entry>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SourceCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceCache").finish_non_exhaustive()
    }
}
