//! The change feed: whoever reads by cursor ends with exactly the ledger.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use common::rpc::CallError;
use contracts::ingest::v1::*;
use uuid::Uuid;

use crate::documents::{batch, document, gone};
use crate::world::{HOST, Instance, PATIENCE, WORKER, World};

type State = BTreeMap<String, (i64, bool, Vec<u8>)>;

async fn read(
    world: &World,
    ingest: &Instance,
    cursor: &str,
    most: i32,
    state: &mut State,
) -> (String, bool, usize) {
    let request = ListDocumentChangesRequest {
        tenant_id: world.tenant.to_string(),
        after_cursor: cursor.to_owned(),
        max_changes: most,
        ..ListDocumentChangesRequest::default()
    };
    let answer = world
        .documents(ingest, HOST)
        .list_document_changes(request)
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.next_cursor.is_empty(), "there is always one");
    let read = answer.documents.len();
    for document in answer.documents {
        let new = (
            document.revision,
            document.deleted_at.is_some(),
            document.content_hash,
        );
        let old = state.insert(document.document_id, new.clone());
        assert!(
            old.is_none_or(|old| old.0 <= new.0),
            "no change comes before an older one"
        );
    }
    (answer.next_cursor, answer.has_more, read)
}

async fn ledger(world: &World) -> State {
    let rows = world
        .database
        .admin()
        .await
        .query("SELECT document_id, revision, deleted_at IS NOT NULL, content_hash FROM ingest.documents", &[])
        .await
        .unwrap();
    let entry = |row: &tokio_postgres::Row| {
        (
            row.get::<_, Uuid>(0).to_string(),
            (row.get(1), row.get(2), row.get(3)),
        )
    };
    rows.iter().map(entry).collect()
}

#[tokio::test]
async fn a_reader_by_cursor_ends_with_the_ledger_whatever_is_written_meanwhile() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let other = world.start().await;
    let shared = world.tenant.new_id(&world.deps);
    let writing = AtomicBool::new(true);
    let write = async |writer: usize| {
        let at = if writer.is_multiple_of(2) {
            &ingest
        } else {
            &other
        };
        let own = world.tenant.new_id(&world.deps);
        for round in 0..12_i64 {
            // Half of it to a stream that all write to.
            let connection = if round % 2 == 0 { shared } else { own };
            let documents = (0..20_i64).map(|number| {
                let id = format!("{}", (number * 7 + round * 3 + writer as i64) % 30);
                match (number + round) % 9 {
                    0 => gone(&id, round * 10 + number),
                    _ => document(
                        &id,
                        &format!("{writer} {round} {number}"),
                        round * 10 + number,
                    ),
                }
            });
            let request = batch(&world, connection, 1, documents.collect());
            world
                .documents(at, WORKER)
                .record_documents(request)
                .await
                .unwrap();
        }
    };
    let mut state = State::new();
    let follow = async {
        let mut cursor = String::new();
        let mut calls = 0;
        loop {
            // Looked at before the reading: what was written until then has to be read.
            let last = !writing.load(Ordering::SeqCst);
            let (next, has_more, read) = read(&world, &ingest, &cursor, 7, &mut state).await;
            cursor = next;
            calls += 1;
            if last && !has_more && read == 0 {
                return (cursor, calls);
            }
        }
    };
    let writers = async {
        futures::future::join_all((0..6).map(&write)).await;
        writing.store(false, Ordering::SeqCst);
    };
    let ((cursor, calls), ()) =
        tokio::time::timeout(PATIENCE * 6, futures::future::join(follow, writers))
            .await
            .unwrap();
    assert!(calls > 10, "it has read while there was writing");
    let ledger = ledger(&world).await;
    assert_eq!(state, ledger);
    assert_eq!(ledger.len(), 7 * 30);

    // From the beginning it is the same, and from the end there is nothing.
    let mut again = State::new();
    let mut from = String::new();
    loop {
        let (next, has_more, _) = read(&world, &other, &from, 1000, &mut again).await;
        from = next;
        if !has_more {
            break;
        }
    }
    assert_eq!(again, ledger);
    let (_, has_more, nothing) = read(&world, &other, &cursor, 10, &mut again).await;
    assert!(!has_more && nothing == 0);
}

#[tokio::test]
async fn a_cursor_is_good_for_what_it_was_given_out_for() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let (one, two) = (
        world.tenant.new_id(&world.deps),
        world.tenant.new_id(&world.deps),
    );
    let mut client = world.documents(&ingest, HOST);
    let request = ListDocumentChangesRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: one.to_string(),
        ..ListDocumentChangesRequest::default()
    };
    let empty = client
        .list_document_changes(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(empty.documents.is_empty() && !empty.has_more);
    for connection in [one, two] {
        let request = batch(
            &world,
            connection,
            1,
            vec![document("a", "x", 1), document("b", "x", 1)],
        );
        world
            .documents(&ingest, WORKER)
            .record_documents(request)
            .await
            .unwrap();
    }
    let next = ListDocumentChangesRequest {
        after_cursor: empty.next_cursor,
        ..request.clone()
    };
    let found = client
        .list_document_changes(next)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.documents.len(), 2);
    assert!(
        found
            .documents
            .iter()
            .all(|document| document.connection_id == one.to_string())
    );
    for wrong in ["nonsense".to_owned(), found.next_cursor.clone()] {
        let request = ListDocumentChangesRequest {
            connection_id: two.to_string(),
            after_cursor: wrong,
            ..request.clone()
        };
        let error = CallError::from(
            client
                .list_document_changes(request)
                .await
                .expect_err("it is another's cursor"),
        );
        assert_eq!(error.fields[0].field, "after_cursor");
    }
    // Another process is asked with the same cursor.
    let other = world.start().await;
    let request = ListDocumentChangesRequest {
        after_cursor: found.next_cursor,
        ..request
    };
    let nothing = world
        .documents(&other, HOST)
        .list_document_changes(request)
        .await
        .unwrap()
        .into_inner();
    assert!(nothing.documents.is_empty());
}
