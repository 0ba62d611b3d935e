//! The process killed while webhooks come in: what was acknowledged is there, and nothing twice.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use webhook_ingest::SCHEMA;

use crate::world::{PATIENCE, Webhook, World};

const KILLS: usize = 5;
const SENDERS: usize = 8;

fn free_address() -> SocketAddr {
    // The child binds it a moment later; nobody else is given it in between, as the system hands ports out by turns.
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn start(config: &PathBuf) -> Child {
    Command::new(env!("CARGO_BIN_EXE_webhook-ingest"))
        .args(["serve", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_teamsync_09_what_was_acknowledged_survives_every_kill_once() {
    let world = World::without_ingest().await;
    let url = {
        let maker = world.start().await;
        world.create(&maker, world.source()).await.unwrap().url
    };
    let mut config = world.config(world.database.config(SCHEMA.name));
    config.grpc.listen = free_address();
    config.http.listen = free_address();
    let path = world.folder().join("killable.toml");
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let url = World::at(&url, &format!("http://{}/hooks/", config.http.listen));

    let acknowledged = Mutex::new(BTreeSet::new());
    let (next, killed) = (AtomicU32::new(0), AtomicU32::new(0));
    let send = async || {
        while killed.load(Ordering::SeqCst) < KILLS as u32 {
            let id = format!("d-{}", next.fetch_add(1, Ordering::SeqCst));
            // Sent again until it is acknowledged, as providers do.
            while !world
                .send_to(&url, &Webhook::push(&id, 7))
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                if killed.load(Ordering::SeqCst) == KILLS as u32 {
                    return;
                }
                tokio::task::yield_now().await;
            }
            acknowledged.lock().unwrap().insert(id);
        }
    };
    let kill = async {
        for round in 1..=KILLS {
            let mut child = start(&path);
            let before = acknowledged.lock().unwrap().len();
            let working = async || acknowledged.lock().unwrap().len() > before + 40;
            testkit::eventually(Duration::from_mins(1), working).await;
            child.start_kill().unwrap();
            child.wait().await.unwrap();
            killed.store(round as u32, Ordering::SeqCst);
        }
    };
    futures::future::join(
        futures::future::join_all((0..SENDERS).map(|_| send())),
        kill,
    )
    .await;

    let rows = world
        .database
        .admin()
        .await
        .query("SELECT external_event_id FROM ingest.events", &[])
        .await
        .unwrap();
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let once: BTreeSet<String> = there.iter().cloned().collect();
    assert_eq!(there.len(), once.len(), "none is there twice");
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > KILLS * 40);
    assert_eq!(acknowledged.difference(&once).count(), 0, "none is missing");

    // And whoever comes next processes what the dead have left.
    let admin = world.database.admin().await;
    admin
        .batch_execute("UPDATE ingest.event_queue SET due_at = now()")
        .await
        .unwrap();
    let _heir = world.start().await;
    let done = async || world.count("SELECT count(*) FROM ingest.event_queue").await == 0;
    testkit::eventually(PATIENCE * 4, done).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM ingest.events WHERE state <> 3")
            .await,
        0
    );
}

#[tokio::test]
async fn a_shutdown_ends_what_has_begun() {
    let logs = testkit::logs::capture();
    // On a busy machine the database may not take a connection in time.
    logs.expect("webhooks could not be written");
    logs.expect("a webhook is not known to be durable");
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    let sends = (0..40).map(|number| {
        let (world, url) = (&world, &source.url);
        async move {
            world
                .send_to(url, &Webhook::push(&format!("d-{number}"), 7))
                .await
                .is_ok_and(|answer| answer.status() == 200)
        }
    });
    let drain = async {
        let some = async || world.stored().await > 0;
        testkit::eventually(PATIENCE, some).await;
        ingest.process.readiness.set_draining();
        ingest.process.shutdown.request();
        ingest.process.tasks.drained(Duration::from_secs(20)).await
    };
    let (answers, unfinished) =
        futures::future::join(futures::future::join_all(sends), drain).await;
    assert_eq!(unfinished, Vec::<String>::new());
    assert!(!ingest.process.tasks.any_failed());
    let acknowledged = answers.iter().filter(|taken| **taken).count() as i64;
    assert!(acknowledged > 0 && world.stored().await >= acknowledged);
    assert!(!ingest.process.readiness.check().await.ready);
}
