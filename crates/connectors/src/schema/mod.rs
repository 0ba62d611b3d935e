//! The schema of a connector. Unknown fields are refused, so that a misspelt one cannot be overlooked.
//!
//! The build script includes this module too, so it names nothing outside itself.

mod check;
mod file;
mod template;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use file::{FileProblem, parse};
pub(crate) use template::{Escape, Values};
pub use template::{Template, Variable};
pub use values::{FieldProblem, Pointer};

/// What can be synced from one provider, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The provider's name in the catalogue; the file's name too.
    pub provider: String,
    /// Its name for people.
    pub display_name: String,
    /// Where its API is documented.
    pub docs_url: String,
    /// What can be synced.
    pub streams: Vec<Stream>,
    /// What else whoever uses it should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Records of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name in the API: "projects".
    #[serde(rename = "stream")]
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// Where its requests are documented.
    #[serde(default)]
    pub docs_url: String,
    /// What the connection has to be allowed to do.
    #[serde(default)]
    pub required_scopes: Vec<String>,
    /// How often it is read again unless somebody says otherwise.
    #[serde(with = "humantime_serde")]
    pub default_cadence: Duration,
    /// Records asked for at a time.
    pub page_size: u32,
    /// Where things stand in a record.
    pub record: RecordShape,
    /// The first read.
    pub backfill: Pass,
    /// The reads after it; none where the stream is read once.
    #[serde(default)]
    pub incremental: Option<Incremental>,
    /// How one record is read by its id. Where it cannot be, an event about one leads to an incremental read.
    #[serde(default)]
    pub single: Option<Single>,
}

/// Where things stand in an answer and in its records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordShape {
    /// The list, in the answer.
    pub items: Pointer,
    /// The record's id.
    pub id: Pointer,
    /// What people call it.
    #[serde(default)]
    pub title: Option<Pointer>,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: Option<Pointer>,
    /// Whatever stands here, but for `false` and `null`, says that the record is gone.
    #[serde(default)]
    pub deleted: Option<Pointer>,
    /// Its address for people, made of `{id}` and `{account}`.
    #[serde(default)]
    pub content_url: Option<Template>,
    /// Its address for people, where the record has it.
    #[serde(default)]
    pub content_url_at: Option<Pointer>,
}

/// One way through a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// How much of the stream it is.
    pub range: Range,
    /// Cuts the window into parts of this length, newest first.
    #[serde(default, with = "humantime_serde")]
    pub slice: Option<Duration>,
    /// How to ask for a page.
    pub request: RequestShape,
    /// How to come to the next one.
    pub paging: Paging,
    /// Where the last page has the cursor that incremental reads go on from.
    #[serde(default)]
    pub done: Option<Pointer>,
}

/// How much of a stream a first read covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// All of it, whatever window was asked for: lists of what there is now.
    Whole,
    /// The window that was asked for.
    Window,
}

/// A request, relative to the provider's base URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestShape {
    /// GET unless said otherwise.
    #[serde(default)]
    pub method: Method,
    /// Begins with a slash.
    pub path: Template,
    /// A parameter whose template has a variable without a value is left out.
    #[serde(default)]
    pub query: BTreeMap<String, Template>,
    /// Besides those that the connection brings.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// POST, with everything in the query.
    Post,
}

/// How pages follow each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Paging {
    /// There is one page.
    Single,
    /// Numbered pages, by `{page}`.
    Pages {
        /// The number of the first.
        #[serde(default = "one")]
        first: u32,
        /// The header that says how many records there are in all. Where it shrinks between two pages, the read goes
        /// back as far. Without it a `Link` header, or else a page that is not full, says where the end is.
        #[serde(default)]
        total: Option<String>,
    },
    /// Each page has the next one's address.
    NextUrl {
        /// Where.
        next: NextUrl,
    },
    /// Each page has what is to be sent as `{cursor}` for the next one.
    Cursor {
        /// Where.
        at: Pointer,
    },
    /// In the order of a time; the next page begins at the time of the last record, by `{from}` or `{until}`. Immune to
    /// records that vanish before it, which numbered pages and offsets are not.
    Keyset {
        /// The time.
        by: Pointer,
        /// Which way.
        order: Order,
        /// Where the provider's own way to the next page stands: a page without it is the last, and it is gone where
        /// all records of a page have the same time.
        next: NextUrl,
    },
}

/// Where the next page's address stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NextUrl {
    /// In the `Link` header, as `rel="next"` (RFC 8288). Written `link`.
    Link,
    /// In the body.
    Body(Pointer),
}

/// Which way time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// How a stream is kept up to date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Incremental {
    /// By what was changed since a time, which is taken before the first page is read.
    Time {
        /// How far before that time the next read begins: the provider's clock, and what its lists show late.
        #[serde(with = "humantime_serde")]
        overlap: Duration,
        /// How to ask for a page.
        request: RequestShape,
        /// How to come to the next one.
        paging: Paging,
    },
    /// By a cursor of the provider's.
    Delta {
        /// Gives the cursor before the first page is read; else the last page of the backfill has it.
        #[serde(default)]
        mark: Option<MarkRequest>,
        /// How to ask for a page, with `{cursor}`; without, the cursor is the address itself.
        #[serde(default)]
        request: Option<RequestShape>,
        /// How to come to the next one.
        paging: Paging,
        /// Where the last page has the next cursor.
        done: Pointer,
    },
    /// By reading everything again; what is not seen is gone.
    Whole,
}

/// Asks where a stream stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    /// The request.
    pub request: RequestShape,
    /// Where the answer has the cursor.
    pub at: Pointer,
}

/// Reads one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Single {
    /// The request, with `{id}`.
    pub request: RequestShape,
    /// Where the record stands in the answer.
    #[serde(default)]
    pub at: Pointer,
    /// How the provider says that there is no such record.
    pub gone: Gone,
}

/// An answer that says that a record is gone, in the provider's own words: a proxy's 404 deletes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The statuses it may have.
    pub status: Vec<u16>,
    /// Where its body has a word for it.
    pub at: Pointer,
    /// The words.
    pub is: Vec<String>,
}

fn one() -> u32 {
    1
}

impl TryFrom<String> for NextUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "link" => Ok(Self::Link),
            "" => Err("must be `link` or a JSON pointer"),
            _ => Pointer::try_from(text)
                .map(Self::Body)
                .map_err(|_| "must be `link` or a JSON pointer"),
        }
    }
}

impl From<NextUrl> for String {
    fn from(next: NextUrl) -> Self {
        match next {
            NextUrl::Link => "link".to_owned(),
            NextUrl::Body(pointer) => pointer.into(),
        }
    }
}
