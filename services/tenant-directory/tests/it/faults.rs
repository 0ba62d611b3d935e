//! What a crash leaves behind, and a database that is away.

use std::time::Duration;

use common::rpc::CallError;
use common::{Code, TenantKey};
use contracts::directory::v1::*;
use tenant_directory::config::ApiKeysConfig;
use tenant_directory::{Directory, SCHEMA};
use testkit::chaos::Proxy;
use testkit::{TestDatabase, eventually};

use crate::world::{OPERATOR, World};

/// The directory beside the running one, to take a background step when the test says so.
fn beside(world: &World) -> Directory {
    let db = world.database.database(&SCHEMA);
    let statistics = common::pg::statistics::Statistics::new(&db);
    Directory::new(db, &testkit::deps(), statistics, ApiKeysConfig::default())
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

#[tokio::test]
async fn a_name_whose_creator_died_is_free_again() {
    let world = World::new().await;
    world.create("Acme", "acmeco").await;
    let admin = world.database.admin().await;
    // As after a crash between the reservation and the tenant: the claim is nobody's.
    let ghost = TenantKey::new_tenant(&testkit::deps()).id();
    let orphan = "UPDATE directory.names SET claim_id = $1, tenant_id = $1, confirmed = false WHERE name = 'acmeco'";
    let wanted = || {
        world.create_tenant(
            "",
            Tenant {
                company_name: "B".into(),
                subdomain: "acmeco".into(),
                ..Tenant::default()
            },
        )
    };
    admin.execute(orphan, &[&ghost]).await.unwrap();
    assert_eq!(
        wanted().await.unwrap_err().code,
        Code::AlreadyExists,
        "somebody may still be at it"
    );
    admin
        .execute(
            "UPDATE directory.names SET claimed_at = now() - '20 s'::interval",
            &[],
        )
        .await
        .unwrap();
    // Whoever wants it need not wait for the reaper.
    wanted().await.unwrap();

    admin.execute(orphan, &[&ghost]).await.unwrap();
    admin
        .execute(
            "DELETE FROM directory.name_claims WHERE claim_id = $1",
            &[&ghost],
        )
        .await
        .unwrap();
    admin
        .execute(
            "UPDATE directory.names SET claimed_at = now() - '20 s'::interval",
            &[],
        )
        .await
        .unwrap();
    beside(&world).reap_names().await.unwrap();
    assert_eq!(
        count(&world, "SELECT count(*) FROM directory.names").await,
        0
    );
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM directory.name_claims WHERE state = 'refused'"
        )
        .await,
        1,
        "it cannot be used any more"
    );
}

#[tokio::test]
async fn a_name_whose_creator_died_after_using_it_is_confirmed() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    let admin = world.database.admin().await;
    let sql = "UPDATE directory.names SET confirmed = false, claimed_at = now() - '20 s'::interval";
    admin.execute(sql, &[]).await.unwrap();
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap().tenant_id,
        tenant.tenant_id
    );
    let taken = Tenant {
        company_name: "B".into(),
        subdomain: "acmeco".into(),
        ..Tenant::default()
    };
    assert_eq!(
        world.create_tenant("", taken).await.unwrap_err().code,
        Code::AlreadyExists
    );
    admin.execute(sql, &[]).await.unwrap();
    beside(&world).reap_names().await.unwrap();
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM directory.names WHERE confirmed"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_name_whose_tenant_died_while_giving_it_up_is_freed() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    let admin = world.database.admin().await;
    // As after a crash right behind the tenant's own transaction.
    admin
        .execute("UPDATE directory.tenants SET subdomain = NULL", &[])
        .await
        .unwrap();
    admin
        .execute("UPDATE directory.name_claims SET state = 'released'", &[])
        .await
        .unwrap();
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap_err().code,
        Code::NotFound
    );
    beside(&world).reap_names().await.unwrap();
    let other = world.create("B", "acmeco").await;
    assert_ne!(other.tenant_id, tenant.tenant_id);
    // Ended claims are forgotten in the end, and used ones never.
    admin
        .execute(
            "UPDATE directory.name_claims SET decided_at = now() - '31 days'::interval",
            &[],
        )
        .await
        .unwrap();
    admin
        .execute(
            "UPDATE directory.creations SET created_at = now() - '3 days'::interval",
            &[],
        )
        .await
        .unwrap();
    beside(&world).reap_names().await.unwrap();
    assert_eq!(
        count(&world, "SELECT count(*) FROM directory.name_claims").await,
        1
    );
    assert_eq!(
        world.by_subdomain("acmeco").await.unwrap().tenant_id,
        other.tenant_id
    );
}

