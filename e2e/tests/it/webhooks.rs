//! Webhooks, sent as a provider sends them.

use std::time::Duration;

use bytes::Bytes;
use contracts::ingest::v1::Source;
use http::{Method, StatusCode};
use provider_sim::http_client;
use webhook_signatures::standard_webhooks;

use crate::system::{System, request};

/// A secret of the form that Standard Webhooks wants.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// As long as senders wait.
const ANSWERED: Duration = Duration::from_secs(15);

/// A body that names a connection's account.
pub(crate) fn body(account: &str, number: u64) -> String {
    let event = serde_json::json!({
        "type": "project.updated",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"account_id": account, "number": number},
    });
    event.to_string()
}

/// Sends a webhook with the headers of Standard Webhooks.
pub(crate) async fn send_signed(
    source: &Source,
    id: &str,
    seconds: i64,
    signature: &str,
    body: &str,
) -> StatusCode {
    let seconds = seconds.to_string();
    let headers = headers(id, &seconds, signature);
    let body = Bytes::from(body.to_owned());
    request(Method::POST, &source.url, &headers, body)
        .await
        .status
}

/// Signs a webhook with [`SECRET`], and sends it.
pub(crate) async fn send(system: &System, source: &Source, id: &str, body: &str) -> StatusCode {
    let now = system.deps.now();
    let signature = standard_webhooks::sign(SECRET.as_bytes(), id, now, body.as_bytes())
        .expect("the secret is a good one");
    send_signed(source, id, now.unix_timestamp(), &signature, body).await
}

/// As [`send`], to a receiver that may not be there any more; tells whether it has acknowledged.
pub(crate) async fn try_send(system: &System, source: &Source, id: &str, body: &str) -> bool {
    let now = system.deps.now();
    let signature = standard_webhooks::sign(SECRET.as_bytes(), id, now, body.as_bytes())
        .expect("the secret is a good one");
    let seconds = now.unix_timestamp().to_string();
    let headers = headers(id, &seconds, &signature);
    let body = Bytes::from(body.to_owned());
    let sent = http_client::send(Method::POST, &source.url, &headers, body, ANSWERED).await;
    sent.is_ok_and(|answer| answer.status.is_success())
}

fn headers<'a>(id: &'a str, seconds: &'a str, signature: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", seconds),
        ("webhook-signature", signature),
    ]
}
