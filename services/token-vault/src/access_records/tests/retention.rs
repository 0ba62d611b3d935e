//! Days that are dropped, and what is left of their chains.

use super::*;
use crate::drop_access_records::{DropError, Retention};

const ANCHORS: &str = "SELECT anchor_sequence FROM vault.access_chains WHERE chain_id = $1";

impl Records {
    fn retention(&self, days: u32, deps: &Deps) -> (Retention, Room) {
        let room = Room::new();
        let retention = Retention::new(
            self.store.clone(),
            self.keys.clone(),
            DAY * days,
            room.clone(),
            deps,
        );
        (retention, room)
    }

    async fn count(&self) -> i64 {
        let sql = "SELECT count(*) FROM vault.access_records";
        let admin = self.database.admin().await;
        admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn anchor(&self, head: &Head) -> i64 {
        let admin = self.database.admin().await;
        let row = admin.query_one(ANCHORS, &[&head.chain_id]).await;
        row.unwrap().get(0)
    }
}

#[tokio::test]
async fn what_is_kept_goes_on_from_where_it_was_cut() {
    let _logs = testkit::logs::capture();
    let records = Records::over(10).await;
    let (mut long, mut short, mut idle) = (
        records.chain().await,
        records.chain().await,
        records.chain().await,
    );
    // The one ends before the cut, one goes on, and one rests on the days around it.
    for days in [8, 7, 6, 5, 4, 3] {
        records.append(&mut long, records.days_ago(days), 3).await;
    }
    records.append(&mut short, records.days_ago(8), 2).await;
    records.append(&mut idle, records.days_ago(8), 2).await;
    records.append(&mut idle, records.days_ago(3), 2).await;
    let heads = [
        long.head().clone(),
        short.head().clone(),
        idle.head().clone(),
    ];
    let before = records.verify(&heads).await;
    assert_eq!((before.records, broken(&before)), (24, vec![]));

    let (retention, room) = records.retention(6, &records.deps);
    retention.catch_up().await.unwrap();
    assert_eq!(records.count().await, 14, "two days are gone");
    assert_eq!(records.anchor(&heads[0]).await, 6);
    assert_eq!(records.anchor(&heads[1]).await, 2);
    assert_eq!(records.anchor(&heads[2]).await, 2);
    assert!(room.is_there_on(Day::of(records.today + DAY * 2)));

    // Heads of before the cut are as good as ever.
    let after = records.verify(&heads).await;
    assert_eq!((after.records, broken(&after)), (14, vec![]));
    assert_eq!(after.heads.len(), 2, "of one chain nothing is left");

    // And it may be cut again.
    records.append(&mut long, records.days_ago(0), 1).await;
    let (retention, _) = records.retention(1, &records.deps);
    retention.catch_up().await.unwrap();
    assert_eq!(records.anchor(&heads[0]).await, 18);
    let last = records
        .verify(&[&heads[..], &[long.head().clone()]].concat())
        .await;
    assert_eq!((last.records, broken(&last)), (1, vec![]));
    assert_eq!(last.heads, [long.head().clone()]);
}

#[tokio::test]
async fn an_anchor_cannot_be_moved() {
    let logs = testkit::logs::capture();
    let records = Records::over(10).await;
    let mut chain = records.chain().await;
    for days in [8, 7, 6] {
        records.append(&mut chain, records.days_ago(days), 3).await;
    }
    let head = chain.head().clone();
    let (retention, _) = records.retention(6, &records.deps);
    retention.catch_up().await.unwrap();
    assert_eq!(records.anchor(&head).await, 6);
    let id = head.chain_id;
    let hide = [
        // What is kept is said to begin later.
        format!(
            "DELETE FROM vault.access_records WHERE sequence = 7; UPDATE vault.access_chains SET anchor_sequence = 7, anchor_mac = '\\x{}' WHERE chain_id = '{id}'",
            hex::encode(&head.mac)
        ),
        // Nothing was ever cut.
        "UPDATE vault.access_chains SET anchor_sequence = 0, anchor_mac = '', anchor_seal = ''"
            .to_owned(),
        // The chain was never there.
        "DELETE FROM vault.access_chains".to_owned(),
    ];
    records.sql("CREATE TABLE kept_records AS SELECT * FROM vault.access_records; CREATE TABLE kept_chains AS SELECT * FROM vault.access_chains").await;
    for (sql, first) in hide.iter().zip([8, 1, 7]) {
        records.sql(sql).await;
        assert_eq!(broken(&records.verify(&[]).await), [(id, first)], "{sql}");
        records.sql("DELETE FROM vault.access_records; DELETE FROM vault.access_chains; INSERT INTO vault.access_records SELECT * FROM kept_records; INSERT INTO vault.access_chains SELECT * FROM kept_chains").await;
    }
    assert_eq!(broken(&records.verify(&[head]).await), []);
    // All of it gone, and the chain with it.
    records
        .sql("DELETE FROM vault.access_records; UPDATE vault.access_chains SET anchor_sequence = 9")
        .await;
    assert_eq!(broken(&records.verify(&[]).await), [(id, 1)]);
    drop(logs);
}

#[tokio::test]
async fn what_was_altered_before_it_is_dropped_stays_broken() {
    let logs = testkit::logs::capture();
    logs.expect("the chain of access records is broken at record 2");
    let records = Records::over(10).await;
    let mut chain = records.chain().await;
    for days in [8, 7, 1] {
        records.append(&mut chain, records.days_ago(days), 3).await;
    }
    records
        .sql("UPDATE vault.access_records SET user_id = 'eve' WHERE sequence = 2")
        .await;
    let (retention, _) = records.retention(6, &records.deps);
    retention.catch_up().await.unwrap();
    let head = chain.head().clone();
    assert_eq!(records.count().await, 3);
    assert_eq!(records.anchor(&head).await, 1);
    assert_eq!(broken(&records.verify(&[]).await), [(head.chain_id, 2)]);
    assert_eq!(logs.lines().len(), 2, "each of the two days says so");
}

#[tokio::test]
async fn neither_clock_alone_drops_a_record() {
    let _logs = testkit::logs::capture();
    let records = Records::over(10).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(3), 1).await;
    let clock = testkit::MockClock::at(records.today + DAY * 300);
    let ahead = testkit::deps_at(&clock);
    let (retention, _) = records.retention(5, &ahead);
    retention.catch_up().await.unwrap();
    assert_eq!(records.count().await, 1);
    clock.set(records.today - DAY * 300);
    let (retention, _) = records.retention(1, &ahead);
    retention.catch_up().await.unwrap();
    assert_eq!(records.count().await, 1);
}

