//! Every fault, as its victim sees it.

use std::time::{Duration, Instant};

use provider_sim::config::{RateHeaders, Replay, Rotation};
use provider_sim::http_client::HttpError;
use provider_sim::{ErrorShape, Fault, FaultRule, MalformedBody};
use serde_json::json;

use crate::support::{Sim, get, oauth_error, text};

async fn connected() -> (Sim, String, String) {
    let grace = Rotation::Grace {
        window_seconds: 60,
        replay: Replay::Same,
    };
    let sim = Sim::start("procore", |provider| provider.rotation = grace).await;
    let tokens = sim.connect("procore", "alice", "").await;
    (
        sim,
        text(&tokens, "access_token"),
        text(&tokens, "refresh_token"),
    )
}

#[tokio::test]
async fn an_answer_is_lost_after_the_rotation_was_committed() {
    let (sim, _, refresh) = connected().await;
    sim.control()
        .inject(FaultRule::once("token", Fault::Drop).after_work());
    let lost = sim.try_refresh("procore", &refresh).await;
    assert!(matches!(lost, Err(HttpError::Broken(_))), "{lost:?}");
    let grant = sim.control().counters().grants["g1"];
    assert_eq!((grant.refreshes, grant.replays), (1, 0), "it was committed");
    let again = sim.refresh("procore", &refresh).await;
    assert_eq!(again.status, 200, "the window saves it");
    assert_eq!(sim.control().counters().grants["g1"].replays, 1);
    let counters = sim.control().counters();
    assert_eq!(
        counters.count(|call| call.fault.as_deref() == Some("drop") && call.outcome == "ok"),
        1
    );
}

#[tokio::test]
async fn a_connection_is_closed_before_any_work() {
    let (sim, _, refresh) = connected().await;
    sim.control().inject(FaultRule::once("token", Fault::Drop));
    assert!(matches!(
        sim.try_refresh("procore", &refresh).await,
        Err(HttpError::Broken(_))
    ));
    let counters = sim.control().counters();
    assert_eq!(counters.refreshes(), 0);
    assert_eq!(
        counters.count(|call| call.fault.as_deref() == Some("drop") && call.outcome == "none"),
        1
    );
}

