//! Webhooks as providers send them: signed, and repeated on demand.
//!
//! Standard Webhooks: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>;
//! GitHub: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use webhook_signatures::github;
use webhook_signatures::standard_webhooks::{self, SignError};

use crate::http_client;
use crate::random::{guid, token};

/// What to send, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// The receiver; `http://` only.
    pub url: String,
    /// How it is signed.
    pub scheme: WebhookScheme,
    /// The secret that the receiver knows, or the private key that it knows the public half of: `whsec_…` or `whsk_…` with base64 for Standard Webhooks,
    /// any text for GitHub.
    pub secret: String,
    /// The body: JSON, or a string that is sent as it is.
    pub payload: Value,
    /// The message's id; absent, a new one.
    #[serde(default)]
    pub id: Option<String>,
    /// GitHub's event type.
    #[serde(default)]
    pub event: Option<String>,
    /// How often it is sent, the same id, time and bytes each time.
    #[serde(default = "one")]
    pub times: u32,
    /// Sends all of them at the same time, not one after the other.
    #[serde(default)]
    pub concurrently: bool,
    /// Moves the signed time, for receivers that refuse old messages.
    #[serde(default)]
    pub timestamp_offset_seconds: i64,
    /// Changes the body after it was signed.
    #[serde(default)]
    pub tamper: bool,
    /// Headers beside these.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// How a webhook is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookScheme {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    StandardWebhooks,
    /// `X-Hub-Signature-256`.
    Github,
}

/// What came of one attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookOutcome {
    /// The message's id.
    pub id: String,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// The receiver's body.
    pub body: String,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// A webhook that cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The secret or the id cannot be used.
    #[error("the webhook cannot be signed")]
    Sign(#[from] SignError),
    /// It was asked to be sent too often.
    #[error("times has to be between 1 and {MAX_TIMES}")]
    Times,
}

const MAX_TIMES: u32 = 10_000;
/// The longest that senders recommend waiting for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

fn one() -> u32 {
    1
}

impl WebhookRequest {
    /// A JSON message to be sent once.
    pub fn new(url: &str, scheme: WebhookScheme, secret: &str, payload: Value) -> Self {
        Self {
            url: url.to_owned(),
            scheme,
            secret: secret.to_owned(),
            payload,
            id: None,
            event: None,
            times: 1,
            concurrently: false,
            timestamp_offset_seconds: 0,
            tamper: false,
            headers: BTreeMap::new(),
        }
    }
}

/// Sends a webhook as often as asked, at the time `now`, and says what came of each attempt.
pub(crate) async fn deliver(
    request: &WebhookRequest,
    now: OffsetDateTime,
) -> Result<Vec<WebhookOutcome>, WebhookError> {
    if !(1..=MAX_TIMES).contains(&request.times) {
        return Err(WebhookError::Times);
    }
    let id = request.id.clone().unwrap_or_else(|| match request.scheme {
        WebhookScheme::StandardWebhooks => token("msg_"),
        WebhookScheme::Github => guid(),
    });
    let body = match &request.payload {
        Value::String(text) => text.clone(),
        json => json.to_string(),
    };
    let headers = headers(
        request,
        &id,
        &body,
        now + time::Duration::seconds(request.timestamp_offset_seconds),
    )?;
    let sent = if request.tamper {
        format!("{body} ")
    } else {
        body
    };
    let attempts =
        (0..request.times).map(|_| attempt(&request.url, &id, &headers, Bytes::from(sent.clone())));
    if request.concurrently {
        return Ok(futures::future::join_all(attempts).await);
    }
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await);
    }
    Ok(outcomes)
}

async fn attempt(url: &str, id: &str, headers: &[(String, String)], body: Bytes) -> WebhookOutcome {
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let answer = http_client::send(Method::POST, url, &headers, body, TIMEOUT).await;
    let (status, body, error) = match answer {
        Ok(answer) => (Some(answer.status.as_u16()), answer.text(), None),
        Err(error) => (None, String::new(), Some(error.to_string())),
    };
    tracing::info!(
        event = "webhook_sent",
        webhook.id = id,
        url,
        status,
        error,
        "sent webhook {id}"
    );
    WebhookOutcome {
        id: id.to_owned(),
        status,
        body,
        error,
    }
}

fn headers(
    request: &WebhookRequest,
    id: &str,
    body: &str,
    at: OffsetDateTime,
) -> Result<Vec<(String, String)>, WebhookError> {
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let mut put = |name: &str, value: String| headers.push((name.to_owned(), value));
    match request.scheme {
        WebhookScheme::StandardWebhooks => {
            let signature =
                standard_webhooks::sign(request.secret.as_bytes(), id, at, body.as_bytes())?;
            put("user-agent", "provider-sim".to_owned());
            put(standard_webhooks::ID.as_str(), id.to_owned());
            put(
                standard_webhooks::TIMESTAMP.as_str(),
                at.unix_timestamp().to_string(),
            );
            put(standard_webhooks::SIGNATURE.as_str(), signature);
        }
        WebhookScheme::Github => {
            put("user-agent", "GitHub-Hookshot/provider-sim".to_owned());
            put(github::DELIVERY.as_str(), id.to_owned());
            put(
                github::EVENT.as_str(),
                request.event.clone().unwrap_or_else(|| "push".to_owned()),
            );
            put(
                github::SIGNATURE.as_str(),
                github::sign(request.secret.as_bytes(), body.as_bytes()),
            );
        }
    }
    headers.extend(request.headers.clone());
    Ok(headers)
}
