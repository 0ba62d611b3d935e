//! A consumer ends in the state that the last event of each resource says, whatever it saw twice or late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::TenantKey;
use common::lifecycle::Shutdown;
use common::pg::consumer::{self, Consumer, FeedError, Received, Start};
use common::pg::{Database, Error, Scope};
use futures::stream::{self, BoxStream, StreamExt as _};
use testkit::{TestDatabase, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{SCHEMA, tenant, trial};

/// A change of a note: which, to what revision.
type Message = (usize, i64);

/// The other service: a list of messages whose index is their cursor; a stream stays open behind the last.
fn feed(
    messages: &[Message],
    start: &Start,
) -> BoxStream<'static, Result<Received<Message>, FeedError>> {
    let from = match start {
        Start::After(cursor) => cursor.parse::<usize>().unwrap() + 1,
        Start::Beginning | Start::Resync => 0,
    };
    let items: Vec<_> = (from..messages.len())
        .map(|index| {
            Ok(Received {
                cursor: Some(index.to_string()),
                message: messages[index],
            })
        })
        .collect();
    // One at a time, so that each stores its cursor.
    stream::iter(items)
        .then(async |item| {
            tokio::task::yield_now().await;
            item
        })
        .chain(stream::pending())
        .boxed()
}

/// Applies a message as services do: guarded by the revision, in one transaction.
async fn apply(db: &Database, tenant: TenantKey, (note, revision): Message) -> Result<(), Error> {
    let id = format!("note-{note}");
    db.run_tx("apply", Scope::Tenant(tenant), async move |tx| {
        if consumer::advance(tx, tenant, "trial.feed", &id, revision).await? {
            let sql = "-- trial.note_apply\nINSERT INTO trial.notes (bucket, tenant_id, note_id, body, revision)\nVALUES ($1, $2, $3, $4, $5)";
            tx.execute(sql, &[&tenant.bucket(), &tenant.id(), &tenant.new_id(tx.deps()), &format!("{id}@{revision}"), &revision]).await?;
        }
        Ok::<_, Error>(())
    })
    .await
}

struct Replica {
    shutdown: Shutdown,
    task: JoinHandle<()>,
    seen: Arc<Mutex<Vec<Message>>>,
    /// As many messages may be applied.
    permits: Arc<Semaphore>,
}

fn replica(db: Database, tenant: TenantKey, messages: &[Message], permits: usize) -> Replica {
    let (shutdown, seen, permits) = (
        Shutdown::new(),
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Semaphore::new(permits)),
    );
    let task = tokio::spawn({
        let (shutdown, seen, permits, messages) = (
            shutdown.clone(),
            Arc::clone(&seen),
            Arc::clone(&permits),
            messages.to_vec(),
        );
        async move {
            let applying = |message| {
                let (db, seen, permits) = (db.clone(), Arc::clone(&seen), Arc::clone(&permits));
                async move {
                    permits.acquire().await.unwrap().forget();
                    seen.lock().unwrap().push(message);
                    apply(&db, tenant, message).await
                }
            };
            let open = async |start| Ok(feed(&messages, &start));
            let Ok(()) = Consumer::new(&db, "trial.feed")
                .run(shutdown, open, applying)
                .await;
        }
    });
    Replica {
        shutdown,
        task,
        seen,
        permits,
    }
}

async fn cursor(test: &TestDatabase) -> String {
    let row = test
        .admin()
        .await
        .query_opt("SELECT cursor FROM trial.consumers", &[])
        .await
        .unwrap();
    row.map(|row| row.get(0)).unwrap_or_default()
}

/// As if its holder had been silent for 30 s.
async fn expire(test: &TestDatabase) {
    test.admin()
        .await
        .batch_execute("UPDATE trial.consumers SET lease_until = 'epoch'")
        .await
        .unwrap();
}

