//! Where a list goes on: the key of the last row shown, opaque to whoever passes it back.
//!
//! A token is bound to its query: it carries a hash of the method and of everything that filters it, so one of another
//! query is refused instead of skipping rows. It grants nothing; what a caller sees is decided on every call.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a page token must fit: the method, and whatever filters or narrows the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query([u8; 8]);

/// The token was not given out for this query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the `next_page_token` of the page before, with everything else in the request as it was"
)]
pub struct PageTokenError;

/// Raised when the meaning of a key changes.
const VERSION: u8 = 1;

impl Query {
    /// The query of `method` with these filters, each of which counts.
    pub fn new(method: &str, filters: &[&str]) -> Self {
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
    pub fn token(&self, key: &[&str]) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(&serde_json::to_vec(key).expect("texts can be written as JSON"));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key in `token`; `None` on the first page, whose token is empty.
    ///
    /// # Errors
    /// [`PageTokenError`] where the token is malformed or another query's.
    pub fn key<const N: usize>(&self, token: &str) -> Result<Option<[String; N]>, PageTokenError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenError)?;
        let (head, key) = bytes.split_at_checked(9).ok_or(PageTokenError)?;
        if head[0] != VERSION || head[1..] != self.0 {
            return Err(PageTokenError);
        }
        let key: Vec<String> = serde_json::from_slice(key).map_err(|_| PageTokenError)?;
        key.try_into().map(Some).map_err(|_| PageTokenError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = Query::new("ListTenants", &["acme"]).token(&["k"]);
        for other in [
            Query::new("ListTenants", &[""]),
            Query::new("ListUsers", &["acme"]),
            Query::new("ListTenantsacme", &[]),
        ] {
            assert_eq!(other.key::<1>(&token), Err(PageTokenError));
        }
        assert_eq!(
            Query::new("ListTenants", &["acme"]).key::<2>(&token),
            Err(PageTokenError)
        );
        assert_eq!(
            Query::new("ListTenants", &["ac", "me"]),
            Query::new("ListTenants", &["ac", "me"])
        );
        assert_ne!(
            Query::new("ListTenants", &["ac", "me"]),
            Query::new("ListTenants", &["acm", "e"])
        );
    }

    #[test]
    fn an_empty_token_begins() {
        assert_eq!(Query::new("ListTenants", &[]).key::<1>(""), Ok(None));
    }

    proptest! {
        #[test]
        fn writing_and_reading_are_inverse(method in "\\PC{0,10}", filter in "\\PC{0,10}", a in "\\PC{0,20}", b in "\\PC{0,20}") {
            let query = Query::new(&method, &[&filter]);
            prop_assert_eq!(query.key::<2>(&query.token(&[&a, &b])), Ok(Some([a, b])));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{1,60}|[A-Za-z0-9_-]{1,60}") {
            prop_assert_eq!(Query::new("ListTenants", &[]).key::<1>(&text), Err(PageTokenError));
        }
    }
}
