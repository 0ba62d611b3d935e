//! The end of a grant.

use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};
use uuid::Uuid;

use crate::world::{Instance, World, token_of};

async fn revoke(world: &World, vault: &Instance, grant: Uuid) -> Result<bool, CallError> {
    let request = RevokeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        mode: 0,
    };
    Ok(world
        .vault(vault)
        .revoke_grant(request)
        .await?
        .into_inner()
        .revoked_at_provider)
}

async fn sealed_values(world: &World, grant: Uuid) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM vault.revocations WHERE grant_id = $1)
        + (SELECT count(*) FROM vault.grants WHERE grant_id = $1 AND (credential IS NOT NULL OR refresh_token IS NOT NULL))";
    world
        .database
        .admin()
        .await
        .query_one(sql, &[&grant])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_basecamp_04_a_revoked_grant_is_ended_at_the_provider_and_its_secrets_are_destroyed() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    assert!(
        revoke(&world, &vault, grant).await.unwrap(),
        "the provider confirms it"
    );
    assert!(!world.works(&token).await);
    let described = world.describe(&vault, grant).await;
    assert_eq!(described.state(), GrantState::Revoked);
    assert!(described.revoked_at.is_some());
    assert_eq!(sealed_values(&world, grant).await, 0);
    let error = world.get(&vault, grant).await.expect_err("it is gone");
    assert_eq!(
        (error.code, error.reason),
        (Code::FailedPrecondition, Some(Reason::GrantRevoked))
    );
    revoke(&world, &vault, grant)
        .await
        .expect("once more does no harm");
    let missing = revoke(&world, &vault, world.tenant.new_id(&world.deps))
        .await
        .expect_err("there is none");
    assert_eq!(missing.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_answer_is_told_later() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    let fault = world.sim.control().inject(FaultRule::every(
        "revoke",
        Fault::Status {
            status: 503,
            retry_after_seconds: None,
        },
    ));
    assert!(!revoke(&world, &vault, grant).await.unwrap());
    assert_eq!(
        world.describe(&vault, grant).await.state(),
        GrantState::Revoking
    );
    let error = world
        .get(&vault, grant)
        .await
        .expect_err("nothing is handed out from the call on");
    assert_eq!(error.reason, Some(Reason::GrantRevoked));
    assert_eq!(sealed_values(&world, grant).await, 1);

    world.sim.control().remove_fault(fault).unwrap();
    let admin = world.database.admin().await;
    admin
        .batch_execute("UPDATE vault.revocations SET next_attempt_at = now()")
        .await
        .unwrap();
    testkit::eventually(Duration::from_secs(30), async || {
        world.describe(&vault, grant).await.state() == GrantState::Revoked
    })
    .await;
    assert!(!world.works(&token).await);
    assert_eq!(sealed_values(&world, grant).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_the_revocation_is_revoked_too() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.expire(grant).await;
    // The answer is late; meanwhile the grant is revoked here alone, so that the provider's side of it lives on.
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::Delay { millis: 1000 }).after_work());
    let (mut client, request) = (world.vault(&vault), world.get_request(grant));
    let reader = tokio::spawn(async move { client.get_credential(request).await });
    testkit::eventually(Duration::from_secs(10), async || world.refreshes() == 1).await;
    let mode = RevocationMode::Local as i32;
    let request = RevokeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        mode,
    };
    world.vault(&vault).revoke_grant(request).await.unwrap();
    let error = CallError::from(reader.await.unwrap().expect_err("it was revoked meanwhile"));
    assert_eq!(error.reason, Some(Reason::GrantRevoked));
    assert_eq!(
        sealed_values(&world, grant).await,
        1,
        "the late tokens are on the list"
    );
    let admin = world.database.admin().await;
    admin
        .batch_execute("UPDATE vault.revocations SET next_attempt_at = now()")
        .await
        .unwrap();
    testkit::eventually(Duration::from_secs(30), async || {
        world
            .sim
            .control()
            .grants()
            .iter()
            .all(|grant| grant.revoked.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_nobody_confirms_is_revoked() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.tenant.new_id(&world.deps);
    let request = world.exchange_request(grant, world.code("n").await);
    world
        .vault(&vault)
        .exchange_authorization(request)
        .await
        .unwrap();
    assert_eq!(
        world.describe(&vault, grant).await.state(),
        GrantState::Unconfirmed
    );
    let kept = world.connect(&vault).await;
    let admin = world.database.admin().await;
    admin
        .batch_execute(
            "UPDATE vault.grants SET confirm_until = now() WHERE confirm_until IS NOT NULL",
        )
        .await
        .unwrap();
    testkit::eventually(Duration::from_mins(1), async || {
        world.describe(&vault, grant).await.state() == GrantState::Revoked
    })
    .await;
    assert_eq!(
        world.describe(&vault, kept).await.state(),
        GrantState::Active
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_says_when_is_told_then() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.sim.control().inject(FaultRule::once(
        "revoke",
        Fault::Status {
            status: 503,
            retry_after_seconds: Some(7200),
        },
    ));
    assert!(!revoke(&world, &vault, grant).await.unwrap());
    let sql = "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM vault.revocations WHERE grant_id = $1";
    let admin = world.database.admin().await;
    let wait: f64 = admin.query_one(sql, &[&grant]).await.unwrap().get(0);
    assert!((7100.0..7300.0).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_does_not_leave_tokens_alive() {
    let logs = testkit::logs::capture();
    logs.expect("a provider does not take a revocation");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.put_client(&vault, "not the secret").await.unwrap();
    assert!(!revoke(&world, &vault, grant).await.unwrap());
    assert_eq!(
        world.describe(&vault, grant).await.state(),
        GrantState::Revoking
    );
    world.put_right_client(&vault).await;
    let admin = world.database.admin().await;
    admin
        .batch_execute("UPDATE vault.revocations SET next_attempt_at = now()")
        .await
        .unwrap();
    testkit::eventually(Duration::from_secs(30), async || {
        world.describe(&vault, grant).await.state() == GrantState::Revoked
    })
    .await;
    assert!(
        world
            .sim
            .control()
            .grants()
            .iter()
            .all(|grant| grant.revoked.is_some())
    );
}