#[tokio::test]
async fn records_of_a_later_day_are_not_dropped_with_an_old_one() {
    let logs = testkit::logs::capture();
    logs.expect("the chain of access records is broken at record 2");
    let records = Records::over(10).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(8), 1).await;
    records.append(&mut chain, records.days_ago(1), 1).await;
    let slot = Day::of(records.days_ago(8)).slot();
    records
        .sql(&format!("UPDATE vault.access_records SET slot = {slot}"))
        .await;
    let (retention, _) = records.retention(6, &records.deps);
    let refused = retention.catch_up().await;
    assert!(
        matches!(refused, Err(DropError::LaterRecords(_))),
        "{refused:?}"
    );
    assert_eq!(records.count().await, 2);
}

#[tokio::test]
async fn two_vaults_drop_a_day_once() {
    let _logs = testkit::logs::capture();
    let records = Records::over(10).await;
    let mut chain = records.chain().await;
    for days in [8, 7, 6, 1] {
        records.append(&mut chain, records.days_ago(days), 3).await;
    }
    let (one, _) = records.retention(3, &records.deps);
    let (other, _) = records.retention(3, &records.deps);
    let (one, other) = tokio::join!(one.catch_up(), other.catch_up());
    one.unwrap();
    other.unwrap();
    let verified = records.verify(&[chain.head().clone()]).await;
    assert_eq!((verified.records, broken(&verified)), (3, vec![]));
}

#[tokio::test]
async fn without_room_nothing_is_recorded() {
    let _logs = testkit::logs::capture();
    let records = Records::over(1).await;
    let mut chain = records.chain().await;
    records.append(&mut chain, records.days_ago(0), 1).await;
    let record = Record {
        tenant_id: records.tenant.id(),
        grant_id: None,
        resource: "service-key/ingest",
        caller: "",
        user_id: "",
        action: "GetServiceKey",
        purpose: "",
        trace_id: "",
    };
    let head = chain.head().clone();
    let refused = chain.append(&[record], records.today + DAY * 5).await;
    refused.expect_err("that day's partition is still another's");
    assert_eq!(*chain.head(), head);
    records.append(&mut chain, records.days_ago(0), 1).await;
    assert_eq!(broken(&records.verify(&[chain.head().clone()]).await), []);
}
