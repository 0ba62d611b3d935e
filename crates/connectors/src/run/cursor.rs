//! What is kept between two pages, and between two jobs: small, readable, and enough to go on from.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Where a stream stands. At rest it is the mark alone; in the middle of a job there is a walk too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cursor {
    /// Where the next incremental read begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<Mark>,
    /// The read under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) walk: Option<Walk>,
}

/// Where an incremental read begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// At what was changed since this time.
    Time(#[serde(with = "time::serde::rfc3339")] OffsetDateTime),
    /// At what the provider says by this: an address or a token.
    Token(String),
}

/// Which of a stream's ways is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// `backfill`.
    Backfill,
    /// `incremental`.
    Incremental,
}

/// A read under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Walk {
    pub(crate) way: Way,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) started_at: OffsetDateTime,
    /// The whole of what is to be read.
    pub(crate) whole: Span,
    /// Where the part of it that is read now begins, where it is cut into parts.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub(crate) part_from: Option<OffsetDateTime>,
    /// What is left of that part.
    pub(crate) now: Span,
    /// Where the next page is; unset for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Position>,
    /// Records at the border to the next page, which comes with them once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) border: Vec<String>,
    /// Records that are older are passed over: they are there only because the provider gives its cursor so.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub(crate) nothing_before: Option<OffsetDateTime>,
    /// How often it was begun anew because the provider had forgotten an address of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) restarts: u32,
    /// Its last page has been read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) finished: bool,
}

/// From one time, inclusive, until another, exclusive; open where unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Span {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub(crate) from: Option<OffsetDateTime>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub(crate) until: Option<OffsetDateTime>,
}

/// Where the next page is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// At a number.
    Page {
        /// The number.
        number: u32,
        /// Records on the pages before.
        read: u64,
        /// Records in all, as the page before said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// At an address.
    Url(String),
    /// Where this leads.
    Token(String),
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Cursor {
    /// A stream at rest.
    pub(crate) fn at_rest(mark: Mark) -> Self {
        Self {
            mark: Some(mark),
            walk: None,
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("times of this era and texts can be written")
    }
}
