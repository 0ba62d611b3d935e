//! What happens without anybody asking.

use std::sync::Arc;
use std::time::Duration;

use common::config::Duration as Setting;
use contracts::vault::v1::*;
use futures::StreamExt as _;
use provider_sim::{Fault, FaultRule};
use testkit::MockClock;
use token_vault::{Config, SCHEMA, TasksConfig};
use uuid::Uuid;

use crate::world::{Instance, World};

/// A vault that looks for due refreshes all the time.
async fn sweeping(world: &World, name: &str, deps: common::Deps) -> Instance {
    let config = world.config(name, world.database.config(SCHEMA.name));
    let tasks = TasksConfig {
        sweep_every: Setting::from_millis(50),
        ..config.tasks.clone()
    };
    world.start_with(Config { tasks, ..config }, deps).await
}

async fn connect(world: &World, vault: &Instance, count: usize) -> Vec<Uuid> {
    futures::stream::iter(0..count)
        .map(|_| world.connect(vault))
        .buffer_unordered(8)
        .collect()
        .await
}

async fn execute(world: &World, sql: &str) {
    world
        .database
        .admin()
        .await
        .batch_execute(sql)
        .await
        .unwrap();
}

async fn count(world: &World, sql: &str) -> i64 {
    let admin = world.database.admin().await;
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_refreshes_what_is_due_and_nothing_else() {
    let _logs = testkit::logs::capture();
    let (world, _vault) = World::new().await;
    let vault = sweeping(&world, "sweeper", world.deps.clone()).await;
    let (due, other) = (world.connect(&vault).await, world.connect(&vault).await);
    let sql = "UPDATE vault.grants SET next_refresh_at = now() WHERE grant_id = $1";
    let admin = world.database.admin().await;
    admin.execute(sql, &[&due]).await.unwrap();
    testkit::eventually(Duration::from_secs(10), async || {
        world.describe(&vault, due).await.version == 2
    })
    .await;
    assert_eq!(world.describe(&vault, other).await.version, 1);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_in_one_second_is_refreshed_once_each_by_two_vaults() {
    const GRANTS: usize = 150;
    let _logs = testkit::logs::capture();
    let (world, plain) = World::new().await;
    let _one = sweeping(&world, "one", world.deps.clone()).await;
    let _other = sweeping(&world, "other", world.deps.clone()).await;
    connect(&world, &plain, GRANTS).await;
    execute(&world, "UPDATE vault.grants SET issued_at = now() - interval '1 h', expires_at = now() + interval '1 s', next_refresh_at = now()").await;
    testkit::eventually(Duration::from_mins(1), async || {
        count(
            &world,
            "SELECT count(*) FROM vault.grants WHERE version = 1",
        )
        .await
            == 0
    })
    .await;
    assert_eq!(world.refreshes(), GRANTS as u64);
    assert_eq!(world.sim.control().counters().reuse_refused(), 0);
    let all = "SELECT count(*) FROM vault.grants WHERE version = 2 AND state = 'active' AND intent_instance IS NULL";
    assert_eq!(count(&world, all).await, GRANTS as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_its_vault_has_left_is_taken_over_without_anybody_asking() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let unsent = world.connect(&vault).await;
    let sent = world.connect(&vault).await;
    let gone = common::TenantKey::PLATFORM.new_id(&world.deps);
    let admin = world.database.admin().await;
    let left = "UPDATE vault.grants SET fence = fence + 1, lease_until = now() + interval '25 s', intent_kind = 'refresh',
        intent_instance = $2, intent_version = version, intent_at = now() - interval '10 s',
        intent_sent_at = CASE WHEN $3 THEN now() - interval '10 s' END, next_refresh_at = now() + interval '25 s',
        expires_at = now() - interval '1 s' WHERE grant_id = $1";
    for (grant, was_sent) in [(unsent, false), (sent, true)] {
        admin
            .execute(left, &[&grant, &gone, &was_sent])
            .await
            .unwrap();
    }
    testkit::eventually(Duration::from_secs(20), async || {
        world.describe(&vault, unsent).await.version == 2
    })
    .await;
    assert_eq!(
        world.describe(&vault, sent).await.version,
        1,
        "its vault has a minute to come back"
    );
    // The minute is moved into the past.
    let moved = "UPDATE vault.grants SET intent_at = now() - interval '2 min', intent_sent_at = now() - interval '2 min',
        lease_until = now() - interval '90 s' WHERE grant_id = $1";
    admin.execute(moved, &[&sent]).await.unwrap();
    testkit::eventually(Duration::from_secs(20), async || {
        world.describe(&vault, sent).await.version == 2
    })
    .await;
    assert_eq!(world.refreshes(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_for_an_hour_costs_nobody_a_grant() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("a token endpoint does not answer");
    let (world, plain) = World::new().await;
    let clock = MockClock::at(world.deps.now());
    let deps = common::Deps {
        clock: Arc::clone(&clock) as Arc<dyn common::Clock>,
        ..world.deps.clone()
    };
    let vault = sweeping(&world, "sweeper", deps).await;
    let grants = connect(&world, &plain, 16).await;
    let (valid, expired) = grants.split_at(8);
    let fault = world.sim.control().inject(FaultRule::every(
        "token",
        Fault::Status {
            status: 503,
            retry_after_seconds: None,
        },
    ));
    for grant in expired {
        world.expire(*grant).await;
    }
    let admin = world.database.admin().await;
    for grant in valid {
        let due = "UPDATE vault.grants SET next_refresh_at = now(), issued_at = now() - interval '1 h', expires_at = now() + interval '10 min' WHERE grant_id = $1";
        admin.execute(due, &[grant]).await.unwrap();
    }
    // An hour, three minutes at a time: the vault's clock by itself, the rows' waits by hand.
    for _ in 0..20 {
        clock.advance(Duration::from_mins(3));
        execute(&world, "UPDATE vault.grants SET retry_at = retry_at - interval '3 min', next_refresh_at = next_refresh_at - interval '3 min' WHERE intent_instance IS NULL").await;
        for grant in valid {
            assert_eq!(world.get(&vault, *grant).await.unwrap().version, 1);
        }
        let error = world
            .refresh(&vault, expired[0])
            .await
            .expect_err("there is nothing valid to hand out");
        assert_eq!(error.code, common::Code::Unavailable);
        assert!(error.retry_after.is_some());
    }
    let asked = world.sim.control().counters().calls_to("token");
    assert!(
        asked < 16 + 100,
        "{asked} requests to a provider that is down, the exchanges among them"
    );

    world.sim.control().remove_fault(fault).unwrap();
    testkit::eventually(Duration::from_mins(1), async || {
        clock.advance(Duration::from_secs(10));
        execute(&world, "UPDATE vault.grants SET retry_at = now(), next_refresh_at = now() WHERE version = 1 AND intent_instance IS NULL").await;
        count(&world, "SELECT count(*) FROM vault.grants WHERE version = 1").await == 0
    })
    .await;
    for grant in &grants {
        let described = world.describe(&vault, *grant).await;
        assert_eq!(
            (described.state(), described.consecutive_failures),
            (GrantState::Active, 0)
        );
    }
    assert_eq!(world.refreshes(), 16);
    let told_to_reconnect =
        "SELECT count(*) FROM vault.grants WHERE reauthorization_cause IS NOT NULL";
    assert_eq!(count(&world, told_to_reconnect).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_near_is_told_of_once() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let admin = world.database.admin().await;
    let near = "UPDATE vault.grants SET refresh_token_expires_at = now() + interval '29 days', remind_at = now() WHERE grant_id = $1";
    admin.execute(near, &[&grant]).await.unwrap();
    let told = testkit::eventually_some(Duration::from_secs(30), async || {
        let sql = "SELECT extract(epoch FROM remind_at - now())::float8 FROM vault.grants WHERE grant_id = $1 AND remind_at > now()";
        let row = admin.query_opt(sql, &[&grant]).await.unwrap();
        row.map(|row| row.get::<_, f64>(0))
    })
    .await;
    let days = told / 86_400.0;
    assert!((21.9..22.1).contains(&days), "next at seven days: {days}");
    let kinds = crate::events::until(&world, &vault, GrantEventKind::ReauthorizationDue).await;
    assert_eq!(
        kinds,
        [GrantEventKind::Created, GrantEventKind::ReauthorizationDue]
    );
}
