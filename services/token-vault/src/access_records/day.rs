//! The days by which records are kept.

use time::OffsetDateTime;

/// A day's partition is emptied before that of the day so many days later needs it.
const SLOTS: i32 = 416;

/// A day in UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(i32);

impl Day {
    /// Records can be kept this long: so many partitions there are, but for some that are in use or about to be.
    pub(crate) const MOST_KEPT: u32 = SLOTS.unsigned_abs() - 4;

    pub(crate) fn of(at: OffsetDateTime) -> Self {
        let days = at.unix_timestamp().div_euclid(24 * 60 * 60);
        Self(i32::try_from(days).expect("years have four digits"))
    }

    pub(crate) fn from_number(number: i32) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> i32 {
        self.0
    }

    /// Its partition.
    pub(crate) fn slot(self) -> i16 {
        self.0.rem_euclid(SLOTS) as i16
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub_unsigned(days))
    }

    /// The last day whose partition is free, where those of all days up to this one are.
    pub(crate) fn last_usable(self) -> Self {
        Self(self.0 + SLOTS)
    }

    /// One day for each partition, where the records of all days up to this one are gone: those that are kept, in their
    /// order, and those that are to come.
    pub(crate) fn behind(self) -> impl Iterator<Item = Self> {
        (self.0 + 1..=self.0 + SLOTS).map(Self)
    }

    /// From this day back to `first`.
    pub(crate) fn back_to(self, first: Self) -> impl Iterator<Item = Self> {
        (first.0.max(self.0 - SLOTS + 1)..=self.0).rev().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_day_ends_at_midnight() {
        let day = Day::of(datetime!(2026-01-15 0:00 UTC));
        assert_eq!(Day::of(datetime!(2026-01-15 23:59:59.999999 UTC)), day);
        assert_eq!(Day::of(datetime!(2026-01-16 0:00 UTC)), day.next());
        assert_eq!(Day::of(datetime!(1969-12-31 23:00 UTC)).number(), -1);
    }

    #[test]
    fn each_partition_has_its_turn_once() {
        let dropped_to = Day::of(datetime!(2026-01-15 0:00 UTC));
        let slots: BTreeSet<_> = dropped_to.behind().map(Day::slot).collect();
        assert_eq!(slots.len(), 416);
        assert_eq!(dropped_to.behind().last(), Some(dropped_to.last_usable()));
        assert_eq!(dropped_to.last_usable().slot(), dropped_to.slot());
        let longest = dropped_to.minus(1000);
        let back: BTreeSet<_> = dropped_to.back_to(longest).map(Day::slot).collect();
        assert_eq!(back.len(), 416);
    }
}
