//! Reading what changed, by cursor: whoever keeps `next_cursor` and asks again sees every change once settled.
//!
//! A cursor says how far each stream has been read. A stream's place is read before its documents, and all that is at or
//! before a place that can be seen is committed; so nothing appears behind a cursor. A document stands at its last change,
//! so one that changes while it is read is seen once more, further on.

use std::collections::BTreeMap;

use common::{Problem, TenantKey};
use contracts::ingest::v1::ListDocumentChangesResponse;
use uuid::Uuid;

use crate::app::Ingest;
use crate::encode;
use crate::error::Error;
use crate::page_token::Query;
use crate::store::documents::{Span, document_changes};
use crate::store::streams::{StreamFilter, stream_list};

/// A stream's key and a place.
const ENTRY: usize = 24;

/// How far each stream has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor(BTreeMap<Uuid, i64>);

impl Cursor {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        let entries = entries.iter().map(|entry| {
            let (key, place) = entry.split_at(16);
            let place = place.try_into().map(i64::from_be_bytes).ok()?;
            Some((Uuid::from_slice(key).ok()?, place))
        });
        let read = entries.collect::<Option<BTreeMap<_, _>>>()?;
        rest.is_empty().then_some(Self(read))
    }

    fn write(&self) -> Vec<u8> {
        let entry =
            |(key, place): (&Uuid, &i64)| [key.as_bytes(), &place.to_be_bytes()[..]].concat();
        self.0.iter().flat_map(entry).collect()
    }

    fn place(&self, stream_key: Uuid) -> i64 {
        self.0.get(&stream_key).copied().unwrap_or(0)
    }
}

/// The next changes behind the cursor.
///
/// # Errors
/// A cursor of another query's; where the database is away.
pub(crate) async fn list_document_changes(
    ingest: &Ingest,
    tenant: TenantKey,
    filter: &StreamFilter,
    after_cursor: &str,
    max_changes: i64,
) -> Result<ListDocumentChangesResponse, Error> {
    let connection_id = filter
        .connection_id
        .map(|id| id.to_string())
        .unwrap_or_default();
    let query = Query::new(
        "ListDocumentChanges",
        &[
            &tenant.to_string(),
            &connection_id,
            &filter.external_account_id,
            &filter.stream,
        ],
    );
    let mut cursor = query
        .key(after_cursor)
        .ok()
        .and_then(|key| Cursor::read(&key.unwrap_or_default()))
        .ok_or_else(|| {
            Problem::invalid_field(
                "after_cursor",
                "must be a `next_cursor` that was given out for the same tenant, connection, account and stream",
            )
        })?;
    let streams = stream_list(&ingest.database, tenant, filter).await?;
    let spans: Vec<Span> = streams
        .into_iter()
        .map(|(stream_key, until)| Span {
            stream_key,
            after: cursor.place(stream_key),
            until,
        })
        .filter(|span| span.until > span.after)
        .collect();
    let changed = if spans.is_empty() {
        Vec::new()
    } else {
        document_changes(&ingest.database, tenant, &spans, max_changes).await?
    };
    // An answer may be cut short by its length in bytes too, so the end is reached only by an answer without documents,
    // or one that ends a stream where the stream does.
    let last = changed
        .last()
        .map(|document| (document.stream_key, document.place));
    let mut has_more = false;
    for span in &spans {
        match last {
            Some((stream_key, _)) if span.stream_key > stream_key => has_more = true,
            Some((stream_key, place)) if span.stream_key == stream_key => {
                cursor.0.insert(span.stream_key, place);
                has_more |= place < span.until;
            }
            _ => {
                cursor.0.insert(span.stream_key, span.until);
            }
        }
    }
    Ok(ListDocumentChangesResponse {
        documents: changed.iter().map(encode::document).collect(),
        next_cursor: query.token(&cursor.write()),
        has_more,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn writing_and_reading_are_inverse(places in prop::collection::btree_map(any::<u128>(), any::<i64>(), 0..5)) {
            let cursor = Cursor(places.into_iter().map(|(key, place)| (Uuid::from_u128(key), place)).collect());
            prop_assert_eq!(Cursor::read(&cursor.write()), Some(cursor));
        }
    }

    #[test]
    fn what_is_cut_off_is_no_cursor() {
        assert_eq!(Cursor::read(&[0; ENTRY - 1]), None);
        assert_eq!(Cursor::read(&[]), Some(Cursor::default()));
    }
}
