//! Outlook's messages: by windows of time, by the time of the last change, and by delta.

use connectors::{JobKind, Refused, Run, Stream, Task, parse};
use http::StatusCode;
use provider_sim::Changes;
use time::Duration;

use crate::world::{Ledger, World};

fn messages() -> Stream {
    let found = connectors::find("outlook")
        .unwrap()
        .stream("messages")
        .unwrap();
    Stream {
        page_size: 20,
        ..found.clone()
    }
}

/// The inbox by delta queries: a connector that is not shipped, from a file as users write them.
fn inbox() -> Stream {
    let mut connector = parse(
        "graph_inbox.yaml",
        include_str!("../fixtures/graph_inbox.yaml"),
    )
    .unwrap();
    connector.streams.remove(0)
}

#[tokio::test]
async fn req_mailhistory_01_a_year_of_messages_comes_once_newest_first() {
    let world = World::graph(503).await;
    let stream = messages();
    let (mut run, mut ledger) = (
        Run::start(&stream, world.task(JobKind::Initial, b"")).unwrap(),
        Ledger::default(),
    );
    let mut before = 0.0;
    while world.step(&mut run, &mut ledger).await {
        let fraction = run.fraction().unwrap();
        assert!(fraction >= before, "it goes back in time");
        before = fraction;
    }
    assert_eq!(ledger.ids(), world.ids());
    assert_eq!(ledger.given, 503, "no record twice");
    assert!(ledger.calls <= 28, "{} calls", ledger.calls);
}

#[tokio::test]
async fn windows_share_no_message_and_leave_none_out() {
    let world = World::graph(200).await;
    let stream = messages();
    let (mut all, mut given) = (Ledger::default(), 0);
    for quarter in 0..4 {
        let end = world.now() - Duration::days(92 * quarter);
        let task = Task {
            window_start: Some(end - Duration::days(92)),
            window_end: Some(end),
            ..world.task(JobKind::Initial, b"")
        };
        let mut ledger = Ledger::default();
        world.read(&stream, task, &mut ledger).await;
        given += ledger.given;
        all.live.extend(ledger.live);
    }
    assert_eq!(all.ids(), world.ids());
    assert_eq!(given, 200);
}

#[tokio::test]
async fn req_teamsync_06_a_read_goes_on_where_another_worker_stopped() {
    let world = World::graph(150).await;
    let stream = messages();
    let mut ledger = Ledger::default();
    let mut position = Vec::new();
    let mut marks = Vec::new();
    loop {
        let mut run = Run::start(&stream, world.task(JobKind::Initial, &position)).unwrap();
        marks.push(run.mark().unwrap());
        if !world.step(&mut run, &mut ledger).await {
            break;
        }
        position = run.position();
        world.advance(60).await;
    }
    assert_eq!((ledger.ids(), ledger.given), (world.ids(), 150));
    marks.dedup();
    assert_eq!(marks.len(), 1, "the mark is the first worker's");
}

#[tokio::test]
async fn messages_that_vanish_between_two_pages_hide_no_others() {
    let world = World::graph(200).await;
    let stream = messages();
    let (mut run, mut ledger) = (
        Run::start(&stream, world.task(JobKind::Initial, b"")).unwrap(),
        Ledger::default(),
    );
    while world.step(&mut run, &mut ledger).await {
        let newest: Vec<_> = ledger
            .live
            .keys()
            .filter(|id| world.ids().contains(*id))
            .take(2)
            .cloned()
            .collect();
        let changes = Changes {
            delete: newest,
            ..Changes::default()
        };
        world
            .control()
            .change_records(&world.collection(), changes)
            .await
            .unwrap();
    }
    assert!(world.ids().is_subset(&ledger.ids()), "some were missed");
}

#[tokio::test]
async fn req_mailhistory_03_afterwards_new_and_changed_messages_come() {
    let world = World::graph(100).await;
    let stream = messages();
    let mut ledger = Ledger::default();
    let mut cursor = world
        .read(&stream, world.task(JobKind::Initial, b""), &mut ledger)
        .await;
    let mut gone = Vec::new();
    for round in 0..10 {
        world.advance(600).await;
        let changed = world
            .control()
            .churn_records(&world.collection(), 60, round)
            .await
            .unwrap();
        gone.extend(changed.deleted);
        cursor = world
            .read(
                &stream,
                world.task(JobKind::Incremental, &cursor),
                &mut ledger,
            )
            .await;
    }
    for id in gone {
        ledger.live.remove(&id);
    }
    assert_eq!(ledger.ids(), world.ids());
}

#[tokio::test]
async fn delta_queries_end_with_what_the_provider_has() {
    let world = World::graph(120).await;
    let stream = inbox();
    let mut ledger = Ledger::default();
    let mut cursor = world
        .read(&stream, world.task(JobKind::Initial, b""), &mut ledger)
        .await;
    assert_eq!((ledger.ids(), ledger.given), (world.ids(), 120));
    for round in 0..10 {
        world
            .control()
            .churn_records(&world.collection(), 40, round)
            .await
            .unwrap();
        let mut run = Run::start(&stream, world.task(JobKind::Incremental, &cursor)).unwrap();
        while world.step(&mut run, &mut ledger).await {
            // While it is read, too.
            world
                .control()
                .churn_records(&world.collection(), 3, 100 + round)
                .await
                .unwrap();
        }
        cursor = run.rest();
    }
    world
        .read(
            &stream,
            world.task(JobKind::Incremental, &cursor),
            &mut ledger,
        )
        .await;
    assert_eq!(ledger.ids(), world.ids(), "deletions too");
}

#[tokio::test]
async fn a_cursor_that_the_provider_dropped_is_lost() {
    let world = World::graph(30).await;
    let stream = inbox();
    let cursor = world
        .read(
            &stream,
            world.task(JobKind::Initial, b""),
            &mut Ledger::default(),
        )
        .await;
    world.control().expire_delta_tokens().await.unwrap();
    let mut run = Run::start(&stream, world.task(JobKind::Incremental, &cursor)).unwrap();
    let request = run.request().unwrap().unwrap();
    let answer = world.fetch(&request).await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert!(request.resumes && !run.accepts(answer.status));
    assert_eq!(run.refuse_cursor(), Refused::Lost);
}
