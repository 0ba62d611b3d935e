//! The two cookies of a session: the link that the browser came by, and the secret by which it is known again.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use time::Duration;
use uuid::Uuid;

/// How long a browser is known after the session's own time: it may be at the provider still.
const GRACE: Duration = Duration::minutes(15);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The link's token; proves nothing about the browser.
    Link,
    /// Made when the person said yes, and known to this browser alone.
    Browser,
}

/// A request's cookies.
#[derive(Clone, Debug, Default)]
pub(super) struct Cookies(Vec<(String, String)>);

impl Cookies {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Self(pairs.collect())
    }

    pub(super) fn get(&self, public_url: &str, kind: Kind, session_id: Uuid) -> Option<String> {
        let name = name(public_url, kind, session_id);
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }
}

/// `__Host-` cannot be set by another host of the domain, and needs https.
fn name(public_url: &str, kind: Kind, session_id: Uuid) -> String {
    let prefix = if public_url.starts_with("https://") {
        "__Host-"
    } else {
        ""
    };
    let kind = match kind {
        Kind::Link => "link",
        Kind::Browser => "browser",
    };
    format!("{prefix}hawser-{kind}-{}", session_id.simple())
}

/// Lax, since the provider's redirect back comes from another site.
pub(super) fn put(
    response: &mut Response,
    public_url: &str,
    kind: Kind,
    session_id: Uuid,
    value: &str,
    left: Duration,
) {
    let secure = if public_url.starts_with("https://") {
        "; Secure"
    } else {
        ""
    };
    let seconds = (left + GRACE).whole_seconds().max(60);
    let name = name(public_url, kind, session_id);
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    // Ids and tokens are plain words.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_https_a_cookie_is_the_hosts_own() {
        let mut response = Response::default();
        let id = Uuid::from_u128(7);
        put(
            &mut response,
            "https://connect.example",
            Kind::Browser,
            id,
            "secret",
            Duration::minutes(1),
        );
        let cookie = response.headers()[header::SET_COOKIE]
            .to_str()
            .expect("ASCII")
            .to_owned();
        assert!(
            cookie.starts_with("__Host-hawser-browser-") && cookie.contains("; Secure"),
            "{cookie}"
        );
        assert!(
            cookie.contains("; HttpOnly")
                && cookie.contains("; SameSite=Lax")
                && cookie.contains("; Path=/;")
        );
        assert!(!cookie.contains("Domain"));

        let mut response = Response::default();
        put(
            &mut response,
            "http://127.0.0.1:8080",
            Kind::Link,
            id,
            "secret",
            Duration::minutes(1),
        );
        let cookie = response.headers()[header::SET_COOKIE]
            .to_str()
            .expect("ASCII")
            .to_owned();
        assert!(
            cookie.starts_with("hawser-link-") && !cookie.contains("Secure"),
            "{cookie}"
        );
    }
}
