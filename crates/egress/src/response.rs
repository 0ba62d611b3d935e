//! What came back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use thiserror::Error;
use time::OffsetDateTime;

/// A whole answer, whatever its status: a redirect is an answer too, and is not followed.
#[derive(Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as it was sent.
    pub body: Bytes,
}

/// A body that is not the JSON that was expected. Says where, never what: bodies hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the body is not the JSON that was expected (line {line}, column {column})")]
pub struct NotJson {
    /// Line of the first offence, from 1.
    pub line: usize,
    /// Column of the first offence.
    pub column: usize,
}

impl Response {
    /// The body as JSON, at most 128 levels deep.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, NotJson> {
        serde_json::from_slice(&self.body).map_err(|error| NotJson {
            line: error.line(),
            column: error.column(),
        })
    }

    /// How long the provider asks us to wait.
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        retry_after(&self.headers, now)
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date; a date in the past is no wait.
pub fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let at = OffsetDateTime::from(httpdate::parse_http_date(text).ok()?);
    Some(Duration::try_from(at - now).unwrap_or_default())
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Response({}, {} bytes)",
            self.status.as_u16(),
            self.body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = datetime!(2026-01-01 00:00:00 UTC);
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90)),
            ("Thursday, 01-Jan-26 00:00:10 GMT", Some(10)),
            ("Wed, 31 Dec 2025 23:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header value"));
            assert_eq!(
                retry_after(&headers, now),
                seconds.map(Duration::from_secs),
                "{text:?}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
        let mut huge = HeaderMap::new();
        huge.insert(
            RETRY_AFTER,
            "99999999999999999999999".parse().expect("a header value"),
        );
        assert_eq!(retry_after(&huge, now), Some(Duration::MAX));
    }

    #[test]
    fn what_is_not_json_is_not_repeated() {
        let response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{\"expires_in\": \"canary\"}"),
        };
        let error = response
            .json::<std::collections::BTreeMap<String, u64>>()
            .expect_err("a type error");
        assert!(!format!("{error} {error:?} {response:?}").contains("canary"));
        assert_eq!(error.line, 1);
    }
}
