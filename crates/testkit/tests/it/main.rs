//! What tests rely on does what it says.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use common::Rng as _;
use testkit::chaos::Proxy;
use testkit::{MockClock, SeededRng, TestDatabase, deps_at, eventually, eventually_some};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Answers with what it is told.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn a_proxy_stalls_cuts_and_resets() {
    let proxy = Proxy::start(echo().await).await;
    let connect = async || TcpStream::connect(proxy.address()).await.unwrap();
    let mut stream = connect().await;
    assert_eq!(ask(&mut stream).await.unwrap(), "ping");
    assert_eq!(ask(&mut stream).await.unwrap(), "ping");
    assert_eq!(proxy.round_trips(), 2);

    proxy.stall();
    let silent = tokio::time::timeout(Duration::from_millis(100), ask(&mut stream)).await;
    assert!(silent.is_err());
    proxy.pass();
    let mut late = [0; 4];
    stream.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"ping", "what was held goes on");

    proxy.cut();
    assert_eq!(stream.read(&mut late).await.unwrap(), 0, "it ends in order");
    assert!(ask(&mut connect().await).await.is_err());
    proxy.pass();
    let mut stream = connect().await;
    ask(&mut stream).await.unwrap();

    proxy.reset();
    let error = eventually_some(Duration::from_secs(5), async || {
        ask(&mut stream).await.err()
    })
    .await;
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error:?}"
    );
}

#[test]
#[should_panic(expected = "the disk is full disk=7")]
fn an_unexpected_warning_fails_the_test() {
    let logs = testkit::logs::capture();
    logs.expect("the fan is loud");
    tracing::warn!("the fan is loud");
    tracing::info!("all is well");
    assert_eq!(logs.lines().len(), 1);
    assert!(logs.unexpected().is_empty());
    tracing::error!(disk = 7, "the disk is full");
}

#[test]
fn time_and_randomness_are_the_tests_own() {
    let clock = MockClock::new();
    let deps = deps_at(&clock);
    let (now, boot) = (deps.now(), deps.clock.boottime());
    assert_eq!(deps.now(), now);
    clock.advance(Duration::from_mins(1));
    assert_eq!(deps.now() - now, time::Duration::MINUTE);
    clock.set(now);
    assert_eq!(
        (deps.now(), deps.clock.boottime()),
        (now, boot + Duration::from_mins(1))
    );

    let draw = |seed| {
        let mut bytes = [0; 20];
        SeededRng::new(seed).fill(&mut bytes);
        bytes
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[tokio::test]
async fn a_database_is_gone_with_its_test() {
    let test = TestDatabase::create_empty().await;
    let (name, admin) = (
        test.name().to_owned(),
        testkit::cluster().await.admin("postgres").await.unwrap(),
    );
    let exists = async || {
        !admin
            .query("SELECT FROM pg_database WHERE datname = $1", &[&name])
            .await
            .unwrap()
            .is_empty()
    };
    assert!(exists().await);
    drop(test);
    eventually(Duration::from_secs(5), async || !exists().await).await;
}
