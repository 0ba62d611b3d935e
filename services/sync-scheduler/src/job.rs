//! A job: one piece of syncing, with its state, and what may become of it.

use std::time::Duration;

use common::Deps;
use contracts::scheduler::v1::{self as contract, FailureKind, JobKind, JobState, TriggerSource};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::stream::{Stream, StreamKey};

/// Failed attempts without progress that end a job.
pub(crate) const MAX_ATTEMPTS: i32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_hours(1);
/// The longest that a provider's word is waited for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// The `cursor_version` of a job that has not begun.
pub(crate) const NOT_BEGUN: i64 = -1;
/// The queue that the built-in worker serves.
pub(crate) const CONNECTORS: &str = "connectors";

/// A job as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What it syncs.
    pub(crate) key: StreamKey,
    /// Its id.
    pub(crate) id: Uuid,
    /// Shared by the jobs that one request made.
    pub(crate) run_id: Uuid,
    /// The provider's key in the catalogue.
    pub(crate) provider: String,
    /// The integration of the connection.
    pub(crate) integration_id: String,
    /// Who serves it.
    pub(crate) queue: String,
    /// Initial, incremental, or full.
    pub(crate) kind: JobKind,
    /// Where it stands.
    pub(crate) state: JobState,
    /// What made it.
    pub(crate) triggered_by: TriggerSource,
    /// Who asked, else who owns the connection.
    pub(crate) user_id: String,
    /// Whose connection it is.
    pub(crate) owner_id: String,
    /// Higher first.
    pub(crate) priority: i32,
    /// Of a backfill; or from where an incremental run without a cursor reads.
    pub(crate) window_start: Option<OffsetDateTime>,
    /// Of a backfill.
    pub(crate) window_end: Option<OffsetDateTime>,
    /// The only records concerned.
    pub(crate) external_ids: Vec<String>,
    /// When it may be leased; while it is, when the lease ends.
    pub(crate) due_at: OffsetDateTime,
    /// Proves the lease.
    pub(crate) fence: i64,
    /// The last checkpoint within the lease.
    pub(crate) checkpoint_number: i64,
    /// Leases so far.
    pub(crate) attempt: i32,
    /// Failed attempts since the last progress.
    pub(crate) failures: i32,
    /// How many of them end it.
    pub(crate) max_attempts: i32,
    /// Where the next attempt goes on.
    pub(crate) cursor_json: Option<Vec<u8>>,
    /// Which version of the stream's cursor it began with; -1 before it has.
    pub(crate) cursor_version: i64,
    /// Where incremental runs begin after a backfill.
    pub(crate) incremental_cursor_json: Option<Vec<u8>>,
    /// Counts.
    pub(crate) progress: Progress,
    /// What went wrong last.
    pub(crate) last_error: String,
    /// Why it does not run.
    pub(crate) waiting_for: String,
    /// The trace of the request that made it.
    pub(crate) traceparent: String,
    /// When it was made.
    pub(crate) scheduled_at: OffsetDateTime,
    /// When it was first leased.
    pub(crate) started_at: Option<OffsetDateTime>,
    /// When its last lease began.
    pub(crate) leased_at: Option<OffsetDateTime>,
    /// When it ended.
    pub(crate) finished_at: Option<OffsetDateTime>,
    /// Goes up with every change.
    pub(crate) revision: i64,
}

/// What a worker has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Records read from the provider.
    pub(crate) records_read: i64,
    /// Records that were new or changed.
    pub(crate) records_written: i64,
    /// Records that were known as they are.
    pub(crate) records_unchanged: i64,
    /// Of the whole, where the worker can tell.
    pub(crate) records_expected: i64,
    /// Bytes read from the provider.
    pub(crate) bytes_read: i64,
    /// Calls to the provider.
    pub(crate) api_calls: i64,
    /// Records that the provider has no longer.
    pub(crate) records_deleted: i64,
    /// How long it is likely to go on, in milliseconds.
    pub(crate) remaining_millis: i64,
}

/// What becomes of a job after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Again, after this long.
    Retry {
        /// How long it waits.
        pause: Duration,
        /// Failed attempts since the last progress, this one counted.
        failures: i32,
    },
    /// As [`AfterFailure::Retry`], from the beginning: its cursor is worth nothing.
    Restart {
        /// How long it waits.
        pause: Duration,
        /// Failed attempts since the last progress, this one counted.
        failures: i32,
    },
    /// Not until the connection changes.
    Park,
    /// Not again.
    End,
    /// Not again; a full pass follows.
    FullPass,
}

