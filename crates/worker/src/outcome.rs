//! How work on a job ends.

use std::time::Duration;

use contracts::scheduler::v1::{FailureKind, Progress};

/// How work on a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is through.
    Completed(Completion),
    /// It failed.
    Failed(Failure),
    /// It was left because the lease said so, or because another service said that the lease is another's.
    Stopped,
}

/// What is left of a job that is through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Where the stream is; UTF-8 JSON, empty where there is nothing to say.
    pub cursor_json: Vec<u8>,
    /// Where the incremental jobs begin that follow a first read; empty where that was said before.
    pub incremental_cursor_json: Vec<u8>,
    /// What was counted, over all attempts.
    pub progress: Progress,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What becomes of it.
    pub kind: FailureKind,
    /// For people; holds no secret.
    pub error: String,
    /// At least this long, where somebody said so.
    pub retry_after: Option<Duration>,
    /// Scopes that the connection would need.
    pub missing_scopes: Vec<String>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self {
            kind,
            error: error.into(),
            retry_after: None,
            missing_scopes: Vec::new(),
        }
    }

    /// To be tried again.
    pub fn retry(error: impl Into<String>) -> Self {
        Self::new(FailureKind::Retry, error)
    }

    /// Not until the connection changes.
    pub fn park(error: impl Into<String>) -> Self {
        Self::new(FailureKind::Park, error)
    }

    /// Not again.
    pub fn fatal(error: impl Into<String>) -> Self {
        Self::new(FailureKind::Fatal, error)
    }

    /// The same, not before this long.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}
