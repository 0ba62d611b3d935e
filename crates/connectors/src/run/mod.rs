//! One job's way through a stream: which request is next, and what an answer means. Pure: no network, no clock.

mod apply;
mod begin;
mod cursor;
mod paging;
mod record;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use http::{HeaderMap, StatusCode};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use self::cursor::{Cursor, Position, Span, Walk, Way};
pub use self::record::Record;
use crate::request::PageRequest;
use crate::schema::{
    Incremental, Order, Paging, Pass, Range, RequestShape, Single, Stream, Values, Variable,
};

/// An address that the provider forgot in the middle of a pass begins the pass anew so often.
const MOST_RESTARTS: u32 = 3;
/// What has no end ends so far ahead: a provider's clock may be before ours.
const AHEAD: Duration = Duration::DAY;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// The first read.
    Initial,
    /// What has changed since.
    Incremental,
    /// Everything once more, to find what is gone.
    Full,
}

/// A job, as far as reading is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What it is for.
    pub kind: JobKind,
    /// Where its window begins, inclusive.
    pub window_start: Option<OffsetDateTime>,
    /// Where its window ends, exclusive.
    pub window_end: Option<OffsetDateTime>,
    /// What [`Run::position`] or [`Run::rest`] gave; empty where there is nothing yet.
    pub cursor: &'a [u8],
    /// The provider account; may be empty.
    pub account: &'a str,
    /// The only records concerned; the whole stream where empty.
    pub external_ids: &'a [String],
    /// The time.
    pub now: OffsetDateTime,
}

/// An answer of the provider's.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// What an answer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its records.
    pub records: Vec<Record>,
    /// How many there are in all, where the provider says so.
    pub total: Option<u64>,
}

/// A stream being read.
#[derive(Clone, Debug)]
pub struct Run<'s> {
    stream: &'s Stream,
    kind: JobKind,
    account: String,
    now: OffsetDateTime,
    window_start: Option<OffsetDateTime>,
    cursor: Cursor,
    /// Single records that are still to be read; then nothing else is, and the cursor stays as it came.
    singles: Option<(VecDeque<String>, Vec<u8>)>,
}

/// A cursor that is none of this stream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is not one that was written here.
    #[error("the cursor cannot be read")]
    Unreadable,
    /// It is one of another way of reading the stream.
    #[error("the cursor does not fit to how the stream is read now")]
    Foreign,
    /// The stream has no incremental reads.
    #[error("the stream is read once, and has no changes to ask for")]
    NotIncremental,
}

/// A request that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The stream belongs to an account of the provider's, and the job has none.
    #[error("the stream belongs to an account of the provider's, and none is selected")]
    NoAccount,
    /// The connector asks for something that is not known at this point.
    #[error("the connector asks for {{{0}}}, which has no value here")]
    NoValue(&'static str),
}

/// An answer that is not what the connector describes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It is no JSON, or not all of it.
    #[error("the answer is not JSON")]
    NotJson,
    /// Something is missing in it.
    #[error("the answer is not what was expected: {0}")]
    Shape(String),
    /// The records are not in the order that was asked for, so the next page cannot be asked for by time.
    #[error("the records are not in the order that was asked for")]
    Unsorted,
}

/// What becomes of a read whose cursor the provider refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It begins anew.
    Restarted,
    /// It cannot go on: everything has to be read once more.
    Lost,
}

impl PageError {
    fn shape(what: impl Into<String>) -> Self {
        Self::Shape(what.into())
    }
}

impl<'s> Run<'s> {
    /// Begins, or goes on where the cursor says.
    ///
    /// # Errors
    /// [`CursorError`] where it cannot.
    pub fn start(stream: &'s Stream, task: Task<'_>) -> Result<Self, CursorError> {
        let cursor = if task.cursor.is_empty() {
            Cursor::default()
        } else {
            serde_json::from_slice(task.cursor).map_err(|_| CursorError::Unreadable)?
        };
        let mut run = Self {
            stream,
            kind: task.kind,
            account: task.account.to_owned(),
            now: task.now,
            window_start: task.window_start,
            cursor,
            singles: None,
        };
        if task.kind == JobKind::Incremental {
            run.start_incremental(&task)?;
        } else if run.cursor.walk.is_none() {
            run.start_backfill(&task);
        }
        run.check()?;
        Ok(run)
    }

    /// The next request; `None` where everything has been read.
    ///
    /// # Errors
    /// [`RequestError`] where it cannot be made.
    pub fn request(&self) -> Result<Option<PageRequest>, RequestError> {
        if let Some((ids, _)) = &self.singles {
            let (Some(id), Some(single)) = (ids.front(), &self.stream.single) else {
                return Ok(None);
            };
            let values = Values {
                id: Some(id.clone()),
                ..self.values()
            };
            return made(&single.request, &values).map(Some);
        }
        if let Some(mark) = self.mark_request() {
            return made(mark, &self.values()).map(Some);
        }
        let Some(walk) = self.open_walk() else {
            return Ok(None);
        };
        let (shape, paging, _) = self.way(walk.way);
        let values = Values {
            from: Some(written(paging::floor(
                walk.now.from.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            ))),
            until: Some(written(paging::ceil(
                walk.now.until.unwrap_or(self.now + AHEAD),
            ))),
            ..self.values()
        };
        match &walk.at {
            Some(Position::Url(url)) => Ok(Some(PageRequest::follow(shape, &values, url))),
            Some(Position::Token(token)) => made(
                shape,
                &Values {
                    cursor: Some(token.clone()),
                    ..values
                },
            )
            .map(Some),
            Some(Position::Page { number, .. }) => made(
                shape,
                &Values {
                    page: Some(*number),
                    ..values
                },
            )
            .map(Some),
            None => {
                let page = match paging {
                    Paging::Pages { first, .. } => Some(*first),
                    _ => None,
                };
                made(shape, &Values { page, ..values }).map(Some)
            }
        }
    }

