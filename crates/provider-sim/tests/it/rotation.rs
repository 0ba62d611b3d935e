//! What using a refresh token does to it, in each mode.

use provider_sim::RevokeCause;
use provider_sim::config::{Replay, Rotation};
use serde_json::Value;

use crate::support::{Sim, oauth_error, text};

async fn connected(rotation: Rotation) -> (Sim, String) {
    let sim = Sim::start("oidc", |provider| provider.rotation = rotation).await;
    let tokens = sim.connect("oidc", "alice", "records.read").await;
    (sim, text(&tokens, "refresh_token"))
}

async fn refreshed(sim: &Sim, token: &str) -> Value {
    let answer = sim.refresh("oidc", token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().unwrap()
}

#[tokio::test]
async fn off_leaves_the_token_as_it_is() {
    let (sim, token) = connected(Rotation::Off).await;
    for _ in 0..3 {
        let tokens = refreshed(&sim, &token).await;
        assert!(tokens.get("refresh_token").is_none());
        assert_eq!(
            sim.api("oidc", "/me", &text(&tokens, "access_token"), &[])
                .await
                .status,
            200
        );
    }
    let counters = sim.control().counters();
    assert_eq!(
        (counters.refreshes(), counters.grants["g1"].refreshes),
        (3, 3)
    );
}

#[tokio::test]
async fn within_the_window_a_replay_gets_the_same_answer() {
    let (sim, token) = connected(Rotation::Grace {
        window_seconds: 30,
        replay: Replay::Same,
    })
    .await;
    let first = refreshed(&sim, &token).await;
    sim.advance(29).await;
    let replayed = refreshed(&sim, &token).await;
    assert_eq!(replayed["access_token"], first["access_token"]);
    assert_eq!(replayed["refresh_token"], first["refresh_token"]);
    assert_eq!(replayed["expires_in"], 3600 - 29, "what is left of it");
    let grant = sim.control().counters().grants["g1"];
    assert_eq!(
        (grant.refreshes, grant.replays, grant.reuse_refused),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn within_the_window_a_replay_may_get_another_answer() {
    let (sim, token) = connected(Rotation::Grace {
        window_seconds: 30,
        replay: Replay::New,
    })
    .await;
    let first = refreshed(&sim, &token).await;
    let replayed = refreshed(&sim, &token).await;
    assert_ne!(replayed["refresh_token"], first["refresh_token"]);
    refreshed(&sim, &text(&replayed, "refresh_token")).await;
}

#[tokio::test]
async fn after_the_window_a_replay_revokes_the_grant() {
    let (sim, token) = connected(Rotation::Grace {
        window_seconds: 30,
        replay: Replay::Same,
    })
    .await;
    let first = refreshed(&sim, &token).await;
    sim.advance(30).await;
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &token).await),
        "invalid_grant"
    );
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &text(&first, "refresh_token")).await),
        "invalid_grant"
    );
    assert_eq!(
        sim.api("oidc", "/me", &text(&first, "access_token"), &[])
            .await
            .status,
        401
    );
    assert_eq!(
        sim.control().grants()[0].revoked,
        Some(RevokeCause::RefreshReuse)
    );
    assert_eq!(sim.control().counters().grants["g1"].reuse_refused, 1);
}

#[tokio::test]
async fn strict_revokes_the_grant_at_once() {
    let (sim, token) = connected(Rotation::Strict).await;
    let first = refreshed(&sim, &token).await;
    let second = refreshed(&sim, &text(&first, "refresh_token")).await;
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &token).await),
        "invalid_grant"
    );
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &text(&second, "refresh_token")).await),
        "invalid_grant"
    );
    assert_eq!(
        sim.control().counters().reuse_refused(),
        1,
        "the second refusal was no reuse"
    );
}

#[tokio::test]
async fn of_a_hundred_refreshes_at_once_one_wins() {
    let (sim, token) = connected(Rotation::Strict).await;
    let attempts = (0..100).map(|_| sim.refresh("oidc", &token));
    let answers = futures::future::join_all(attempts).await;
    let granted = answers.iter().filter(|answer| answer.status == 200).count();
    let counters = sim.control().counters();
    assert_eq!((granted, counters.refreshes()), (1, 1));
    assert_eq!(
        counters.calls_to("token"),
        101,
        "and the exchange of the code"
    );
}

#[tokio::test]
async fn another_clients_refresh_token_is_refused_and_stays_good() {
    let (sim, token) = connected(Rotation::Strict).await;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &token),
        ("client_id", "sim-oidc"),
        ("client_secret", "sim-secret"),
    ];
    let answer = sim
        .post_form(&format!("{}/oauth/token", sim.issuer("oidc")), &[], &form)
        .await
        .unwrap();
    assert_eq!(oauth_error(&answer), "invalid_grant");
    refreshed(&sim, &token).await;
}
