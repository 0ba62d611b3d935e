//! No secret leaves before its record is durable.

use std::collections::HashSet;

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::vault::v1::*;

use crate::world::{BROKER, INGEST, World, token_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_recorded_with_who_and_what_for() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    for _ in 0..3 {
        world.get(&vault, grant).await.unwrap();
    }
    let request = ListAccessRecordsRequest {
        tenant_id: world.tenant.to_string(),
        page_size: 2,
        ..ListAccessRecordsRequest::default()
    };
    let first = world
        .admin(&vault)
        .list_access_records(request.clone())
        .await
        .unwrap()
        .into_inner();
    let rest = ListAccessRecordsRequest {
        page_token: first.next_page_token.clone(),
        ..request
    };
    let rest = world
        .admin(&vault)
        .list_access_records(rest)
        .await
        .unwrap()
        .into_inner();
    let records: Vec<_> = first
        .access_records
        .into_iter()
        .chain(rest.access_records)
        .collect();
    assert_eq!(records.len(), 3);
    assert_eq!(
        records
            .iter()
            .map(|record| (record.chain_id.clone(), record.sequence))
            .collect::<HashSet<_>>()
            .len(),
        3
    );
    for record in records {
        assert_eq!(record.grant_id, grant.to_string());
        assert_eq!(
            (
                record.caller.as_str(),
                record.action.as_str(),
                record.purpose.as_str()
            ),
            (BROKER, "GetCredential", "test")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_record_there_is_no_secret() {
    let logs = testkit::logs::capture();
    logs.expect("access records cannot be written");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let admin = world.database.admin().await;
    admin
        .batch_execute("REVOKE INSERT ON vault.access_records FROM hawser_vault_system")
        .await
        .unwrap();
    let mut client = world.vault(&vault);
    let error = CallError::from(
        client
            .get_credential(world.get_request(grant))
            .await
            .expect_err("nothing may be handed out"),
    );
    assert_eq!(error.code, Code::Unavailable);
    let request = BatchGetCredentialsRequest {
        tenant_id: world.tenant.to_string(),
        grant_ids: vec![grant.to_string()],
        ..BatchGetCredentialsRequest::default()
    };
    let batch = client
        .batch_get_credentials(request)
        .await
        .unwrap()
        .into_inner();
    let Some(credential_result::Result::Error(error)) = &batch.results[0].result else {
        panic!("a secret has left")
    };
    assert_eq!(error.code, Code::Unavailable as i32);
    let request = GetServiceKeyRequest {
        tenant_id: world.tenant.to_string(),
        key_version: 0,
    };
    let refused = world
        .service_keys(&vault, INGEST)
        .get_service_key(request)
        .await;
    assert_eq!(
        CallError::from(refused.expect_err("nothing may be handed out")).code,
        Code::Unavailable
    );

    admin
        .batch_execute("GRANT INSERT ON vault.access_records TO hawser_vault_system")
        .await
        .unwrap();
    world.get(&vault, grant).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_grant_in_its_place() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let (one, other, missing) = (
        world.connect(&vault).await,
        world.connect(&vault).await,
        world.tenant.new_id(&world.deps),
    );
    let request = BatchGetCredentialsRequest {
        tenant_id: world.tenant.to_string(),
        grant_ids: vec![one.to_string(), missing.to_string(), other.to_string()],
        ..BatchGetCredentialsRequest::default()
    };
    let results = world
        .vault(&vault)
        .batch_get_credentials(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let ids: Vec<_> = results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            credential_result::Result::Credential(credential) => (credential.grant_id, 0),
            credential_result::Result::Error(error) => (error.id, error.code),
        })
        .collect();
    assert_eq!(
        ids,
        [
            (one.to_string(), 0),
            (missing.to_string(), Code::NotFound as i32),
            (other.to_string(), 0)
        ]
    );
    assert_eq!(world.access_records().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_records_form_one_chain_that_nobody_may_change() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let reads = (0..50).map(|_| world.get(&vault, grant));
    for read in futures::future::join_all(reads).await {
        read.unwrap();
    }
    let admin = world.database.admin().await;
    let row = admin.query_one("SELECT count(DISTINCT chain_id), min(sequence), max(sequence), count(*) FROM vault.access_records", &[]);
    let row = row.await.unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2),
            row.get::<_, i64>(3)
        ),
        (1, 1, 50, 50)
    );
    let row = admin.query_one("SELECT count(DISTINCT mac), bool_and(length(mac) = 32), (SELECT count(*) FROM vault.access_chains) FROM vault.access_records", &[]);
    let row = row.await.unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(0),
            row.get::<_, bool>(1),
            row.get::<_, i64>(2)
        ),
        (50, true, 1)
    );
    let slot: i16 = admin
        .query_one("SELECT DISTINCT slot FROM vault.access_records", &[])
        .await
        .unwrap()
        .get(0);
    for statement in [
        "UPDATE vault.access_records SET purpose = ''",
        "DELETE FROM vault.access_records",
        &format!("UPDATE vault.access_records_{slot:03} SET purpose = ''"),
        &format!("DELETE FROM vault.access_records_{slot:03}"),
        &format!("SELECT FROM vault.access_records_{slot:03}"),
        "DELETE FROM vault.access_chains",
        "DELETE FROM vault.access_retention",
    ] {
        let refused = admin
            .batch_execute(&format!(
                "BEGIN; SET LOCAL ROLE hawser_vault_system; {statement}"
            ))
            .await;
        assert_eq!(
            refused
                .expect_err("not even the vault")
                .code()
                .unwrap()
                .code(),
            "42501"
        );
        admin.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_keys_are_the_callers_own_and_stay_the_same() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let key = async |uri: &str, tenant: TenantKey| {
        let request = GetServiceKeyRequest {
            tenant_id: tenant.to_string(),
            key_version: 0,
        };
        world
            .service_keys(&vault, uri)
            .get_service_key(request)
            .await
            .unwrap()
            .into_inner()
    };
    let ingest = key(INGEST, world.tenant).await;
    assert_eq!(
        (
            ingest.key.len(),
            ingest.key_version,
            ingest.cache_for.unwrap().seconds
        ),
        (32, 1, 300)
    );
    assert_eq!(key(INGEST, world.tenant).await.key, ingest.key);
    assert_ne!(key(BROKER, world.tenant).await.key, ingest.key);
    assert_ne!(
        key(INGEST, TenantKey::new_tenant(&world.deps)).await.key,
        ingest.key
    );
    let other = world.start("b").await;
    let request = GetServiceKeyRequest {
        tenant_id: world.tenant.to_string(),
        key_version: 1,
    };
    let same = world
        .service_keys(&other, INGEST)
        .get_service_key(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(same.key, ingest.key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_the_database_shows_a_secret() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    let admin = world.database.admin().await;
    for table in [
        "grants",
        "oauth_clients",
        "access_records",
        "outbox",
        "event_log",
        "audit_events",
    ] {
        let sql = format!(
            "SELECT count(*) FROM vault.{table} t WHERE t::text LIKE '%' || $1 || '%' OR t::text LIKE '%' || encode($1::bytea, 'hex') || '%'"
        );
        for secret in [token.as_str(), "s3cret & more"] {
            let found: i64 = admin
                .query_one(
                    &sql.replace("$1::bytea", "convert_to($1, 'UTF8')"),
                    &[&secret],
                )
                .await
                .unwrap()
                .get(0);
            assert_eq!(found, 0, "{table} shows a secret");
        }
    }
}
