//! The etag of a resource: its revision.

use std::fmt;

/// What an update was made against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Of the resource at `revision`.
    pub fn of(revision: i64) -> Self {
        Self(format!("r{revision}"))
    }

    /// As it came with a request; `None` where none did.
    pub fn given(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an update may go on: it was made against this revision, or says nothing of any.
pub fn permits(given: Option<&Etag>, revision: i64) -> bool {
    given.is_none_or(|given| *given == Etag::of(revision))
}
