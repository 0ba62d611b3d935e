use std::time::Duration;

use common::Secret;
use egress::{Delivery, EgressConfig, EgressError, Refusal, Request, StatusCode};
use tokio::net::TcpListener;

use crate::server::{Act, Server, client, client_with, ok};

#[tokio::test]
async fn a_request_goes_out_whole_and_its_answer_comes_back() {
    let mut server = Server::start(vec![Act::Write(ok("{\"a\":1}"))]).await;
    let request = Request::post(server.url("/token?x=1"))
        .accept_json()
        .basic("client", &Secret::from("secret"))
        .form([("grant_type", "refresh_token"), ("refresh_token", "a+b c")]);
    let response = client().send(request).await.expect("an answer");
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.json::<serde_json::Value>().expect("JSON")["a"], 1);
    let seen = server.request().await;
    assert!(seen.starts_with("POST /token?x=1 HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("accept-encoding: identity\r\n") && seen.contains("user-agent: hawser/"),
        "{seen}"
    );
    assert!(
        seen.contains("authorization: Basic Y2xpZW50OnNlY3JldA==\r\n"),
        "{seen}"
    );
    assert!(
        seen.ends_with("grant_type=refresh_token&refresh_token=a%2Bb+c"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_refused_connection_has_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"))
        .parse()
        .expect("a URL");
    drop(listener);
    let error = client()
        .send(Request::post(url))
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn an_unanswered_tls_handshake_has_sent_nothing() {
    // Accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url: egress::Url = format!("https://{}/", listener.local_addr().expect("an address"))
        .parse()
        .expect("a URL");
    let client = client_with(EgressConfig {
        allow_loopback_http: true,
        connect_timeout: Duration::from_millis(50),
        ..EgressConfig::default()
    });
    let error = client
        .send(Request::post(url.clone()))
        .await
        .expect_err("no handshake");
    assert!(
        matches!(error, EgressError::ConnectTimeout { .. }),
        "{error:?}"
    );
    assert_eq!(error.delivery(), Delivery::NotSent);

    let short = Request::post(url).timeout(Duration::from_millis(10));
    let error = client.send(short).await.expect_err("no handshake");
    assert_eq!(error.delivery(), Delivery::NotSent, "{error:?}");
}

#[tokio::test]
async fn no_answer_in_time_is_ambiguous() {
    let mut server = Server::start(vec![Act::WriteAndHang(Vec::new())]).await;
    let request = Request::post(server.url("/")).timeout(Duration::from_millis(100));
    let error = client().send(request).await.expect_err("no answer");
    assert!(
        matches!(error, EgressError::AnswerTimeout { status: None, .. }),
        "{error:?}"
    );
    assert_eq!(error.delivery(), Delivery::Ambiguous);
    server.request().await;
}

#[tokio::test]
async fn half_a_body_in_time_is_ambiguous() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access".to_vec();
    let server = Server::start(vec![Act::WriteAndHang(half)]).await;
    let request = Request::post(server.url("/")).timeout(Duration::from_millis(100));
    let error = client().send(request).await.expect_err("half an answer");
    assert!(
        matches!(
            error,
            EgressError::AnswerTimeout {
                status: Some(StatusCode::OK),
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.delivery(), Delivery::Ambiguous);
    assert_eq!(error.status(), Some(StatusCode::OK));
}

#[tokio::test]
async fn a_connection_closed_after_the_request_is_ambiguous() {
    let cut = [
        Vec::new(),
        b"HTTP/1.1 200".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"access\r\n".to_vec(),
    ];
    for bytes in cut {
        let mut server = Server::start(vec![Act::WriteAndClose(bytes.clone())]).await;
        let error = client()
            .send(Request::post(server.url("/")))
            .await
            .expect_err("no whole answer");
        assert!(
            matches!(error, EgressError::Interrupted { .. }),
            "{bytes:?}: {error:?}"
        );
        assert_eq!(error.delivery(), Delivery::Ambiguous);
        server.request().await;
        assert!(server.is_quiet(), "sent once");
    }
}

#[tokio::test]
async fn an_open_connection_carries_the_request_later() {
    let mut server = Server::start(vec![Act::Write(ok("late"))]).await;
    let url = server.url("/token");
    let connection = client().connect(&url).await.expect("a connection");
    assert!(connection.is_open());
    assert_eq!(server.connections(), 1);
    assert!(server.is_quiet());
    let response = connection
        .send(Request::post(url))
        .await
        .expect("an answer");
    assert_eq!(response.body, "late");
    assert!(server.request().await.starts_with("POST /token"));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_open_connection_leads_to_its_origin_alone() {
    let mut server = Server::start(vec![Act::Write(ok(""))]).await;
    let other = Server::start(vec![Act::Write(ok(""))]).await;
    let connection = client()
        .connect(&server.url("/"))
        .await
        .expect("a connection");
    let error = connection
        .send(Request::post(other.url("/")))
        .await
        .expect_err("another origin");
    assert!(
        matches!(error, EgressError::Refused(Refusal::Origin)),
        "{error:?}"
    );
    assert!(server.is_quiet());
}

#[tokio::test]
async fn an_open_connection_that_was_closed_meanwhile_has_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url: egress::Url = format!("http://{}/", listener.local_addr().expect("an address"))
        .parse()
        .expect("a URL");
    let connection = client().connect(&url).await.expect("a connection");
    drop(listener.accept().await.expect("a connection"));
    while connection.is_open() {
        tokio::task::yield_now().await;
    }
    let error = connection
        .send(Request::post(url))
        .await
        .expect_err("closed");
    assert!(matches!(error, EgressError::Closed { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn an_idle_connection_serves_repeatable_requests_alone() {
    let mut server = Server::start(vec![Act::Write(ok("x"))]).await;
    let client = client();
    for expected in [1, 1] {
        client
            .send(Request::get(server.url("/")))
            .await
            .expect("an answer");
        server.request().await;
        assert_eq!(server.connections(), expected);
    }
    client
        .send(Request::post(server.url("/")))
        .await
        .expect("an answer");
    assert_eq!(server.connections(), 2);
    client
        .send(Request::post(server.url("/")).repeatable())
        .await
        .expect("an answer");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_repeatable_request_survives_an_idle_connection_that_died() {
    let acts = vec![
        Act::Write(ok("first")),
        Act::WriteAndClose(Vec::new()),
        Act::Write(ok("third")),
    ];
    let mut server = Server::start(acts).await;
    let client = client();
    assert_eq!(
        client
            .send(Request::get(server.url("/")))
            .await
            .expect("an answer")
            .body,
        "first"
    );
    assert_eq!(
        client
            .send(Request::get(server.url("/")))
            .await
            .expect("an answer")
            .body,
        "third"
    );
    for _ in 0..3 {
        server.request().await;
    }
    assert_eq!(server.connections(), 2);
}
