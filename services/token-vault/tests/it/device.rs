//! Consent on another device (RFC 8628).

use std::time::Duration;

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::vault::v1::exchange_authorization_request::Authorization;
use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};

use crate::world::{Instance, World, token_of};

/// With a client whose device authorization endpoint is named, and a provider that may be polled at any time.
async fn world() -> (World, Instance) {
    let (world, vault) = World::new().await;
    let at_once = world.sim.control().configure("oidc", |provider| {
        provider.device_interval_seconds = 0;
    });
    at_once.await.unwrap();
    let client = OAuthClient {
        device_authorization_endpoint: format!(
            "{}/oauth/device_authorization",
            world.sim.base_url()
        ),
        ..world.oauth_client("s3cret & more")
    };
    let request = PutOAuthClientRequest {
        oauth_client: Some(client),
    };
    let put = world.vault(&vault).put_o_auth_client(request).await;
    put.unwrap();
    (world, vault)
}

fn start_request(world: &World) -> StartDeviceAuthorizationRequest {
    StartDeviceAuthorizationRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: world.client.to_string(),
        scopes: vec!["records.read".into(), "offline_access".into()],
        ..StartDeviceAuthorizationRequest::default()
    }
}

async fn start(world: &World, vault: &Instance) -> StartDeviceAuthorizationResponse {
    let mut client = world.vault(vault);
    let started = client
        .start_device_authorization(start_request(world))
        .await;
    started.unwrap().into_inner()
}

fn poll_request(world: &World, device_code: &str) -> ExchangeAuthorizationRequest {
    let device_code = device_code.to_owned();
    ExchangeAuthorizationRequest {
        authorization: Some(Authorization::DeviceCode(DeviceCode { device_code })),
        ..world.exchange_request(
            world.tenant.new_id(&world.deps),
            AuthorizationCode::default(),
        )
    }
}

async fn poll(
    world: &World,
    vault: &Instance,
    request: &ExchangeAuthorizationRequest,
) -> Result<Grant, CallError> {
    let mut client = world.vault(vault);
    let answer = client.exchange_authorization(request.clone()).await?;
    Ok(answer.into_inner().grant.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_polled_until_its_person_has_consented() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let started = start(&world, &vault).await;
    assert_eq!(
        started.verification_uri,
        format!("{}/device", world.sim.base_url())
    );
    assert!(
        started
            .verification_uri_complete
            .contains(&started.user_code)
    );
    assert!(started.interval.is_some());
    assert!(started.expires_at.unwrap().seconds > world.deps.now().unix_timestamp());

    let request = poll_request(&world, &started.device_code);
    for _ in 0..3 {
        let error = poll(&world, &vault, &request)
            .await
            .expect_err("nobody has consented");
        assert_eq!(
            (error.code, error.reason),
            (Code::FailedPrecondition, Some(Reason::AuthorizationPending))
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(5)));
        assert_eq!(error.metadata["slow_down"], "false");
    }
    let control = world.sim.control();
    control
        .decide_device("oidc", &started.user_code, Some("alice"))
        .unwrap();
    let made = poll(&world, &vault, &request).await.unwrap();
    assert!(made.has_refresh_token);
    // The code is used up; a repetition gets the same grant.
    assert_eq!(poll(&world, &vault, &request).await.unwrap(), made);
    let grant = made.grant_id.parse().unwrap();
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    assert!(world.works(&token).await);
    world.expire(grant).await;
    assert_eq!(world.get(&vault, grant).await.unwrap().version, 2);
    assert_eq!(control.grants().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_comes_too_soon_says_so() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let slow = world.sim.control().configure("oidc", |provider| {
        provider.device_interval_seconds = 600;
    });
    slow.await.unwrap();
    let started = start(&world, &vault).await;
    assert_eq!(started.interval.unwrap().seconds, 600);
    let request = poll_request(&world, &started.device_code);
    for (slow_down, wait) in [("false", 5), ("true", 10)] {
        let error = poll(&world, &vault, &request)
            .await
            .expect_err("nobody has consented");
        assert_eq!(error.reason, Some(Reason::AuthorizationPending));
        assert_eq!(error.metadata["slow_down"], slow_down);
        assert_eq!(error.retry_after, Some(Duration::from_secs(wait)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_and_an_end_are_final() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = world().await;
    let (denied, expired) = (start(&world, &vault).await, start(&world, &vault).await);
    let control = world.sim.control();
    control
        .decide_device("oidc", &denied.user_code, None)
        .unwrap();
    control.advance_clock(Duration::from_secs(1)).await.unwrap();
    let requests = [
        poll_request(&world, &denied.device_code),
        poll_request(&world, &expired.device_code),
    ];
    for (request, code) in requests.iter().zip(["access_denied", "expired_token"]) {
        for _ in 0..2 {
            let error = poll(&world, &vault, request).await.expect_err("it is over");
            assert_eq!(
                (error.code, error.reason),
                (Code::FailedPrecondition, Some(Reason::AuthorizationExpired))
            );
            assert!(error.message.contains(code), "{}", error.message);
        }
        control
            .advance_clock(Duration::from_hours(1))
            .await
            .unwrap();
    }
    assert_eq!(control.counters().calls_to("token"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_whose_answer_is_lost_is_followed_by_another() {
    let logs = testkit::logs::capture();
    logs.expect("a provider gave no tokens for an authorization");
    let (world, vault) = world().await;
    let started = start(&world, &vault).await;
    let request = poll_request(&world, &started.device_code);
    let control = world.sim.control();
    control.inject(FaultRule::once("token", Fault::CutBody { bytes: Some(3) }));
    let error = poll(&world, &vault, &request)
        .await
        .expect_err("the answer was lost");
    assert_eq!(error.reason, Some(Reason::ProviderUnavailable));
    control
        .decide_device("oidc", &started.user_code, Some("bob"))
        .unwrap();
    poll(&world, &vault, &request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_field_is_named_at_once() {
    let _logs = testkit::logs::capture();
    let (world, vault) = world().await;
    let request = StartDeviceAuthorizationRequest {
        tenant_id: world.tenant.to_string(),
        oauth_client_id: "x".into(),
        scopes: vec![String::new()],
        ..StartDeviceAuthorizationRequest::default()
    };
    let mut client = world.vault(&vault);
    let error = CallError::from(
        client
            .start_device_authorization(request)
            .await
            .expect_err("all is wrong"),
    );
    let mut fields: Vec<_> = error.fields.iter().map(|wrong| &wrong.field).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["oauth_client_id", "scopes"]);

    let request = poll_request(&world, "");
    let error = poll(&world, &vault, &request)
        .await
        .expect_err("there is no code");
    assert_eq!(error.fields[0].field, "device_code.device_code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_device_authorizations_is_named_as_such() {
    let _logs = testkit::logs::capture();
    let (world, vault) = World::new().await;
    let mut client = world.vault(&vault);
    let error = CallError::from(
        client
            .start_device_authorization(start_request(&world))
            .await
            .expect_err("there is no endpoint"),
    );
    assert_eq!(error.reason, Some(Reason::IntegrationMisconfigured));
}
