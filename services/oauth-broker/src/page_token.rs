//! Where a list goes on: the key of the last row shown, bound to the query that it belongs to.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::validate::Fields;

const MARK: usize = 8;

/// The method and everything that narrows the list; a token of another query is refused instead of skipping rows.
#[derive(Clone, Debug)]
pub(crate) struct Query([u8; MARK]);

impl Query {
    pub(crate) fn new(method: &str, filters: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in std::iter::once(&method).chain(filters) {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        let mut mark = [0; MARK];
        mark.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..MARK]);
        Self(mark)
    }

    /// The token that goes on behind `key`.
    pub(crate) fn token(&self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode([self.0.as_slice(), key.as_bytes()].concat())
    }

    /// The key in `token`; `None` on the first page, and where a violation was noted.
    pub(crate) fn key(&self, fields: &mut Fields, token: &str) -> Option<String> {
        if token.is_empty() {
            return None;
        }
        let key = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
            let key = bytes.strip_prefix(self.0.as_slice())?;
            String::from_utf8(key.to_vec()).ok()
        });
        fields.check(
            key.is_some(),
            "page_token",
            "must be the `next_page_token` of the page before, with everything else in the request as it was",
        );
        key
    }

    /// As [`Query::key`], where rows are ordered by an id.
    pub(crate) fn id(&self, fields: &mut Fields, token: &str) -> Option<uuid::Uuid> {
        let key = self.key(fields, token)?;
        let id = key.parse().ok();
        fields.check(
            id.is_some(),
            "page_token",
            "must be the `next_page_token` of the page before",
        );
        id
    }
}

/// Cuts a list that was read one too long, and says where the next page begins.
pub(crate) fn cut<T>(
    rows: &mut Vec<T>,
    page_size: i64,
    query: &Query,
    key: impl Fn(&T) -> String,
) -> String {
    let size = usize::try_from(page_size).unwrap_or(usize::MAX);
    if rows.len() <= size {
        return String::new();
    }
    rows.truncate(size);
    rows.last()
        .map(|last| query.token(&key(last)))
        .unwrap_or_default()
}
