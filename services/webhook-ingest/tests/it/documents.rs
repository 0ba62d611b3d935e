//! The ledger: who brought in which document, how, and what became of it.

use std::sync::atomic::Ordering;

use common::rpc::CallError;
use common::{Code, Reason, TenantKey};
use contracts::ingest::v1::*;
use serde_json::json;
use uuid::Uuid;

use crate::world::{HOST, Instance, WORKER, World};

pub(crate) fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

pub(crate) fn document(external_id: &str, text: &str, updated: i64) -> Document {
    Document {
        external_id: external_id.to_owned(),
        title: format!("title of {external_id}"),
        content_json: json!({"text": text}).to_string().into_bytes(),
        source_updated_at: Some(at(updated)),
        ingested_by_user_id: "ann".to_owned(),
        ingested_by_user_email: "ann@acme.example".to_owned(),
        ..Document::default()
    }
}

pub(crate) fn gone(external_id: &str, updated: i64) -> Document {
    Document {
        deleted_at: Some(at(updated)),
        content_json: Vec::new(),
        ..document(external_id, "", updated)
    }
}

pub(crate) fn batch(
    world: &World,
    connection: Uuid,
    epoch: i64,
    documents: Vec<Document>,
) -> RecordDocumentsRequest {
    RecordDocumentsRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: connection.to_string(),
        external_account_id: "7".to_owned(),
        stream: "issues".to_owned(),
        job_id: "job-1".to_owned(),
        stream_epoch: epoch,
        documents,
    }
}

async fn record(
    world: &World,
    ingest: &Instance,
    request: RecordDocumentsRequest,
) -> Result<RecordDocumentsResponse, CallError> {
    Ok(world
        .documents(ingest, WORKER)
        .record_documents(request)
        .await?
        .into_inner())
}

fn counts(answer: &RecordDocumentsResponse) -> [i64; 4] {
    [
        answer.inserted,
        answer.updated,
        answer.unchanged,
        answer.deleted,
    ]
}

async fn list(world: &World, ingest: &Instance) -> Vec<Document> {
    let request = ListDocumentsRequest {
        tenant_id: world.tenant.to_string(),
        include_deleted: true,
        ..ListDocumentsRequest::default()
    };
    world
        .documents(ingest, HOST)
        .list_documents(request)
        .await
        .unwrap()
        .into_inner()
        .documents
}

#[tokio::test]
async fn req_teamsync_04_a_document_says_who_brought_it_in_and_how() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    let synced = batch(&world, connection, 1, vec![document("1", "synced", 100)]);
    record(&world, &ingest, synced).await.unwrap();
    let hooked = Document {
        ingestion_method: IngestionMethod::Webhook.into(),
        ..document("2", "hooked", 100)
    };
    record(&world, &ingest, batch(&world, connection, 1, vec![hooked]))
        .await
        .unwrap();
    let upload = |method: IngestionMethod, id: &str| RecordDocumentsRequest {
        tenant_id: world.tenant.to_string(),
        stream: "uploads".to_owned(),
        documents: vec![Document {
            ingestion_method: method.into(),
            ingested_by_user_id: "bob".to_owned(),
            ingested_by_user_email: "bob@acme.example".to_owned(),
            ..document(id, "uploaded", 100)
        }],
        ..RecordDocumentsRequest::default()
    };
    for (method, id) in [
        (IngestionMethod::ManualUpload, "3"),
        (IngestionMethod::Api, "4"),
    ] {
        let answer = world
            .documents(&ingest, HOST)
            .record_documents(upload(method, id))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(counts(&answer), [1, 0, 0, 0]);
    }
    let documents = list(&world, &ingest).await;
    let said: Vec<_> = documents
        .iter()
        .map(|document| {
            (
                document.external_id.as_str(),
                document.ingestion_method(),
                document.ingested_by_user_id.as_str(),
                document.ingested_by_user_email.as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("1", IngestionMethod::OauthSync, "ann", "ann@acme.example"),
            ("2", IngestionMethod::Webhook, "ann", "ann@acme.example"),
            (
                "3",
                IngestionMethod::ManualUpload,
                "bob",
                "bob@acme.example"
            ),
            ("4", IngestionMethod::Api, "bob", "bob@acme.example"),
        ]
    );
    assert_eq!(
        (
            documents[0].job_id.as_str(),
            documents[0].connection_id.clone()
        ),
        ("job-1", connection.to_string())
    );
    assert_eq!(
        (
            documents[2].job_id.as_str(),
            documents[2].connection_id.as_str()
        ),
        ("", "")
    );
    let wrong = upload(IngestionMethod::OauthSync, "5");
    let answer = world
        .documents(&ingest, HOST)
        .record_documents(wrong)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            answer.rejected[0].id.as_str(),
            answer.rejected[0].reason.as_str()
        ),
        ("5", "INVALID_FIELD")
    );

    let trail = world.count("SELECT count(*) FROM ingest.audit_events WHERE action = 'DocumentService/RecordDocuments'").await;
    assert_eq!(trail, 4, "what changed nothing is no event");
}