impl Job {
    /// An incremental job of the stream that is due now. Its cursor is the stream's when it is first leased.
    pub(crate) fn queued(stream: &Stream, run_id: Uuid, now: OffsetDateTime, deps: &Deps) -> Self {
        Self {
            key: stream.key.clone(),
            id: stream.key.tenant.new_id(deps),
            run_id,
            provider: stream.provider.clone(),
            integration_id: stream.integration_id.clone(),
            queue: stream.queue.clone(),
            kind: JobKind::Incremental,
            state: JobState::Queued,
            triggered_by: TriggerSource::Unspecified,
            user_id: stream.user_id.clone(),
            owner_id: stream.user_id.clone(),
            priority: 0,
            window_start: None,
            window_end: None,
            external_ids: Vec::new(),
            due_at: now,
            fence: 0,
            checkpoint_number: 0,
            attempt: 0,
            failures: 0,
            max_attempts: MAX_ATTEMPTS,
            cursor_json: None,
            cursor_version: NOT_BEGUN,
            incremental_cursor_json: None,
            progress: Progress::default(),
            last_error: String::new(),
            waiting_for: String::new(),
            traceparent: String::new(),
            scheduled_at: now,
            started_at: None,
            leased_at: None,
            finished_at: None,
            revision: 1,
        }
    }

    /// Whether nothing will happen to it any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.state,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled
        )
    }

    /// Where it goes on when it is leased. An incremental run begins at the stream's cursor, and does so again where that has
    /// changed since it last began: what it had reached by itself is behind it by then. Without a cursor it reads nothing older
    /// than the moment it was asked for.
    pub(crate) fn begin(self, stream: &Stream) -> Self {
        let begun = self.cursor_version == stream.cursor_version;
        match self.kind {
            JobKind::Incremental if !begun => Self {
                cursor_json: stream.cursor_json.clone(),
                cursor_version: stream.cursor_version,
                window_start: stream
                    .cursor_json
                    .is_none()
                    .then_some(self.window_start.unwrap_or(self.scheduled_at)),
                ..self
            },
            _ if self.cursor_version == NOT_BEGUN => Self {
                cursor_version: stream.cursor_version,
                ..self
            },
            _ => self,
        }
    }

    /// Where the stream goes on once it has succeeded, if that changes: not after a run for some records only, which has not
    /// seen the rest, and not where the stream's cursor was changed since it began.
    pub(crate) fn moves_cursor_to(&self, stream: &Stream) -> Option<&[u8]> {
        let cursor = match self.kind {
            JobKind::Incremental => &self.cursor_json,
            _ => &self.incremental_cursor_json,
        };
        let whole = self.external_ids.is_empty() && self.cursor_version == stream.cursor_version;
        cursor.as_deref().filter(|_| whole)
    }

    /// What becomes of it when an attempt fails so; `retry_after` is the provider's word, and is at least waited for.
    pub(crate) fn after_failure(
        &self,
        kind: FailureKind,
        retry_after: Option<Duration>,
        stream: &Stream,
        deps: &Deps,
    ) -> AfterFailure {
        let counted = self.failures + 1;
        let pause = backoff(self.failures, deps);
        match kind {
            FailureKind::Park => AfterFailure::Park,
            // Only what was synced once can be gone through again: history is the initial sync's.
            FailureKind::CursorLost
                if self.kind == JobKind::Incremental && stream.backfilled_from.is_some() =>
            {
                AfterFailure::FullPass
            }
            FailureKind::CursorLost if counted < self.max_attempts => AfterFailure::Restart {
                pause,
                failures: counted,
            },
            // A limit that the provider names is no failure of the job's.
            FailureKind::Retry | FailureKind::Unspecified if retry_after.is_some() => {
                AfterFailure::Retry {
                    pause: retry_after
                        .unwrap_or_default()
                        .max(backoff(0, deps))
                        .min(LONGEST_WAIT),
                    failures: self.failures,
                }
            }
            FailureKind::Retry | FailureKind::Unspecified if counted < self.max_attempts => {
                AfterFailure::Retry {
                    pause,
                    failures: counted,
                }
            }
            // For good, or too often.
            _ => AfterFailure::End,
        }
    }
}

/// 10 s doubled with each failure, at most an hour, with full jitter.
fn backoff(failures: i32, deps: &Deps) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.unsigned_abs()));
    let part = f64::from(u32::from_be_bytes(deps.random())) / f64::from(u32::MAX);
    doubled.min(LONGEST_BACKOFF).mul_f64(part)
}

