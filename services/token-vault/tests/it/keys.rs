//! Data keys: made once by several vaults, counted, rotated, wrapped anew, destroyed; while what they have sealed is read.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Deps, Reason, TenantKey};
use contracts::vault::v1::*;
use testkit::{MockClock, eventually, eventually_some};
use token_vault::{Config, Environment, KeysConfig, SCHEMA};
use tokio::process::Command;
use uuid::Uuid;

use crate::world::{BROKER, INGEST, Instance, Vault, World, get_at, token_of};

const LONG: Duration = Duration::from_mins(1);
/// Uses that a vault takes at a time, and that a call takes of them.
const BLOCK: i64 = 4096;
const OF_A_CALL: i64 = 8;

async fn put(
    vault: &mut Vault,
    tenant: TenantKey,
    grant: Uuid,
    value: &str,
) -> Result<(), CallError> {
    let request = PutCredentialRequest {
        tenant_id: tenant.to_string(),
        grant_id: grant.to_string(),
        credential: Some(put_credential_request::Credential::ApiKey(ApiKey {
            value: value.to_owned(),
        })),
        ..PutCredentialRequest::default()
    };
    vault.put_credential(request).await?;
    Ok(())
}

async fn read(vault: &mut Vault, tenant: TenantKey, grant: Uuid) -> Result<String, CallError> {
    let request = GetCredentialRequest {
        tenant_id: tenant.to_string(),
        grant_id: grant.to_string(),
        purpose: "test".into(),
        ..GetCredentialRequest::default()
    };
    match get_at(vault, request).await?.secret {
        Some(credential::Secret::ApiKey(key)) => Ok(key.value),
        other => panic!("an API key is expected, and not {other:?}"),
    }
}

/// So many keys of the tenant's, put at the same time by all vaults in turn; each holds its own id.
async fn put_many(
    world: &World,
    vaults: &[&Instance],
    tenant: TenantKey,
    count: usize,
) -> Vec<Uuid> {
    let mut putting = tokio::task::JoinSet::new();
    let clients: Vec<Vault> = vaults.iter().map(|vault| world.vault(vault)).collect();
    for number in 0..count {
        let grant = tenant.new_id(&world.deps);
        let mut vault = clients[number % clients.len()].clone();
        putting.spawn(async move {
            put(&mut vault, tenant, grant, &grant.to_string())
                .await
                .unwrap();
            grant
        });
        if putting.len() >= 32 {
            putting.join_next().await.unwrap().unwrap();
        }
    }
    putting.join_all().await;
    let admin = world.database.admin().await;
    let rows = admin
        .query(
            "SELECT grant_id FROM vault.grants WHERE tenant_id = $1 AND kind = 'api_key'",
            &[&tenant.id()],
        )
        .await
        .unwrap();
    assert!(rows.len() >= count);
    rows.iter().map(|row| row.get(0)).collect()
}

async fn assert_all_readable(world: &World, vault: &Instance, tenant: TenantKey, grants: &[Uuid]) {
    let mut client = world.vault(vault);
    for grant in grants {
        assert_eq!(
            read(&mut client, tenant, *grant).await.unwrap(),
            grant.to_string()
        );
    }
}