#[tokio::test]
async fn req_teamsync_04_who_brought_a_document_in_first_stays() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    record(
        &world,
        &ingest,
        batch(&world, connection, 1, vec![document("1", "x", 100)]),
    )
    .await
    .unwrap();
    let first = list(&world, &ingest).await.remove(0);
    let updated = Document {
        ingested_by_user_id: "eve".to_owned(),
        ..document("1", "changed", 200)
    };
    record(&world, &ingest, batch(&world, connection, 1, vec![updated]))
        .await
        .unwrap();
    let now = list(&world, &ingest).await.remove(0);
    assert_eq!((now.ingested_by_user_id.as_str(), now.revision), ("ann", 2));
    assert_eq!(now.first_ingested_at, first.first_ingested_at);
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing_and_older_never_replaces_newer() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    let first = vec![
        document("a", "one", 100),
        document("b", "one", 100),
        gone("c", 100),
    ];
    let answer = record(&world, &ingest, batch(&world, connection, 1, first.clone()))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [2, 0, 0, 1]);
    let answer = record(&world, &ingest, batch(&world, connection, 1, first))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [0, 0, 3, 0]);
    // The same in another order of keys, with a later time.
    let mut same = document("a", "", 300);
    same.content_json = br#"{ "text" : "one" }"#.to_vec();
    let answer = record(&world, &ingest, batch(&world, connection, 1, vec![same]))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [0, 0, 1, 0]);
    // Between the two times: the later one is known to say "one".
    let late = vec![document("a", "late", 200), document("c", "late", 50)];
    let answer = record(&world, &ingest, batch(&world, connection, 1, late))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [0, 0, 2, 0]);
    let next = vec![
        document("a", "two", 300),
        gone("b", 200),
        document("c", "back", 200),
    ];
    let answer = record(&world, &ingest, batch(&world, connection, 1, next))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [0, 2, 0, 1]);
    let now: Vec<_> = list(&world, &ingest)
        .await
        .into_iter()
        .map(|document| {
            (
                document.external_id,
                String::from_utf8(document.content_json).unwrap(),
                document.deleted_at.is_some(),
                document.revision,
            )
        })
        .collect();
    let mut expected = vec![
        ("a".to_owned(), r#"{"text":"two"}"#.to_owned(), false, 2),
        ("b".to_owned(), r#"{"text":"one"}"#.to_owned(), true, 2),
        ("c".to_owned(), r#"{"text":"back"}"#.to_owned(), false, 2),
    ];
    let mut now = now;
    now.sort();
    expected.sort();
    assert_eq!(now, expected);

    // One document several times in a batch: each counts, the last one stays.
    let several = vec![
        document("d", "1", 1),
        document("d", "2", 2),
        document("d", "1", 1),
        gone("d", 3),
    ];
    let answer = record(&world, &ingest, batch(&world, connection, 1, several))
        .await
        .unwrap();
    assert_eq!(counts(&answer), [1, 1, 1, 1]);
    let last = list(&world, &ingest).await.pop().unwrap();
    assert_eq!(
        (
            last.external_id.as_str(),
            last.revision,
            last.deleted_at.is_some()
        ),
        ("d", 3, true)
    );
}

#[tokio::test]
async fn whoever_lost_the_streams_lease_writes_nothing() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    record(
        &world,
        &ingest,
        batch(&world, connection, 5, vec![document("a", "new", 100)]),
    )
    .await
    .unwrap();
    let error = record(
        &world,
        &ingest,
        batch(&world, connection, 4, vec![document("a", "old", 200)]),
    )
    .await
    .expect_err("it is another's");
    assert_eq!(
        (error.code, error.reason),
        (Code::Aborted, Some(Reason::LeaseLost))
    );
    let pass = FinishFullPassRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: connection.to_string(),
        external_account_id: "7".to_owned(),
        stream: "issues".to_owned(),
        job_id: "job-9".to_owned(),
        started_at: Some(at(1)),
        stream_epoch: 4,
    };
    let refused = world
        .documents(&ingest, WORKER)
        .finish_full_pass(pass)
        .await
        .expect_err("it is another's");
    assert_eq!(CallError::from(refused).reason, Some(Reason::LeaseLost));
    // Another account's stream has a lease of its own.
    let other = RecordDocumentsRequest {
        external_account_id: "8".to_owned(),
        ..batch(&world, connection, 1, vec![document("a", "x", 1)])
    };
    record(&world, &ingest, other).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&list(&world, &ingest).await[0].content_json),
        r#"{"text":"new"}"#
    );
}

