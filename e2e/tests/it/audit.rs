//! `hawser audit`, on a vault whose database somebody writes to.

use std::fs;
use std::process::Output;
use std::time::Duration;

use common::identity::Identity;
use contracts::vault::v1::GetServiceKeyRequest;
use contracts::vault::v1::service_key_service_client::ServiceKeyServiceClient;
use e2e::Home;
use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use crate::path;
use crate::system::System;

const GONE: Duration = Duration::from_secs(40);

fn audit(system: &System, words: &[&str]) -> (bool, String) {
    said(
        &system
            .command(&[&["audit"], words].concat())
            .expect("it runs"),
    )
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn run(system: &System, sql: &str) {
    let owner = fs::read_to_string(&system.instance.database_password_file).expect("it names it");
    let mut config: tokio_postgres::Config = system.instance.database_url.parse().expect("a URL");
    config.password(owner.trim());
    let (client, connection) = config.connect(NoTls).await.expect("the login is taken");
    tokio::spawn(connection);
    client.batch_execute(sql).await.expect("the owner may");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_chains_are_named_and_the_exit_code_says_so() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let tenant = path::tenant(&system, "Audited").await;
    let ingest = system.certified(Identity::service("webhook-ingest"));
    let mut keys = ServiceKeyServiceClient::new(system.connect(&ingest, "vault"));
    for _ in 0..5 {
        let request = GetServiceKeyRequest {
            tenant_id: tenant.clone(),
            key_version: 0,
        };
        keys.get_service_key(request).await.expect("a key");
    }
    let (ok, heads) = audit(&system, &["heads"]);
    assert!(ok, "{heads}");
    let file = home.path().join("heads");
    fs::write(&file, &heads).expect("it is written");
    let noted = ["verify", "--heads", file.to_str().expect("a path")];
    let (ok, text) = audit(&system, &noted);
    assert!(
        ok && text.contains("whole up to record") && text.contains("records fit"),
        "{text}"
    );

    // The log of a vault that has stopped says where its chain ended.
    system.process().signal(Signal::SIGTERM);
    system.process().ended(GONE).await;
    let log = home.path().join("log");
    fs::write(&log, system.process().stderr()).expect("it is written");
    drop(system);
    let system = System::start(&home).await;
    let logged = ["verify", "--heads", log.to_str().expect("a path")];
    let (ok, text) = audit(&system, &logged);
    assert!(ok && text.contains("; 1 noted heads"), "{text}");

    // The tail is cut, which shows beside what was noted and by nothing else.
    run(
        &system,
        "DELETE FROM vault.access_records WHERE sequence > 3",
    )
    .await;
    let (ok, text) = audit(&system, &["verify"]);
    assert!(ok, "{text}");
    for heads in [noted, logged] {
        let (ok, text) = audit(&system, &heads);
        assert!(
            !ok && text.contains("BROKEN") && text.contains("chain is broken"),
            "{text}"
        );
    }

    run(
        &system,
        "UPDATE vault.access_records SET user_id = 'eve' WHERE sequence = 2",
    )
    .await;
    let (ok, text) = audit(&system, &["verify"]);
    assert!(
        !ok && text.contains("the first record that does not fit is 2"),
        "{text}"
    );
    let (ok, text) = audit(&system, &["heads"]);
    assert!(!ok && text.contains("have no head"), "{text}");
    system.hawser.finish().await;
}
