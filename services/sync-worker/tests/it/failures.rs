//! Providers and services that say no.

use std::time::Duration;

use common::{Problem, Reason};
use provider_sim::config::RateHeaders;
use provider_sim::{Fault, MalformedBody};
use serde_json::json;
use worker::JobKind;

use crate::support::lease_lost;
use crate::world::{COMPANY, World};

fn refused(world: &World) -> Vec<i64> {
    let contexts = world.log().all("context");
    contexts
        .iter()
        .map(|entry| entry.detail["refused"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_refused_credential_is_renewed_once() {
    let world = World::procore(450).await;
    world.inject(
        "api.procore.projects",
        2,
        Some(1),
        Fault::Status {
            status: 401,
            retry_after_seconds: None,
        },
    );
    world.work(world.job(JobKind::Initial)).await.completed();
    assert_eq!(world.recorded(), world.ids(COMPANY));
    assert_eq!(refused(&world), [0, 1], "the version that was refused");
}

#[tokio::test]
async fn a_credential_that_stays_refused_parks_the_job() {
    let world = World::procore(450).await;
    world.broker.give_only("nonsense").await;
    let failed = world.work(world.job(JobKind::Initial)).await.failed("PARK");
    assert_eq!(refused(&world), [0, 1], "one refresh, and no more");
    assert_eq!(
        world.control().counters().calls_to("api.procore.projects"),
        2
    );
    assert!(
        failed["error"].as_str().unwrap().contains("401"),
        "{failed}"
    );
    assert!(
        !failed.to_string().contains("nonsense"),
        "no credential in an error"
    );
}

#[tokio::test]
async fn a_connection_that_needs_its_user_parks_the_job() {
    let world = World::procore(5).await;
    let problem = Problem::failed_precondition(
        Reason::ReauthorizationRequired,
        "the user has to connect again",
    );
    world
        .broker
        .failures()
        .next("get_request_context", problem, false);
    let failed = world.work(world.job(JobKind::Initial)).await.failed("PARK");
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("the user has to connect again")
    );
    assert_eq!(world.log().all("checkpoint").len(), 0);
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    let world = World::new("microsoft", 5, "User.Read").await;
    let failed = world.work(world.job(JobKind::Initial)).await.failed("PARK");
    assert_eq!(failed["missing_scopes"], json!(["Mail.Read"]));
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("ErrorAccessDenied"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_as_long_as_the_provider_says() {
    for (headers, at_least, at_most) in [
        (RateHeaders::RetryAfterSeconds, 17, 17),
        (RateHeaders::RetryAfterDate, 15, 18),
        (RateHeaders::Procore, 15, 18),
        (RateHeaders::None, 30, 30),
    ] {
        let world = World::procore(450).await;
        world.inject(
            "api.procore.projects",
            2,
            Some(1),
            Fault::RateLimited {
                headers,
                seconds: 17,
            },
        );
        let failed = world
            .work(world.job(JobKind::Initial))
            .await
            .failed("RETRY");
        let wait = failed["retry_after"].as_i64().unwrap();
        assert!((at_least..=at_most).contains(&wait), "{headers:?}: {wait}");
        assert_eq!(
            world.log().all("rate_limit")[0].detail["retry_after"],
            wait,
            "all are told"
        );
        assert_eq!(world.recorded().len(), 200, "what had been read is written");
        assert_eq!(world.log().all("checkpoint").len(), 3);
    }
}

#[tokio::test]
async fn errors_and_cut_answers_are_read_again() {
    let world = World::procore(450).await;
    world.inject(
        "api.procore.projects",
        1,
        Some(2),
        Fault::Status {
            status: 502,
            retry_after_seconds: None,
        },
    );
    world.inject(
        "api.procore.projects",
        2,
        Some(1),
        Fault::CutBody { bytes: None },
    );
    world.inject("api.procore.projects", 3, Some(1), Fault::Drop);
    world.inject(
        "api.procore.projects",
        4,
        Some(1),
        Fault::Malformed {
            body: MalformedBody::TruncatedJson,
        },
    );
    let completed = world.work(world.job(JobKind::Initial)).await.completed();
    assert_eq!(world.recorded(), world.ids(COMPANY));
    assert_eq!(completed["progress"]["read"], 450);
    let met: Vec<_> = world
        .control()
        .faults()
        .iter()
        .map(|fault| fault.met)
        .collect();
    assert_eq!(met, [2, 1, 1, 1], "each fault struck");
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_for_later() {
    let world = World::procore(450).await;
    world.inject(
        "api.procore.projects",
        1,
        None,
        Fault::Status {
            status: 500,
            retry_after_seconds: None,
        },
    );
    let failed = world
        .work(world.job(JobKind::Initial))
        .await
        .failed("RETRY");
    assert_eq!(failed["retry_after"], json!(null), "it did not say when");
    assert_eq!(
        world.control().counters().calls_to("api.procore.projects"),
        4,
        "one page, and three attempts at the next"
    );
    assert_eq!(
        world.log().all("checkpoint").len(),
        2,
        "the first page stays"
    );
}

#[tokio::test]
async fn a_page_of_another_shape_is_said_with_its_request_and_without_secrets() {
    for body in [
        MalformedBody::Html,
        MalformedBody::WrongType,
        MalformedBody::Empty,
    ] {
        let world = World::procore(450).await;
        world.inject("api.procore.projects", 0, None, Fault::Malformed { body });
        let failed = world
            .work(world.job(JobKind::Initial))
            .await
            .failed("RETRY");
        let error = failed["error"].as_str().unwrap();
        assert!(
            error.contains(&format!("GET /rest/v1.0/projects?company_id={COMPANY}")),
            "{error}"
        );
        assert!(!error.contains(&world.broker.token().await), "{error}");
        assert_eq!(world.log().all("checkpoint").len(), 1, "the cursor stays");
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_repeated() {
    let world = World::procore(5).await;
    world.inject(
        "api.procore.projects",
        0,
        None,
        Fault::Status {
            status: 422,
            retry_after_seconds: None,
        },
    );
    world
        .work(world.job(JobKind::Initial))
        .await
        .failed("FATAL");
    assert_eq!(
        world.control().counters().calls_to("api.procore.projects"),
        1
    );
}

#[tokio::test]
async fn a_ledger_that_is_away_for_a_moment_is_told_again() {
    let world = World::procore(250).await;
    let away = || Problem::unavailable("away", Duration::from_millis(1));
    world
        .ledger
        .failures()
        .next("record_documents", away(), false);
    world
        .ledger
        .failures()
        .next("record_documents", away(), true);
    let completed = world.work(world.job(JobKind::Initial)).await.completed();
    assert_eq!(world.recorded(), world.ids(COMPANY));
    assert_eq!(
        completed["progress"]["unchanged"], 100,
        "what was taken though its answer was lost"
    );
}

#[tokio::test]
async fn a_lease_lost_before_the_first_page_reads_nothing() {
    let world = World::procore(450).await;
    world
        .scheduler
        .failures()
        .next("checkpoint", lease_lost(), false);
    let process = world.start();
    world.scheduler.give(world.job(JobKind::Initial), 1);
    world
        .work_on(&process, world.job(JobKind::Incremental))
        .await
        .completed();
    crate::world::stop(&process).await;
    assert_eq!(
        world.control().counters().calls_to("api.procore.projects"),
        1,
        "the second job's"
    );
}