#[tokio::test]
async fn req_teamsync_04_a_users_daily_quota_holds_over_racing_batches() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let other = world.start().await;
    world.others.quota.store(25, Ordering::SeqCst);
    let connections = [(); 4].map(|()| world.tenant.new_id(&world.deps));
    let batches = connections.iter().enumerate().map(|(number, connection)| {
        let documents = (0..10)
            .map(|id| document(&id.to_string(), "x", 100))
            .collect();
        let at = if number % 2 == 0 { &ingest } else { &other };
        record(&world, at, batch(&world, *connection, 1, documents))
    });
    let answers: Vec<_> = futures::future::join_all(batches)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        answers.iter().map(|answer| answer.inserted).sum::<i64>(),
        25
    );
    let rejected: Vec<_> = answers.iter().flat_map(|answer| &answer.rejected).collect();
    assert_eq!(rejected.len(), 15);
    assert!(
        rejected.iter().all(|error| error.reason == "QUOTA_EXCEEDED"
            && error.code == Code::ResourceExhausted as i32)
    );
    // Updates, deletions, and other users are not held up.
    let whole = answers
        .iter()
        .position(|answer| answer.inserted == 10)
        .unwrap();
    let taken = connections[whole];
    let answer = record(
        &world,
        &ingest,
        batch(
            &world,
            taken,
            1,
            vec![document("0", "changed", 200), gone("1", 200)],
        ),
    )
    .await
    .unwrap();
    assert_eq!(answer.updated + answer.deleted, 2);
    let theirs = Document {
        ingested_by_user_id: "bob".to_owned(),
        ..document("bobs", "x", 100)
    };
    assert_eq!(
        record(&world, &ingest, batch(&world, taken, 1, vec![theirs]))
            .await
            .unwrap()
            .inserted,
        1
    );

    let request = GetUsageRequest {
        tenant_id: world.tenant.to_string(),
        user_id: "ann".to_owned(),
        since: None,
    };
    let usage = world
        .documents(&ingest, HOST)
        .get_usage(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((usage.documents, usage.quota), (25, 25));
}

