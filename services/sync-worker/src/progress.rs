//! What a job has counted, over all its attempts.

use std::time::Duration;

use contracts::ingest::v1::RecordDocumentsResponse;
use worker::Progress;

/// Counts, and how long it will go on.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    now: Progress,
    /// As this attempt found it.
    read_before: i64,
    fraction_before: Option<f64>,
}

/// What a page adds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageCount {
    pub(crate) records: i64,
    pub(crate) bytes: i64,
    pub(crate) calls: i64,
    /// How many records there are in all, where the provider says so.
    pub(crate) total: Option<u64>,
    /// How much of the time to be read has been read.
    pub(crate) fraction: Option<f64>,
}

/// Of less than this nothing is concluded.
const LEAST_FRACTION: f64 = 0.01;

impl Counted {
    pub(crate) fn new(before: Option<Progress>, fraction: Option<f64>) -> Self {
        let now = before.unwrap_or_default();
        Self {
            read_before: now.records_read,
            now,
            fraction_before: fraction,
        }
    }

    /// The calls that were made for nothing, too.
    pub(crate) fn add_page(&mut self, page: &PageCount, elapsed: Duration) {
        self.now.records_read += page.records;
        self.now.bytes_read += page.bytes;
        self.now.api_calls += page.calls;
        let done = match (page.total, page.fraction) {
            (Some(total), _) => {
                self.now.records_expected = i64::try_from(total)
                    .unwrap_or(i64::MAX)
                    .max(self.now.records_read);
                (total > 0).then(|| self.now.records_read as f64 / self.now.records_expected as f64)
            }
            (None, Some(fraction)) if fraction >= LEAST_FRACTION => {
                self.now.records_expected = (self.now.records_read as f64 / fraction) as i64;
                Some(fraction)
            }
            _ => None,
        };
        self.now.remaining =
            done.and_then(|done| self.remaining(done, page.total.is_some(), elapsed));
    }

    /// By how fast this attempt is.
    fn remaining(
        &self,
        done: f64,
        by_count: bool,
        elapsed: Duration,
    ) -> Option<prost_types::Duration> {
        let before = if by_count {
            self.read_before as f64 / self.now.records_expected.max(1) as f64
        } else {
            self.fraction_before.unwrap_or_default()
        };
        let done_now = done - before;
        if done_now < LEAST_FRACTION {
            return None;
        }
        let seconds = elapsed.as_secs_f64() / done_now * (1.0 - done).max(0.0);
        Duration::try_from_secs_f64(seconds).ok()?.try_into().ok()
    }

    pub(crate) fn add_written(&mut self, answer: &RecordDocumentsResponse) {
        self.now.records_written += answer.inserted + answer.updated;
        self.now.records_unchanged += answer.unchanged;
        self.now.records_deleted += answer.deleted;
    }

    pub(crate) fn add_deleted(&mut self, deleted: i64) {
        self.now.records_deleted += deleted;
    }

    pub(crate) fn so_far(&self) -> Progress {
        self.now
    }

    /// Nothing is left.
    pub(crate) fn at_the_end(&self) -> Progress {
        Progress {
            remaining: None,
            records_expected: self.now.records_read,
            ..self.now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_follows_from_how_fast_this_attempt_is() {
        let before = Progress {
            records_read: 500,
            ..Progress::default()
        };
        let mut counted = Counted::new(Some(before), None);
        let page = PageCount {
            records: 100,
            total: Some(1000),
            ..PageCount::default()
        };
        counted.add_page(&page, Duration::from_secs(10));
        let so_far = counted.so_far();
        assert_eq!((so_far.records_read, so_far.records_expected), (600, 1000));
        assert_eq!(so_far.remaining.map(|span| span.seconds), Some(40));
    }

    #[test]
    fn a_read_by_time_is_extrapolated() {
        let mut counted = Counted::new(None, None);
        let page = PageCount {
            records: 100,
            fraction: Some(0.25),
            ..PageCount::default()
        };
        counted.add_page(&page, Duration::from_secs(10));
        assert_eq!(counted.so_far().records_expected, 400);
        assert_eq!(
            counted.so_far().remaining.map(|span| span.seconds),
            Some(30)
        );
        assert_eq!(counted.at_the_end().records_expected, 100);
    }
}