#[tokio::test]
async fn a_body_is_cut_in_the_middle() {
    let (sim, access, _) = connected().await;
    sim.control().inject(FaultRule::once(
        "api.procore.companies",
        Fault::CutBody { bytes: Some(10) },
    ));
    let url = format!("{}/rest/v1.0/companies", sim.issuer("procore"));
    let cut = sim.api_url(&url, &access, &[]).await;
    assert!(
        matches!(cut, Err(HttpError::Body(_))),
        "headers came, the body did not: {cut:?}"
    );
    assert_eq!(sim.api_url(&url, &access, &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_delay_is_real_time_and_before_or_after_the_work() {
    let (sim, access, _) = connected().await;
    for after_work in [false, true] {
        let rule = FaultRule::once("api.me", Fault::Delay { millis: 120 });
        sim.control().inject(FaultRule { after_work, ..rule });
        let began = Instant::now();
        assert_eq!(sim.api("procore", "/me", &access, &[]).await.status, 200);
        assert!(
            began.elapsed() >= Duration::from_millis(120),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn too_many_requests_are_told_with_every_shape_of_header() {
    let (sim, access, _) = connected().await;
    let epoch = "1780315230";
    for (headers, wanted) in [
        (RateHeaders::RetryAfterSeconds, ("retry-after", "30")),
        (
            RateHeaders::RetryAfterDate,
            ("retry-after", "Mon, 01 Jun 2026 12:00:30 GMT"),
        ),
        (RateHeaders::XRatelimitEpoch, ("x-ratelimit-reset", epoch)),
        (RateHeaders::XRatelimitSeconds, ("x-ratelimit-reset", "30")),
        (RateHeaders::Procore, ("x-rate-limit-reset", epoch)),
        (RateHeaders::Ietf, ("ratelimit-reset", "30")),
    ] {
        sim.control().inject(FaultRule::once(
            "api",
            Fault::RateLimited {
                headers,
                seconds: 30,
            },
        ));
        let answer = sim.api("procore", "/rest/v1.0/me", &access, &[]).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header(wanted.0), Some(wanted.1), "{headers:?}");
        assert!(
            answer.text().starts_with("You have surpassed"),
            "in Procore's words"
        );
    }
    sim.control().inject(FaultRule::once(
        "api",
        Fault::RateLimited {
            headers: RateHeaders::None,
            seconds: 30,
        },
    ));
    let answer = sim.api("procore", "/me", &access, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (429, None)
    );
}

#[tokio::test]
async fn server_errors_have_the_endpoints_own_form() {
    let (sim, access, refresh) = connected().await;
    for status in [500, 502, 503] {
        let fault = Fault::Status {
            status,
            retry_after_seconds: Some(7),
        };
        sim.control().inject(FaultRule {
            times: Some(2),
            ..FaultRule::every("*", fault)
        });
        let api = sim.api("procore", "/rest/v1.0/me", &access, &[]).await;
        assert_eq!(
            (api.status.as_u16(), api.header("retry-after")),
            (status, Some("7"))
        );
        assert!(api.json().unwrap()["errors"].is_string());
        let token = sim.refresh("procore", &refresh).await;
        assert_eq!(token.status, status);
        let error = if status == 500 {
            "server_error"
        } else {
            "temporarily_unavailable"
        };
        assert_eq!(oauth_error(&token), error);
    }
    assert_eq!(sim.control().counters().refreshes(), 0);
}

#[tokio::test]
async fn oauth_errors_are_answered_on_demand() {
    let (sim, _, refresh) = connected().await;
    for (error, status, expected) in [
        ("invalid_grant", None, 400),
        ("invalid_client", None, 401),
        ("invalid_grant", Some(403), 403),
    ] {
        let fault = Fault::OauthError {
            error: error.to_owned(),
            status,
        };
        sim.control().inject(FaultRule {
            grant_type: Some("refresh_token".to_owned()),
            ..FaultRule::once("token", fault)
        });
        let answer = sim.refresh("procore", &refresh).await;
        assert_eq!(
            (answer.status.as_u16(), oauth_error(&answer)),
            (expected, error.to_owned())
        );
    }
    assert_eq!(
        sim.refresh("procore", &refresh).await.status,
        200,
        "the grant was never touched"
    );
}

#[tokio::test]
async fn errors_come_with_status_200() {
    let (sim, _, refresh) = connected().await;
    for (shape, field, value) in [
        (ErrorShape::Slack, "ok", json!(false)),
        (ErrorShape::Github, "error", json!("bad_refresh_token")),
        (ErrorShape::Tiktok, "code", json!(40105)),
        (ErrorShape::Zoho, "error", json!("invalid_code")),
    ] {
        sim.control()
            .inject(FaultRule::once("token", Fault::ErrorIn200 { shape }));
        let answer = sim.refresh("procore", &refresh).await;
        assert_eq!(answer.status, 200);
        let body = answer.json().unwrap();
        assert_eq!((&body[field], body.get("access_token")), (&value, None));
    }
}

#[tokio::test]
async fn bodies_are_malformed() {
    let (sim, _, refresh) = connected().await;
    for body in [
        MalformedBody::TruncatedJson,
        MalformedBody::Html,
        MalformedBody::Empty,
    ] {
        sim.control()
            .inject(FaultRule::once("token", Fault::Malformed { body }));
        let answer = sim.refresh("procore", &refresh).await;
        assert_eq!(answer.status, 200);
        assert!(answer.json().is_err(), "{body:?}: {}", answer.text());
    }
    sim.control().inject(FaultRule::once(
        "token",
        Fault::Malformed {
            body: MalformedBody::WrongType,
        },
    ));
    assert!(
        sim.refresh("procore", &refresh)
            .await
            .json()
            .unwrap()
            .is_array()
    );
    assert_eq!(sim.control().counters().refreshes(), 0);
    let truncated = Fault::Malformed {
        body: MalformedBody::TruncatedJson,
    };
    sim.control()
        .inject(FaultRule::once("token", truncated).after_work());
    assert!(sim.refresh("procore", &refresh).await.json().is_err());
    assert_eq!(
        sim.control().counters().refreshes(),
        1,
        "this one was done first"
    );
}

#[tokio::test]
async fn any_answer_can_be_given() {
    let sim = Sim::start("oidc", |_| {}).await;
    let fault = Fault::Answer {
        status: 302,
        headers: [("location".to_owned(), "http://169.254.169.254/".to_owned())].into(),
        body: String::new(),
    };
    sim.control().inject(FaultRule::once("jwks", fault));
    let answer = get(&format!("{}/jwks", sim.issuer("oidc"))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (302, Some("http://169.254.169.254/"))
    );
}

#[tokio::test]
async fn a_fault_meets_only_whom_it_is_meant_for() {
    let sim = Sim::start("procore", |_| {}).await;
    let alice = sim.connect("procore", "alice", "").await;
    let bob = sim.connect("procore", "bob", "").await;
    let rule = |endpoint: &str| FaultRule {
        user: Some("bob".to_owned()),
        ..FaultRule::every(
            endpoint,
            Fault::Status {
                status: 503,
                retry_after_seconds: None,
            },
        )
    };
    sim.control().inject(rule("api"));
    sim.control().inject(rule("token"));
    assert_eq!(
        sim.api("procore", "/me", &text(&alice, "access_token"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        sim.api("procore", "/me", &text(&bob, "access_token"), &[])
            .await
            .status,
        503
    );
    assert_eq!(
        sim.refresh("procore", &text(&alice, "refresh_token"))
            .await
            .status,
        200
    );
    assert_eq!(
        sim.refresh("procore", &text(&bob, "refresh_token"))
            .await
            .status,
        503
    );
    sim.control().clear_faults();
    assert_eq!(
        sim.refresh("procore", &text(&bob, "refresh_token"))
            .await
            .status,
        200
    );
}
