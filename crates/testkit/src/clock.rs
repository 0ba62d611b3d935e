//! Time and randomness that tests decide.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::{Clock, Deps, Rng};
use time::OffsetDateTime;
use time::macros::datetime;

/// A clock that moves when it is told to. The database's own is not touched by it: tests of leases move the row.
#[derive(Debug)]
pub struct MockClock(Mutex<(OffsetDateTime, Duration)>);

impl MockClock {
    /// One that stands at noon of 15 January 2026.
    pub fn new() -> Arc<Self> {
        Self::at(datetime!(2026-01-15 12:00 UTC))
    }

    /// One that stands at `now`.
    pub fn at(now: OffsetDateTime) -> Arc<Self> {
        Arc::new(Self(Mutex::new((now, Duration::from_hours(1)))))
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *time = (time.0 + by, time.1 + by);
    }

    /// Sets the wall clock, as an operator or NTP does; the other one goes on as before.
    pub fn set(&self, now: OffsetDateTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = now;
    }
}

impl Clock for MockClock {
    fn now(&self) -> OffsetDateTime {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn boottime(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Bytes that are the same in each run (SplitMix64).
#[derive(Debug)]
pub struct SeededRng(AtomicU64);

impl SeededRng {
    /// The same seed gives the same bytes.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let state = self
                .0
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Real time and randomness, and metrics that nobody reads.
pub fn deps() -> Deps {
    Deps::system("test")
}

/// As [`deps`], with this clock.
pub fn deps_at(clock: &Arc<MockClock>) -> Deps {
    Deps {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        ..deps()
    }
}
