//! How far the log goes, and how far back.

use tokio_postgres::Row;
use uuid::Uuid;

use super::cursor::Position;

/// A day's partition is emptied when this many others have had their turn.
pub(super) const SLOTS: i32 = 32;

/// The row `event_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) log_id: Uuid,
    /// The newest event's number.
    pub(super) number: i64,
    /// The newest event's day.
    pub(super) day: i32,
    /// The newest number that is no longer kept.
    pub(super) floor: i64,
    /// The newest day whose partition is empty, or in use.
    pub(super) emptied_to: i32,
}

impl Head {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            log_id: row.get("log_id"),
            number: row.get("number"),
            day: row.get("day"),
            floor: row.get("floor"),
            emptied_to: row.get("emptied_to"),
        }
    }

    /// Behind the newest event.
    pub(super) fn end(&self) -> Position {
        Position {
            log_id: self.log_id,
            number: self.number,
            day: self.day,
        }
    }

    /// Before the oldest event that is kept.
    pub(super) fn beginning(&self) -> Position {
        Position {
            log_id: self.log_id,
            number: self.floor,
            day: self.day - SLOTS,
        }
    }

    /// Whether everything behind the position is still there. A position ahead of the head is another history's: the
    /// database was restored from a backup.
    pub(super) fn keeps(&self, position: &Position) -> bool {
        position.log_id == self.log_id && (self.floor..=self.number).contains(&position.number)
    }

    /// The partitions with events behind the position: numbers and days grow together.
    pub(super) fn slots_behind(&self, position: &Position) -> Vec<i16> {
        let first = position.day.max(self.day - SLOTS + 1);
        (first..=self.day).map(slot).collect()
    }
}

/// The partition of a day.
pub(super) fn slot(day: i32) -> i16 {
    day.rem_euclid(SLOTS) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        log_id: Uuid::nil(),
        number: 90,
        day: 20_000,
        floor: 10,
        emptied_to: 20_001,
    };

    #[test]
    fn what_lies_behind_a_position_is_looked_for_in_its_days_and_later_ones() {
        assert_eq!(HEAD.slots_behind(&HEAD.end()), [slot(20_000)]);
        let yesterday = Position {
            day: 19_999,
            ..HEAD.end()
        };
        assert_eq!(HEAD.slots_behind(&yesterday), [slot(19_999), slot(20_000)]);
        let mut all = HEAD.slots_behind(&HEAD.beginning());
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn only_positions_of_this_log_within_what_is_kept_are_continued() {
        let at = |number| Position {
            number,
            ..HEAD.end()
        };
        assert!(HEAD.keeps(&at(10)) && HEAD.keeps(&at(90)));
        assert!(!HEAD.keeps(&at(9)) && !HEAD.keeps(&at(91)));
        assert!(!HEAD.keeps(&Position {
            log_id: Uuid::max(),
            ..at(50)
        }));
    }
}
