//! Access records as operators see them: listed, and verified.

use std::collections::BTreeSet;

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::vault::v1::*;
use prost_types::Timestamp;
use token_vault::{Config, KeysConfig, SCHEMA};
use uuid::Uuid;

use crate::world::{BROKER, INGEST, Instance, World};

impl World {
    /// Something that is recorded, quickly.
    async fn service_key(&self, vault: &Instance, tenant: TenantKey) {
        let request = GetServiceKeyRequest {
            tenant_id: tenant.to_string(),
            key_version: 0,
        };
        let mut client = self.service_keys(vault, INGEST);
        client.get_service_key(request).await.unwrap();
    }

    async fn api_key(&self, vault: &Instance) -> Uuid {
        let grant = self.tenant.new_id(&self.deps);
        let request = PutCredentialRequest {
            tenant_id: self.tenant.to_string(),
            grant_id: grant.to_string(),
            credential: Some(put_credential_request::Credential::ApiKey(ApiKey {
                value: "s3cret".into(),
            })),
            ..PutCredentialRequest::default()
        };
        self.vault(vault).put_credential(request).await.unwrap();
        grant
    }

    async fn verify(
        &self,
        vault: &Instance,
        chain_id: &str,
        expected_heads: Vec<ChainHead>,
    ) -> Result<VerifyAccessRecordsResponse, CallError> {
        let request = VerifyAccessRecordsRequest {
            chain_id: chain_id.to_owned(),
            expected_heads,
        };
        let mut client = self.admin(vault);
        Ok(client.verify_access_records(request).await?.into_inner())
    }

    async fn list(&self, vault: &Instance, request: ListAccessRecordsRequest) -> Vec<AccessRecord> {
        let mut client = self.admin(vault);
        let answer = client.list_access_records(request).await.unwrap();
        answer.into_inner().access_records
    }

