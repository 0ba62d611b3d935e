//! Webhooks, received on a real port and verified by the receivers' own crate.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, Method, StatusCode};
use provider_sim::{ControlError, WebhookError, WebhookRequest, WebhookScheme};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use webhook_signatures::{github, standard_webhooks};

use crate::support::{Sim, text};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLSw";

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// Answers 202 to each message and remembers it.
async fn receiver() -> (String, Received) {
    let received = Received::default();
    let receive = async |State(received): State<Received>, headers: HeaderMap, body: Bytes| {
        received.lock().unwrap().push((headers, body));
        (StatusCode::ACCEPTED, "thanks")
    };
    let router = Router::new()
        .route("/hooks/in", post(receive))
        .with_state(received.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/in", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_standard_webhook_is_signed_and_repeated_alike() {
    let sim = Sim::start("oidc", |_| {}).await;
    let (url, received) = receiver().await;
    let request = WebhookRequest {
        times: 3,
        ..WebhookRequest::new(
            &url,
            WebhookScheme::StandardWebhooks,
            SECRET,
            json!({"type": "project.updated"}),
        )
    };
    let outcomes = sim.control().send_webhook(&request).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.status == Some(202) && outcome.body == "thanks")
    );
    let received = received.lock().unwrap();
    let (headers, body) = &received[0];
    let id = header(headers, "webhook-id");
    let at =
        OffsetDateTime::from_unix_timestamp(header(headers, "webhook-timestamp").parse().unwrap())
            .unwrap();
    assert_eq!(
        header(headers, "webhook-signature"),
        standard_webhooks::sign(SECRET.as_bytes(), &id, at, body).unwrap()
    );
    assert_eq!(at.unix_timestamp(), 1_780_315_200, "the simulator's time");
    assert!(
        received
            .iter()
            .all(|(headers, again)| header(headers, "webhook-id") == id && again == body)
    );
    assert!(outcomes.iter().all(|outcome| outcome.id == id));
}

#[tokio::test]
async fn a_github_webhook_is_signed_over_http_too() {
    let sim = Sim::start("oidc", |_| {}).await;
    let (url, received) = receiver().await;
    let request = json!({"url": url, "scheme": "github", "secret": "hush", "event": "issues", "payload": "{\"exact\":  \"bytes\"}",
        "times": 5, "concurrently": true, "headers": {"x-extra": "1"}});
    let outcomes = sim
        .sim(Method::POST, "/webhooks", &request)
        .await
        .json()
        .unwrap();
    assert_eq!(outcomes.as_array().unwrap().len(), 5);
    let received = received.lock().unwrap();
    let (headers, body) = &received[0];
    assert_eq!(&body[..], b"{\"exact\":  \"bytes\"}");
    assert_eq!(
        header(headers, "x-hub-signature-256"),
        github::sign(b"hush", body)
    );
    assert_eq!(
        (
            header(headers, "x-github-event"),
            header(headers, "x-extra")
        ),
        ("issues".to_owned(), "1".to_owned())
    );
    let delivery = header(headers, "x-github-delivery");
    assert_eq!(delivery.len(), 36);
    assert!(
        received
            .iter()
            .all(|(headers, _)| header(headers, "x-github-delivery") == delivery)
    );
}

#[tokio::test]
async fn old_and_tampered_webhooks_can_be_sent() {
    let sim = Sim::start("oidc", |_| {}).await;
    let (url, received) = receiver().await;
    let request = WebhookRequest {
        timestamp_offset_seconds: -600,
        tamper: true,
        id: Some("msg_1".to_owned()),
        ..WebhookRequest::new(&url, WebhookScheme::StandardWebhooks, SECRET, json!({}))
    };
    sim.control().send_webhook(&request).await.unwrap();
    let received = received.lock().unwrap();
    let (headers, body) = &received[0];
    assert_eq!(header(headers, "webhook-timestamp"), "1780314600");
    let at = OffsetDateTime::from_unix_timestamp(1_780_314_600).unwrap();
    assert_ne!(
        header(headers, "webhook-signature"),
        standard_webhooks::sign(SECRET.as_bytes(), "msg_1", at, body).unwrap()
    );
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let sim = Sim::start("oidc", |_| {}).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let request = WebhookRequest::new(
        &closed,
        WebhookScheme::StandardWebhooks,
        SECRET,
        Value::Null,
    );
    let outcome = &sim.control().send_webhook(&request).await.unwrap()[0];
    assert_eq!(
        (outcome.status, outcome.error.as_deref()),
        (None, Some("there is no connection"))
    );
    let request = WebhookRequest {
        secret: "whsec_!".to_owned(),
        ..request
    };
    let refused = sim.control().send_webhook(&request).await;
    assert!(
        matches!(refused, Err(ControlError::Webhook(WebhookError::Sign(_)))),
        "{refused:?}"
    );
    let too_often =
        json!({"url": closed, "scheme": "github", "secret": "s", "payload": {}, "times": 0});
    let answer = sim.sim(Method::POST, "/webhooks", &too_often).await;
    assert_eq!(answer.status, 400);
    assert!(text(&answer.json().unwrap(), "error").contains("times"));
}
