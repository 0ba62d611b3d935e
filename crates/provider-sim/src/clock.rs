//! The simulator's time: the machine's, or one that stands still, and in both cases moved forward on demand.
//!
//! Token lifetimes, replay windows and records' dates are judged by this clock, so a test that wants an expired token advances it instead of sleeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A clock that all parts of one simulator share; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    base: Base,
    advanced_ms: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Base {
    System,
    Frozen(OffsetDateTime),
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::new(Base::System)
    }

    /// A clock that stands at `at` until it is advanced.
    pub fn frozen(at: OffsetDateTime) -> Self {
        Self::new(Base::Frozen(at))
    }

    fn new(base: Base) -> Self {
        Self {
            base,
            advanced_ms: Arc::default(),
        }
    }

    /// The time now, UTC.
    pub fn now(&self) -> OffsetDateTime {
        let base = match self.base {
            Base::System => system_now(),
            Base::Frozen(at) => at,
        };
        base + time::Duration::milliseconds(self.advanced_ms())
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.advanced_ms.fetch_add(by, Ordering::SeqCst);
    }

    /// The time now in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        let nanos = self.now().unix_timestamp_nanos();
        i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
    }

    pub(crate) fn advanced_ms(&self) -> i64 {
        self.advanced_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn set_advanced_ms(&self, advanced: i64) {
        self.advanced_ms.store(advanced, Ordering::SeqCst);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulator plays somebody else's machine, which has a clock of its own"
)]
fn system_now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Milliseconds since 1970 as a time; what cannot be one is 1970.
pub(crate) fn from_ms(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-03-01T09:30:00Z`: ISO 8601 to the second, as Procore and Microsoft Graph write it.
pub(crate) fn iso_seconds(ms: i64) -> String {
    from_ms(ms - ms.rem_euclid(1000))
        .format(&Rfc3339)
        .expect("a UTC time of this era has an RFC 3339 form")
}

/// Reads RFC 3339, or a bare date as its first moment, into milliseconds.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    let text = text.trim();
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
        .ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// The `Sun, 06 Nov 1994 08:49:37 GMT` of RFC 9110, section 5.6.7.
pub(crate) fn http_date(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.format(format)
        .expect("a UTC time of this era has an HTTP date")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_clock_moves_only_when_advanced() {
        let clock = Clock::frozen(from_ms(1_700_000_000_123));
        let clone = clock.clone();
        clock.advance(Duration::from_secs(61));
        assert_eq!(clone.now_ms(), 1_700_000_061_123);
    }

    #[test]
    fn times_are_written_and_read_in_the_documented_forms() {
        assert_eq!(iso_seconds(784_111_777_999), "1994-11-06T08:49:37Z");
        assert_eq!(
            http_date(from_ms(784_111_777_000)),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(parse_iso("1994-11-06T08:49:37Z"), Some(784_111_777_000));
        assert_eq!(parse_iso("1994-11-06"), Some(784_080_000_000));
        assert_eq!(parse_iso("yesterday"), None);
    }
}
