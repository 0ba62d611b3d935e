use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::Deps;
use egress::{Delivery, Egress, EgressConfig, EgressError, Refusal, Request, Url};

use crate::server::{Act, Fixed, Server, client, client_with, ok};

async fn refusal(client: &Egress, url: &str) -> EgressError {
    let url = Url::parse(url).expect("a URL");
    let sent = client
        .send(Request::get(url.clone()))
        .await
        .expect_err("refused");
    let connected = client.connect(&url).await.expect_err("refused");
    assert_eq!(sent.delivery(), Delivery::NotSent, "{url}: {sent}");
    assert_eq!(sent.to_string(), connected.to_string(), "{url}");
    sent
}

#[tokio::test]
async fn literal_addresses_are_refused_however_they_are_written() {
    let client = client_with(EgressConfig::default());
    let urls = [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[::ffff:a00:1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[fd00:ec2::254]/",
        "https://localhost/",
        "https://a.localhost./",
    ];
    for url in urls {
        let error = refusal(&client, url).await;
        assert!(
            matches!(error, EgressError::Refused(Refusal::Address { .. })),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn only_https_is_spoken_without_leave() {
    let strict = client_with(EgressConfig::default());
    for url in [
        "http://127.0.0.1/",
        "http://93.184.215.14/",
        "ftp://93.184.215.14/",
    ] {
        let error = refusal(&strict, url).await;
        assert!(
            matches!(error, EgressError::Refused(Refusal::Scheme)),
            "{url}: {error:?}"
        );
    }
    // Leave is for loopback alone.
    let error = refusal(&client(), "http://93.184.215.14/").await;
    assert!(
        matches!(error, EgressError::Refused(Refusal::Scheme)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_url_with_a_user_is_refused() {
    for url in [
        "https://user@example.com/",
        "https://:password@example.com/",
        "http://u:p@127.0.0.1/",
    ] {
        let error = refusal(&client(), url).await;
        assert!(
            matches!(error, EgressError::Refused(Refusal::UserInfo)),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_only_permitted_addresses_are_called() {
    let server = Server::start(vec![Act::Write(ok("here"))]).await;
    let resolver = Arc::new(Fixed {
        addresses: ["10.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"]
            .map(|text| text.parse().expect("an address"))
            .into(),
        ..Fixed::default()
    });
    let config = EgressConfig {
        allow_loopback_http: true,
        ..EgressConfig::default()
    };
    let client =
        Egress::with_resolver(config, &Deps::system("test"), resolver.clone()).expect("a client");
    let mut url = server.url("/");
    url.set_host(Some("provider.example")).expect("a host");
    let response = client
        .send(Request::get(url))
        .await
        .expect("the third address");
    assert_eq!(response.body, "here");
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    for address in [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "fd00::1",
        "::ffff:10.0.0.1",
    ] {
        let resolver = Arc::new(Fixed {
            addresses: vec![address.parse().expect("an address")],
            ..Fixed::default()
        });
        let client =
            Egress::with_resolver(EgressConfig::default(), &Deps::system("test"), resolver)
                .expect("a client");
        let error = refusal(&client, "https://rebinding.example/").await;
        assert!(
            matches!(&error, EgressError::Refused(Refusal::Address { host }) if host == "rebinding.example")
        );
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_refused() {
    let resolver = Arc::new(Fixed::default());
    let client = Egress::with_resolver(EgressConfig::default(), &Deps::system("test"), resolver)
        .expect("a client");
    let error = refusal(&client, "https://nowhere.example/").await;
    assert!(
        matches!(error, EgressError::Refused(Refusal::Address { .. })),
        "{error:?}"
    );
}
