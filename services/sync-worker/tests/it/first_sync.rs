//! The first read of a stream.

use contracts::ingest::v1::IngestionMethod;
use serde_json::{Value, json};
use worker::JobKind;

use crate::stand_ins::EMAIL;
use crate::world::{COMPANY, OTHER_COMPANY, World};

#[tokio::test]
async fn req_procore_08_every_project_is_recorded_and_says_who_brought_it() {
    let _logs = testkit::logs::capture();
    let world = World::procore(450).await;
    let job = world.job(JobKind::Initial);
    let completed = world.work(job.clone()).await.completed();
    assert_eq!(world.recorded(), world.ids(COMPANY));
    let counts = &completed["progress"];
    assert_eq!(
        [
            &counts["read"],
            &counts["written"],
            &counts["expected"],
            &counts["calls"]
        ],
        [&json!(450), &json!(450), &json!(450), &json!(5)]
    );
    assert!(counts["bytes"].as_i64().unwrap() > 100_000);

    let document = world.ledger.live().into_values().next().unwrap();
    assert_eq!(
        (
            document.ingested_by_user_id.as_str(),
            document.ingested_by_user_email.as_str()
        ),
        ("ada", EMAIL)
    );
    assert_eq!(document.ingestion_method(), IngestionMethod::OauthSync);
    assert_eq!(
        (document.job_id, document.external_account_id.as_str()),
        (job.job_id, COMPANY)
    );
    assert!(!document.title.is_empty() && document.source_updated_at.is_some());
    assert_eq!(
        document.content_url,
        format!(
            "https://app.procore.com/{}/project/home",
            document.external_id
        )
    );
    let content: Value = serde_json::from_slice(&document.content_json).unwrap();
    assert_eq!(content["id"].to_string(), document.external_id);
}

#[tokio::test]
async fn documents_come_before_the_cursor_and_the_mark_before_both() {
    let world = World::procore(450).await;
    let job = world.job(JobKind::Initial);
    let asked_at = job.window_end.unwrap();
    let completed = world.work(job).await.completed();
    let mut whats = world.log().whats();
    whats.retain(|what| *what != "heartbeat" && *what != "context");
    let page = ["documents", "checkpoint"];
    let expected: Vec<_> = ["leased", "checkpoint"]
        .into_iter()
        .chain(page.repeat(5))
        .chain(["completed"])
        .collect();
    assert_eq!(whats, expected);

    let checkpoints = world.log().all("checkpoint");
    let mark = &checkpoints[0].detail["mark"];
    let at: &str = mark["mark"]["time"].as_str().unwrap();
    let at =
        time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).unwrap();
    assert_eq!(
        at.unix_timestamp(),
        asked_at.seconds,
        "from the end of the window on"
    );
    assert!(
        checkpoints
            .iter()
            .all(|entry| entry.detail["mark"] == *mark),
        "the mark stays"
    );
    assert_eq!(completed["mark"], *mark);
    assert_eq!(world.log().all("documents")[0].detail["epoch"], 11);
}

#[tokio::test]
async fn req_procore_07_the_account_decides_which_projects_come() {
    let world = World::procore(30).await;
    let mut job = world.job(JobKind::Initial);
    job.external_account_id = OTHER_COMPANY.to_owned();
    world.work(job.clone()).await.completed();
    assert_eq!(world.recorded(), world.ids(OTHER_COMPANY));
    let context = world.log().all("context").remove(0).detail;
    assert_eq!(context["account"], OTHER_COMPANY);
    assert_eq!(context["purpose"], format!("sync job {}", job.job_id));
    assert_eq!(context["actor"]["user"], "ada");
    assert_eq!(context["actor"]["tenant"], job.tenant_id);
}

#[tokio::test]
async fn a_year_of_messages_is_recorded() {
    let world = World::outlook(350).await;
    let completed = world.work(world.job(JobKind::Initial)).await.completed();
    assert_eq!(world.recorded(), world.ids("alice"));
    assert_eq!(completed["progress"]["read"], 350);
    let document = world.ledger.live().into_values().next().unwrap();
    assert!(
        document
            .content_url
            .starts_with("https://outlook.office365.com/")
    );
}

#[tokio::test]
async fn no_more_than_one_page_is_read_ahead() {
    let world = World::procore(1000).await;
    world.ledger.shut();
    let process = world.start();
    world.scheduler.give(world.job(JobKind::Initial), 1);
    let calls = || world.control().counters().calls_to("api.procore.projects");
    testkit::eventually(crate::support::PATIENCE, async || calls() == 2).await;
    // The ledger takes nothing yet, and the third page is not asked for until it does.
    world.log().wait("heartbeat", 1).await;
    assert_eq!(calls(), 2);
    world.ledger.open();
    world.log().wait("completed", 1).await;
    assert_eq!(calls(), 10);
    crate::world::stop(&process).await;
}
