//! Counts by the minute.

use std::time::Duration;

use common::pg::statistics::{self, Statistics};
use common::validate::Fields;
use common::{Code, TenantKey};
use contracts::operations::v1::GetStatisticsRequest;
use prost_types::Timestamp;
use testkit::{MockClock, deps_at};

use super::{SCHEMA, tenant, trial};

fn request(start: i64, seconds: i64, step: i64) -> GetStatisticsRequest {
    GetStatisticsRequest {
        series: vec!["syncs".to_owned()],
        start_time: Some(Timestamp {
            seconds: start,
            nanos: 0,
        }),
        end_time: Some(Timestamp {
            seconds: start + seconds,
            nanos: 0,
        }),
        step: Some(prost_types::Duration {
            seconds: step,
            nanos: 0,
        }),
        ..GetStatisticsRequest::default()
    }
}

#[tokio::test]
async fn counts_of_several_processes_add_up_and_a_repeated_write_counts_once() {
    let (test, _) = trial().await;
    let clock = MockClock::new();
    let db = test.database_with(&SCHEMA, &deps_at(&clock));
    let start = db.deps().now().unix_timestamp();
    let (ours, theirs) = (tenant(), tenant());
    let processes = [Statistics::new(&db), Statistics::new(&db)];
    for minute in 0..3 {
        for process in &processes {
            for _ in 0..=minute {
                process.count(
                    ours,
                    "syncs",
                    &[("provider", "procore"), ("outcome", "done")],
                );
            }
            process.add(theirs, "syncs", &[], 10.0);
            process.count(TenantKey::PLATFORM, "other", &[]);
            // Within a minute, and again when nothing has changed.
            process.write().await.unwrap();
            process.count(
                ours,
                "syncs",
                &[("outcome", "done"), ("provider", "procore")],
            );
            process.write().await.unwrap();
            process.write().await.unwrap();
        }
        clock.advance(Duration::from_mins(1));
    }
    let answer = statistics::get(&db, Some(ours), &request(start, 240, 60), Fields::new())
        .await
        .unwrap();
    assert_eq!(answer.series.len(), 1);
    assert_eq!(answer.series[0].labels["provider"], "procore");
    assert_eq!(answer.series[0].values, [4.0, 6.0, 8.0, 0.0]);
    let answer = statistics::get(
        &db,
        Some(ours),
        &request(start + 30, 180, 120),
        Fields::new(),
    )
    .await
    .unwrap();
    assert_eq!(answer.series[0].values, [10.0, 8.0]);
    let answer = statistics::get(&db, None, &request(start, 180, 180), Fields::new())
        .await
        .unwrap();
    let mut values: Vec<_> = answer
        .series
        .iter()
        .map(|series| series.values.clone())
        .collect();
    values.sort_by(|one, other| one[0].total_cmp(&other[0]));
    assert_eq!(values, [[18.0], [60.0]]);
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let (test, _) = trial().await;
    let clock = MockClock::new();
    let away = test.database_with(&SCHEMA, &deps_at(&clock));
    let statistics = Statistics::new(&away);
    let (ours, start) = (tenant(), away.deps().now().unix_timestamp());
    statistics.count(ours, "syncs", &[]);
    let admin = test.admin().await;
    admin
        .batch_execute("REVOKE INSERT ON trial.statistics FROM hawser_trial_system")
        .await
        .unwrap();
    assert!(statistics.write().await.is_err());
    clock.advance(Duration::from_mins(10));
    admin
        .batch_execute("GRANT INSERT ON trial.statistics TO hawser_trial_system")
        .await
        .unwrap();
    statistics.write().await.unwrap();
    let answer = statistics::get(&away, Some(ours), &request(start, 60, 60), Fields::new())
        .await
        .unwrap();
    assert_eq!(answer.series[0].values, [1.0]);
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let (_test, db) = trial().await;
    let wrong = GetStatisticsRequest {
        step: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..GetStatisticsRequest::default()
    };
    let problem = statistics::get(&db, None, &wrong, Fields::new())
        .await
        .unwrap_err();
    assert_eq!(problem.code, Code::InvalidArgument);
    let named: Vec<_> = problem
        .fields
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        named,
        ["series", "start_time", "end_time", "step", "end_time"]
    );
    let long = statistics::get(&db, None, &request(0, 60 * 20_000, 60), Fields::new())
        .await
        .unwrap_err();
    assert_eq!(long.fields[0].field, "step");
}