    /// Whether [`Run::apply`] can say what an answer with this status means; any other one is an error of the call.
    pub fn accepts(&self, status: StatusCode) -> bool {
        status.is_success()
            || self
                .single()
                .is_some_and(|single| single.gone.status.contains(&status.as_u16()))
    }

    /// The provider does not know the address or the cursor of the present request any more.
    pub fn refuse_cursor(&mut self) -> Refused {
        let way = self.cursor.walk.as_ref().map(|walk| walk.way);
        let rests_on_mark = way == Some(Way::Incremental)
            && matches!(self.stream.incremental, Some(Incremental::Delta { .. }));
        match &mut self.cursor.walk {
            Some(walk) if !rests_on_mark && walk.at.is_some() && walk.restarts < MOST_RESTARTS => {
                walk.at = None;
                walk.restarts += 1;
                Refused::Restarted
            }
            _ => Refused::Lost,
        }
    }

    /// Where the job is: what a later attempt goes on from.
    pub fn position(&self) -> Vec<u8> {
        match &self.singles {
            Some((_, as_it_came)) => as_it_came.clone(),
            None => self.cursor.to_json(),
        }
    }

    /// Where the stream is once the job is through: what the next incremental job begins at.
    pub fn rest(&self) -> Vec<u8> {
        match (&self.singles, &self.cursor.mark) {
            (Some((_, as_it_came)), _) => as_it_came.clone(),
            (None, Some(mark)) => Cursor::at_rest(mark.clone()).to_json(),
            (None, None) => Vec::new(),
        }
    }

    /// Where the incremental reads begin that follow; known before the first page where the provider lets it, else after
    /// the last.
    pub fn mark(&self) -> Option<Vec<u8>> {
        let known = self.kind != JobKind::Incremental && self.cursor.mark.is_some();
        known.then(|| self.rest())
    }

    /// When the pass began, where it reads everything there is: what it does not see is gone.
    pub fn full_pass(&self) -> Option<OffsetDateTime> {
        let walk = self
            .cursor
            .walk
            .as_ref()
            .filter(|walk| walk.way == Way::Backfill)?;
        let everything = match self.kind {
            JobKind::Initial => false,
            JobKind::Full => {
                self.window_start.is_none() || self.stream.backfill.range == Range::Whole
            }
            JobKind::Incremental => matches!(self.stream.incremental, Some(Incremental::Whole)),
        };
        everything.then_some(walk.started_at)
    }

    /// How much of the time to be read has been read, from 0 to 1, where it is read by time.
    pub fn fraction(&self) -> Option<f64> {
        let walk = self.cursor.walk.as_ref()?;
        let from = walk.whole.from?;
        let until = walk.whole.until.unwrap_or(walk.started_at);
        let descending = match self.way(walk.way).1 {
            Paging::Keyset { order, .. } => *order == Order::Descending,
            _ => walk.part_from.is_some(),
        };
        let done = match (descending, walk.now) {
            (
                true,
                Span {
                    until: Some(at), ..
                },
            ) => until - at,
            (false, Span { from: Some(at), .. }) => at - from,
            _ => return None,
        };
        let all = (until - from).as_seconds_f64();
        (all > 0.0).then(|| (done.as_seconds_f64() / all).clamp(0.0, 1.0))
    }

    /// What is asked for, and how: the request, the way to the next page, and where the last one has a cursor.
    fn way(
        &self,
        way: Way,
    ) -> (
        &'s RequestShape,
        &'s Paging,
        Option<&'s crate::schema::Pointer>,
    ) {
        let Pass {
            request,
            paging,
            done,
            ..
        } = &self.stream.backfill;
        match (way, &self.stream.incremental) {
            (
                Way::Incremental,
                Some(Incremental::Time {
                    request, paging, ..
                }),
            ) => (request, paging, None),
            (
                Way::Incremental,
                Some(Incremental::Delta {
                    request: own,
                    paging,
                    done,
                    ..
                }),
            ) => (own.as_ref().unwrap_or(request), paging, Some(done)),
            _ => (request, paging, done.as_ref()),
        }
    }

    fn values(&self) -> Values {
        Values {
            account: (!self.account.is_empty()).then(|| self.account.clone()),
            page_size: Some(self.stream.page_size),
            ..Values::default()
        }
    }

    fn single(&self) -> Option<&'s Single> {
        self.stream
            .single
            .as_ref()
            .filter(|_| self.singles.is_some())
    }

    fn open_walk(&self) -> Option<&Walk> {
        self.cursor.walk.as_ref().filter(|walk| !walk.finished)
    }

    /// The request for the high-water mark, while there is none.
    fn mark_request(&self) -> Option<&'s RequestShape> {
        match &self.stream.incremental {
            Some(Incremental::Delta {
                mark: Some(mark), ..
            }) if self.cursor.mark.is_none() => Some(&mark.request),
            _ => None,
        }
    }
}

fn made(shape: &RequestShape, values: &Values) -> Result<PageRequest, RequestError> {
    PageRequest::of(shape, values).map_err(|variable| match variable {
        Variable::Account => RequestError::NoAccount,
        other => RequestError::NoValue(other.name()),
    })
}

fn written(time: OffsetDateTime) -> String {
    let utc = time.to_offset(time::UtcOffset::UTC);
    utc.format(&Rfc3339)
        .expect("a time of this era has an RFC 3339 form")
}
