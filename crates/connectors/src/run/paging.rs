//! From one page to the next.

use serde_json::value::RawValue;
use time::{Duration, OffsetDateTime};

use super::cursor::{Position, Span, Walk};
use super::record::{Record, moment};
use super::{Answer, PageError};
use crate::json;
use crate::request::next_link;
use crate::schema::{NextUrl, Order, Paging, Pointer};

/// More ids at a border are not kept: what comes twice does no harm.
const MOST_AT_BORDER: usize = 500;
/// Times are asked for to the second.
const PRECISION: Duration = Duration::SECOND;

/// What follows a page.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The page there.
    At(Position),
    /// What is left, from its beginning, with these records once more.
    Rest { left: Span, border: Vec<String> },
    /// The page at this address, since this one has a single time, with these records perhaps once more.
    Within { url: String, border: Vec<String> },
    /// Nothing.
    End,
}

/// A page, as far as paging is concerned.
pub(crate) struct Seen<'a> {
    pub(crate) answer: &'a Answer<'a>,
    pub(crate) document: &'a RawValue,
    pub(crate) items: &'a [&'a RawValue],
    pub(crate) records: &'a [Record],
    pub(crate) page_size: u32,
}

pub(crate) fn step(paging: &Paging, walk: &Walk, seen: &Seen<'_>) -> Result<Step, PageError> {
    Ok(match paging {
        Paging::Single => Step::End,
        Paging::Pages { first, .. } => numbered(*first, walk, seen, total(paging, seen)),
        Paging::NextUrl { next } => match next_url(next, seen) {
            Some(url) => Step::At(Position::Url(url)),
            None => Step::End,
        },
        Paging::Cursor { at } => match text_at(at, seen) {
            Some(token) => Step::At(Position::Token(token)),
            None => Step::End,
        },
        Paging::Keyset { by, order, next } => match next_url(next, seen) {
            Some(url) => by_time(by, *order, url, walk, seen)?,
            None => Step::End,
        },
    })
}

/// Whether the record came with the page before: it stands at the border still. One that has changed since stands elsewhere.
pub(crate) fn repeats(paging: &Paging, walk: &Walk, item: &RawValue, record: &Record) -> bool {
    let Paging::Keyset { by, order, .. } = paging else {
        return false;
    };
    let border = match order {
        Order::Ascending => walk.now.from,
        Order::Descending => walk.now.until.map(|until| until - PRECISION),
    };
    walk.border.contains(&record.external_id)
        && border.is_some()
        && time_of(item, by).map(floor) == border.map(floor)
}

fn time_of(item: &RawValue, by: &Pointer) -> Option<OffsetDateTime> {
    json::find(item, by)
        .and_then(json::text)
        .and_then(|text| moment(&text))
}

/// How many records there are in all, where the provider says so.
pub(crate) fn total(paging: &Paging, seen: &Seen<'_>) -> Option<u64> {
    let Paging::Pages {
        total: Some(name), ..
    } = paging
    else {
        return None;
    };
    seen.answer.headers.get(name)?.to_str().ok()?.parse().ok()
}

/// A record that vanishes before the present page moves each one behind it forward by one. Where the total has shrunk,
/// the read goes back by as many records; what it reads twice does no harm.
fn numbered(first: u32, walk: &Walk, seen: &Seen<'_>, total: Option<u64>) -> Step {
    let (number, read, before) = match &walk.at {
        Some(Position::Page {
            number,
            read,
            total,
        }) => (*number, *read, *total),
        _ => (first, 0, None),
    };
    let count = seen.items.len() as u64;
    let read = read + count;
    let Some(total) = total else {
        let more = if seen.answer.headers.contains_key(http::header::LINK) {
            next_link(seen.answer.headers).is_some()
        } else {
            count >= u64::from(seen.page_size)
        };
        return if more {
            Step::At(Position::Page {
                number: number + 1,
                read,
                total: None,
            })
        } else {
            Step::End
        };
    };
    let vanished = before.map_or(0, |before| before.saturating_sub(total));
    if vanished > 0 {
        // What stood at the beginning of this page stands on those before it now.
        let back = vanished.div_ceil(u64::from(seen.page_size));
        let back = u32::try_from(back).unwrap_or(u32::MAX).min(number - first);
        return Step::At(Position::Page {
            number: number - back,
            read: (read - count).saturating_sub(u64::from(back) * u64::from(seen.page_size)),
            total: Some(total),
        });
    }
    // A page without anything is the last one, whatever the total says.
    if read >= total || count == 0 {
        return Step::End;
    }
    Step::At(Position::Page {
        number: number + 1,
        read,
        total: Some(total),
    })
}

fn by_time(
    by: &Pointer,
    order: Order,
    url: String,
    walk: &Walk,
    seen: &Seen<'_>,
) -> Result<Step, PageError> {
    let mut times = Vec::with_capacity(seen.items.len());
    for item in seen.items {
        times.push(
            time_of(item, by)
                .map(floor)
                .ok_or_else(|| PageError::shape(format!("a record has no time at {by}")))?,
        );
    }
    let Some(last) = times.last().copied() else {
        return Ok(Step::Within {
            url,
            border: walk.border.clone(),
        });
    };
    let sorted = match order {
        Order::Ascending => times.is_sorted(),
        Order::Descending => times.iter().rev().is_sorted(),
    };
    if !sorted {
        return Err(PageError::Unsorted);
    }
    let at_border = seen
        .records
        .iter()
        .zip(&times)
        .filter(|(_, time)| **time == last);
    let mut border: Vec<String> = at_border
        .map(|(record, _)| record.external_id.clone())
        .collect();
    let left = match order {
        Order::Ascending if walk.now.from.is_none_or(|from| floor(from) < last) => Span {
            from: Some(last),
            ..walk.now
        },
        Order::Descending if walk.now.until.is_none_or(|until| last + PRECISION < until) => Span {
            until: Some(last + PRECISION),
            ..walk.now
        },
        _ => {
            border.extend(walk.border.iter().cloned());
            border.truncate(MOST_AT_BORDER);
            return Ok(Step::Within { url, border });
        }
    };
    border.truncate(MOST_AT_BORDER);
    Ok(Step::Rest { left, border })
}

fn next_url(next: &NextUrl, seen: &Seen<'_>) -> Option<String> {
    match next {
        NextUrl::Link => next_link(seen.answer.headers),
        NextUrl::Body(pointer) => text_at(pointer, seen),
    }
}

fn text_at(pointer: &Pointer, seen: &Seen<'_>) -> Option<String> {
    json::find(seen.document, pointer).and_then(json::text)
}

pub(crate) fn floor(time: OffsetDateTime) -> OffsetDateTime {
    time.truncate_to_second()
}

/// The whole second at or after it.
pub(crate) fn ceil(time: OffsetDateTime) -> OffsetDateTime {
    let floored = floor(time);
    if floored == time {
        time
    } else {
        floored + PRECISION
    }
}
