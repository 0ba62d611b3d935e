//! New tokens for old ones: one request, however many want them.

use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::*;
use provider_sim::config::RateHeaders;
use provider_sim::{Fault, FaultRule};
use testkit::MockClock;
use token_vault::SCHEMA;

use crate::world::{World, get_at, token_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_procore_06_a_hundred_readers_of_an_expired_token_make_one_refresh() {
    let _logs = testkit::logs::capture();
    let (world, one) = World::new().await;
    let other = world.start("b").await;
    let grant = world.connect(&one).await;
    world.expire(grant).await;
    let before = world.access_records().await;

    let readers = (0..100).map(|number| {
        let mut vault = world.vault(if number % 2 == 0 { &one } else { &other });
        let request = world.get_request(grant);
        async move { get_at(&mut vault, request).await.unwrap() }
    });
    let credentials = futures::future::join_all(readers).await;
    let token = token_of(&credentials[0]);
    assert!(
        credentials
            .iter()
            .all(|credential| credential.version == 2 && token_of(credential) == token)
    );
    assert!(world.works(&token).await);
    assert_eq!(world.refreshes(), 1);
    assert_eq!(world.sim.control().counters().reuse_refused(), 0);
    assert_eq!(
        world.access_records().await - before,
        100,
        "a record for every answer"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_rotates_without_grace_is_followed_many_times() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    for version in 2..8 {
        world.expire(grant).await;
        assert_eq!(world.get(&vault, grant).await.unwrap().version, version);
    }
    assert_eq!(
        (
            world.refreshes(),
            world.sim.control().counters().reuse_refused()
        ),
        (6, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_basecamp_03_a_refused_grant_ends_and_says_why() {
    let logs = testkit::logs::capture();
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let at_provider = world.sim.control().grants().last().unwrap().id.clone();
    world
        .sim
        .control()
        .revoke_grant(&at_provider)
        .await
        .unwrap();
    world.expire(grant).await;
    for _ in 0..2 {
        let error = world
            .get(&vault, grant)
            .await
            .expect_err("the user took it back");
        assert_eq!(
            (error.code, error.reason),
            (
                Code::FailedPrecondition,
                Some(Reason::ReauthorizationRequired)
            )
        );
        assert_eq!(error.metadata["cause"], "REVOKED");
    }
    let described = world.describe(&vault, grant).await;
    assert_eq!(described.state(), GrantState::ReauthorizationRequired);
    assert_eq!(
        described.reauthorization_cause(),
        ReauthorizationCause::Revoked
    );
    assert!(described.last_error.starts_with("invalid_grant"));
    assert_eq!(
        world
            .sim
            .control()
            .counters()
            .count(|call| call.grant_type.as_deref() == Some("refresh_token")),
        1
    );

    let again = ExchangeAuthorizationRequest {
        expected_version: 1,
        ..world.exchange_request(grant, world.code("n").await)
    };
    let grant_now = world
        .vault(&vault)
        .exchange_authorization(again)
        .await
        .unwrap()
        .into_inner()
        .grant
        .unwrap();
    assert_eq!(grant_now.state(), GrantState::Active);
    assert_eq!(
        grant_now.reauthorization_cause(),
        ReauthorizationCause::Unspecified
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_client_secret_is_the_clients_fault_and_no_grants() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, vault) = World::new().await;
    let grants = [world.connect(&vault).await, world.connect(&vault).await];
    world.put_client(&vault, "not the secret").await.unwrap();
    for grant in grants {
        world.expire(grant).await;
        let error = world
            .get(&vault, grant)
            .await
            .expect_err("the client is refused");
        assert_eq!(
            (error.code, error.reason),
            (
                Code::FailedPrecondition,
                Some(Reason::IntegrationMisconfigured)
            )
        );
        let described = world.describe(&vault, grant).await;
        assert_eq!(
            (described.state(), described.consecutive_failures),
            (GrantState::Active, 0)
        );
    }
    // The second grant did not have to ask.
    let refused = world
        .sim
        .control()
        .counters()
        .count(|call| call.outcome == "invalid_client");
    assert_eq!(refused, 1);

    world.put_right_client(&vault).await;
    for grant in grants {
        assert_eq!(world.get(&vault, grant).await.unwrap().version, 2);
    }
    let kinds = crate::events::until(&world, &vault, GrantEventKind::ClientAccepted).await;
    let of = |kind: GrantEventKind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!(
        (
            of(GrantEventKind::ClientRefused),
            of(GrantEventKind::ClientAccepted)
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_provider_is_left_alone_for_as_long_as_it_says() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("a token endpoint does not answer");
    let (world, _other) = World::new().await;
    let clock = MockClock::at(world.deps.now());
    let deps = common::Deps {
        clock: std::sync::Arc::clone(&clock) as std::sync::Arc<dyn common::Clock>,
        ..world.deps.clone()
    };
    let config = world.config("clocked", world.database.config(SCHEMA.name));
    let vault = world.start_with(config, deps).await;
    let grant = world.connect(&vault).await;
    world.expire(grant).await;

    let limited = Fault::RateLimited {
        headers: RateHeaders::RetryAfterSeconds,
        seconds: 90,
    };
    world
        .sim
        .control()
        .inject(FaultRule::once("token", limited));
    for _ in 0..3 {
        let error = world.get(&vault, grant).await.expect_err("it is limited");
        assert_eq!(
            (error.code, error.reason),
            (Code::Unavailable, Some(Reason::ProviderRateLimited))
        );
        let wait = error.retry_after.expect("it says when");
        assert!(
            (Duration::from_secs(80)..Duration::from_secs(95)).contains(&wait),
            "{wait:?}"
        );
    }
    let described = world.describe(&vault, grant).await;
    assert_eq!(
        (described.state(), described.consecutive_failures),
        (GrantState::RefreshFailing, 1)
    );

    clock.advance(Duration::from_secs(91));
    world.forget_waits().await;
    world.sim.control().inject(FaultRule::once(
        "token",
        Fault::Status {
            status: 503,
            retry_after_seconds: Some(30),
        },
    ));
    let error = world.get(&vault, grant).await.expect_err("it is down");
    assert_eq!(
        (error.code, error.reason),
        (Code::Unavailable, Some(Reason::ProviderUnavailable))
    );
    assert!(error.retry_after.expect("it says when") > Duration::from_secs(25));

    clock.advance(Duration::from_secs(31));
    world.forget_waits().await;
    assert_eq!(world.get(&vault, grant).await.unwrap().version, 2);
    let described = world.describe(&vault, grant).await;
    assert_eq!(
        (
            described.state(),
            described.consecutive_failures,
            described.last_error.as_str()
        ),
        (GrantState::Active, 0, "")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_told_apart_from_a_user_who_left() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.expire(grant).await;
    world
        .sim
        .control()
        .inject(FaultRule::once("token", Fault::Drop).after_work());
    let error = testkit::eventually_some(Duration::from_secs(30), async || {
        world.forget_waits().await;
        let error = world
            .get(&vault, grant)
            .await
            .expect_err("the provider had rotated");
        (error.reason != Some(Reason::ProviderUnavailable)).then_some(error)
    })
    .await;
    assert_eq!(
        (error.reason, error.metadata["cause"].as_str()),
        (Some(Reason::ReauthorizationRequired), "LOST_ROTATION")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_basecamp_03_a_valid_token_is_served_while_the_provider_is_down() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.near_end(grant).await;
    world.sim.control().inject(FaultRule::every(
        "token",
        Fault::Status {
            status: 503,
            retry_after_seconds: None,
        },
    ));
    for _ in 0..10 {
        assert_eq!(world.get(&vault, grant).await.unwrap().version, 1);
    }
    testkit::eventually(Duration::from_secs(10), async || {
        world.describe(&vault, grant).await.state() == GrantState::RefreshFailing
    })
    .await;
    assert_eq!(
        world.get(&vault, grant).await.unwrap().version,
        1,
        "a failing grant hands out what it has"
    );

    world.sim.control().clear_faults();
    world.forget_waits().await;
    world.get(&vault, grant).await.unwrap();
    testkit::eventually(Duration::from_secs(10), async || {
        world.describe(&vault, grant).await.version == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demand_is_met_or_refused() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    world.near_end(grant).await;
    let demand = |seconds: i64| GetCredentialRequest {
        min_validity: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..world.get_request(grant)
    };
    let mut client = world.vault(&vault);
    assert_eq!(get_at(&mut client, demand(30)).await.unwrap().version, 1);
    assert_eq!(get_at(&mut client, demand(120)).await.unwrap().version, 2);
    let error = get_at(&mut client, demand(100_000))
        .await
        .expect_err("no token lives that long");
    assert_eq!(error.code, Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_refreshed_once_per_version() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let refused = |refused_version| RefreshGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        refused_version,
    };
    let calls = (0..20).map(|_| {
        let (mut client, request) = (world.vault(&vault), refused(1));
        async move {
            client
                .refresh_grant(request)
                .await
                .unwrap()
                .into_inner()
                .grant
                .unwrap()
                .version
        }
    });
    assert!(
        futures::future::join_all(calls)
            .await
            .iter()
            .all(|version| *version == 2)
    );
    assert_eq!(world.refreshes(), 1);
    let error = CallError::from(
        world
            .vault(&vault)
            .refresh_grant(refused(0))
            .await
            .expect_err("it names no version"),
    );
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_databases_clock_counts_and_not_the_vaults_own() {
    let _logs = testkit::logs::capture();
    let (world, _vault) = World::new().await;
    let clock = MockClock::at(world.deps.now() + Duration::from_mins(10));
    let config = world.config("late", world.database.config(SCHEMA.name));
    let deps = common::Deps {
        clock,
        ..world.deps.clone()
    };
    let vault = world.start_with(config, deps).await;
    let grant = world.connect(&vault).await;
    let expires_at = world
        .describe(&vault, grant)
        .await
        .expires_at
        .unwrap()
        .seconds;
    let lifetime = i64::from(
        world
            .sim
            .control()
            .provider("oidc")
            .unwrap()
            .access_lifetime_seconds,
    );
    let expected = world.deps.now().unix_timestamp() + lifetime;
    assert!(
        (expires_at - expected).abs() < 30,
        "{expires_at} is not {expected}"
    );
}

/// Says that the client is at `endpoint`, with a secret or without one.
fn at(world: &World, endpoint: &str, secret: &str) -> PutOAuthClientRequest {
    PutOAuthClientRequest {
        oauth_client: Some(OAuthClient {
            token_endpoint: endpoint.into(),
            ..world.oauth_client(secret)
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_goes_where_its_owner_did_not_send_it() {
    let logs = testkit::logs::capture();
    logs.expect("");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = provider_sim::Simulator::start(provider_sim::SimConfig::default(), listener)
        .await
        .unwrap();
    let bent = format!("{}/oauth/token", elsewhere.base_url());
    let mut client = world.vault(&vault);

    // Without the secret, the endpoint cannot be moved at all.
    let error = CallError::from(
        client
            .put_o_auth_client(at(&world, &bent, ""))
            .await
            .expect_err("the secret is missing"),
    );
    assert_eq!(error.code, Code::InvalidArgument);

    // In the database it can: then nothing opens.
    let admin = world.database.admin().await;
    admin
        .execute(
            "UPDATE vault.oauth_clients SET token_endpoint = $1",
            &[&bent],
        )
        .await
        .unwrap();
    world.expire(grant).await;
    let error = world.get(&vault, grant).await.expect_err("it is bent");
    assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));

    // With a secret, even as a public client, it can be moved: the old tokens do not follow.
    for method in [ClientAuthMethod::SecretBasic, ClientAuthMethod::None] {
        let mut moved = at(&world, &bent, "a secret of theirs");
        let put = moved.oauth_client.as_mut().unwrap();
        put.auth_method = method as i32;
        if method == ClientAuthMethod::None {
            put.client_secret = String::new();
        }
        client.put_o_auth_client(moved).await.unwrap();
        world.forget_waits().await;
        let error = world.get(&vault, grant).await.expect_err("it has moved");
        assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
    }
    assert_eq!(elsewhere.control().counters().calls_to("token"), 0);
    assert_eq!(world.refreshes(), 0);

    world.put_right_client(&vault).await;
    world.forget_waits().await;
    assert_eq!(world.get(&vault, grant).await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_slower_than_our_patience_is_asked_again_later() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, other) = World::new().await;
    let control = world.sim.control();
    let overlapping = control.configure("oidc", |provider| {
        provider.rotation = provider_sim::config::Rotation::Overlapping;
    });
    overlapping.await.unwrap();
    let mut config = world.config("hasty", world.database.config(SCHEMA.name));
    config.refresh.provider_timeout = common::config::Duration::from_millis(300);
    let vault = world.start_with(config, world.deps.clone()).await;
    let grant = world.connect(&other).await;
    let slow = Fault::Delay { millis: 1500 };
    control.inject(FaultRule::once("token", slow).after_work());
    let error = world.refresh(&vault, grant).await.expect_err("it is slow");
    assert_eq!(error.reason, Some(Reason::ProviderUnavailable));
    let described = world.describe(&vault, grant).await;
    assert_eq!(described.state(), GrantState::RefreshFailing);
    world.forget_waits().await;
    assert_eq!(world.refresh(&other, grant).await.unwrap(), 2);
}
