//! The end of a refresh token that nothing moves: others are told ahead of it, so that the user can connect again in time.

use time::{Duration, OffsetDateTime};

use super::{EventKind, Grant};

/// How far ahead, each once.
const AHEAD: [Duration; 3] = [Duration::days(30), Duration::days(7), Duration::days(1)];
/// Ends that are told as a number of seconds differ by as much as the answers take.
const SAME: Duration = Duration::hours(1);

impl Grant {
    /// When others are next told, if the refresh token is going to end at `end`. An end that each refresh moves on is told
    /// of only when refreshes have failed for most of its way.
    pub(crate) fn next_reminder(&self, end: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
        let end = end?;
        let is_unmoved = self
            .refresh_token_expires_at
            .is_some_and(|before| (end - before).abs() < SAME);
        if is_unmoved {
            return self.remind_at;
        }
        let left = end - self.read_at;
        AHEAD
            .into_iter()
            .filter(|ahead| *ahead <= left / 3)
            .map(|ahead| end - ahead)
            .min()
    }

    /// Tells of the end, if it is time to; those that were missed meanwhile are not made up for.
    pub(crate) fn remind(&mut self) -> Option<EventKind> {
        if self.remind_at.is_none_or(|at| at > self.read_at) {
            return None;
        }
        self.remind_at = None;
        let end = self.refresh_token_expires_at.filter(|_| self.is_alive())?;
        self.remind_at = AHEAD
            .into_iter()
            .map(|ahead| end - ahead)
            .filter(|at| *at > self.read_at + SAME)
            .min();
        Some(self.tell(EventKind::ReauthorizationDue))
    }
}
