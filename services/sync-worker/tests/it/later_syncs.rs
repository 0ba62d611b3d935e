//! Incremental reads, full passes, and what webhooks ask for.

use std::time::Duration;

use contracts::ingest::v1::IngestionMethod;
use provider_sim::Changes;
use serde_json::{Map, Value};
use worker::{Job, JobKind, TriggerSource};

use crate::world::{COMPANY, World, graph_inbox, stop, timestamp};

fn cursor(completed: &Value, field: &str) -> Vec<u8> {
    completed[field].to_string().into_bytes()
}

#[tokio::test]
async fn req_mailhistory_03_what_changes_afterwards_follows_by_itself() {
    let world = World::outlook(120).await;
    let completed = world.work(world.job(JobKind::Initial)).await.completed();
    world
        .control()
        .advance_clock(Duration::from_mins(10))
        .await
        .unwrap();
    let changes = Changes {
        insert: vec![Map::new(); 7],
        ..Changes::default()
    };
    world
        .control()
        .change_records(&world.collection("alice"), changes)
        .await
        .unwrap();
    let job = Job {
        cursor_json: cursor(&completed, "mark"),
        ..world.job(JobKind::Incremental)
    };
    let completed = world.work(job).await.completed();
    assert_eq!(world.recorded(), world.ids("alice"));
    assert_eq!(completed["progress"]["written"], 7);
    assert!(completed["cursor"]["mark"]["time"].is_string());
    assert_eq!(completed["cursor"]["walk"], Value::Null, "at rest");
    assert_eq!(completed["mark"], Value::Null);
}

#[tokio::test]
async fn without_a_cursor_nothing_older_is_read() {
    let world = World::procore(50).await;
    let now = world.ground.deps.now();
    world
        .control()
        .advance_clock(Duration::from_mins(1))
        .await
        .unwrap();
    let one_more = Changes {
        insert: vec![Map::new()],
        ..Changes::default()
    };
    let projects = world.collection(COMPANY);
    let changed = world.control().change_records(&projects, one_more);
    let new = changed.await.unwrap().inserted;
    let job = Job {
        window_start: Some(timestamp(now)),
        ..world.job(JobKind::Incremental)
    };
    let completed = world.work(job).await.completed();
    assert_eq!(world.recorded().into_iter().collect::<Vec<_>>(), new);
    assert!(
        completed["cursor"]["mark"]["time"].is_string(),
        "from here on"
    );
}

#[tokio::test]
async fn req_teamsync_04_what_a_webhook_brought_says_so() {
    let world = World::procore(5).await;
    let job = Job {
        triggered_by: TriggerSource::Webhook.into(),
        ..world.job(JobKind::Full)
    };
    world.work(job).await.completed();
    let documents = world.ledger.live();
    assert_eq!(documents.len(), 5);
    assert!(
        documents
            .values()
            .all(|document| document.ingestion_method() == IngestionMethod::Webhook)
    );
}

#[tokio::test]
async fn a_full_pass_says_when_it_began() {
    let world = World::procore(120).await;
    let before = world.ground.deps.now().unix_timestamp();
    let completed = world.work(world.job(JobKind::Full)).await.completed();
    let passes = world.log().all("full_pass");
    assert_eq!(passes.len(), 1);
    let started_at = passes[0].detail["started_at"].as_i64().unwrap();
    assert!((before..=world.ground.deps.now().unix_timestamp()).contains(&started_at));
    assert_eq!(passes[0].detail["epoch"], 11);
    assert_eq!(completed["progress"]["deleted"], 3);
    let whats = world.log().whats();
    assert_eq!(whats[whats.len() - 2..], ["full_pass", "completed"]);
}

#[tokio::test]
async fn a_ledger_that_cannot_finish_passes_yet_is_no_failure() {
    let world = World::procore(5).await;
    let problem = common::Problem::unimplemented("DocumentService/FinishFullPass");
    world
        .ledger
        .failures()
        .next("finish_full_pass", problem, false);
    world.work(world.job(JobKind::Full)).await.completed();
}

#[tokio::test]
async fn deletions_come_by_delta_and_a_dropped_cursor_leads_to_a_full_pass() {
    let world = World::outlook(60).await;
    let process = world.start_with(graph_inbox);
    let job = |kind| Job {
        stream: "inbox".to_owned(),
        ..world.job(kind)
    };
    let completed = world
        .work_on(&process, job(JobKind::Initial))
        .await
        .completed();
    assert_eq!(world.recorded(), world.ids("alice"));

    world
        .control()
        .churn_records(&world.collection("alice"), 40, 1)
        .await
        .unwrap();
    let incremental = Job {
        cursor_json: cursor(&completed, "mark"),
        ..job(JobKind::Incremental)
    };
    let completed = world.work_on(&process, incremental).await.completed();
    assert_eq!(world.recorded(), world.ids("alice"));
    assert!(completed["progress"]["deleted"].as_i64().unwrap() > 0);

    world.control().expire_delta_tokens().await.unwrap();
    let before = world.log().all("checkpoint").len();
    let incremental = Job {
        cursor_json: cursor(&completed, "cursor"),
        ..job(JobKind::Incremental)
    };
    let failed = world
        .work_on(&process, incremental)
        .await
        .failed("CURSOR_LOST");
    let error = failed["error"].as_str().unwrap();
    assert!(
        error.contains("410")
            && error.contains("syncStateNotFound")
            && !error.contains("deltatoken"),
        "{error}"
    );
    assert_eq!(
        world.log().all("checkpoint").len(),
        before,
        "the cursor stays"
    );

    let completed = world
        .work_on(&process, job(JobKind::Full))
        .await
        .completed();
    assert!(completed["mark"]["mark"]["token"].is_string());
    assert_eq!(world.log().all("full_pass").len(), 1);
    stop(&process).await;
}

#[tokio::test]
async fn a_cursor_that_means_nothing_here_leads_to_a_full_pass() {
    let world = World::procore(5).await;
    let job = Job {
        cursor_json: b"{\"page\": 3}".to_vec(),
        ..world.job(JobKind::Incremental)
    };
    world.work(job).await.failed("CURSOR_LOST");
}

#[tokio::test]
async fn what_no_connector_knows_ends_the_job() {
    let world = World::procore(5).await;
    let unknown = Job {
        provider: "nobody".to_owned(),
        ..world.job(JobKind::Initial)
    };
    let failed = world.work(unknown).await.failed("FATAL");
    assert_eq!(failed["error"], "there is no connector for `nobody`");
    let unknown = Job {
        stream: "drawings".to_owned(),
        ..world.job(JobKind::Initial)
    };
    let failed = world.work(unknown).await.failed("FATAL");
    assert_eq!(
        failed["error"],
        "the connector of `procore` has no stream `drawings`"
    );
    let nowhere = Job {
        external_account_id: String::new(),
        ..world.job(JobKind::Initial)
    };
    world.work(nowhere).await.failed("PARK");
}
