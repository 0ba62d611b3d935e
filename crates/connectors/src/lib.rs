#![doc = include_str!("../README.md")]

mod json;
mod request;
mod run;
mod schema;

use std::sync::LazyLock;
use std::time::Duration;

pub use request::{ForeignUrl, PageRequest, Target};
pub use run::{
    Answer, CursorError, JobKind, Page, PageError, Record, Refused, RequestError, Run, Task,
};
pub use schema::{
    Connector, FieldProblem, FileProblem, Gone, Incremental, MarkRequest, Method, NextUrl, Order,
    Paging, Pass, Pointer, Range, RecordShape, RequestShape, Single, Stream, Template, Variable,
    parse,
};

static BUILTIN: LazyLock<Vec<Connector>> = LazyLock::new(|| {
    serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/connectors.json")))
        .expect("the build wrote what this schema reads")
});

/// What is known of a stream without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name in the API.
    pub stream: &'static str,
    /// Its name for people.
    pub display_name: &'static str,
    /// What the connection has to be allowed to do.
    pub required_scopes: &'static [String],
    /// Whether it is kept up to date after the first read.
    pub incremental: bool,
    /// Whether it has a first read.
    pub backfill: bool,
    /// How often it is read again unless somebody says otherwise.
    pub default_cadence: Duration,
}

/// All connectors, ordered by provider.
pub fn all() -> &'static [Connector] {
    &BUILTIN
}

/// The connector of the provider with this key.
pub fn find(provider: &str) -> Option<&'static Connector> {
    BUILTIN
        .iter()
        .find(|connector| connector.provider == provider)
}

/// What can be synced from the provider; nothing where it has no connector.
pub fn streams(provider: &str) -> Vec<StreamInfo> {
    find(provider).map_or_else(Vec::new, Connector::streams)
}

impl Connector {
    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// What is known of each stream.
    pub fn streams(&'static self) -> Vec<StreamInfo> {
        self.streams
            .iter()
            .map(|stream| StreamInfo {
                stream: &stream.name,
                display_name: &stream.display_name,
                required_scopes: &stream.required_scopes,
                incremental: stream.incremental.is_some(),
                backfill: true,
                default_cadence: stream.default_cadence,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procore_and_outlook_can_be_synced() {
        let names = |provider| -> Vec<_> {
            streams(provider)
                .iter()
                .map(|stream| stream.stream)
                .collect()
        };
        assert_eq!(names("procore"), ["companies", "projects"]);
        assert_eq!(names("outlook"), ["messages"]);
        assert_eq!(names("nobody"), Vec::<&str>::new());
        let messages = &streams("outlook")[0];
        assert_eq!(messages.required_scopes, ["Mail.Read"]);
        assert!(messages.incremental && messages.backfill);
    }
}
