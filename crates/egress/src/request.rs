//! What is sent.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::Secret;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::Full;
use serde::Serialize;
use url::{Position, Url, form_urlencoded};

use crate::error::Refusal;

/// Headers that belong to the connection, or to us.
const OWN_HEADERS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One request. What cannot be sent is noticed while building and said by the call.
#[derive(Clone)]
#[must_use = "a request does nothing before it is sent"]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    headers: HeaderMap,
    body: Bytes,
    pub(crate) timeout: Option<Duration>,
    pub(crate) body_limit: Option<usize>,
    repeatable: bool,
    refusal: Option<Refusal>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: Method, url: Url) -> Self {
        let repeatable = method.is_safe();
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: None,
            body_limit: None,
            repeatable,
            refusal: None,
        }
    }

    /// A GET.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST.
    pub fn post(url: Url) -> Self {
        Self::new(Method::POST, url)
    }

    /// Sets a header, in place of one with the same name.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.set(name, HeaderValue::from_str(value).ok())
    }

    /// Sets a header whose value is a secret.
    pub fn secret_header(self, name: &str, value: &Secret<String>) -> Self {
        self.set(name, sensitive(value.expose()))
    }

    /// Asks for JSON.
    pub fn accept_json(mut self) -> Self {
        self.headers
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        self
    }

    /// Authenticates with a bearer token (RFC 6750, 2.1).
    pub fn bearer(self, token: &Secret<String>) -> Self {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        self.secret_header(AUTHORIZATION.as_str(), &value)
    }

    /// Authenticates with a user name and password (RFC 7617), taken as they are.
    pub fn basic(self, username: &str, password: &Secret<String>) -> Self {
        let pair = Secret::new(format!("{username}:{}", password.expose()));
        let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        self.secret_header(AUTHORIZATION.as_str(), &value)
    }

    /// A body of form fields.
    pub fn form<K: AsRef<str>, V: AsRef<str>>(
        self,
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.body("application/x-www-form-urlencoded", Bytes::from(body))
    }

    /// A JSON body.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        let Ok(body) = serde_json::to_vec(value) else {
            self.refusal.get_or_insert(Refusal::Body);
            return self;
        };
        self.body("application/json", Bytes::from(body))
    }

    /// Any other body.
    pub fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body;
        self
    }

    /// Replaces the configured time for the whole call.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Replaces the configured limit of the answer's length.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = Some(bytes);
        self
    }

    /// Says that the provider may get this request twice without harm. It may then go out on a connection that was idle,
    /// and again on a fresh one where the idle one turns out to be dead. Safe methods are repeatable by themselves.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// The request as the connection takes it.
    pub(crate) fn prepare(
        &self,
        user_agent: &HeaderValue,
    ) -> Result<http::Request<Full<Bytes>>, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let host = HeaderValue::from_str(&self.url[Position::BeforeHost..Position::AfterPort]);
        let mut headers = self.headers.clone();
        headers.insert(HOST, host.map_err(|_| Refusal::Host)?);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers
            .entry(USER_AGENT)
            .or_insert_with(|| user_agent.clone());
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .map_err(|_| Refusal::Host)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn set(mut self, name: &str, value: Option<HeaderValue>) -> Self {
        let parsed = HeaderName::try_from(name)
            .ok()
            .filter(|name| !OWN_HEADERS.contains(&name.as_str()));
        if let (Some(name), Some(value)) = (parsed, value) {
            self.headers.insert(name, value);
        } else {
            self.refusal.get_or_insert_with(|| Refusal::Header {
                name: name.to_owned(),
            });
        }
        self
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Request {
    /// Method and origin: paths, queries, headers and bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Request({} {})",
            self.method,
            &self.url[Position::BeforeScheme..Position::BeforePath]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL in a test")
    }

    #[test]
    fn the_connections_own_headers_are_refused() {
        let agent = HeaderValue::from_static("test");
        for name in [
            "Host",
            "Content-Length",
            "transfer-encoding",
            "Accept-Encoding",
            "bad name",
            "",
        ] {
            let request = Request::get(url("https://example.com/")).header(name, "x");
            assert_eq!(
                request.prepare(&agent).expect_err("refused"),
                Refusal::Header {
                    name: name.to_owned()
                },
            );
        }
        let injected = Request::get(url("https://example.com/")).header("x-a", "b\r\nx-c: d");
        assert!(injected.prepare(&agent).is_err());
    }

    #[test]
    fn a_request_is_built_in_origin_form() {
        let agent = HeaderValue::from_static("test");
        let request = Request::post(url("https://user.example:8443/a%20b?c=d#e"))
            .form([("key", "a b&c")])
            .basic("me", &Secret::from("pass:word"))
            .prepare(&agent)
            .expect("a good request");
        assert_eq!(request.uri().to_string(), "/a%20b?c=d");
        assert_eq!(request.headers()[HOST], "user.example:8443");
        assert_eq!(request.headers()[AUTHORIZATION], "Basic bWU6cGFzczp3b3Jk");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert_eq!(
            request.headers()[CONTENT_TYPE],
            "application/x-www-form-urlencoded"
        );
    }

    #[test]
    fn debug_shows_no_path_query_header_or_body() {
        let request = Request::post(url("https://example.com/canary?canary"))
            .bearer(&Secret::from("canary"))
            .form([("canary", "canary")]);
        assert_eq!(format!("{request:?}"), "Request(POST https://example.com)");
    }
}
