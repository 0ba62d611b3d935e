//! No event appears behind a cursor that was given out, and none is lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use common::lifecycle::Shutdown;
use common::pg::outbox::{self, Event, Publisher, WatchError, Watched};
use common::pg::{Database, Error, Scope};
use common::{Code, Problem, TenantKey};
use futures::{Stream, StreamExt as _};
use testkit::TestDatabase;
use uuid::Uuid;

use super::{SCHEMA, tenant, trial};

const NOTE_TOUCH: &str = "-- trial.note_touch
UPDATE trial.notes
SET revision = revision + 1
WHERE bucket = $1 AND note_id = $2
RETURNING revision";

fn event(tenant: TenantKey, db: &Database, resource: &str, revision: i64) -> Event {
    Event {
        event_id: tenant.new_id(db.deps()),
        resource: resource.to_owned(),
        revision,
        payload: b"payload".to_vec(),
    }
}

async fn append(db: &Database, tenant: TenantKey, resource: &str, revision: i64) -> Uuid {
    let event = event(tenant, db, resource, revision);
    let id = event.event_id;
    db.run_tx("append", Scope::Tenant(tenant), async move |tx| {
        outbox::append(tx, tenant, &event).await
    })
    .await
    .unwrap();
    id
}

fn publish(db: &Database) -> Shutdown {
    let shutdown = Shutdown::new();
    tokio::spawn(Publisher::new(db).run(shutdown.clone()));
    shutdown
}

async fn next(stream: &mut (impl Stream<Item = Result<Watched, WatchError>> + Unpin)) -> Watched {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("in time")
        .expect("the stream goes on")
        .unwrap()
}

/// Four processes' worth of appenders whose transactions commit in another order than they began, two publishers, and a
/// reader that begins anew from its cursor again and again.
#[tokio::test(flavor = "multi_thread")]
async fn two_publishers_neither_lose_nor_reorder() {
    const APPENDERS: usize = 6;
    const EACH: usize = 60;
    let (test, db) = trial().await;
    let replicas = [db.clone(), test.database(&SCHEMA)];
    let stops = replicas.each_ref().map(publish);
    let ours = tenant();
    // Notes that several appenders change, so that they wait for each other.
    let notes: Vec<Uuid> = (0..3).map(|_| ours.new_id(db.deps())).collect();
    for note in &notes {
        let (note, bucket, id) = (*note, ours.bucket(), ours.id());
        db.execute(
            Scope::Tenant(ours),
            super::NOTE_ADD,
            &[&bucket, &id, &note, &note.to_string()],
        )
        .await
        .unwrap();
    }
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let db = replicas[appender % 2].clone();
            let notes = notes.clone();
            tokio::spawn(async move {
                let mut appended = Vec::new();
                for turn in 0..EACH {
                    let note = notes[(appender + turn) % notes.len()];
                    let id = db
                        .run_tx("touch", Scope::Tenant(ours), async move |tx| {
                            let row = tx.query_one(NOTE_TOUCH, &[&ours.bucket(), &note]).await?;
                            let event_id = ours.new_id(tx.deps());
                            let event = Event {
                                event_id,
                                resource: format!("notes/{note}"),
                                revision: row.get(0),
                                payload: Vec::new(),
                            };
                            outbox::append(tx, ours, &event).await?;
                            // One in three commits late; others have numbers by then.
                            if turn % 3 == 0 {
                                let pause = format!(
                                    "-- trial.pause\nSELECT pg_sleep({})",
                                    f64::from(turn as u32 % 4) / 200.0
                                );
                                tx.query(&pause, &[]).await?;
                            }
                            Ok::<_, Error>(event_id)
                        })
                        .await
                        .unwrap();
                    appended.push(id);
                }
                appended
            })
        })
        .collect();

    let mut seen = Vec::new();
    let mut revisions: HashMap<String, i64> = HashMap::new();
    let mut cursor = String::new();
    let mut turn = 0;
    while seen.len() < APPENDERS * EACH {
        turn += 1;
        let mut stream = std::pin::pin!(
            outbox::watch(&replicas[turn % 2], &cursor, false, None)
                .await
                .unwrap()
        );
        for _ in 0..17.min(APPENDERS * EACH - seen.len()) {
            let item = next(&mut stream).await;
            cursor = item.cursor;
            let Some(logged) = item.event else { continue };
            let newest = revisions.entry(logged.resource.clone()).or_default();
            assert!(
                logged.revision > *newest,
                "{} came to {} after {newest}",
                logged.resource,
                logged.revision
            );
            *newest = logged.revision;
            seen.push(logged.event_id);
        }
    }
    let mut appended = HashSet::new();
    for appender in appenders {
        appended.extend(appender.await.unwrap());
    }
    assert_eq!(seen.len(), appended.len());
    assert_eq!(seen.iter().copied().collect::<HashSet<_>>(), appended);
    assert_eq!(super::count(&test, "trial.outbox").await, 0);
    for stop in stops {
        stop.request();
    }
}