impl From<contract::Progress> for Progress {
    fn from(progress: contract::Progress) -> Self {
        let remaining = progress
            .remaining
            .and_then(|span| Duration::try_from(span).ok())
            .unwrap_or_default();
        Self {
            records_read: progress.records_read,
            records_written: progress.records_written,
            records_unchanged: progress.records_unchanged,
            records_expected: progress.records_expected,
            bytes_read: progress.bytes_read,
            api_calls: progress.api_calls,
            records_deleted: progress.records_deleted,
            remaining_millis: i64::try_from(remaining.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl From<Progress> for contract::Progress {
    fn from(progress: Progress) -> Self {
        let remaining = Duration::from_millis(progress.remaining_millis.unsigned_abs());
        Self {
            records_read: progress.records_read,
            records_written: progress.records_written,
            records_unchanged: progress.records_unchanged,
            records_expected: progress.records_expected,
            bytes_read: progress.bytes_read,
            api_calls: progress.api_calls,
            records_deleted: progress.records_deleted,
            remaining: (!remaining.is_zero())
                .then(|| remaining.try_into().ok())
                .flatten(),
        }
    }
}

impl std::ops::Add for Progress {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            records_read: self.records_read.saturating_add(other.records_read),
            records_written: self.records_written.saturating_add(other.records_written),
            records_unchanged: self
                .records_unchanged
                .saturating_add(other.records_unchanged),
            records_expected: self.records_expected.saturating_add(other.records_expected),
            bytes_read: self.bytes_read.saturating_add(other.bytes_read),
            api_calls: self.api_calls.saturating_add(other.api_calls),
            records_deleted: self.records_deleted.saturating_add(other.records_deleted),
            // They run beside each other.
            remaining_millis: self.remaining_millis.max(other.remaining_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::TenantKey;
    use contracts::broker::v1::Connection;

    use super::*;

    fn stream(deps: &Deps) -> Stream {
        let tenant = TenantKey::new_tenant(deps);
        let key = StreamKey {
            tenant,
            connection_id: tenant.new_id(deps),
            external_account_id: String::new(),
            stream: "projects".to_owned(),
        };
        Stream::new(&Connection::default(), key, deps.now())
    }

    fn job(stream: &Stream, failures: i32, deps: &Deps) -> Job {
        let run_id = stream.key.tenant.new_id(deps);
        Job {
            failures,
            ..Job::queued(stream, run_id, deps.now(), deps)
        }
    }

    #[test]
    fn five_failures_without_progress_end_a_job() {
        let deps = Deps::system("test");
        let stream = stream(&deps);
        for failures in 0..4 {
            let after = job(&stream, failures, &deps).after_failure(
                FailureKind::Retry,
                None,
                &stream,
                &deps,
            );
            assert!(
                matches!(after, AfterFailure::Retry { failures: counted, .. } if counted == failures + 1)
            );
        }
        let last = job(&stream, 4, &deps);
        assert_eq!(
            last.after_failure(FailureKind::Retry, None, &stream, &deps),
            AfterFailure::End
        );
        assert_eq!(
            last.after_failure(FailureKind::CursorLost, None, &stream, &deps),
            AfterFailure::End
        );
    }

    #[test]
    fn a_rate_limit_is_waited_for_and_not_counted() {
        let deps = Deps::system("test");
        let stream = stream(&deps);
        let limit = Duration::from_mins(10);
        let after =
            job(&stream, 4, &deps).after_failure(FailureKind::Retry, Some(limit), &stream, &deps);
        assert!(matches!(after, AfterFailure::Retry { pause, failures: 4 } if pause >= limit));
    }

    #[test]
    fn a_lost_cursor_leads_to_a_full_pass_only_where_there_was_a_backfill() {
        let deps = Deps::system("test");
        let never = stream(&deps);
        let backfilled = Stream {
            backfilled_from: Some(deps.now()),
            ..never.clone()
        };
        let lost =
            |job: Job, stream| job.after_failure(FailureKind::CursorLost, None, stream, &deps);
        assert_eq!(
            lost(job(&never, 0, &deps), &backfilled),
            AfterFailure::FullPass
        );
        assert!(matches!(
            lost(job(&never, 0, &deps), &never),
            AfterFailure::Restart { failures: 1, .. }
        ));
        let initial = Job {
            kind: JobKind::Initial,
            ..job(&never, 0, &deps)
        };
        assert!(matches!(
            lost(initial, &backfilled),
            AfterFailure::Restart { failures: 1, .. }
        ));
    }

    #[test]
    fn an_incremental_job_begins_where_the_stream_is() {
        let deps = Deps::system("test");
        let empty = stream(&deps);
        let first = job(&empty, 0, &deps).begin(&empty);
        assert_eq!(
            (first.window_start, first.cursor_json.as_deref()),
            (Some(first.scheduled_at), None)
        );
        let moved = Stream {
            cursor_json: Some(b"2".to_vec()),
            cursor_version: 1,
            ..empty.clone()
        };
        let again = Job {
            cursor_json: Some(b"1".to_vec()),
            ..first.clone()
        };
        assert_eq!(
            again.moves_cursor_to(&moved),
            None,
            "it began before the cursor was moved"
        );
        let again = again.begin(&moved);
        assert_eq!(
            (again.window_start, again.cursor_json.as_deref()),
            (None, Some(&b"2"[..]))
        );
        let resumed = Job {
            cursor_json: Some(b"3".to_vec()),
            ..again
        }
        .begin(&moved);
        assert_eq!(
            resumed.cursor_json.as_deref(),
            Some(&b"3"[..]),
            "its own checkpoint is kept"
        );
        assert_eq!(resumed.moves_cursor_to(&moved), Some(&b"3"[..]));
        let narrow = Job {
            external_ids: vec!["42".to_owned()],
            ..resumed
        };
        assert_eq!(
            narrow.moves_cursor_to(&moved),
            None,
            "it has not seen the rest"
        );
    }

    #[test]
    fn backoff_doubles_up_to_an_hour() {
        let deps = Deps::system("test");
        for failures in 0..40_i32 {
            let longest = FIRST_BACKOFF
                .saturating_mul(2_u32.saturating_pow(failures.unsigned_abs()))
                .min(LONGEST_BACKOFF);
            assert!(backoff(failures, &deps) <= longest);
        }
    }
}