/// The tenant's data keys: version, uses, whether it was superseded.
async fn data_keys(world: &World, tenant: TenantKey) -> Vec<(i32, i64, bool)> {
    let sql = "SELECT version, uses, superseded_at IS NOT NULL FROM vault.data_keys WHERE tenant_id = $1 ORDER BY version";
    let rows = world
        .database
        .admin()
        .await
        .query(sql, &[&tenant.id()])
        .await
        .unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

async fn sql(world: &World, sql: &str) {
    world
        .database
        .admin()
        .await
        .batch_execute(sql)
        .await
        .unwrap();
}

async fn count(world: &World, sql: &str) -> i64 {
    world
        .database
        .admin()
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}

async fn status(world: &World, vault: &Instance) -> GetKeyStatusResponse {
    world
        .admin(vault)
        .get_key_status(GetKeyStatusRequest {})
        .await
        .unwrap()
        .into_inner()
}

async fn rotate(world: &World, vault: &Instance, tenant: Option<TenantKey>) {
    let tenant_id = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
    world
        .admin(vault)
        .rotate_data_keys(RotateDataKeysRequest { tenant_id })
        .await
        .unwrap();
}

/// Everybody has got the new keys by now, as far as the database knows.
async fn let_old_keys_go(world: &World) {
    sql(
        world,
        "UPDATE vault.tenant_keys SET current_made_at = current_made_at - interval '10 min';
         UPDATE vault.key_jobs SET lease_until = now(), requested_at = requested_at - interval '10 min' WHERE finished_at IS NULL",
    )
    .await;
}

async fn all_jobs_finished(world: &World) {
    eventually(LONG, async || {
        count(
            world,
            "SELECT count(*) FROM vault.key_jobs WHERE finished_at IS NULL",
        )
        .await
            == 0
    })
    .await;
}

async fn first_pass_over(world: &World) {
    eventually(LONG, async || {
        count(world, "SELECT count(*) FROM vault.key_jobs WHERE kind = 'rotate' AND passes = 0 AND finished_at IS NULL").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_vaults_agree_on_the_first_key() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let (a, b) = (world.start("a").await, world.start("b").await);
    for _ in 0..5 {
        let tenant = TenantKey::new_tenant(&world.deps);
        let grants = put_many(&world, &[&a, &b], tenant, 16).await;
        let keys = data_keys(&world, tenant).await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((keys[0].0, keys[0].2), (1, false));
        assert_all_readable(&world, &a, tenant, &grants).await;
        assert_all_readable(&world, &b, tenant, &grants).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_vaults_agree_on_the_version_after_an_old_one() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let a = world.start("a").await;
    for worn_out in [
        "created_at = now() - interval '91 days'",
        "uses = 2147483648 - 100",
    ] {
        let tenant = TenantKey::new_tenant(&world.deps);
        put_many(&world, &[&a], tenant, 4).await;
        sql(
            &world,
            &format!("UPDATE vault.data_keys SET {worn_out} WHERE tenant_id = '{tenant}'"),
        )
        .await;
        // They have no key in hand yet.
        let (b, c) = (world.start("b").await, world.start("c").await);
        let grants = put_many(&world, &[&b, &c], tenant, 32).await;
        let keys = data_keys(&world, tenant).await;
        let versions: Vec<_> = keys
            .iter()
            .map(|(version, _, superseded)| (*version, *superseded))
            .collect();
        assert_eq!(versions, [(1, true), (2, false)], "{worn_out}");
        for vault in [&a, &b, &c] {
            assert_all_readable(&world, vault, tenant, &grants).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_use_is_counted_before_it_is_made() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let (a, b) = (world.start("a").await, world.start("b").await);
    let tenant = TenantKey::new_tenant(&world.deps);
    let calls = 2 * usize::try_from(BLOCK / OF_A_CALL).unwrap() + 10;
    put_many(&world, &[&a, &b], tenant, calls).await;
    // Two blocks each: one that is used up, and one that has been begun.
    assert_eq!(data_keys(&world, tenant).await, [(1, 4 * BLOCK, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_salesboard_05_a_rotation_seals_all_anew_while_it_is_read_and_refreshed() {
    let _logs = testkit::logs::capture();
    let (world, a) = World::new().await;
    let b = world.start("b").await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(world.connect(&a).await);
    }
    let keys = put_many(&world, &[&a, &b], world.tenant, 200).await;
    assert_eq!(data_keys(&world, world.tenant).await.len(), 1);

    // Somebody reads, and somebody refreshes, from beginning to end.
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (mut vault, over, tenant, keys) = (
            world.vault(&b),
            Arc::clone(&over),
            world.tenant,
            keys.clone(),
        );
        tokio::spawn(async move {
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) {
                let grant = keys[reads % keys.len()];
                assert_eq!(
                    read(&mut vault, tenant, grant).await.unwrap(),
                    grant.to_string()
                );
                reads += 1;
            }
            reads
        })
    };
    rotate(&world, &a, Some(world.tenant)).await;
    rotate(&world, &a, Some(world.tenant)).await;
    let mut refreshes = 0;
    eventually(LONG, async || {
        let grant = tokens[refreshes % tokens.len()];
        world.expire(grant).await;
        let token = token_of(&world.get(&b, grant).await.unwrap());
        assert!(world.works(&token).await);
        refreshes += 1;
        refreshes > 8
            && count(
                &world,
                "SELECT count(*) FROM vault.key_jobs WHERE passes = 0",
            )
            .await
                == 0
    })
    .await;
    over.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 100);
    assert_eq!(
        count(&world, "SELECT count(*) FROM vault.key_jobs").await,
        1,
        "the second request is the first one"
    );

    // What the other vault has sealed since, under the key that it has in hand, the second pass finds.
    drop(b);
    let_old_keys_go(&world).await;
    all_jobs_finished(&world).await;
    let older = "SELECT count(*) FROM vault.grants WHERE oldest_key_version < int4send(2)";
    assert_eq!(count(&world, older).await, 0);
    let older = "SELECT (SELECT count(*) FROM vault.oauth_clients WHERE key_version < 2) + (SELECT count(*) FROM vault.tenant_keys WHERE resealed_version < current_version)";
    assert_eq!(count(&world, older).await, 0);
    assert_eq!(status(&world, &a).await.values_under_older_data_keys, 0);
    let versions: Vec<_> = data_keys(&world, world.tenant)
        .await
        .into_iter()
        .map(|(version, ..)| version)
        .collect();
    assert_eq!(versions, [1, 2]);

    // With the old one gone everything is there, refresh tokens and the client's secret among it.
    sql(&world, "DELETE FROM vault.data_keys WHERE version = 1").await;
    let c = world.start("c").await;
    assert_all_readable(&world, &c, world.tenant, &keys).await;
    for grant in tokens {
        world.expire(grant).await;
        assert!(
            world
                .works(&token_of(&world.get(&c, grant).await.unwrap()))
                .await
        );
    }
    let audit =
        "SELECT count(*) FROM vault.audit_events WHERE action = 'VaultAdminService/RotateDataKeys'";
    assert_eq!(count(&world, audit).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_was_killed_is_taken_over() {
    let logs = testkit::logs::capture();
    // The killed one leaves its callers without an answer.
    logs.expect("");
    let world = World::without_vault().await;
    let tenant = TenantKey::new_tenant(&world.deps);
    let a = world.start("a").await;
    let grants = put_many(&world, &[&a], tenant, 200).await;
    drop(a);
    let mut config = world.config("killable", world.database.config(SCHEMA.name));
    config.grpc.listen = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let path = world.folder().join("killable.toml");
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    sql(&world, "INSERT INTO vault.key_jobs (job_id, kind, subject, requested_at, lease_until) VALUES (gen_random_uuid(), 'rotate', '*', now(), now())").await;
    for point in ["key_rotated", "values_resealed"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_token-vault"))
            .args(["serve", "--config"])
            .arg(&path)
            .env("HAWSER_VAULT_FAILPOINT", point)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let ended = eventually_some(LONG, async || child.try_wait().unwrap()).await;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(9),
            "{point}"
        );
        sql(&world, "UPDATE vault.key_jobs SET lease_until = now()").await;
    }
    let left = count(
        &world,
        "SELECT count(*) FROM vault.grants WHERE oldest_key_version < int4send(2)",
    )
    .await;
    assert_eq!(left, 200 - 64, "one batch was done");
    // In the middle of it everything is readable.
    sql(
        &world,
        "UPDATE vault.key_jobs SET lease_until = now() + interval '1 hour'",
    )
    .await;
    let b = world.start("b").await;
    assert_all_readable(&world, &b, tenant, &grants).await;
    assert_eq!(status(&world, &b).await.values_under_older_data_keys, left);
    sql(&world, "UPDATE vault.key_jobs SET lease_until = now()").await;
    first_pass_over(&world).await;
    let_old_keys_go(&world).await;
    all_jobs_finished(&world).await;
    assert_eq!(status(&world, &b).await.values_under_older_data_keys, 0);
    assert_all_readable(&world, &b, tenant, &grants).await;
    let versions: Vec<_> = data_keys(&world, tenant)
        .await
        .into_iter()
        .map(|(version, ..)| version)
        .collect();
    assert_eq!(versions, [1, 2], "taken up twice, it made one new key");
}

fn with_key_files(
    config: Config,
    current: &std::path::Path,
    older: &[std::path::PathBuf],
) -> Config {
    Config {
        environment: Environment::Production,
        keys: KeysConfig {
            file: Some(current.to_owned()),
            older_files: older.to_vec(),
            ..KeysConfig::default()
        },
        ..config
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_salesboard_05_after_rewrapping_the_older_key_encryption_key_can_go() {
    let logs = testkit::logs::capture();
    logs.expect("somebody else");
    let world = World::without_vault().await;
    let files: Vec<_> = ["8f3b", "1c5d"]
        .iter()
        .map(|key| {
            let path = world.folder().join(key);
            std::fs::write(&path, key.repeat(16)).unwrap();
            path
        })
        .collect();
    let config = |name: &str| world.config(name, world.database.config(SCHEMA.name));
    let first = world
        .start_with(
            with_key_files(config("a"), &files[0], &[]),
            world.deps.clone(),
        )
        .await;
    let mut made = Vec::new();
    for _ in 0..30 {
        let tenant = TenantKey::new_tenant(&world.deps);
        made.push((tenant, put_many(&world, &[&first], tenant, 1).await));
    }
    drop(first);
    let both = with_key_files(config("a"), &files[1], &files[..1]);
    let second = world.start_with(both, world.deps.clone()).await;
    let before = status(&world, &second).await;
    assert_eq!(
        (before.data_keys, before.data_keys_under_older_keks),
        (30, 30)
    );
    for _ in 0..2 {
        let request = RewrapDataKeysRequest {};
        world
            .admin(&second)
            .rewrap_data_keys(request)
            .await
            .unwrap();
    }
    all_jobs_finished(&world).await;
    let after = status(&world, &second).await;
    assert_eq!((after.data_keys, after.data_keys_under_older_keks), (30, 0));
    drop(second);
    let third = world
        .start_with(
            with_key_files(config("a"), &files[1], &[]),
            world.deps.clone(),
        )
        .await;
    for (tenant, grants) in made {
        assert_all_readable(&world, &third, tenant, &grants).await;
    }
}

/// The tenant's keys are gone, and this is said.
fn refused(error: &CallError) {
    let told = (error.code, error.reason);
    assert_eq!(
        told,
        (Code::FailedPrecondition, Some(Reason::GrantRevoked)),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shredded_tenant_is_refused_by_a_vault_with_its_key_in_memory() {
    let _logs = testkit::logs::capture();
    let (world, a) = World::new().await;
    let b = world.start("b").await;
    let grant = world.connect(&a).await;
    let other = TenantKey::new_tenant(&world.deps);
    let others = put_many(&world, &[&a], other, 1).await;
    // Both have the key in memory, the one that seals too.
    let key = put_many(&world, &[&a, &b], world.tenant, 2).await[0];
    let mut client = world.vault(&b);
    world.get(&b, grant).await.unwrap();
    let mut ingest = world.service_keys(&b, INGEST);
    let service_key = GetServiceKeyRequest {
        tenant_id: world.tenant.to_string(),
        key_version: 0,
    };
    ingest.get_service_key(service_key.clone()).await.unwrap();

    let shred = ShredTenantRequest {
        tenant_id: world.tenant.to_string(),
    };
    for vault in [&a, &a, &b] {
        let answer = world
            .admin(vault)
            .shred_tenant(shred.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.data_keys_destroyed, 1);
    }
    refused(&world.get(&b, grant).await.expect_err("its keys are gone"));
    refused(
        &read(&mut client, world.tenant, key)
            .await
            .expect_err("its keys are gone"),
    );
    refused(
        &ingest
            .get_service_key(service_key)
            .await
            .map_err(CallError::from)
            .expect_err("its keys are gone"),
    );
    let fresh = world.tenant.new_id(&world.deps);
    refused(
        &put(&mut client, world.tenant, fresh, "new")
            .await
            .expect_err("nothing is sealed for it"),
    );
    refused(
        &put(&mut world.vault(&a), world.tenant, fresh, "new")
            .await
            .expect_err("nothing is sealed for it"),
    );
    refused(
        &world
            .put_client(&b, "secret")
            .await
            .expect_err("nothing is sealed for it"),
    );
    let rotation = RotateDataKeysRequest {
        tenant_id: world.tenant.to_string(),
    };
    let rotated = world.admin(&a).rotate_data_keys(rotation).await;
    refused(
        &rotated
            .map_err(CallError::from)
            .expect_err("there is nothing to rotate"),
    );
    assert_eq!(
        world.describe(&b, grant).await.state,
        GrantState::Revoked as i32
    );

    let keys = format!(
        "SELECT count(*) FROM vault.data_keys WHERE tenant_id = '{}'",
        world.tenant
    );
    assert_eq!(count(&world, &keys).await, 0);
    let noted =
        "SELECT count(*) FROM vault.audit_events WHERE action = 'VaultAdminService/ShredTenant'";
    assert_eq!(count(&world, noted).await, 1);
    // What is sealed is of no use to anybody, and goes.
    let sealed = format!(
        "SELECT (SELECT count(*) FROM vault.grants WHERE tenant_id = '{0}' AND (state <> 'revoked' OR oldest_key_version IS NOT NULL))
              + (SELECT count(*) FROM vault.oauth_clients WHERE tenant_id = '{0}')",
        world.tenant
    );
    eventually(LONG, async || count(&world, &sealed).await == 0).await;
    assert_all_readable(&world, &b, other, &others).await;
    let platform = ShredTenantRequest {
        tenant_id: TenantKey::PLATFORM.to_string(),
    };
    let error = CallError::from(
        world
            .admin(&a)
            .shred_tenant(platform)
            .await
            .expect_err("never"),
    );
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_without_keys_can_be_shredded_too() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let a = world.start("a").await;
    let tenant = TenantKey::new_tenant(&world.deps);
    let request = ShredTenantRequest {
        tenant_id: tenant.to_string(),
    };
    let answer = world
        .admin(&a)
        .shred_tenant(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.data_keys_destroyed, 0);
    let refused = put(
        &mut world.vault(&a),
        tenant,
        tenant.new_id(&world.deps),
        "late",
    )
    .await;
    assert_eq!(
        refused.expect_err("no key is made").reason,
        Some(Reason::GrantRevoked)
    );
    assert!(data_keys(&world, tenant).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_a_service_has_a_key_of_is_never_retired() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let clock = MockClock::at(world.deps.now());
    let deps = Deps {
        clock: clock.clone(),
        ..world.deps.clone()
    };
    let config = world.config("a", world.database.config(SCHEMA.name));
    let a = world.start_with(config, deps).await;
    let tenants = [
        TenantKey::new_tenant(&world.deps),
        TenantKey::new_tenant(&world.deps),
    ];
    let mut ingest = world.service_keys(&a, INGEST);
    let mut key = async |tenant: TenantKey, key_version: i32| {
        let request = GetServiceKeyRequest {
            tenant_id: tenant.to_string(),
            key_version,
        };
        ingest.get_service_key(request).await.unwrap().into_inner()
    };
    for tenant in tenants {
        put_many(&world, &[&a], tenant, 3).await;
    }
    let handed = key(tenants[0], 0).await;
    assert_eq!(handed.key_version, 1);
    rotate(&world, &a, None).await;
    first_pass_over(&world).await;
    assert_eq!(
        key(tenants[0], 0).await.key_version,
        2,
        "the newest, at once"
    );
    assert_eq!(
        key(tenants[0], 1).await.key,
        handed.key,
        "what it was before"
    );
    let_old_keys_go(&world).await;
    all_jobs_finished(&world).await;
    sql(&world, "UPDATE vault.data_keys SET superseded_at = now() - interval '31 days' WHERE superseded_at IS NOT NULL").await;
    // Something of the second tenant's is still sealed under the first version: neither is that one retired.
    sql(&world, &format!("UPDATE vault.grants SET credential = overlay(credential placing '\\x00000001'::bytea from 5) WHERE ctid = (SELECT min(ctid) FROM vault.grants WHERE tenant_id = '{}')", tenants[1])).await;
    let versions = async || {
        let sql = "SELECT tenant_id = $1, version FROM vault.data_keys ORDER BY 1 DESC, 2";
        let rows = world
            .database
            .admin()
            .await
            .query(sql, &[&tenants[0].id()])
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect::<Vec<(bool, i32)>>()
    };
    let look = async || {
        clock.advance(Duration::from_mins(61));
        world
            .admin(&a)
            .rewrap_data_keys(RewrapDataKeysRequest {})
            .await
            .unwrap();
        all_jobs_finished(&world).await;
    };
    look().await;
    assert_eq!(
        versions().await,
        [(true, 1), (true, 2), (false, 1), (false, 2)]
    );
    sql(
        &world,
        "DELETE FROM vault.grants WHERE oldest_key_version = int4send(1)",
    )
    .await;
    eventually(LONG, async || {
        look().await;
        versions().await == [(true, 1), (true, 2), (false, 2)]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_shreds_and_the_ingest_does_not() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let a = world.start("a").await;
    let tenant = TenantKey::new_tenant(&world.deps);
    let shred = async |uri: &str| {
        let request = ShredTenantRequest {
            tenant_id: tenant.to_string(),
        };
        let outcome = world.admin_as(&a, uri).shred_tenant(request).await;
        outcome
            .map(drop)
            .map_err(|status| CallError::from(status).code)
    };
    assert_eq!(shred(INGEST).await, Err(Code::PermissionDenied));
    assert_eq!(shred(BROKER).await, Ok(()));
    let rotation = world
        .admin_as(&a, BROKER)
        .rotate_data_keys(RotateDataKeysRequest::default())
        .await;
    assert_eq!(
        CallError::from(rotation.expect_err("it only shreds")).code,
        Code::PermissionDenied
    );
}
