//! A plain HTTP/1.1 client for one request at a time: sends the simulator's webhooks and drives [`Browser`](crate::browser::Browser).
//!
//! It knows `http://` only, follows nothing, and opens a connection for each request. What a service sends goes through `egress`, never through this.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// Longer answers are refused.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

/// A request that got no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one that this client can reach.
    #[error("{url:?} is not an http:// address")]
    Address {
        /// What was given.
        url: String,
    },
    /// A header cannot be sent.
    #[error("the header {name:?} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// Nobody listens there.
    #[error("there is no connection")]
    Connect(#[source] std::io::Error),
    /// The connection broke before the answer was whole.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The body broke off, or was too long.
    #[error("the body was not received whole")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("there was no answer within {} s", after.as_secs())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
}

impl Answer {
    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends one request and reads the whole answer, within `timeout`.
pub async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    timeout: Duration,
) -> Result<Answer, HttpError> {
    let exchange = exchange(method, url, headers, body);
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Err(HttpError::Timeout { after: timeout }))
}

async fn exchange(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, HttpError> {
    let bad_address = || HttpError::Address {
        url: url.to_owned(),
    };
    let parsed = Url::parse(url)
        .ok()
        .filter(|url| url.scheme() == "http")
        .ok_or_else(bad_address)?;
    let host = parsed.host_str().ok_or_else(bad_address)?;
    let port = parsed.port_or_known_default().ok_or_else(bad_address)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = parsed[url::Position::BeforePath..url::Position::AfterQuery]
        .parse()
        .map_err(|_| bad_address())?;
    let authority = &parsed[url::Position::BeforeHost..url::Position::AfterPort];
    request.headers_mut().insert(
        header::HOST,
        HeaderValue::from_str(authority).map_err(|_| bad_address())?,
    );
    for (name, value) in headers {
        let bad_header = || HttpError::Header {
            name: (*name).to_owned(),
        };
        let value = HeaderValue::from_str(value).map_err(|_| bad_header())?;
        request.headers_mut().append(
            HeaderName::try_from(*name).map_err(|_| bad_header())?,
            value,
        );
    }
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(HttpError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::Broken)?;
    let connection = tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(HttpError::Broken)?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(HttpError::Body)?
        .to_bytes();
    connection.abort();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}
