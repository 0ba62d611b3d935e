use egress::{Delivery, EgressConfig, EgressError, Request, StatusCode};

use crate::server::{Act, Server, client, client_with, ok};

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let mut elsewhere = Server::start(vec![Act::Write(ok("elsewhere"))]).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url("/")
    );
    let server = Server::start(vec![Act::Write(redirect.into_bytes())]).await;
    for request in [
        Request::get(server.url("/")),
        Request::post(server.url("/")),
    ] {
        let response = client().send(request).await.expect("an answer");
        assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
    }
    assert!(elsewhere.is_quiet());
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit_and_no_further() {
    let client = client_with(EgressConfig {
        allow_loopback_http: true,
        body_limit: 10,
        ..EgressConfig::default()
    });
    let fits = Server::start(vec![Act::Write(ok("0123456789"))]).await;
    assert_eq!(
        client
            .send(Request::get(fits.url("/")))
            .await
            .expect("fits")
            .body
            .len(),
        10
    );

    let announced = ok("0123456789a");
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n678901\r\n0\r\n\r\n".to_vec();
    // Announced and never sent: the length alone is enough.
    let claimed = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    for bytes in [announced, chunked, claimed] {
        let server = Server::start(vec![Act::WriteAndHang(bytes)]).await;
        let error = client
            .send(Request::get(server.url("/")))
            .await
            .expect_err("too long");
        assert!(
            matches!(error, EgressError::TooLarge { limit: 10, .. }),
            "{error:?}"
        );
        assert_eq!(error.delivery(), Delivery::Answered);
        assert_eq!(error.status(), Some(StatusCode::OK));
        let wider = client
            .send(Request::get(fits.url("/")).body_limit(9))
            .await
            .expect_err("a limit of its own");
        assert!(
            matches!(wider, EgressError::TooLarge { limit: 9, .. }),
            "{wider:?}"
        );
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_unpacked() {
    let bomb =
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00"
            .to_vec();
    let server = Server::start(vec![Act::Write(bomb)]).await;
    let error = client()
        .send(Request::get(server.url("/")))
        .await
        .expect_err("not asked for");
    assert!(matches!(error, EgressError::Encoded { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Answered);
}

#[tokio::test]
async fn a_head_is_bounded() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n",
        "a".repeat(40 * 1024)
    );
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
        "x-a: b\r\n".repeat(200)
    );
    for head in [long, many, "SSH-2.0-OpenSSH\r\n\r\n".to_owned()] {
        let server = Server::start(vec![Act::Write(head.into_bytes())]).await;
        let error = client()
            .send(Request::get(server.url("/")))
            .await
            .expect_err("no head of ours");
        assert!(matches!(error, EgressError::Malformed { .. }), "{error:?}");
        assert_eq!(error.delivery(), Delivery::Answered);
    }
}
