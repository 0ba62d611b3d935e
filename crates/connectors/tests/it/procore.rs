//! Procore's companies and projects.

use connectors::{JobKind, Run, Stream};
use provider_sim::Changes;

use crate::world::{Ledger, World};

fn stream(name: &str) -> Stream {
    let found = connectors::find("procore").unwrap().stream(name).unwrap();
    Stream {
        page_size: 20,
        ..found.clone()
    }
}

#[tokio::test]
async fn every_project_comes_once() {
    let world = World::procore(205).await;
    let mut ledger = Ledger::default();
    world
        .read(
            &stream("projects"),
            world.task(JobKind::Initial, b""),
            &mut ledger,
        )
        .await;
    assert_eq!(ledger.ids(), world.ids());
    assert_eq!(
        (ledger.given, ledger.calls),
        (205, 11),
        "no record twice, no call too many"
    );
    assert!(
        ledger
            .ids()
            .iter()
            .all(|id| id.parse::<u64>().unwrap() > u64::from(u32::MAX))
    );
}

#[tokio::test]
async fn the_companies_are_read_again_each_time() {
    let world = World::procore(1).await;
    let stream = stream("companies");
    let mut ledger = Ledger::default();
    let cursor = world
        .read(&stream, world.task(JobKind::Initial, b""), &mut ledger)
        .await;
    assert_eq!(ledger.ids().len(), 2, "alice's");
    let mut run = Run::start(&stream, world.task(JobKind::Incremental, &cursor)).unwrap();
    assert_eq!(
        run.full_pass(),
        Some(world.now()),
        "what it does not see is gone"
    );
    let mut again = Ledger::default();
    while world.step(&mut run, &mut again).await {}
    assert_eq!(again.ids(), ledger.ids());
}

#[tokio::test]
async fn changes_follow_the_first_read() {
    let world = World::procore(100).await;
    let stream = stream("projects");
    let mut ledger = Ledger::default();
    let mut cursor = world
        .read(&stream, world.task(JobKind::Initial, b""), &mut ledger)
        .await;
    let mut gone = Vec::new();
    for round in 0..10 {
        world.advance(600).await;
        let changed = world
            .control()
            .churn_records(&world.collection(), 30, round)
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
    for record in world.control().records(&world.collection()).unwrap() {
        assert_eq!(written(ledger.live[&record.id]), record.updated_at);
    }
}

#[tokio::test]
async fn projects_that_vanish_between_two_pages_hide_no_others() {
    let world = World::procore(100).await;
    let stream = stream("projects");
    let (mut run, mut ledger) = (
        Run::start(&stream, world.task(JobKind::Initial, b"")).unwrap(),
        Ledger::default(),
    );
    let mut first: Vec<_> = world.ids().into_iter().collect();
    while world.step(&mut run, &mut ledger).await {
        // The very first of those that have been read, so that each one behind moves up.
        let delete = first.drain(..3.min(first.len())).collect();
        let changes = Changes {
            delete,
            ..Changes::default()
        };
        if world.ids().len() > 70 {
            world
                .control()
                .change_records(&world.collection(), changes)
                .await
                .unwrap();
        }
    }
    assert!(world.ids().is_subset(&ledger.ids()), "some were missed");
}

fn written(at: time::OffsetDateTime) -> String {
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}
