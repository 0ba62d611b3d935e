//! What an answer means, and what follows it.

use super::cursor::{Mark, Position, Span, Walk, Way};
use super::paging::{self, Seen, Step};
use super::record::{self, Record};
use super::{Answer, Page, PageError, Run};
use crate::json;
use crate::schema::Incremental;

impl Run<'_> {
    /// Takes the answer to the present request, and moves on to the next one. Nothing has moved where it fails.
    ///
    /// # Errors
    /// [`PageError`] where the answer is not what the connector describes.
    pub fn apply(&mut self, answer: &Answer<'_>) -> Result<Page, PageError> {
        if self.singles.is_some() {
            return self.apply_single(answer);
        }
        let document = json::document(answer.body).map_err(|_| PageError::NotJson)?;
        if self.mark_request().is_some() {
            let Some(Incremental::Delta {
                mark: Some(mark), ..
            }) = &self.stream.incremental
            else {
                return Ok(Page::default());
            };
            let token = json::find(document, &mark.at).and_then(json::text);
            let token = token
                .ok_or_else(|| PageError::shape(format!("there is no cursor at {}", mark.at)))?;
            self.cursor.mark = Some(Mark::Token(token));
            return Ok(Page::default());
        }
        let Some(walk) = self.open_walk() else {
            return Ok(Page::default());
        };
        let shape = &self.stream.record;
        let missing =
            || PageError::shape(format!("there is no list of records at `{}`", shape.items));
        let items = json::find(document, &shape.items).ok_or_else(missing)?;
        let items = json::list(items).map_err(|_| missing())?;
        let read: Result<Vec<_>, _> = items
            .iter()
            .map(|item| shape.read(item, &self.account))
            .collect();
        let mut records = read?;
        let seen = Seen {
            answer,
            document,
            items: &items,
            records: &records,
            page_size: self.stream.page_size,
        };
        let (_, paging, done) = self.way(walk.way);
        let (step, total) = (
            paging::step(paging, walk, &seen)?,
            paging::total(paging, &seen),
        );
        let at_end = |pointer| {
            let token = json::find(document, pointer).and_then(json::text);
            token.ok_or_else(|| {
                PageError::shape(format!("the last page has no cursor at {pointer}"))
            })
        };
        let last = step == Step::End && self.next_part(walk).is_none();
        let mark = done.filter(|_| last).map(at_end).transpose()?;
        let passed_over = |record: &Record| match (walk.nothing_before, record.updated_at) {
            (Some(start), Some(at)) => at < paging::floor(start),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let mut items = items.iter();
        records.retain(|record| {
            let repeats = items
                .next()
                .is_some_and(|item| paging::repeats(paging, walk, item, record));
            !repeats && !passed_over(record)
        });
        self.advance(step);
        if let Some(token) = mark {
            self.cursor.mark = Some(Mark::Token(token));
        }
        Ok(Page { records, total })
    }

    fn apply_single(&mut self, answer: &Answer<'_>) -> Result<Page, PageError> {
        let document = json::document(answer.body).map_err(|_| PageError::NotJson)?;
        let (Some(single), Some((ids, _))) = (&self.stream.single, &mut self.singles) else {
            return Ok(Page::default());
        };
        let record = if answer.status.is_success() {
            let found = json::find(document, &single.at);
            let found = found.ok_or_else(|| {
                PageError::shape(format!("there is no record at `{}`", single.at))
            })?;
            self.stream.record.read(found, &self.account)?
        } else {
            let word = json::find(document, &single.gone.at).and_then(json::text);
            if !word.is_some_and(|word| single.gone.is.contains(&word)) {
                return Err(PageError::shape(
                    "it does not say in the provider's own words that the record is gone",
                ));
            }
            record::gone(ids.front().cloned().unwrap_or_default())
        };
        ids.pop_front();
        Ok(Page {
            records: vec![record],
            total: None,
        })
    }

    fn advance(&mut self, step: Step) {
        let next_part = self
            .cursor
            .walk
            .as_ref()
            .and_then(|walk| self.next_part(walk));
        let Some(walk) = &mut self.cursor.walk else {
            return;
        };
        match step {
            Step::At(position) => walk.at = Some(position),
            Step::Rest { left, border } => {
                walk.now = left;
                walk.at = None;
                walk.border = border;
            }
            Step::Within { url, border } => {
                walk.at = Some(Position::Url(url));
                walk.border = border;
            }
            Step::End => {
                walk.at = None;
                walk.border = Vec::new();
                match next_part {
                    Some(part) => {
                        walk.part_from = part.from;
                        walk.now = part;
                    }
                    None => walk.finished = true,
                }
            }
        }
    }

    /// The part before the present one; `None` where that was the last.
    fn next_part(&self, walk: &Walk) -> Option<Span> {
        let slice = self
            .stream
            .backfill
            .slice
            .filter(|_| walk.way == Way::Backfill)?;
        let (from, floor) = (walk.part_from?, walk.whole.from?);
        (from > floor).then(|| Span {
            from: Some((from - slice).max(floor)),
            until: Some(from),
        })
    }
}
