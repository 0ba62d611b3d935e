//! Audit events: what is listed, and that nobody changes them.

use std::time::Duration;

use common::pg::{Error, Scope, audit};
use common::validate::Fields;
use common::{Code, Deps, TenantKey};
use contracts::common::v1::Actor;
use contracts::operations::v1::{AuditEvent, ListAuditEventsRequest};
use testkit::{MockClock, deps_at};

use super::{SCHEMA, tenant, trial};

fn actor(identity: &str) -> Actor {
    Actor {
        identity: identity.to_owned(),
        user_id: "user-1".to_owned(),
        ..Actor::default()
    }
}

async fn note(db: &common::pg::Database, tenant: TenantKey, identity: &str, resource: &str) {
    let (actor, resource) = (actor(identity), resource.to_owned());
    db.run_tx("note", Scope::Tenant(tenant), async move |tx| {
        audit::append(tx, tenant, &actor, "TestService/Do", &resource, "because").await
    })
    .await
    .unwrap();
}

fn resources(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| event.resource.as_str()).collect()
}

#[tokio::test]
async fn pages_are_whole_and_stable_while_events_are_added() {
    let (test, _) = trial().await;
    let clock = MockClock::new();
    let db = test.database_with(&SCHEMA, &deps_at(&clock));
    let (ours, theirs) = (tenant(), tenant());
    for number in 0..7 {
        // Some at the same time.
        if number % 3 == 0 {
            clock.advance(Duration::from_mins(1));
        }
        note(&db, ours, "operator/kim", &format!("things/{number}")).await;
        note(&db, theirs, "operator/kim", "things/other").await;
    }
    let mut request = ListAuditEventsRequest {
        page_size: 3,
        ..ListAuditEventsRequest::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = audit::list(&db, Some(ours), &request, Fields::new())
            .await
            .unwrap();
        assert!(page.audit_events.len() <= 3);
        listed.extend(page.audit_events);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        clock.advance(Duration::from_secs(1));
        note(&db, ours, "operator/kim", "things/late").await;
    }
    let mut seen = resources(&listed);
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "things/0", "things/1", "things/2", "things/3", "things/4", "things/5", "things/6"
        ]
    );
    assert_eq!(listed[0].actor_user_id, "user-1");
    assert_eq!(listed[0].tenant_id, ours.to_string());
    assert!(listed.is_sorted_by_key(|event| std::cmp::Reverse(event.occurred_at.unwrap().seconds)));

    let all = audit::list(
        &db,
        None,
        &ListAuditEventsRequest {
            page_size: 1000,
            ..ListAuditEventsRequest::default()
        },
        Fields::new(),
    )
    .await
    .unwrap();
    assert_eq!(all.audit_events.len(), 7 + 7 + 2);
}

#[tokio::test]
async fn filters_are_kept_to() {
    let (test, _) = trial().await;
    let clock = MockClock::new();
    let db = test.database_with(&SCHEMA, &deps_at(&clock));
    let ours = tenant();
    let begun = deps_at(&clock).now().unix_timestamp();
    for (identity, resource) in [("a", "things/1"), ("b", "things/1"), ("a", "things/2")] {
        note(&db, ours, identity, resource).await;
        clock.advance(Duration::from_secs(10));
    }
    let list = async |request: ListAuditEventsRequest| {
        let page = audit::list(&db, Some(ours), &request, Fields::new())
            .await
            .unwrap();
        page.audit_events
            .into_iter()
            .map(|event| format!("{} {}", event.actor, event.resource))
            .collect::<Vec<_>>()
    };
    let any = ListAuditEventsRequest::default;
    assert_eq!(
        list(any()).await,
        ["a things/2", "b things/1", "a things/1"]
    );
    assert_eq!(
        list(ListAuditEventsRequest {
            actor: "a".to_owned(),
            ..any()
        })
        .await,
        ["a things/2", "a things/1"]
    );
    assert_eq!(
        list(ListAuditEventsRequest {
            resource: "things/1".to_owned(),
            ..any()
        })
        .await,
        ["b things/1", "a things/1"]
    );
    let at = |seconds| {
        Some(prost_types::Timestamp {
            seconds: begun + seconds,
            nanos: 0,
        })
    };
    let between = ListAuditEventsRequest {
        occurred_after: at(5),
        occurred_before: at(15),
        ..any()
    };
    assert_eq!(list(between).await, ["b things/1"]);

    let wrong = ListAuditEventsRequest {
        page_size: -1,
        page_token: "x".to_owned(),
        ..any()
    };
    let problem = audit::list(&db, Some(ours), &wrong, Fields::new())
        .await
        .unwrap_err();
    assert_eq!(
        (problem.code, problem.fields.len()),
        (Code::InvalidArgument, 2)
    );
}

#[tokio::test]
async fn nobody_who_serves_requests_changes_an_audit_event() {
    let (_test, db) = trial().await;
    let ours = tenant();
    note(&db, ours, "a", "things/1").await;
    for scope in [Scope::Tenant(ours), Scope::System] {
        for sql in [
            "UPDATE trial.audit_events SET actor = 'b'",
            "DELETE FROM trial.audit_events",
            "TRUNCATE trial.audit_events",
        ] {
            let error = db.execute(scope, sql, &[]).await.unwrap_err();
            assert_eq!(error.sqlstate(), Some("42501"), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_change_that_is_rolled_back_leaves_no_audit_event() {
    let (_test, db) = trial().await;
    let ours = tenant();
    let outcome = db
        .run_tx("undone", Scope::Tenant(ours), async move |tx| {
            audit::append(tx, ours, &actor("a"), "TestService/Do", "things/1", "").await?;
            Err::<(), _>(Error::Closed)
        })
        .await;
    assert!(outcome.is_err());
    let page = audit::list(
        &db,
        Some(ours),
        &ListAuditEventsRequest::default(),
        Fields::new(),
    )
    .await
    .unwrap();
    assert!(page.audit_events.is_empty());
    let _: &Deps = db.deps();
}
