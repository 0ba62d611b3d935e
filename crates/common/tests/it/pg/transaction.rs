//! `run_tx`, and what becomes of a transaction that fails or is abandoned.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::pg::{Database, Error, ErrorClass, Isolation, PgConfig, Scope};
use tokio::sync::Barrier;

use super::{NOTES_COUNT, SCHEMA, add, count, tenant, trial};

/// As services have it: the database's error is the source of another.
#[derive(Debug, thiserror::Error)]
enum DomainError {
    #[error("the notes cannot be read")]
    Store(#[from] Error),
}

#[tokio::test]
async fn a_real_serialization_failure_is_tried_again() {
    let (test, db) = trial().await;
    let tries = Arc::new(AtomicUsize::new(0));
    // Each sees that there is no note, and writes one: only one of the two may stand.
    let both_have_read = Arc::new(Barrier::new(2));
    let writers = [tenant(), tenant()].map(|tenant| {
        let (db, tries, both_have_read) =
            (db.clone(), Arc::clone(&tries), Arc::clone(&both_have_read));
        tokio::spawn(async move {
            let first = Arc::new(AtomicUsize::new(0));
            db.clone()
                .run_tx_with(
                    "note_first",
                    Scope::System,
                    Isolation::Serializable,
                    async move |tx| {
                        tries.fetch_add(1, Ordering::SeqCst);
                        let there: i64 = tx.query_one(NOTES_COUNT, &[]).await?.get(0);
                        if first.fetch_add(1, Ordering::SeqCst) == 0 {
                            both_have_read.wait().await;
                        }
                        if there == 0 {
                            add(tx, tx.deps(), tenant, "first").await?;
                        }
                        Ok::<_, DomainError>(there == 0)
                    },
                )
                .await
                .unwrap()
        })
    });
    let [one, other] = writers;
    assert_ne!(
        one.await.unwrap(),
        other.await.unwrap(),
        "one of them was first"
    );
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    assert_eq!(count(&test, "trial.notes").await, 1);
}

#[tokio::test]
async fn a_violated_constraint_is_named_and_not_tried_again() {
    let (_test, db) = trial().await;
    let ours = tenant();
    let tries = AtomicUsize::new(0);
    let error = db
        .run_tx("note_twice", Scope::Tenant(ours), async |tx| {
            tries.fetch_add(1, Ordering::SeqCst);
            add(tx, tx.deps(), ours, "same").await?;
            add(tx, tx.deps(), ours, "same").await
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.class(),
        ErrorClass::UniqueViolation {
            constraint: "notes_body_key"
        }
    );
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert!(
        !format!("{:?} {}", error, common::problem::Chain(&error)).contains("same"),
        "values stay out of errors: {error:?}"
    );
}

#[tokio::test]
async fn a_body_that_goes_on_after_a_failed_statement_does_not_commit() {
    let (test, db) = trial().await;
    let ours = tenant();
    let outcome = db
        .run_tx("note_anyway", Scope::Tenant(ours), async |tx| {
            add(tx, tx.deps(), ours, "kept?").await?;
            let _ = tx.query("-- trial.wrong\nSELECT nonsense", &[]).await;
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Aborted { .. })), "{outcome:?}");
    assert_eq!(count(&test, "trial.notes").await, 0);
}

/// A pool of one connection, so that what the last one left behind is found by the next.
fn single(test: &testkit::TestDatabase) -> Database {
    Database::open(
        &PgConfig {
            max_size: 1,
            ..test.config("trial")
        },
        &SCHEMA,
        &testkit::deps(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_cancelled_transaction_leaves_nothing_behind() {
    let (test, _) = trial().await;
    let db = single(&test);
    let ours = tenant();
    for sleep in ["0.05", "30"] {
        let sleeping = format!("-- trial.sleep\nSELECT pg_sleep({sleep})");
        let body = db.run_tx("cancelled", Scope::Tenant(ours), async |tx| {
            add(tx, tx.deps(), ours, "never").await?;
            tx.query(&sleeping, &[]).await
        });
        let cancelled = tokio::time::timeout(Duration::from_millis(30), body).await;
        assert!(cancelled.is_err(), "it was still running");
        let begun = std::time::Instant::now();
        let seen: i64 = db
            .query_one(Scope::System, NOTES_COUNT, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(
            seen, 0,
            "the next one is outside of the transaction that was abandoned"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "what ran for long was cancelled"
        );
    }
    // And the server runs none of it any more.
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND state = 'active' AND pid <> pg_backend_pid()";
    let admin = test.admin().await;
    testkit::eventually(Duration::from_secs(5), async || {
        admin
            .query_one(running, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    // Between statements there is nothing to cancel; it is rolled back all the same.
    let ours_again = tenant();
    let body = db.run_tx("cancelled", Scope::Tenant(ours_again), async |tx| {
        add(tx, tx.deps(), ours_again, "never").await?;
        std::future::pending::<Result<(), Error>>().await
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(50), body)
            .await
            .is_err()
    );
    let seen: i64 = db
        .query_one(Scope::System, NOTES_COUNT, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, 0);
    assert_eq!(count(&test, "trial.notes").await, 0);
}

#[tokio::test]
async fn a_single_statement_that_fails_leaves_nothing_behind() {
    let (test, _) = trial().await;
    let db = single(&test);
    let pid = "-- trial.pid\nSELECT pg_backend_pid()";
    let before: i32 = db.query_one(Scope::System, pid, &[]).await.unwrap().get(0);
    // When it is prepared, when it runs, and before it is sent.
    let failures: [(&str, &str); 3] = [
        ("SELECT nonsense", "42703"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT $1::integer", ""),
    ];
    for (sql, code) in failures {
        let params: &[&(dyn common::pg::ToSql + Sync)] =
            if code.is_empty() { &[&"text"] } else { &[] };
        for _ in 0..2 {
            let error = db.query(Scope::System, sql, params).await.unwrap_err();
            assert_eq!(error.sqlstate().unwrap_or_default(), code, "{sql}");
        }
    }
    let after: i32 = db.query_one(Scope::System, pid, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "the connection is good");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(
        test.admin()
            .await
            .query_one(open, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        0
    );
}

#[tokio::test]
async fn a_panic_in_the_body_leaves_nothing_behind() {
    let (test, _) = trial().await;
    let db = single(&test);
    let ours = tenant();
    let inside = db.clone();
    let panicked = tokio::spawn(async move {
        inside
            .run_tx("panics", Scope::Tenant(ours), async move |tx| {
                add(tx, tx.deps(), ours, "never").await?;
                assert!(tx.scope() == Scope::System, "on purpose");
                Ok::<_, Error>(())
            })
            .await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    let seen: i64 = db
        .query_one(Scope::System, NOTES_COUNT, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, 0);
    assert_eq!(count(&test, "trial.notes").await, 0);
}

#[tokio::test]
async fn a_transaction_is_send_where_a_handler_needs_it() {
    let (_test, db) = trial().await;
    let ours = tenant();
    let handler: Pin<Box<dyn Future<Output = Result<i64, DomainError>> + Send>> =
        Box::pin(async move {
            let body = String::from("owned");
            db.run_tx("boxed", Scope::Tenant(ours), async move |tx| {
                add(tx, tx.deps(), ours, &body).await?;
                Ok(tx.query_one(NOTES_COUNT, &[]).await?.get(0))
            })
            .await
        });
    assert_eq!(tokio::spawn(handler).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn rows_are_counted() {
    let (_test, db) = trial().await;
    let series = "-- trial.series_list\nSELECT generate_series(1, $1::integer)";
    assert!(
        db.query_opt(Scope::System, series, &[&0])
            .await
            .unwrap()
            .is_none()
    );
    assert!(matches!(
        db.query_one(Scope::System, series, &[&0]).await,
        Err(Error::RowCount { rows: 0, .. })
    ));
    assert!(matches!(
        db.query_opt(Scope::System, series, &[&2]).await,
        Err(Error::RowCount { rows: 2, .. })
    ));
    assert!(matches!(
        db.query_one(Scope::System, series, &[&"text"]).await,
        Err(Error::Type(_))
    ));
    assert_eq!(
        db.query(Scope::System, series, &[&7]).await.unwrap().len(),
        7
    );
}