#[tokio::test]
async fn a_full_pass_ends_what_it_has_not_seen() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    let all = ["a", "b", "c", "d"]
        .map(|id| document(id, "x", 100))
        .to_vec();
    record(&world, &ingest, batch(&world, connection, 1, all))
        .await
        .unwrap();
    let started_at = Some(prost_types::Timestamp::from(std::time::SystemTime::from(
        world.deps.now(),
    )));
    let pass = |documents| RecordDocumentsRequest {
        job_id: "pass".to_owned(),
        ..batch(&world, connection, 2, documents)
    };
    // Seen and the same; seen and changed; brought in by another job since the pass began; and never seen.
    record(
        &world,
        &ingest,
        pass(vec![document("a", "x", 100), document("b", "y", 200)]),
    )
    .await
    .unwrap();
    let beside = RecordDocumentsRequest {
        job_id: "hook".to_owned(),
        ..batch(&world, connection, 2, vec![document("c", "y", 200)])
    };
    record(&world, &ingest, beside).await.unwrap();
    let finish = FinishFullPassRequest {
        tenant_id: world.tenant.to_string(),
        connection_id: connection.to_string(),
        external_account_id: "7".to_owned(),
        stream: "issues".to_owned(),
        job_id: "pass".to_owned(),
        started_at,
        stream_epoch: 2,
    };
    let mut client = world.documents(&ingest, WORKER);
    assert_eq!(
        client
            .finish_full_pass(finish.clone())
            .await
            .unwrap()
            .into_inner()
            .deleted,
        1
    );
    assert_eq!(
        client
            .finish_full_pass(finish)
            .await
            .unwrap()
            .into_inner()
            .deleted,
        0
    );
    let mut left: Vec<_> = list(&world, &ingest)
        .await
        .into_iter()
        .map(|document| (document.external_id, document.deleted_at.is_some()))
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            ("a".to_owned(), false),
            ("b".to_owned(), false),
            ("c".to_owned(), false),
            ("d".to_owned(), true)
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_taken_is_named_and_the_rest_is_taken() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    let bad = |id: &str, content: &[u8]| Document {
        content_json: content.to_vec(),
        ..document(id, "", 1)
    };
    let big = format!("\"{}\"", "x".repeat(256 * 1024));
    let documents = vec![
        bad("not-json", b"{"),
        bad("too-big", big.as_bytes()),
        document("good", "x", 1),
        Document {
            source_updated_at: Some(at(i64::MAX)),
            ..document("no-time", "x", 1)
        },
    ];
    let answer = record(&world, &ingest, batch(&world, connection, 1, documents))
        .await
        .unwrap();
    assert_eq!(answer.inserted, 1);
    assert_eq!(
        answer
            .rejected
            .iter()
            .map(|error| error.id.as_str())
            .collect::<Vec<_>>(),
        ["not-json", "too-big", "no-time"]
    );
    assert!(
        answer
            .rejected
            .iter()
            .all(|error| error.reason == "INVALID_FIELD")
    );

    let many = (0..1001)
        .map(|id| document(&id.to_string(), "x", 1))
        .collect();
    let error = record(&world, &ingest, batch(&world, connection, 1, many))
        .await
        .expect_err("they are too many");
    assert_eq!(error.fields[0].field, "documents");
    let long = (0..20)
        .map(|id| bad(&id.to_string(), &big.as_bytes()[..200_000]))
        .collect();
    let error = record(&world, &ingest, batch(&world, connection, 1, long))
        .await
        .expect_err("it is too much");
    assert!(error.message.contains("3 MiB"), "{}", error.message);
    let thousand = (0..1000)
        .map(|id| document(&id.to_string(), "x", 1))
        .collect();
    assert_eq!(
        record(&world, &ingest, batch(&world, connection, 1, thousand))
            .await
            .unwrap()
            .inserted,
        1000
    );

    // Pages are cut by what a client takes, too.
    let large = |id: usize| {
        bad(
            &format!("large-{id}"),
            format!("\"{}\"", "x".repeat(200_000)).as_bytes(),
        )
    };
    for part in 0..3 {
        let documents = (0..12).map(|id| large(part * 12 + id)).collect();
        assert_eq!(
            record(&world, &ingest, batch(&world, connection, 1, documents))
                .await
                .unwrap()
                .inserted,
            12
        );
    }
    let mut request = ListDocumentsRequest {
        tenant_id: world.tenant.to_string(),
        page_size: 1000,
        ..ListDocumentsRequest::default()
    };
    let mut seen = 0;
    loop {
        let page = world
            .documents(&ingest, HOST)
            .list_documents(request.clone())
            .await
            .unwrap()
            .into_inner();
        seen += page.documents.len();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, 1037);
}

