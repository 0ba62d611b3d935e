//! What is in the way, and what breaks: said in a sentence, and mended by itself where it can be.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Deps;
use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use e2e::{Home, Log, Up};
use embedded_postgres::{Cluster, Options, StopMode};
use http::{Method, StatusCode};
use testkit::eventually;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::calls;
use crate::descriptors::Contracts;
use crate::path::{self, PATIENCE};
use crate::system::{System, request};

/// With a cluster to be made on the way there.
const REFUSED_WITHIN: Duration = Duration::from_mins(1);

/// What it says instead of starting: a sentence, and exit code 1.
async fn refusal(up: Up<'_>) -> String {
    let said = refusals(up).await;
    assert!(
        !said.contains('\n'),
        "it says more than a sentence:\n{said}"
    );
    said
}

/// What it says instead of starting: once for people, and once in its log where that has begun.
async fn refusals(up: Up<'_>) -> String {
    let process = up.spawn().expect("it is started");
    let status = process.ended(REFUSED_WITHIN).await;
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "it ended with {status}: {said}");
    assert_eq!(process.stdout(), "", "it says that it is ready");
    let log = Log::parse(&said);
    let (logged, plain): (Vec<_>, Vec<_>) = log
        .unexpected(&[])
        .into_iter()
        .partition(|line| line.field("level") == "ERROR");
    assert!(logged.len() <= 1, "it logs more than one thing:\n{said}");
    let plain: Vec<_> = plain.iter().map(|line| line.text.as_str()).collect();
    let plain = plain.join("\n");
    let refusal = plain
        .strip_prefix("hawser: ")
        .unwrap_or_else(|| panic!("it does not say who speaks:\n{said}"));
    for line in logged {
        assert!(line.field("message").contains(refusal), "{said}");
    }
    refusal.to_owned()
}

#[track_caller]
fn says(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "`{word}` is not said: {sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_said_in_a_sentence() {
    no_postgres().await;
    newer_data_dir().await;
    foreign_data_dir().await;
    wrong_settings().await;

    // What is in the way of an instance that was there before.
    let home = Home::new().expect("a folder");
    let hawser = home.start().await.expect("hawser up becomes ready");
    let second = refusal(home.up()).await;
    says(&second, &["in use", "--data-dir"]);
    hawser.finish().await;
    port_taken(&home).await;
    unreadable_certificates(&home).await;
    home.start()
        .await
        .expect("nothing is in the way any more")
        .finish()
        .await;
}

async fn no_postgres() {
    let home = Home::new().expect("a folder");
    let empty = home.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let up = home
        .up()
        .env("HAWSER_POSTGRES_BIN", empty.display().to_string());
    let sentence = refusal(up).await;
    says(&sentence, &["HAWSER_POSTGRES_BIN", "postgres", "initdb"]);

    // Elsewhere than on the path it looks where systems put them; one that has them there cannot show this.
    let found = ["/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt"]
        .iter()
        .any(|folder| Path::new(folder).exists());
    if !found {
        let sentence = refusal(home.up().env("PATH", empty.display().to_string())).await;
        says(&sentence, &["no PostgreSQL", "install", "--database-url"]);
    }
}

async fn newer_data_dir() {
    let home = Home::new().expect("a folder");
    fs::create_dir(home.data_dir()).expect("a folder");
    fs::write(home.data_dir().join("VERSION"), "4000\n").expect("it is ours");
    let sentence = refusal(home.up()).await;
    says(&sentence, &["newer version", "4000", "--data-dir"]);
    let left = fs::read_dir(home.data_dir()).expect("it is there").count();
    assert_eq!(left, 1, "nothing in it is touched");
}

async fn foreign_data_dir() {
    let home = Home::new().expect("a folder");
    fs::create_dir(home.data_dir()).expect("a folder");
    fs::write(home.data_dir().join("thesis.txt"), "years of work").expect("it is ours");
    let sentence = refusal(home.up()).await;
    says(&sentence, &["--data-dir"]);
}

async fn wrong_settings() {
    let home = Home::new().expect("a folder");
    // Each setting that is wrong has a line of its own.
    let up = home.up().set("telemetry.no_such_setting", "1");
    let said = refusals(up.set("telemetry.sample_ratio", "2")).await;
    says(&said, &["telemetry.no_such_setting"]);
    let up = home.up().set("telemetry.log_filter", "=,=");
    let said = refusals(up.set("telemetry.sample_ratio", "2")).await;
    says(&said, &["telemetry.log_filter", "telemetry.sample_ratio"]);
    let up = home
        .up()
        .arg("--database-url")
        .arg("postgres://postgres:secret-in-a-url@127.0.0.1:1/postgres");
    let sentence = refusal(up).await;
    says(&sentence, &["database"]);
    assert!(!sentence.contains("secret-in-a-url"), "{sentence}");
}

