use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use common::config::{Problems, Validate as _};
use egress::{Delivery, EgressConfig, EgressError, Request, Url};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{client_with, ok};

/// A TLS server for `name`, and its authority in a file.
async fn server(name: &str) -> (u16, tempfile::NamedTempFile) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .expect("a name")
        .signed_by(&key, &authority)
        .expect("a certificate");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(authority.pem().as_bytes())
        .expect("a writable file");

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut request = Vec::new();
                stream.read_buf(&mut request).await?;
                stream.write_all(&ok("over TLS")).await
            });
        }
    });
    (port, file)
}

fn url(host: &str, port: u16) -> Url {
    Url::parse(&format!("https://{host}:{port}/")).expect("a URL")
}

#[tokio::test]
async fn an_authority_is_trusted_where_it_is_configured() {
    let (port, authority) = server("localhost").await;
    let trusting = client_with(EgressConfig {
        allowed_cidrs: vec!["127.0.0.0/8".parse().expect("a range")],
        ca_files: vec![authority.path().to_owned()],
        ..EgressConfig::default()
    });
    let response = trusting
        .send(Request::get(url("localhost", port)))
        .await
        .expect("trusted");
    assert_eq!(response.body, "over TLS");

    let wrong_name = trusting
        .send(Request::get(url("127.0.0.1", port)))
        .await
        .expect_err("another name");
    assert!(
        matches!(wrong_name, EgressError::Tls { .. }),
        "{wrong_name:?}"
    );

    let strict = client_with(EgressConfig {
        allowed_cidrs: vec!["127.0.0.0/8".parse().expect("a range")],
        ..EgressConfig::default()
    });
    let error = strict
        .send(Request::get(url("localhost", port)))
        .await
        .expect_err("an unknown authority");
    assert!(matches!(error, EgressError::Tls { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
}

#[test]
fn what_cannot_be_configured_is_named() {
    let config = EgressConfig {
        connect_timeout: Duration::from_secs(30),
        body_limit: 0,
        user_agent: "two\nlines".to_owned(),
        ca_files: vec!["/nowhere/ca.pem".into()],
        ..EgressConfig::default()
    };
    let mut problems = Problems::default();
    config.validate(&mut problems);
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["total_timeout", "body_limit", "user_agent", "ca_files"]
    );

    let mut none = Problems::default();
    EgressConfig::default().validate(&mut none);
    assert!(none.is_empty());

    let config = EgressConfig {
        ca_files: vec!["/nowhere/ca.pem".into()],
        ..EgressConfig::default()
    };
    let error = egress::Egress::new(config, &common::Deps::system("test")).expect_err("no file");
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
