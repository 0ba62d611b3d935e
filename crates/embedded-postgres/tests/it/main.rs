//! A real server in a temporary folder.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::process::Command;

use common::Deps;
use embedded_postgres::{Cluster, Error, Options, StopMode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::NoTls;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // As root, Postgres runs as another user, who has to get in.
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    folder
}

async fn start(folder: &Path) -> Cluster {
    Cluster::start(
        folder,
        &Options {
            durable: false,
            ..Options::default()
        },
        &Deps::system("test"),
    )
    .await
    .unwrap()
}

async fn connect(cluster: &Cluster, url: &str) -> tokio_postgres::Client {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.password(std::fs::read_to_string(cluster.password_file()).unwrap());
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn count(cluster: &Cluster) -> i64 {
    let client = connect(cluster, &cluster.socket_url("postgres")).await;
    client
        .query_one("SELECT count(*) FROM kept", &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn the_data_survives_a_stop_a_crash_and_a_server_that_outlived_its_owner() {
    let folder = folder();
    let cluster = start(folder.path()).await;
    let client = connect(&cluster, &cluster.tcp_url("postgres")).await;
    client
        .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        .await
        .unwrap();
    cluster.stop(StopMode::Fast).await.unwrap();

    let cluster = start(folder.path()).await;
    assert_eq!(count(&cluster).await, 1);
    connect(&cluster, &cluster.tcp_url("postgres"))
        .await
        .batch_execute("INSERT INTO kept VALUES (2)")
        .await
        .unwrap();
    cluster.stop(StopMode::Immediate).await.unwrap();

    // The postmaster alone is killed: its pid file stays, and the backend of this connection for a while.
    let cluster = start(folder.path()).await;
    assert_eq!(count(&cluster).await, 2);
    let client = connect(&cluster, &cluster.tcp_url("postgres")).await;
    client
        .batch_execute("INSERT INTO kept VALUES (3)")
        .await
        .unwrap();
    kill(Pid::from_raw(cluster.pid()), Signal::SIGKILL).unwrap();
    assert!(cluster.exited().await.is_some());
    assert!(folder.path().join("data/postmaster.pid").exists());
    drop(cluster);

    let cluster = start(folder.path()).await;
    assert_eq!(count(&cluster).await, 3);
    cluster.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_living_process_is_no_obstacle() {
    let folder = folder();
    let cluster = start(folder.path()).await;
    let pid_file = folder.path().join("data/postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    cluster.stop(StopMode::Fast).await.unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();

    let cluster = start(folder.path()).await;
    cluster.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let folder = folder();
    let cluster = start(folder.path()).await;
    let error = Cluster::start(folder.path(), &Options::default(), &Deps::system("test"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    cluster.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let folder = folder();
    let cluster = start(folder.path()).await;
    let mut config: tokio_postgres::Config = cluster.tcp_url("postgres").parse().unwrap();
    config.password("wrong");
    assert!(config.connect(NoTls).await.is_err());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(cluster.password_file())
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    cluster.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let folder = folder();
    let deep = folder.path().join("d".repeat(120));
    let cluster = start(&deep).await;
    connect(&cluster, &cluster.socket_url("postgres")).await;
    cluster.stop(StopMode::Fast).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let folder = folder();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let error = Cluster::start(
        &closed.join("pg"),
        &Options::default(),
        &Deps::system("test"),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test]
async fn the_server_ends_when_its_owner_is_killed() {
    let folder = folder();
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap();
    let mut owner = Command::new(built.join("examples/owner"))
        .arg(folder.path())
        .spawn()
        .unwrap();
    let up = folder.path().join("up");
    let pid: i32 = loop {
        match std::fs::read_to_string(&up)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(pid) => break pid,
            None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = async {
        while kill(Pid::from_raw(pid), None).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .unwrap();
    start(folder.path())
        .await
        .stop(StopMode::Fast)
        .await
        .unwrap();
}