#[tokio::test]
async fn a_claim_that_was_refused_while_its_owner_slept_is_made_anew() {
    let world = World::new().await;
    let tenant = world.create("Acme", "acmeco").await;
    let admin = world.database.admin().await;
    // As after a reaper that has refused the claim and died before it freed the name.
    let key = TenantKey::parse(&tenant.tenant_id).unwrap();
    let claim = key.new_id(&testkit::deps());
    let name =
        tenant_directory::name::Name::new(tenant_directory::name::NameKind::Subdomain, "wanted");
    let reserve = "INSERT INTO directory.names (bucket, kind, name, claim_id, tenant_id, confirmed)
        VALUES ($1, 'subdomain', 'wanted', $2, $3, false)";
    admin
        .execute(reserve, &[&name.bucket(), &claim, &key.id()])
        .await
        .unwrap();
    let refuse = "INSERT INTO directory.name_claims (bucket, tenant_id, claim_id, kind, name, state, decided_at)
        VALUES ($1, $2, $3, 'subdomain', 'wanted', 'refused', now())";
    admin
        .execute(refuse, &[&key.bucket(), &key.id(), &claim])
        .await
        .unwrap();
    let change = Tenant {
        tenant_id: tenant.tenant_id,
        subdomain: "wanted".into(),
        ..Tenant::default()
    };
    assert_eq!(
        world
            .update(change, &["subdomain"])
            .await
            .unwrap()
            .subdomain,
        "wanted"
    );
    let held: uuid::Uuid = admin
        .query_one(
            "SELECT claim_id FROM directory.names WHERE name = 'wanted'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_ne!(held, claim);
}

#[tokio::test]
async fn a_creation_that_died_half_way_is_finished_by_the_repeated_request() {
    let world = World::new().await;
    let order = Tenant {
        company_name: "Acme".into(),
        subdomain: "acmeco".into(),
        ..Tenant::default()
    };
    let made = world
        .create_tenant("request-1", order.clone())
        .await
        .unwrap();
    // As after a crash right before the tenant's own transaction: the request id and the name are tied to a tenant that
    // there is not.
    let undo = "DELETE FROM directory.tenants; DELETE FROM directory.tenant_configs;
        DELETE FROM directory.name_claims; DELETE FROM directory.request_ids;
        UPDATE directory.names SET confirmed = false";
    world
        .database
        .admin()
        .await
        .batch_execute(undo)
        .await
        .unwrap();
    let again = world.create_tenant("request-1", order).await.unwrap();
    assert_eq!(again.tenant_id, made.tenant_id);
    assert_eq!(world.by_subdomain("acmeco").await.unwrap(), again);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_when_to_come_back() {
    let database = TestDatabase::create(&[&SCHEMA]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], database.port()).into()).await;
    let config = database.config_through(proxy.address().port(), SCHEMA.name);
    let world = World::on(database, config).await;
    let tenant = world.create("Acme", "acmeco").await;
    assert!(
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .all(|check| check.ok)
    );

    proxy.cut();
    let request = GetTenantRequest {
        tenant_id: tenant.tenant_id.clone(),
    };
    let mut directory = world.directory(OPERATOR);
    let mut late = tonic::Request::new(request.clone());
    late.set_timeout(Duration::from_secs(8));
    let error = CallError::from(directory.get_tenant(late).await.unwrap_err());
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert!(error.retry_after.is_some());
    assert!(
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .any(|check| !check.ok)
    );

    proxy.pass();
    eventually(Duration::from_secs(20), async || {
        world.get(&tenant.tenant_id).await.is_ok()
    })
    .await;
    eventually(Duration::from_secs(20), async || {
        world
            .process
            .readiness
            .check()
            .await
            .checks
            .values()
            .all(|check| check.ok)
    })
    .await;
}
