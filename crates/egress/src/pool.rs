//! Connections that wait for another request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

use crate::connect::Origin;

const IDLE_LIMIT: Duration = Duration::from_secs(30);
const PER_ORIGIN: usize = 8;
const IN_ALL: usize = 256;

/// Idle connections by origin, newest last. Their number and their age are bounded.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Duration,
}

impl Pool {
    /// A connection that seems to be alive.
    pub(crate) fn take(&self, origin: &Origin, now: Duration) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut idle, now);
        let waiting = idle.get_mut(origin)?;
        let taken = waiting.pop();
        if waiting.is_empty() {
            idle.remove(origin);
        }
        taken.map(|idle| idle.sender)
    }

    /// Keeps a connection for the next request, where there is room.
    pub(crate) fn put(&self, origin: Origin, sender: SendRequest<Full<Bytes>>, now: Duration) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut idle, now);
        if idle.values().map(Vec::len).sum::<usize>() >= IN_ALL {
            return;
        }
        let waiting = idle.entry(origin).or_default();
        if waiting.len() < PER_ORIGIN {
            waiting.push(Idle { sender, since: now });
        }
    }
}

fn sweep(idle: &mut HashMap<Origin, Vec<Idle>>, now: Duration) {
    idle.retain(|_, waiting| {
        waiting
            .retain(|idle| !idle.sender.is_closed() && now.saturating_sub(idle.since) < IDLE_LIMIT);
        !waiting.is_empty()
    });
}
