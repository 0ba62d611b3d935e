//! The admin listener, over real connections.

use std::future::pending;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use common::admin::{self, AdminConfig, Phase, Readiness};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::telemetry::Captured;

struct Admin {
    address: SocketAddr,
    captured: Captured,
    readiness: Readiness,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Admin {
    async fn start() -> Self {
        let captured = Captured::new();
        let readiness = Readiness::new();
        let listener = admin::bind(&AdminConfig::default())
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(admin::serve(
            listener,
            captured.telemetry.clone(),
            readiness.clone(),
            async move {
                let _ = stopped.await;
            },
        ));
        Self {
            address,
            captured,
            readiness,
            stop: Some(stop),
            server,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(self.address, method, path, body).await
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("is answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// What is logged unless somebody says otherwise.
fn lasting() -> String {
    common::telemetry::TelemetryConfig::default().log_filter
}

#[tokio::test]
async fn a_living_process_is_healthy_whatever_its_phase() {
    let admin = Admin::start().await;
    assert_eq!(admin.ask("GET", "/healthz", "").await.status, 200);
    admin.readiness.set_draining();
    assert_eq!(admin.ask("GET", "/healthz", "").await.status, 200);
}

#[tokio::test]
async fn readiness_follows_the_phase_and_every_check() {
    let admin = Admin::start().await;
    let ready = async || {
        let answer = admin.ask("GET", "/readyz", "").await;
        let report: Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, report)
    };
    let (status, report) = ready().await;
    assert_eq!((status, &report["phase"]), (503, &Value::from("starting")));

    admin.readiness.set_serving();
    assert_eq!(ready().await.0, 200);

    let (up, is_up) = tokio::sync::watch::channel(true);
    admin
        .readiness
        .scoped("vault")
        .register("database", move || {
            let is_up = *is_up.borrow();
            async move {
                if is_up {
                    Ok(())
                } else {
                    Err("connection refused".into())
                }
            }
        });
    let (status, report) = ready().await;
    assert_eq!(
        (status, &report["checks"]["vault.database"]["ok"]),
        (200, &Value::from(true))
    );

    up.send_replace(false);
    let (status, report) = ready().await;
    assert_eq!(status, 503);
    assert_eq!(
        report["checks"]["vault.database"]["error"],
        "connection refused"
    );
    up.send_replace(true);
    assert_eq!(ready().await.0, 200, "it recovers by itself");

    admin.readiness.set_draining();
    admin.readiness.set_serving();
    let (status, report) = ready().await;
    assert_eq!(
        (status, &report["phase"]),
        (503, &Value::from("draining")),
        "draining is for good"
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails_alone() {
    let readiness = Readiness::new();
    readiness.set_serving();
    readiness.register("hangs", pending);
    readiness.register("works", async || Ok(()));
    let report = readiness.check().await;
    assert!(!report.ready);
    assert_eq!(
        report.checks["hangs"].error.as_deref(),
        Some("no answer within 2 s")
    );
    assert!(report.checks["works"].ok);
    assert_eq!(report.phase, Phase::Serving);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let admin = Admin::start().await;
    let meter = admin.captured.telemetry.meter("probe");
    meter
        .f64_histogram("wait")
        .with_unit("s")
        .build()
        .record(0.1, &[]);
    let answer = admin.ask("GET", "/metrics", "").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    assert!(
        answer.body.contains("# TYPE wait_seconds histogram"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn the_log_filter_is_shown_and_changed() {
    let admin = Admin::start().await;
    let shown = async || {
        let answer = admin.ask("GET", "/log-filter", "").await;
        serde_json::from_str::<Value>(&answer.body).expect("JSON")
    };
    assert_eq!(shown().await, serde_json::json!({ "filter": lasting() }));

    assert_eq!(
        admin
            .ask("PUT", "/log-filter", "warn,it=info\n")
            .await
            .status,
        200
    );
    assert_eq!(shown().await["filter"], "warn,it=info");
    assert_eq!(
        admin
            .ask("PUT", "/log-filter?for=10m", "debug")
            .await
            .status,
        200
    );
    assert_eq!(
        shown().await,
        serde_json::json!({ "filter": "debug", "then": "warn,it=info" })
    );

    let refused = admin.ask("PUT", "/log-filter", "inof").await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("`inof` is no level"),
        "{}",
        refused.body
    );
    assert_eq!(
        admin
            .ask("PUT", "/log-filter?for=soon", "debug")
            .await
            .status,
        400
    );
    assert_eq!(
        shown().await["filter"],
        "debug",
        "what was refused changed nothing"
    );
}

#[tokio::test]
async fn the_log_filter_is_not_changed_from_another_machine() {
    let captured = Captured::new();
    let router = admin::router(captured.telemetry.clone(), Readiness::new());
    let change = async |from: &str| {
        let peer: SocketAddr = from.parse().expect("an address");
        let mut request = Request::put("/log-filter")
            .body(Body::from("debug"))
            .expect("a request");
        request.extensions_mut().insert(ConnectInfo(peer));
        router
            .clone()
            .oneshot(request)
            .await
            .expect("answers")
            .status()
    };
    assert_eq!(change("10.0.0.7:4000").await, StatusCode::FORBIDDEN);
    assert_eq!(captured.telemetry.log_filter().current().filter, lasting());
    assert_eq!(change("[::ffff:127.0.0.1]:4000").await, StatusCode::OK);
    assert_eq!(captured.telemetry.log_filter().current().filter, "debug");
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_that_says_what_to_do() {
    let admin = Admin::start().await;
    let taken = AdminConfig {
        listen: admin.address,
    };
    let error = admin::bind(&taken).await.expect_err("it is taken");
    assert!(
        error
            .to_string()
            .contains("set admin.listen to a free address"),
        "{error}"
    );
}

#[tokio::test]
async fn it_stops_when_it_is_told() {
    let mut admin = Admin::start().await;
    drop(admin.stop.take());
    admin
        .server
        .await
        .expect("does not panic")
        .expect("ends well");
}
