//! Where a provider sends its webhooks.

use std::collections::BTreeMap;

use common::{Secret, TenantKey};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;
use webhook_signatures::{Scheme, SchemeOptions};

/// Streams of an event whose type is not listed.
const ANY: &str = "*";
/// A routing key of this name is no connection's: its values are the records that the event is about.
pub(crate) const RECORD: &str = "record";

/// A source as it is kept.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_field_names,
    reason = "its ids are called so everywhere else too"
)]
pub(crate) struct Source {
    pub(crate) tenant: TenantKey,
    /// What the caller knows it by.
    pub(crate) source_id: String,
    /// This source, and no later one that is called the same.
    pub(crate) source_key: Uuid,
    pub(crate) integration: Option<Integration>,
    pub(crate) scheme: String,
    pub(crate) scheme_options: Value,
    /// A stream by event type.
    pub(crate) trigger_streams: BTreeMap<String, String>,
    pub(crate) sealed_bodies: bool,
    pub(crate) accept_unverified: bool,
    pub(crate) token: SealedToken,
    pub(crate) secrets: SealedSecrets,
    /// Goes up with every change.
    pub(crate) revision: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// An integration, and whose it is: the tenant's own or the platform's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Integration {
    pub(crate) tenant: TenantKey,
    pub(crate) integration_id: String,
}

/// The token in the address: its hash, to be found by, and itself, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedToken {
    pub(crate) hash: [u8; 32],
    pub(crate) sealed: Vec<u8>,
}

/// What the provider signs with, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedSecrets {
    /// Of the current one; the one before has one less.
    pub(crate) version: i64,
    pub(crate) current: Vec<u8>,
    pub(crate) previous: Option<Previous>,
}

/// The secret before the last rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) sealed: Vec<u8>,
    /// It is good until then.
    pub(crate) until: OffsetDateTime,
}

/// A source that requests can be verified for: its secrets are open, its scheme and options are read.
#[derive(Debug)]
pub(crate) struct OpenSource {
    pub(crate) source: Source,
    pub(crate) scheme: &'static Scheme,
    pub(crate) options: SchemeOptions,
    pub(crate) current: Secret<Vec<u8>>,
    pub(crate) previous: Option<(Secret<Vec<u8>>, OffsetDateTime)>,
}

impl Source {
    /// The streams to sync when an event of this type comes.
    pub(crate) fn streams(&self, event_type: &str) -> Vec<String> {
        let by_type = self.trigger_streams.get(event_type);
        let mut streams: Vec<String> = by_type
            .or_else(|| self.trigger_streams.get(ANY))
            .into_iter()
            .flat_map(|streams| streams.split(','))
            .map(|stream| stream.trim().to_owned())
            .filter(|stream| !stream.is_empty())
            .collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }
}

impl OpenSource {
    /// The secrets that are good now.
    pub(crate) fn secrets(&self, now: OffsetDateTime) -> Vec<&[u8]> {
        let previous = self.previous.iter().filter(|(_, until)| now < *until);
        std::iter::once(&self.current)
            .chain(previous.map(|(secret, _)| secret))
            .map(|secret| secret.expose().as_slice())
            .collect()
    }
}

#[cfg(test)]
pub(crate) fn example() -> Source {
    let deps = testkit::deps();
    let tenant = TenantKey::new_tenant(&deps);
    Source {
        tenant,
        source_id: "github".to_owned(),
        source_key: tenant.new_id(&deps),
        integration: None,
        scheme: "github".to_owned(),
        scheme_options: Value::Null,
        trigger_streams: BTreeMap::new(),
        sealed_bodies: false,
        accept_unverified: false,
        token: SealedToken {
            hash: [0; 32],
            sealed: Vec::new(),
        },
        secrets: SealedSecrets {
            version: 1,
            current: Vec::new(),
            previous: None,
        },
        revision: 1,
        created_at: deps.now(),
        updated_at: deps.now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_type_comes_before_any() {
        let mut source = example();
        assert_eq!(source.streams("push"), Vec::<String>::new());
        source.trigger_streams = BTreeMap::from(
            [("*", "issues"), ("push", "commits, branches,commits")]
                .map(|(event_type, streams)| (event_type.to_owned(), streams.to_owned())),
        );
        assert_eq!(source.streams("push"), ["branches", "commits"]);
        assert_eq!(source.streams("star"), ["issues"]);
        source
            .trigger_streams
            .insert("ping".to_owned(), String::new());
        assert_eq!(
            source.streams("ping"),
            Vec::<String>::new(),
            "an empty one says: none"
        );
    }

    #[test]
    fn the_secret_before_is_good_while_it_lasts() {
        let source = example();
        let until = source.created_at + time::Duration::hours(1);
        let open = OpenSource {
            scheme: Scheme::find("github").expect("it is there"),
            options: SchemeOptions::default(),
            current: Secret::from(b"new".to_vec()),
            previous: Some((Secret::from(b"old".to_vec()), until)),
            source,
        };
        assert_eq!(
            open.secrets(until - time::Duration::SECOND),
            [b"new", b"old"]
        );
        assert_eq!(open.secrets(until), [b"new"]);
    }
}