#[tokio::test]
async fn req_teamsync_09_users_of_a_company_share_documents_and_another_company_sees_none() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let connection = world.tenant.new_id(&world.deps);
    record(
        &world,
        &ingest,
        batch(&world, connection, 1, vec![document("a", "x", 100)]),
    )
    .await
    .unwrap();
    let document_id = list(&world, &ingest).await.remove(0).document_id;
    let other = TenantKey::new_tenant(&world.deps).to_string();
    let mut client = world.documents(&ingest, HOST);
    let got = client
        .get_document(GetDocumentRequest {
            tenant_id: other.clone(),
            document_id: document_id.clone(),
        })
        .await;
    assert_eq!(
        CallError::from(got.expect_err("it is another's")).code,
        Code::NotFound
    );
    let listed = client
        .list_documents(ListDocumentsRequest {
            tenant_id: other.clone(),
            ..ListDocumentsRequest::default()
        })
        .await
        .unwrap();
    assert!(listed.into_inner().documents.is_empty());
    let changes = client
        .list_document_changes(ListDocumentChangesRequest {
            tenant_id: other.clone(),
            ..ListDocumentChangesRequest::default()
        })
        .await
        .unwrap();
    assert!(changes.into_inner().documents.is_empty());
    // Nor can it write into the other's stream: it is a stream of its own, if it has the bucket at all.
    let request = RecordDocumentsRequest {
        tenant_id: other,
        ..batch(&world, connection, 9, vec![document("a", "forged", 900)])
    };
    let _ = client.record_documents(request).await;
    let request = GetDocumentRequest {
        tenant_id: world.tenant.to_string(),
        document_id,
    };
    let own = client
        .get_document(request)
        .await
        .unwrap()
        .into_inner()
        .document
        .unwrap();
    assert_eq!(own.revision, 1);
    assert_eq!(
        record(
            &world,
            &ingest,
            batch(&world, connection, 1, vec![document("a", "x", 100)])
        )
        .await
        .unwrap()
        .unchanged,
        1
    );
}

#[tokio::test]
async fn req_teamsync_04_what_a_person_brings_in_is_that_persons_whatever_it_says() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let mut client = world.documents(&ingest, HOST);
    let upload = RecordDocumentsRequest {
        tenant_id: world.tenant.to_string(),
        stream: "uploads".to_owned(),
        documents: vec![Document {
            ingestion_method: IngestionMethod::ManualUpload.into(),
            ..document("1", "x", 1)
        }],
        ..RecordDocumentsRequest::default()
    };
    client
        .record_documents(world.on_behalf("eve", "editor", upload.clone()))
        .await
        .unwrap();
    let document = list(&world, &ingest).await.remove(0);
    let by = (
        document.ingested_by_user_id.as_str(),
        document.ingested_by_user_email.as_str(),
    );
    assert_eq!(
        by,
        ("eve", "eve@directory.example"),
        "not ann, as the document says"
    );

    let usage = |user: &str| GetUsageRequest {
        tenant_id: world.tenant.to_string(),
        user_id: user.to_owned(),
        since: None,
    };
    let own = client
        .get_usage(world.on_behalf("eve", "editor", usage("eve")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((own.documents, own.quota), (1, 0));
    let refused = client
        .get_usage(world.on_behalf("ann", "editor", usage("eve")))
        .await
        .expect_err("it is another's");
    assert_eq!(CallError::from(refused).code, Code::NotFound);
    // All users of the company read it.
    let request = GetDocumentRequest {
        tenant_id: world.tenant.to_string(),
        document_id: document.document_id,
    };
    client
        .get_document(world.on_behalf("ann", "editor", request))
        .await
        .unwrap();

    let mut sources = world.sources(&ingest, HOST);
    let create = CreateSourceRequest {
        source: Some(world.source()),
        secret: crate::world::SECRET.to_owned(),
        ..CreateSourceRequest::default()
    };
    let refused = sources
        .create_source(world.on_behalf("eve", "editor", create.clone()))
        .await
        .expect_err("eve administers nothing");
    assert_eq!(CallError::from(refused).code, Code::PermissionDenied);
    sources
        .create_source(world.on_behalf("ann", "admin", create))
        .await
        .unwrap();
}