    fn all(&self) -> ListAccessRecordsRequest {
        ListAccessRecordsRequest {
            tenant_id: self.tenant.to_string(),
            page_size: 1000,
            ..ListAccessRecordsRequest::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_of_several_vaults_are_verified_beside_noted_heads() {
    let _logs = testkit::logs::capture();
    let (world, one) = World::new().await;
    let other = world.start("b").await;
    for _ in 0..3 {
        world.service_key(&one, world.tenant).await;
        world.service_key(&other, world.tenant).await;
    }
    let noted = world.verify(&one, "", vec![]).await.unwrap();
    assert_eq!((noted.records_checked, noted.heads.len()), (6, 2));
    assert_eq!(noted.broken_chains, []);
    world.service_key(&one, world.tenant).await;
    let verified = world.verify(&other, "", noted.heads.clone()).await.unwrap();
    assert_eq!((verified.records_checked, verified.heads.len()), (7, 2));
    assert_eq!(verified.broken_chains, []);

    let chain = &noted.heads[0];
    let alone = world
        .verify(&one, &chain.chain_id, vec![chain.clone()])
        .await
        .unwrap();
    assert_eq!(alone.heads.len(), 1);
    assert!((3..=4).contains(&alone.records_checked));

    let admin = world.database.admin().await;
    let sql =
        "UPDATE vault.access_records SET user_id = 'eve' WHERE sequence = 2 AND chain_id = $1";
    let id: Uuid = chain.chain_id.parse().unwrap();
    admin.execute(sql, &[&id]).await.unwrap();
    let broken = world.verify(&one, "", noted.heads.clone()).await.unwrap();
    let expected = BrokenChain {
        chain_id: chain.chain_id.clone(),
        first_broken_sequence: 2,
    };
    assert_eq!(broken.broken_chains, [expected]);
    assert_eq!(broken.heads.len(), 1, "a broken chain has no head");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_proves_nothing_is_refused() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    world.service_key(&vault, world.tenant).await;
    let head = world
        .verify(&vault, "", vec![])
        .await
        .unwrap()
        .heads
        .remove(0);
    let stranger = TenantKey::new_tenant(&world.deps).to_string();
    let error = world.verify(&vault, &stranger, vec![]).await;
    assert_eq!(error.expect_err("there is none").code, Code::NotFound);
    let wrong = [
        ChainHead {
            chain_id: "x".into(),
            ..head.clone()
        },
        ChainHead {
            sequence: 0,
            ..head.clone()
        },
        ChainHead {
            mac: vec![1; 31],
            ..head.clone()
        },
    ];
    for wrong in wrong {
        let error = world.verify(&vault, "", vec![wrong]).await;
        assert_eq!(
            error.expect_err("it is no head").code,
            Code::InvalidArgument
        );
    }
    let error = world.verify(&vault, &stranger, vec![head.clone()]).await;
    assert_eq!(
        error.expect_err("another chain's").code,
        Code::InvalidArgument
    );

    // A head that cannot be right says that the chain is not, or never was.
    let altered = ChainHead {
        mac: vec![1; 32],
        ..head.clone()
    };
    let verified = world.verify(&vault, "", vec![altered]).await.unwrap();
    assert_eq!(verified.broken_chains[0].first_broken_sequence, 1);
    let missing = ChainHead {
        chain_id: stranger.clone(),
        ..head
    };
    let verified = world
        .verify(&vault, &stranger, vec![missing])
        .await
        .unwrap();
    assert_eq!(verified.broken_chains[0].chain_id, stranger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_outlive_the_key_encryption_key_that_they_began_under() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let file = |name: &str, digits: &str| {
        let file = world.folder().join(name);
        std::fs::write(&file, digits.repeat(16)).unwrap();
        file
    };
    let (old, new) = (file("old", "8f3b"), file("new", "17c0"));
    let config = |name: &str, keys: KeysConfig| Config {
        keys,
        ..world.config(name, world.database.config(SCHEMA.name))
    };
    let keys = KeysConfig {
        file: Some(old.clone()),
        ..KeysConfig::default()
    };
    let vault = world
        .start_with(config("a", keys), world.deps.clone())
        .await;
    world.service_key(&vault, world.tenant).await;
    drop(vault);
    let keys = KeysConfig {
        file: Some(new),
        older_files: vec![old],
        ..KeysConfig::default()
    };
    let vault = world
        .start_with(config("a", keys), world.deps.clone())
        .await;
    world.service_key(&vault, world.tenant).await;
    let verified = world.verify(&vault, "", vec![]).await.unwrap();
    assert_eq!((verified.records_checked, verified.heads.len()), (2, 2));
    assert_eq!(verified.broken_chains, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_a_new_chain_begins_and_both_are_whole() {
    let logs = testkit::logs::capture();
    logs.expect("access records cannot be written");
    let (world, vault) = World::new().await;
    world.service_key(&vault, world.tenant).await;
    let admin = world.database.admin().await;
    let forbid = "REVOKE INSERT ON vault.access_records FROM hawser_vault_system";
    admin.batch_execute(forbid).await.unwrap();
    let request = GetServiceKeyRequest {
        tenant_id: world.tenant.to_string(),
        key_version: 0,
    };
    let mut client = world.service_keys(&vault, INGEST);
    client
        .get_service_key(request)
        .await
        .expect_err("nothing may be handed out");
    let allow = "GRANT INSERT ON vault.access_records TO hawser_vault_system";
    admin.batch_execute(allow).await.unwrap();
    world.service_key(&vault, world.tenant).await;
    let verified = world.verify(&vault, "", vec![]).await.unwrap();
    assert_eq!((verified.records_checked, verified.heads.len()), (2, 2));
    assert_eq!(verified.broken_chains, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_by_grant_caller_and_time() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let (one, other) = (world.api_key(&vault).await, world.api_key(&vault).await);
    let stranger = TenantKey::new_tenant(&world.deps);
    for _ in 0..3 {
        world.get(&vault, one).await.unwrap();
        world.get(&vault, other).await.unwrap();
        world.service_key(&vault, world.tenant).await;
        world.service_key(&vault, stranger).await;
    }
    let all = world.list(&vault, world.all()).await;
    assert_eq!(all.len(), 9);
    assert!(
        all.windows(2)
            .all(|pair| pair[0].sequence > pair[1].sequence),
        "the newest first"
    );

    let of_grant = ListAccessRecordsRequest {
        grant_id: one.to_string(),
        ..world.all()
    };
    let found = world.list(&vault, of_grant.clone()).await;
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .all(|record| record.grant_id == one.to_string() && record.caller == BROKER)
    );
    let of_caller = ListAccessRecordsRequest {
        caller: INGEST.into(),
        ..world.all()
    };
    let found = world.list(&vault, of_caller).await;
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .all(|record| record.resource == "service-key/ingest" && record.grant_id.is_empty())
    );
    let neither = ListAccessRecordsRequest {
        caller: INGEST.into(),
        ..of_grant
    };
    assert_eq!(world.list(&vault, neither).await, []);

    // Both ends are open.
    let (newest, oldest) = (all[0].occurred_at, all[8].occurred_at);
    let between = |occurred_after: Option<Timestamp>, occurred_before: Option<Timestamp>| {
        let request = ListAccessRecordsRequest {
            occurred_after,
            occurred_before,
            ..world.all()
        };
        world.list(&vault, request)
    };
    assert_eq!(between(oldest, newest).await, all[1..8]);
    assert_eq!(between(newest, None).await, []);
    assert_eq!(between(None, oldest).await, []);
    let long_ago = Some(Timestamp {
        seconds: -1_000_000_000_000_000,
        nanos: 0,
    });
    let request = ListAccessRecordsRequest {
        occurred_after: long_ago,
        ..world.all()
    };
    let error = world.admin(&vault).list_access_records(request).await;
    let error = CallError::from(error.expect_err("there was no calendar"));
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_as_they_are_while_records_come() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    for _ in 0..10 {
        world.service_key(&vault, world.tenant).await;
    }
    let all = world.list(&vault, world.all()).await;
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAccessRecordsRequest {
            page_size: 3,
            page_token,
            ..world.all()
        };
        let page = world.admin(&vault).list_access_records(request).await;
        let page = page.unwrap().into_inner();
        found.extend(page.access_records);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        world.service_key(&vault, world.tenant).await;
    }
    assert_eq!(found, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_recorded_in_one_flush_and_says_what_for() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let mut grants = vec![world.connect(&vault).await];
    for _ in 0..3 {
        grants.push(world.api_key(&vault).await);
    }
    // The same three keys many times over: more than a flush of single calls would hold.
    let grant_ids = grants.iter().cycle().take(900).map(Uuid::to_string);
    let request = BatchGetCredentialsRequest {
        tenant_id: world.tenant.to_string(),
        grant_ids: grant_ids.collect(),
        purpose: "nightly sync".into(),
        ..BatchGetCredentialsRequest::default()
    };
    let answer = world
        .vault(&vault)
        .batch_get_credentials(request.clone())
        .await;
    let handed = answer
        .unwrap()
        .into_inner()
        .results
        .into_iter()
        .filter(|result| {
            matches!(
                result.result,
                Some(credential_result::Result::Credential(_))
            )
        });
    assert_eq!(handed.count(), 900);
    let admin = world.database.admin().await;
    let sql = "SELECT count(*), count(DISTINCT xmin::text), count(*) FILTER (WHERE purpose = 'nightly sync' AND action = 'BatchGetCredentials') FROM vault.access_records";
    let row = admin.query_one(sql, &[]).await.unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2)
        ),
        (900, 1, 900)
    );

    // What nobody can promise is said in its place, and is not recorded.
    let demanding = BatchGetCredentialsRequest {
        grant_ids: grants.iter().map(Uuid::to_string).collect(),
        min_validity: Some(prost_types::Duration {
            seconds: 30 * 24 * 60 * 60,
            nanos: 0,
        }),
        ..request
    };
    let results = world.vault(&vault).batch_get_credentials(demanding).await;
    let results = results.unwrap().into_inner().results;
    let codes: Vec<_> = results
        .iter()
        .map(|result| match &result.result {
            Some(credential_result::Result::Error(error)) => error.code,
            _ => 0,
        })
        .collect();
    assert_eq!(codes, [Code::OutOfRange as i32, 0, 0, 0]);
    assert_eq!(world.access_records().await, 903);
    let callers: BTreeSet<_> = world
        .list(&vault, world.all())
        .await
        .into_iter()
        .map(|record| record.caller)
        .collect();
    assert_eq!(callers, BTreeSet::from([BROKER.to_owned()]));
}
