//! What others are told of grants, each in the transaction that causes it.

use std::time::Duration;

use contracts::vault::v1::*;
use provider_sim::{Fault, FaultRule};

use crate::world::{Instance, World};

/// The kinds of all events so far, up to and with the first of `last`.
pub(crate) async fn until(
    world: &World,
    vault: &Instance,
    last: GrantEventKind,
) -> Vec<GrantEventKind> {
    let told = told_until(world, vault, last).await;
    told.iter().map(WatchGrantEventsResponse::kind).collect()
}

async fn told_until(
    world: &World,
    vault: &Instance,
    last: GrantEventKind,
) -> Vec<WatchGrantEventsResponse> {
    let watched = world
        .vault(vault)
        .watch_grant_events(WatchGrantEventsRequest::default())
        .await
        .unwrap();
    let mut stream = watched.into_inner();
    let mut told = Vec::new();
    let reading = async {
        while let Some(event) = stream.message().await.unwrap() {
            let kind = event.kind();
            if kind != GrantEventKind::Unspecified {
                told.push(event);
            }
            if kind == last {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(in_time.is_ok(), "{last:?} was not told: {told:?}");
    told
}

fn answer(body: &str) -> FaultRule {
    FaultRule::once(
        "token",
        Fault::Answer {
            status: 200,
            headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
            body: body.to_owned(),
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grants_life_is_told() {
    let logs = testkit::logs::capture();
    logs.expect("a refresh failed");
    logs.expect("the provider refuses a grant for good");
    let (world, vault) = World::new().await;
    let grant = world.connect(&vault).await;
    let control = world.sim.control();

    world.refresh(&vault, grant).await.unwrap();

    let fewer = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"scope":"email"}"#;
    control.inject(answer(fewer));
    world.refresh(&vault, grant).await.unwrap();

    for status in [502, 503] {
        control.inject(FaultRule::once(
            "token",
            Fault::OauthError {
                error: "temporarily_unavailable".into(),
                status: Some(status),
            },
        ));
        world.refresh(&vault, grant).await.expect_err("it is down");
        world.forget_waits().await;
    }
    world.refresh(&vault, grant).await.unwrap();

    control.inject(FaultRule::once(
        "token",
        Fault::OauthError {
            error: "invalid_grant".into(),
            status: None,
        },
    ));
    world
        .refresh(&vault, grant)
        .await
        .expect_err("it is refused");
    let again = ExchangeAuthorizationRequest {
        expected_version: world.describe(&vault, grant).await.version,
        ..world.exchange_request(grant, world.code("n").await)
    };
    world
        .vault(&vault)
        .exchange_authorization(again)
        .await
        .unwrap();
    let request = RevokeGrantRequest {
        tenant_id: world.tenant.to_string(),
        grant_id: grant.to_string(),
        mode: RevocationMode::Local as i32,
    };
    world.vault(&vault).revoke_grant(request).await.unwrap();

    let told = told_until(&world, &vault, GrantEventKind::Revoked).await;
    let kinds: Vec<_> = told.iter().map(WatchGrantEventsResponse::kind).collect();
    assert_eq!(
        kinds,
        [
            GrantEventKind::Created,
            GrantEventKind::Refreshed,
            GrantEventKind::ScopesChanged,
            GrantEventKind::RefreshFailing,
            GrantEventKind::Recovered,
            GrantEventKind::ReauthorizationRequired,
            GrantEventKind::Recovered,
            GrantEventKind::Revoked,
        ]
    );
    let revisions: Vec<_> = told
        .iter()
        .map(|event| event.grant.as_ref().unwrap().revision)
        .collect();
    assert!(
        revisions.is_sorted_by(|one, next| one < next),
        "{revisions:?}"
    );
    let ended = told[5].grant.as_ref().unwrap();
    assert_eq!(
        (ended.state(), ended.reauthorization_cause()),
        (
            GrantState::ReauthorizationRequired,
            ReauthorizationCause::Revoked
        )
    );
    assert!(told[5].error.starts_with("invalid_grant"));
}