/// The newest revision of each note.
async fn state(test: &TestDatabase) -> BTreeMap<String, i64> {
    let sql = "SELECT split_part(body, '@', 1), max(revision) FROM trial.notes GROUP BY 1";
    test.admin()
        .await
        .query(sql, &[])
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

fn messages() -> Vec<Message> {
    (0..40)
        .map(|index| (index % 4, (index / 4 + 1) as i64))
        .collect()
}

fn expected() -> BTreeMap<String, i64> {
    (0..4).map(|note| (format!("note-{note}"), 10)).collect()
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn one_that_is_killed_is_continued_by_another() {
    let (test, db) = trial().await;
    let (ours, messages) = (tenant(), messages());
    let first = replica(db, ours, &messages, 13);
    eventually(PATIENCE, async || first.seen.lock().unwrap().len() == 13).await;
    first.task.abort();
    let _ = first.task.await;

    expire(&test).await;
    let second = replica(test.database(&SCHEMA), ours, &messages, 1000);
    eventually(PATIENCE, async || cursor(&test).await == "39").await;
    assert_eq!(state(&test).await, expected());
    assert_eq!(
        super::count(&test, "trial.notes").await,
        40,
        "each revision was applied once"
    );
    assert!(
        second.seen.lock().unwrap()[0].0 <= 13,
        "it began where the cursor was"
    );
    second.shutdown.request();
    second.task.await.unwrap();
}

#[tokio::test]
async fn one_that_was_frozen_and_comes_back_changes_nothing() {
    let (test, db) = trial().await;
    let (ours, messages) = (tenant(), messages());
    let frozen = replica(db, ours, &messages, 5);
    eventually(PATIENCE, async || frozen.seen.lock().unwrap().len() == 5).await;
    expire(&test).await;
    let second = replica(test.database(&SCHEMA), ours, &messages, 1000);
    eventually(PATIENCE, async || cursor(&test).await == "39").await;

    // It goes on with what it had, and finds that its fence is gone.
    frozen.permits.add_permits(1000);
    eventually(PATIENCE, async || frozen.seen.lock().unwrap().len() > 5).await;
    frozen.shutdown.request();
    frozen.task.await.unwrap();
    assert_eq!(cursor(&test).await, "39", "its cursor was not stored");
    assert_eq!(state(&test).await, expected());
    assert_eq!(super::count(&test, "trial.notes").await, 40);
    second.shutdown.request();
}

#[tokio::test]
async fn a_replica_that_ends_in_order_hands_over_at_once() {
    let (test, db) = trial().await;
    let (ours, messages) = (tenant(), messages());
    let first = replica(db, ours, &messages[..10], 1000);
    eventually(PATIENCE, async || cursor(&test).await == "9").await;
    first.shutdown.request();
    first.task.await.unwrap();
    let second = replica(test.database(&SCHEMA), ours, &messages, 1000);
    eventually(PATIENCE, async || cursor(&test).await == "39").await;
    assert_eq!(second.seen.lock().unwrap().len(), 30);
    second.shutdown.request();
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_is_tried_again_and_not_passed() {
    let (test, db) = trial().await;
    let failures = Arc::new(Mutex::new(3));
    let applied = Arc::new(Mutex::new(Vec::new()));
    let shutdown = Shutdown::new();
    let task = tokio::spawn({
        let (failures, applied, shutdown) = (
            Arc::clone(&failures),
            Arc::clone(&applied),
            shutdown.clone(),
        );
        let messages: Vec<Message> = vec![(0, 1), (1, 1), (2, 1)];
        async move {
            let open = |start| {
                let stream = feed(&messages, &start);
                async move { Ok(stream) }
            };
            let apply = |message: Message| {
                let (failures, applied) = (Arc::clone(&failures), Arc::clone(&applied));
                async move {
                    let mut left = failures.lock().unwrap();
                    if message == (1, 1) && *left > 0 {
                        *left -= 1;
                        return Err("not yet");
                    }
                    applied.lock().unwrap().push(message);
                    Ok(())
                }
            };
            let Ok(()) = Consumer::new(&db, "trial.feed")
                .run(shutdown, open, apply)
                .await;
        }
    });
    eventually(PATIENCE, async || cursor(&test).await == "2").await;
    assert_eq!(*applied.lock().unwrap(), [(0, 1), (1, 1), (2, 1)]);
    shutdown.request();
    task.await.unwrap();
}

#[tokio::test]
async fn a_place_that_is_no_longer_kept_leads_to_listing_anew() {
    let (test, db) = trial().await;
    db.execute(
        Scope::System,
        "INSERT INTO trial.consumers (name, cursor) VALUES ('trial.feed', 'ancient')",
        &[],
    )
    .await
    .unwrap();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let applied = Arc::new(Mutex::new(Vec::new()));
    let shutdown = Shutdown::new();
    let task = tokio::spawn({
        let (starts, applied, shutdown) =
            (Arc::clone(&starts), Arc::clone(&applied), shutdown.clone());
        async move {
            let open = |start: Start| {
                starts.lock().unwrap().push(start.clone());
                async move {
                    match start {
                        Start::After(cursor) if cursor == "ancient" => Err(FeedError::OutOfRange),
                        Start::Resync => {
                            let listed = [(7, 3), (8, 4)].map(|message| {
                                Ok(Received {
                                    cursor: None,
                                    message,
                                })
                            });
                            let bookmark = Ok(Received {
                                cursor: Some("head".to_owned()),
                                message: (0, 0),
                            });
                            Ok(stream::iter(listed)
                                .chain(stream::iter([bookmark]))
                                .chain(stream::pending())
                                .boxed())
                        }
                        other => panic!("{other:?}"),
                    }
                }
            };
            let apply = |message: Message| {
                applied.lock().unwrap().push(message);
                async { Ok::<_, Error>(()) }
            };
            let Ok(()) = Consumer::new(&db, "trial.feed")
                .run(shutdown, open, apply)
                .await;
        }
    });
    eventually(PATIENCE, async || cursor(&test).await == "head").await;
    assert_eq!(
        *starts.lock().unwrap(),
        [Start::After("ancient".to_owned()), Start::Resync]
    );
    assert_eq!(*applied.lock().unwrap(), [(7, 3), (8, 4), (0, 0)]);
    shutdown.request();
    task.await.unwrap();
}
