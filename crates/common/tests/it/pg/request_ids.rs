//! Calls that are repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::pg::request_ids::{self, Call};
use common::pg::{Database, Error, Scope};
use common::{Code, Problem, Reason, TenantKey};
use contracts::directory::v1::{CreateApiKeyRequest, CreateApiKeyResponse};

use super::{add, count, tenant, trial};

#[derive(Debug, thiserror::Error)]
enum DomainError {
    #[error("the store failed")]
    Store(#[from] Error),
    #[error("refused")]
    Refused(#[from] Problem),
}

fn body(request_id: &str) -> CreateApiKeyRequest {
    CreateApiKeyRequest {
        request_id: request_id.to_owned(),
        api_key: None,
    }
}

/// Adds a note and answers with a number of its own.
async fn call(
    db: &Database,
    tenant: TenantKey,
    request_id: &str,
    body: CreateApiKeyRequest,
    worked: Arc<AtomicUsize>,
) -> Result<String, DomainError> {
    let request_id = request_id.to_owned();
    db.run_tx("call", Scope::Tenant(tenant), async move |tx| {
        let call = Call {
            tenant,
            method: "ApiKeyService/CreateApiKey",
            request_id: &request_id,
            body: &body,
        };
        request_ids::run(tx, call, async || {
            let number = worked.fetch_add(1, Ordering::SeqCst);
            add(tx, tx.deps(), tenant, &format!("note {number}")).await?;
            tx.query("-- trial.pause\nSELECT pg_sleep(0.05)", &[])
                .await?;
            Ok::<_, DomainError>(CreateApiKeyResponse {
                secret: format!("answer {number}"),
                ..CreateApiKeyResponse::default()
            })
        })
        .await
        .map(|answer| answer.secret)
    })
    .await
}

#[tokio::test]
async fn of_callers_at_once_one_works_and_all_have_its_answer() {
    let (test, db) = trial().await;
    let ours = tenant();
    let worked = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (db, worked) = (db.clone(), Arc::clone(&worked));
            tokio::spawn(async move { call(&db, ours, "r1", body("r1"), worked).await.unwrap() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "answer 0");
    }
    assert_eq!(worked.load(Ordering::SeqCst), 1);
    assert_eq!(count(&test, "trial.notes").await, 1);

    // Another id, another tenant, no id: other calls.
    assert_eq!(
        call(&db, ours, "r2", body("r2"), Arc::clone(&worked))
            .await
            .unwrap(),
        "answer 1"
    );
    assert_eq!(
        call(&db, tenant(), "r1", body("r1"), Arc::clone(&worked))
            .await
            .unwrap(),
        "answer 2"
    );
    assert_eq!(
        call(&db, ours, "", body(""), Arc::clone(&worked))
            .await
            .unwrap(),
        "answer 3"
    );
    assert_eq!(
        call(&db, ours, "", body(""), worked).await.unwrap(),
        "answer 4"
    );
}

#[tokio::test]
async fn another_body_is_refused() {
    let (_test, db) = trial().await;
    let ours = tenant();
    let worked = Arc::new(AtomicUsize::new(0));
    call(&db, ours, "r1", body("r1"), Arc::clone(&worked))
        .await
        .unwrap();
    match call(&db, ours, "r1", body("other"), Arc::clone(&worked)).await {
        Err(DomainError::Refused(problem)) => {
            assert_eq!(
                (problem.code, problem.reason),
                (Code::AlreadyExists, Some(Reason::RequestIdReused))
            );
        }
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(worked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_failed_can_be_made_again() {
    let (_test, db) = trial().await;
    let ours = tenant();
    let attempt = async |fail: bool| {
        db.run_tx("call", Scope::Tenant(ours), async move |tx| {
            let body = body("r1");
            let call = Call {
                tenant: ours,
                method: "m",
                request_id: "r1",
                body: &body,
            };
            request_ids::run(tx, call, async || {
                if fail {
                    Err(DomainError::Refused(Problem::not_found("it")))
                } else {
                    Ok(CreateApiKeyResponse::default())
                }
            })
            .await
        })
        .await
    };
    assert!(attempt(true).await.is_err());
    attempt(false).await.unwrap();
}

#[tokio::test]
async fn a_secret_in_an_answer_is_not_stored() {
    let (test, db) = trial().await;
    let ours = tenant();
    let attempt = async || {
        db.run_tx("call", Scope::Tenant(ours), async move |tx| {
            let body = body("r1");
            let call = Call {
                tenant: ours,
                method: "m",
                request_id: "r1",
                body: &body,
            };
            let work = async || {
                Ok::<_, DomainError>(CreateApiKeyResponse {
                    secret: "canary".to_owned(),
                    ..CreateApiKeyResponse::default()
                })
            };
            request_ids::run_without(tx, call, work, |answer| CreateApiKeyResponse {
                secret: String::new(),
                ..answer
            })
            .await
        })
        .await
        .unwrap()
        .secret
    };
    assert_eq!(attempt().await, "canary");
    assert_eq!(attempt().await, "");
    let sql =
        "SELECT count(*) FROM trial.request_ids WHERE position('canary'::bytea IN answer) > 0";
    assert_eq!(
        test.admin()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        0
    );
}