#[tokio::test]
async fn an_event_of_a_transaction_that_is_rolled_back_is_never_seen() {
    let (_test, db) = trial().await;
    publish(&db);
    let ours = tenant();
    let mut stream = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    let undone = event(ours, &db, "things/1", 1);
    let outcome = db
        .run_tx("undone", Scope::Tenant(ours), async move |tx| {
            outbox::append(tx, ours, &undone).await?;
            Err::<(), _>(Error::Closed)
        })
        .await;
    assert!(outcome.is_err());
    let kept = append(&db, ours, "things/2", 1).await;
    assert_eq!(next(&mut stream).await.event.unwrap().event_id, kept);
}

#[tokio::test]
async fn from_the_head_begins_with_a_bookmark_and_goes_on_from_there() {
    let (_test, db) = trial().await;
    publish(&db);
    let (ours, theirs) = (tenant(), tenant());
    let mut all = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    append(&db, ours, "things/1", 1).await;
    next(&mut all).await;
    let mut stream = std::pin::pin!(outbox::watch(&db, "", true, Some(ours)).await.unwrap());
    let bookmark = next(&mut stream).await;
    assert_eq!(bookmark.event, None);
    append(&db, theirs, "things/2", 1).await;
    append(&db, ours, "things/3", 7).await;
    let logged = next(&mut stream).await.event.unwrap();
    assert_eq!(
        (logged.resource.as_str(), logged.revision, logged.tenant),
        ("things/3", 7, ours),
        "another tenant's is not shown"
    );
    assert_eq!(logged.payload, b"payload");
    // The bookmark's cursor is a place as any other.
    let mut again = std::pin::pin!(
        outbox::watch(&db, &bookmark.cursor, false, None)
            .await
            .unwrap()
    );
    assert_eq!(next(&mut again).await.event.unwrap().resource, "things/2");
}

#[tokio::test]
async fn an_idle_stream_says_where_it_stands() {
    let (_test, db) = trial().await;
    let mut stream = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    let bookmark = next(&mut stream).await;
    tokio::time::resume();
    assert_eq!(bookmark.event, None);
    outbox::watch(&db, &bookmark.cursor, false, None)
        .await
        .map(drop)
        .unwrap();
}

#[tokio::test]
async fn streams_end_with_the_process() {
    let (_test, db) = trial().await;
    let shutdown = publish(&db);
    let mut stream = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    append(&db, tenant(), "things/1", 1).await;
    next(&mut stream).await;
    shutdown.request();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await
        .expect("in time");
    assert!(end.is_none(), "{end:?}");
}

