//! Entry points for fuzzing. Each takes any bytes and must neither panic nor let a request pass.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use time::OffsetDateTime;

use crate::{
    RequestParts, Scheme, SchemeOptions, Verified,
    event::{self, Signed},
    schemes, verify,
};

/// In the middle of what can be written in eleven digits, so that both sides of the tolerance are reached.
const NOW: i64 = 1_614_265_330;

/// Lines of `name: value`, an empty line, and a body, as on the wire: against every scheme, with secrets that nobody
/// knows. Whether any scheme took it for genuine.
pub fn request(data: &[u8]) -> bool {
    let (headers, body) = split(data);
    let request = RequestParts {
        method: &Method::POST,
        url: "https://hooks.example/hooks/1",
        headers: &headers,
        body,
    };
    let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let secrets: [&[u8]; 2] = [
        b"whsec_c2VjcmV0IG9mIG5vYm9keSBhdCBhbGw=",
        b"another secret of nobody at all",
    ];
    schemes()
        .iter()
        .any(|scheme| verify(scheme, &SchemeOptions::default(), &secrets, &request, now).is_ok())
}

/// The same bytes as if they had been verified: what comes after.
pub fn event(data: &[u8]) -> Vec<Verified> {
    let (headers, body) = split(data);
    let request = RequestParts {
        method: &Method::POST,
        url: "https://hooks.example/hooks/1",
        headers: &headers,
        body,
    };
    let read = |scheme| {
        event::read(
            scheme,
            &SchemeOptions::default(),
            Signed::default(),
            &request,
        )
        .ok()
    };
    schemes().iter().filter_map(read).collect()
}

/// A scheme's file.
pub fn scheme(data: &[u8]) -> Option<Scheme> {
    Scheme::parse(std::str::from_utf8(data).ok()?).ok()
}

fn split(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
