//! Where a job begins: with its window, at the mark, or where another worker stopped.

use time::OffsetDateTime;

use super::cursor::{Cursor, Mark, Position, Span, Walk, Way};
use super::{CursorError, Run, Task};
use crate::schema::{Incremental, Range};

impl Run<'_> {
    pub(super) fn start_backfill(&mut self, task: &Task<'_>) {
        let pass = &self.stream.backfill;
        let whole = match pass.range {
            Range::Whole => Span::default(),
            Range::Window => Span {
                from: task.window_start,
                until: task.window_end,
            },
        };
        // What changes from here on is the incremental reads' business, also what changes before the first page is read.
        let mark = task.window_end.map_or(self.now, |end| end.min(self.now));
        self.cursor.mark = match &self.stream.incremental {
            Some(Incremental::Time { .. } | Incremental::Whole) => Some(Mark::Time(mark)),
            Some(Incremental::Delta { .. }) | None => None,
        };
        self.cursor.walk = Some(walk(Way::Backfill, self.now, whole, pass.slice));
    }

    pub(super) fn start_incremental(&mut self, task: &Task<'_>) -> Result<(), CursorError> {
        let incremental = self
            .stream
            .incremental
            .as_ref()
            .ok_or(CursorError::NotIncremental)?;
        if self.stream.single.is_some() && !task.external_ids.is_empty() {
            let ids = task.external_ids.iter().cloned().collect();
            self.singles = Some((ids, task.cursor.to_vec()));
            return Ok(());
        }
        if self.cursor.walk.is_some() {
            return Ok(());
        }
        let start = task.window_start.unwrap_or(self.now);
        let begin = |way, from| {
            walk(
                way,
                self.now,
                Span {
                    from: Some(from),
                    until: None,
                },
                None,
            )
        };
        let (mark, walk) = match (incremental, self.cursor.mark.take()) {
            (Incremental::Time { overlap, .. }, Some(Mark::Time(since))) => (
                Some(Mark::Time(self.now)),
                Some(begin(Way::Incremental, since - *overlap)),
            ),
            (Incremental::Time { .. }, None) => (
                Some(Mark::Time(self.now)),
                Some(begin(Way::Incremental, start)),
            ),
            (Incremental::Whole, Some(_)) => (
                Some(Mark::Time(self.now)),
                Some(self::walk(Way::Backfill, self.now, Span::default(), None)),
            ),
            // History is the initial sync's: from here on there is something to go on from, and nothing is read.
            (Incremental::Whole, None) => (Some(Mark::Time(self.now)), None),
            (Incremental::Delta { request, .. }, Some(Mark::Token(token))) => {
                let at = if request.is_some() {
                    Position::Token(token.clone())
                } else {
                    Position::Url(token.clone())
                };
                let walk = Walk {
                    at: Some(at),
                    ..self::walk(Way::Incremental, self.now, Span::default(), None)
                };
                (Some(Mark::Token(token)), Some(walk))
            }
            (Incremental::Delta { mark: Some(_), .. }, None) => (None, None),
            // The provider gives its cursor at the end of a first round only, whose older records are passed over.
            (Incremental::Delta { mark: None, .. }, None) => (
                None,
                Some(Walk {
                    nothing_before: Some(start),
                    ..begin(Way::Backfill, start)
                }),
            ),
            (Incremental::Time { .. }, Some(Mark::Token(_)))
            | (Incremental::Delta { .. }, Some(Mark::Time(_))) => {
                return Err(CursorError::Foreign);
            }
        };
        self.cursor = Cursor { mark, walk };
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), CursorError> {
        let way = self.cursor.walk.as_ref().map(|walk| walk.way);
        let has_way = self.stream.incremental.is_some()
            && !matches!(self.stream.incremental, Some(Incremental::Whole));
        if way == Some(Way::Incremental) && !has_way {
            Err(CursorError::Foreign)
        } else {
            Ok(())
        }
    }
}

fn walk(way: Way, now: OffsetDateTime, whole: Span, slice: Option<std::time::Duration>) -> Walk {
    let part = match (slice, whole) {
        (
            Some(slice),
            Span {
                from: Some(from),
                until,
            },
        ) => Some(Span {
            from: Some((until.unwrap_or(now) - slice).max(from)),
            until,
        }),
        _ => None,
    };
    Walk {
        way,
        started_at: now,
        whole,
        part_from: part.and_then(|part| part.from),
        now: part.unwrap_or(whole),
        at: None,
        border: Vec::new(),
        nothing_before: None,
        restarts: 0,
        finished: false,
    }
}