/// Lets the log grow old: all that is there was written `days` ago.
async fn age(test: &TestDatabase, days: i32) {
    let admin = test.admin().await;
    let sql = format!(
        "UPDATE trial.event_log SET slot = (slot + 320 - {days}) % 32; \
         UPDATE trial.event_head SET day = day - {days}, emptied_to = emptied_to - {days}"
    );
    admin.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_continued_and_what_is_not_is_refused() {
    let (test, db) = trial().await;
    let ours = tenant();
    let shutdown = publish(&db);
    let first = append(&db, ours, "things/1", 1).await;
    let second = append(&db, ours, "things/2", 1).await;
    let mut stream = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    let one = next(&mut stream).await;
    assert_eq!(one.event.unwrap().event_id, first);
    assert_eq!(next(&mut stream).await.event.unwrap().event_id, second);
    shutdown.request();

    // 30 days later everything is there.
    age(&test, 30).await;
    let later = test.database(&SCHEMA);
    let shutdown = publish(&later);
    let third = append(&later, ours, "things/3", 1).await;
    let mut stream = std::pin::pin!(outbox::watch(&later, "", false, None).await.unwrap());
    for expected in [first, second, third] {
        assert_eq!(next(&mut stream).await.event.unwrap().event_id, expected);
    }
    let newest = {
        let mut stream = std::pin::pin!(outbox::watch(&later, "", true, None).await.unwrap());
        next(&mut stream).await.cursor
    };
    shutdown.request();

    // Of a cursor as old as it is kept, nothing is lost; two days on, the first two events are gone.
    age(&test, 2).await;
    let latest = test.database(&SCHEMA);
    publish(&latest);
    let fourth = append(&latest, ours, "things/4", 1).await;
    let mut stream = std::pin::pin!(outbox::watch(&latest, "", true, None).await.unwrap());
    next(&mut stream).await;
    testkit::eventually(Duration::from_secs(5), async || {
        matches!(
            outbox::watch(&latest, &one.cursor, false, None).await,
            Err(WatchError::OutOfRange)
        )
    })
    .await;
    let mut stream = std::pin::pin!(outbox::watch(&latest, &newest, false, None).await.unwrap());
    assert_eq!(next(&mut stream).await.event.unwrap().event_id, fourth);
    let mut stream = std::pin::pin!(outbox::watch(&latest, "", false, None).await.unwrap());
    assert_eq!(next(&mut stream).await.event.unwrap().event_id, third);
}

#[tokio::test]
async fn a_cursor_of_another_log_is_refused() {
    let (_test, db) = trial().await;
    let (other_test, other) = trial().await;
    // Both are clones of one template.
    other_test
        .admin()
        .await
        .batch_execute("UPDATE trial.event_head SET log_id = gen_random_uuid()")
        .await
        .unwrap();
    let mut stream = std::pin::pin!(outbox::watch(&other, "", true, None).await.unwrap());
    let cursor = next(&mut stream).await.cursor;
    assert!(matches!(
        outbox::watch(&db, &cursor, false, None).await.map(drop),
        Err(WatchError::OutOfRange)
    ));
    let error = outbox::watch(&db, "nonsense", false, None)
        .await
        .map(drop)
        .unwrap_err();
    let problem = Problem::from(error);
    assert_eq!(
        (problem.code, problem.fields[0].field.as_str()),
        (Code::InvalidArgument, "after_cursor")
    );
}

#[tokio::test]
async fn a_publisher_that_is_frozen_in_the_middle_is_passed() {
    let (test, db) = trial().await;
    let ours = tenant();
    // It holds the lock on the head and says nothing more.
    let mut frozen = test.admin().await;
    let held = frozen.transaction().await.unwrap();
    held.batch_execute("SET LOCAL idle_in_transaction_session_timeout = '500ms'; SELECT FROM trial.event_head FOR UPDATE").await.unwrap();
    publish(&db);
    let id = append(&db, ours, "things/1", 1).await;
    let mut stream = std::pin::pin!(outbox::watch(&db, "", false, None).await.unwrap());
    assert_eq!(next(&mut stream).await.event.unwrap().event_id, id);
}