async fn port_taken(home: &Home) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    let up = home.up().arg("--port-base").arg(port.to_string());
    let sentence = refusal(up).await;
    says(&sentence, &[&port.to_string(), "taken", "--port-base"]);
}

async fn unreadable_certificates(home: &Home) {
    let authority = home.data_dir().join("certificates/ca.pem");
    let key = home
        .data_dir()
        .join("certificates/tenant-directory-key.pem");
    for file in [authority, key] {
        let whole = fs::read(&file).expect("hawser up wrote it");
        fs::write(&file, "no certificate\n").expect("it is ours");
        let sentence = refusal(home.up()).await;
        says(&sentence, &["certificate"]);
        fs::write(&file, whole).expect("it is ours");
    }
    // Root reads everything.
    if !is_root() {
        let authority = home.data_dir().join("certificates/ca-key.pem");
        fs::set_permissions(&authority, fs::Permissions::from_mode(0o000)).expect("it is ours");
        let sentence = refusal(home.up()).await;
        says(&sentence, &["ca-key.pem", "read"]);
        fs::set_permissions(&authority, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A deadline that a caller may have, and within which it is told.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stops_and_comes_back() {
    let home = Home::new().expect("a folder");
    let deps = Deps::system("e2e");
    let folder = home.path().join("cluster");
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let options = Options {
        settings: vec![("port".to_owned(), port.to_string())],
        ..Options::default()
    };
    let cluster = Cluster::start(&folder, &options, &deps)
        .await
        .expect("a cluster of our own");
    let password_file = cluster.password_file().display().to_string();
    let up = home
        .up()
        .arg("--database-url")
        .arg(cluster.tcp_url("postgres"))
        .arg("--database-password-file")
        .arg(password_file)
        // What is said of a database that is gone, by the services and by the pool that they have.
        .expect("deadpool.postgres")
        .expect("database_unavailable")
        .expect("the database cannot be connected to")
        .expect("the connection was lost")
        .expect("database is not available");
    let system = System::of(up.start().await.expect("hawser up becomes ready"));
    let tenant = path::tenant(&system, "outage").await;
    let ready_url = format!("{}/readyz", system.admin_url());
    assert_eq!(readiness(&ready_url).await, StatusCode::OK);

    cluster.stop(StopMode::Immediate).await.expect("it stops");
    for method in [
        "DirectoryService/ListTenants",
        "IntegrationService/ListIntegrations",
        "TokenVaultService/ListGrants",
        "SyncPermissionService/ListSyncLocks",
        "WebhookSourceService/ListSources",
    ] {
        let status = refused(&system, method, &tenant).await;
        let code = status.code();
        assert_eq!(code, Code::Unavailable, "{method}: {}", status.message());
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        assert!(retry.is_some(), "{method} does not say when to try again");
        assert!(
            !status.message().contains("127.0.0.1"),
            "{}",
            status.message()
        );
    }
    eventually(PATIENCE, async || {
        readiness(&ready_url).await == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(system.process().status(), None, "it waits for its database");

    let cluster = Cluster::start(&folder, &options, &deps)
        .await
        .expect("the cluster comes back");
    eventually(PATIENCE, async || {
        readiness(&ready_url).await == StatusCode::OK
    })
    .await;
    let request = directory::GetTenantRequest { tenant_id: tenant };
    DirectoryServiceClient::new(system.to("directory"))
        .get_tenant(request)
        .await
        .expect("what was acknowledged is there");
    // Not only reads: the whole path works again.
    path::connected(&system, "after").await;
    system.hawser.finish().await;
    cluster.stop(StopMode::Fast).await.expect("it stops");
}

async fn readiness(url: &str) -> StatusCode {
    request(Method::GET, url, &[], Bytes::new()).await.status
}

/// What a call says while the database is gone; within the caller's deadline.
async fn refused(system: &System, method: &str, tenant: &str) -> Status {
    use crate::descriptors::Filling;
    let contracts = Contracts::load();
    let method = contracts.method(method);
    let message = contracts.encode(&method.input, &|path, _| match path {
        "tenant_id" => Filling::Text(tenant.to_owned()),
        _ => Filling::Nothing,
    });
    let connection = system.to(method.served_by()[0]);
    let asked = Instant::now();
    let answer = calls::call_within(&connection, method, message, DEADLINE).await;
    let took = asked.elapsed();
    assert!(took < DEADLINE, "{} answers after {took:?}", method.name);
    answer.expect_err("there is no database")
}
