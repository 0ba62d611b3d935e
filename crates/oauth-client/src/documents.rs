//! Public documents of issuers, metadata and keys, kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::{Clock, Deps};
use egress::{Egress, EgressError, HeaderMap, Request, StatusCode};
use serde_json::Value;
use url::Url;

use crate::json;

/// A document is kept at least and at most this long, whatever its Cache-Control says (checklist 31).
const FLOOR: Duration = Duration::from_mins(5);
const CEILING: Duration = Duration::from_hours(24);
/// One that could not be renewed is asked for again after this long, and served meanwhile.
const RETRY: Duration = Duration::from_secs(30);
/// A caller can force a renewal this often.
const FORCED: Duration = Duration::from_mins(1);
/// One that could not be renewed is served for this long at most.
const STALE: Duration = Duration::from_hours(24);
/// Tenants name these URLs: what one of them can make us keep is bounded.
const MOST_DOCUMENTS: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// A cache of JSON documents by URL. Cheap to clone; callers of one document wait for one request.
#[derive(Clone, Debug)]
pub struct Documents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    egress: Egress,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<Url, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    kept: tokio::sync::Mutex<Option<Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    document: Arc<Value>,
    fetched: Duration,
    fresh_until: Duration,
    /// The last time a request was made, successful or not.
    tried: Duration,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("the document was not fetched")]
    Unreachable(#[from] EgressError),
    #[error("the document's server answers with HTTP {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the document is not JSON")]
    NotJson,
}

impl Documents {
    /// An empty cache.
    pub fn new(egress: Egress, deps: &Deps) -> Self {
        Self(Arc::new(Inner {
            egress,
            clock: Arc::clone(&deps.clock),
            slots: Mutex::default(),
        }))
    }

    /// The document, from the cache while it is fresh, and also when it is not but cannot be had.
    pub(crate) async fn get(&self, url: &Url) -> Result<Arc<Value>, DocumentError> {
        self.fetch(url, |kept, now| now < kept.fresh_until).await
    }

    /// The document, fetched anew, unless that was done within the last minute.
    pub(crate) async fn renew(&self, url: &Url) -> Result<Arc<Value>, DocumentError> {
        self.fetch(url, |kept, now| now.saturating_sub(kept.tried) < FORCED)
            .await
    }

    async fn fetch(
        &self,
        url: &Url,
        is_good: impl Fn(&Kept, Duration) -> bool,
    ) -> Result<Arc<Value>, DocumentError> {
        let slot = self.slot(url);
        let mut kept = slot.kept.lock().await;
        let now = self.0.clock.boottime();
        if let Some(kept) = kept.as_ref().filter(|kept| is_good(kept, now)) {
            return Ok(Arc::clone(&kept.document));
        }
        match self.request(url).await {
            Ok((document, lifetime)) => {
                let document = Arc::new(document);
                *kept = Some(Kept {
                    document: Arc::clone(&document),
                    fetched: now,
                    fresh_until: now + lifetime,
                    tried: now,
                });
                Ok(document)
            }
            Err(error) => {
                let Some(kept) = kept
                    .as_mut()
                    .filter(|kept| now.saturating_sub(kept.fetched) < STALE)
                else {
                    return Err(error);
                };
                kept.tried = now;
                kept.fresh_until = kept.fresh_until.max(now + RETRY);
                Ok(Arc::clone(&kept.document))
            }
        }
    }

    async fn request(&self, url: &Url) -> Result<(Value, Duration), DocumentError> {
        let response = self
            .0
            .egress
            .send(
                Request::get(url.clone())
                    .accept_json()
                    .body_limit(MOST_BYTES),
            )
            .await?;
        if response.status != StatusCode::OK {
            return Err(DocumentError::Status(response.status));
        }
        let document = json::parse(&response.body).ok_or(DocumentError::NotJson)?;
        Ok((document, lifetime(&response.headers)))
    }

    fn slot(&self, url: &Url) -> Arc<Slot> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_DOCUMENTS && !slots.contains_key(url) {
            // Those that somebody waits for are held elsewhere too, and go on.
            slots.clear();
        }
        Arc::clone(slots.entry(url.clone()).or_default())
    }
}

/// `max-age` within bounds; the floor where there is none.
fn lifetime(headers: &HeaderMap) -> Duration {
    let control = headers
        .get(http::header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok());
    let max_age = control
        .unwrap_or_default()
        .split(',')
        .find_map(|directive| {
            directive
                .trim()
                .to_ascii_lowercase()
                .strip_prefix("max-age=")?
                .parse()
                .ok()
        });
    max_age
        .map_or(FLOOR, Duration::from_secs)
        .clamp(FLOOR, CEILING)
}
