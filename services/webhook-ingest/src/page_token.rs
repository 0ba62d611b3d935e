//! Where a list goes on: the key of the last row shown, opaque to whoever passes it back.
//!
//! A token is bound to its query by a hash of the method and its filters, so one of another query is refused instead of
//! skipping rows. It grants nothing; what a caller sees is decided on every call.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a token must fit: the method, and whatever narrows the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query([u8; 8]);

/// The token was not given out for this query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one that this method gave out, with everything else in the request as it was")]
pub(crate) struct TokenError;

/// Raised when the meaning of a key changes.
const VERSION: u8 = 1;

impl Query {
    /// The query of `method` with these filters, each of which counts.
    pub(crate) fn new(method: &str, filters: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in std::iter::once(&method).chain(filters) {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        let mut hash = [0; 8];
        hash.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..8]);
        Self(hash)
    }

    /// The token that goes on behind `key`.
    pub(crate) fn token(self, key: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&[VERSION], self.0.as_slice(), key].concat())
    }

    /// The key in `token`; `None` where the token is empty, which is the beginning.
    pub(crate) fn key(self, token: &str) -> Result<Option<Vec<u8>>, TokenError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError)?;
        let (head, key) = bytes.split_at_checked(9).ok_or(TokenError)?;
        if head[0] == VERSION && head[1..] == self.0 {
            Ok(Some(key.to_vec()))
        } else {
            Err(TokenError)
        }
    }

    /// As [`Query::key`], where the key is a text.
    pub(crate) fn text_key(self, token: &str) -> Result<Option<String>, TokenError> {
        let key = self.key(token)?;
        key.map(String::from_utf8)
            .transpose()
            .map_err(|_| TokenError)
    }

    /// As [`Query::key`], where the key is an id.
    pub(crate) fn id_key(self, token: &str) -> Result<Option<uuid::Uuid>, TokenError> {
        let key = self.key(token)?;
        key.map(|key| uuid::Uuid::from_slice(&key))
            .transpose()
            .map_err(|_| TokenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_its_own_query_alone() {
        let query = Query::new("ListSources", &["acme"]);
        let token = query.token(b"k");
        assert_eq!(query.key(&token), Ok(Some(b"k".to_vec())));
        assert_eq!(query.key(""), Ok(None));
        for other in [
            Query::new("ListSources", &[""]),
            Query::new("ListEvents", &["acme"]),
            Query::new("ListSourcesacme", &[]),
        ] {
            assert_eq!(other.key(&token), Err(TokenError));
        }
        for nonsense in ["x", "AQ", "!!!", &token[..5]] {
            assert_eq!(query.key(nonsense), Err(TokenError), "{nonsense}");
        }
    }
}
