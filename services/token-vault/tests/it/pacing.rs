//! Token endpoints that are away, or that want to be left alone.

use std::sync::Arc;
use std::time::Duration;

use common::Reason;
use contracts::vault::v1::*;
use provider_sim::config::{ClientConfig as SimClient, RateHeaders};
use provider_sim::{Fault, FaultRule};
use testkit::MockClock;
use token_vault::SCHEMA;
use uuid::Uuid;

use crate::world::{Instance, World, get_at};

/// A vault whose clock moves when it is told to, beside the one that made the world.
async fn with_clock(world: &World) -> (Instance, Arc<MockClock>) {
    let clock = MockClock::at(world.deps.now());
    let deps = common::Deps {
        clock: Arc::clone(&clock) as Arc<dyn common::Clock>,
        ..world.deps.clone()
    };
    let config = world.config("clocked", world.database.config(SCHEMA.name));
    (world.start_with(config, deps).await, clock)
}

async fn connect(world: &World, vault: &Instance, count: usize) -> Vec<Uuid> {
    futures::future::join_all((0..count).map(|_| world.connect(vault))).await
}

fn down() -> FaultRule {
    FaultRule::every(
        "token",
        Fault::Status {
            status: 503,
            retry_after_seconds: None,
        },
    )
}

fn token_requests(world: &World) -> u64 {
    let counters = world.sim.control().counters();
    counters.count(|call| call.grant_type.as_deref() == Some("refresh_token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_away_is_left_alone_until_one_request_finds_it_back() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("a token endpoint does not answer");
    let (world, _other) = World::new().await;
    let (vault, clock) = with_clock(&world).await;
    let grants = connect(&world, &vault, 9).await;
    let (valid, expired) = grants.split_first().unwrap();
    for grant in expired {
        world.expire(*grant).await;
    }
    let fault = world.sim.control().inject(down());
    for grant in expired {
        let error = world.get(&vault, *grant).await.expect_err("it is down");
        assert_eq!(error.reason, Some(Reason::ProviderUnavailable));
        assert!(error.retry_after.is_some());
    }
    assert_eq!(token_requests(&world), 5, "the breaker has opened");
    assert_eq!(world.get(&vault, *valid).await.unwrap().version, 1);
    let untouched = world.describe(&vault, expired[7]).await;
    assert_eq!(
        (untouched.state(), untouched.consecutive_failures),
        (GrantState::Active, 0),
        "what was not sent has not failed"
    );

    // One finds out for all, and again; all find it back.
    clock.advance(Duration::from_secs(10));
    for grant in &expired[5..] {
        world.get(&vault, *grant).await.expect_err("it is down");
    }
    assert_eq!(token_requests(&world), 6);
    world.sim.control().remove_fault(fault).unwrap();
    clock.advance(Duration::from_secs(20));
    world.forget_waits().await;
    for grant in expired {
        assert_eq!(world.get(&vault, *grant).await.unwrap().version, 2);
    }
    assert_eq!(token_requests(&world), 6 + 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_holds_for_the_client_and_for_no_other() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, _other) = World::new().await;
    let (vault, clock) = with_clock(&world).await;
    // The vault's own clock is off, and the provider names a date: the database's clock counts.
    clock.set(world.deps.now() + Duration::from_mins(10));
    let grants = connect(&world, &vault, 3).await;
    for grant in &grants {
        world.expire(*grant).await;
    }
    let limited = Fault::RateLimited {
        headers: RateHeaders::RetryAfterDate,
        seconds: 90,
    };
    world
        .sim
        .control()
        .inject(FaultRule::once("token", limited));
    for grant in &grants {
        let error = world.get(&vault, *grant).await.expect_err("it is limited");
        assert_eq!(error.reason, Some(Reason::ProviderRateLimited));
        let wait = error.retry_after.unwrap();
        assert!(
            (Duration::from_secs(80)..Duration::from_secs(100)).contains(&wait),
            "{wait:?}"
        );
    }
    assert_eq!(token_requests(&world), 1);
    let other = another_clients_grant(&world, &vault).await;
    world.expire(other).await;
    assert_eq!(world.get(&vault, other).await.unwrap().version, 2);

    clock.advance(Duration::from_secs(100));
    world.forget_waits().await;
    for grant in &grants {
        assert_eq!(world.get(&vault, *grant).await.unwrap().version, 2);
    }
}

/// A grant of another OAuth client at the same endpoint, that is renewed by the client's own credentials.
async fn another_clients_grant(world: &World, vault: &Instance) -> Uuid {
    let sim_client = SimClient {
        service_user: Some("alice".into()),
        ..SimClient::confidential("second", "another secret", &["http://127.0.0.1:1/callback"])
    };
    let control = world.sim.control();
    control.register_client("oidc", sim_client).await.unwrap();
    let (client, grant) = (
        world.tenant.new_id(&world.deps),
        world.tenant.new_id(&world.deps),
    );
    let mut service = world.vault(vault);
    let put = PutOAuthClientRequest {
        oauth_client: Some(OAuthClient {
            oauth_client_id: client.to_string(),
            client_id: "second".into(),
            ..world.oauth_client("another secret")
        }),
    };
    service.put_o_auth_client(put).await.unwrap();
    let exchange = ExchangeAuthorizationRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: client.to_string(),
        grant_id: grant.to_string(),
        authorization: Some(
            exchange_authorization_request::Authorization::ClientCredentials(ClientCredentials {
                scopes: vec!["records.read".into()],
            }),
        ),
        ..ExchangeAuthorizationRequest::default()
    };
    service.exchange_authorization(exchange).await.unwrap();
    let confirm = ConfirmGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
    };
    service.confirm_grant(confirm).await.unwrap();
    grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_please_stops_no_other_grant_of_the_client() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    let (world, vault) = World::new().await;
    let grants = connect(&world, &vault, 2).await;
    for grant in &grants {
        world.expire(*grant).await;
    }
    let displeased = Fault::OauthError {
        error: "invalid_request".into(),
        status: None,
    };
    world
        .sim
        .control()
        .inject(FaultRule::once("token", displeased));
    for _ in 0..3 {
        let error = world.get(&vault, grants[0]).await.expect_err("refused");
        assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
    }
    assert_eq!(token_requests(&world), 1, "it is not asked again at once");
    let described = world.describe(&vault, grants[0]).await;
    assert_eq!(
        (described.state(), described.consecutive_failures),
        (GrantState::Active, 0)
    );
    assert_eq!(world.get(&vault, grants[1]).await.unwrap().version, 2);
    world.forget_waits().await;
    assert_eq!(world.get(&vault, grants[0]).await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_than_places_are_all_served() {
    let _logs = testkit::logs::capture();
    let (world, _other) = World::new().await;
    let mut config = world.config("narrow", world.database.config(SCHEMA.name));
    config.refresh.per_endpoint = 1;
    let vault = world.start_with(config, world.deps.clone()).await;
    let grants = connect(&world, &vault, 12).await;
    for grant in &grants {
        world.expire(*grant).await;
    }
    let readers = grants.iter().flat_map(|grant| [*grant; 3]).map(|grant| {
        let (mut client, request) = (world.vault(&vault), world.get_request(grant));
        async move { get_at(&mut client, request).await.unwrap().version }
    });
    let versions = futures::future::join_all(readers).await;
    assert!(versions.iter().all(|version| *version == 2));
    assert_eq!(token_requests(&world), 12);
}
