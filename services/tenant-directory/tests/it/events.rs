use std::time::Duration;

use common::Code;
use common::rpc::CallError;
use contracts::directory::v1::watch_directory_events_response::Event;
use contracts::directory::v1::*;
use tokio::time::timeout;
use tonic::Streaming;

use crate::world::{HOST, INGEST, OPERATOR, World, code, user};

async fn watch(
    world: &World,
    by: &str,
    after_cursor: &str,
    from_head: bool,
) -> Streaming<WatchDirectoryEventsResponse> {
    let request = WatchDirectoryEventsRequest {
        after_cursor: after_cursor.into(),
        from_head,
    };
    world
        .directory(by)
        .watch_directory_events(request)
        .await
        .unwrap()
        .into_inner()
}

async fn next(
    events: &mut Streaming<WatchDirectoryEventsResponse>,
) -> WatchDirectoryEventsResponse {
    timeout(Duration::from_secs(10), events.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

async fn next_event(events: &mut Streaming<WatchDirectoryEventsResponse>) -> (String, Event) {
    loop {
        let message = next(events).await;
        if let Some(event) = message.event {
            assert!(message.occurred_at.is_some());
            return (message.cursor, event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_once_in_order_and_from_any_cursor_on() {
    let world = World::new().await;
    let mut events = watch(&world, INGEST, "", false).await;
    let tenant = world.create("Acme", "acmeco").await;
    let id = tenant.tenant_id.clone();
    let (_, created) = next_event(&mut events).await;
    assert_eq!(created, Event::TenantChanged(tenant.clone()));

    let change = Tenant {
        tenant_id: id.clone(),
        company_name: "Renamed".into(),
        ..Tenant::default()
    };
    let renamed = world.update(change, &["company_name"]).await.unwrap();
    let (after_rename, event) = next_event(&mut events).await;
    assert_eq!(event, Event::TenantChanged(renamed));
    let (jo, _) = world.ensure_user(user(&id, "jo")).await.unwrap();
    // A sign-in that changes nothing is no event.
    world.ensure_user(user(&id, "jo")).await.unwrap();
    assert_eq!(
        next_event(&mut events).await.1,
        Event::UserChanged(jo.clone())
    );
    let request = DeleteUserRequest {
        tenant_id: id.clone(),
        user_id: "jo".into(),
        delete_documents: true,
    };
    world.directory(HOST).delete_user(request).await.unwrap();
    let mut told = vec![
        next_event(&mut events).await.1,
        next_event(&mut events).await.1,
    ];
    let deleted = UserDeleted {
        tenant_id: id.clone(),
        user_id: "jo".into(),
        delete_documents: true,
    };
    assert!(told.contains(&Event::UserDeleted(deleted)), "{told:?}");
    told.retain(
        |event| matches!(event, Event::DeletionAdvanced(deletion) if deletion.user_id == "jo"),
    );
    assert_eq!(told.len(), 1);

    let request = DeleteTenantRequest {
        tenant_id: id.clone(),
        confirm_subdomain: "acmeco".into(),
    };
    world.directory(HOST).delete_tenant(request).await.unwrap();
    let told = [
        next_event(&mut events).await.1,
        next_event(&mut events).await.1,
        next_event(&mut events).await.1,
    ];
    assert!(told.iter().any(|event| matches!(event, Event::TenantChanged(tenant) if tenant.state() == TenantState::Deleting)));
    assert!(told.contains(&Event::TenantDeleted(TenantDeleted {
        tenant_id: id.clone()
    })));
    assert!(told.iter().any(|event| matches!(event, Event::DeletionAdvanced(deletion) if deletion.step() == DeletionStep::StopSyncs)));

    // Who comes back with a cursor misses nothing and sees nothing again.
    let mut again = watch(&world, HOST, &after_rename, false).await;
    assert_eq!(next_event(&mut again).await.1, Event::UserChanged(jo));
    let mut head = watch(&world, OPERATOR, "", true).await;
    let bookmark = next(&mut head).await;
    assert!(bookmark.event.is_none() && !bookmark.cursor.is_empty());
    let other = world.create("Other", "other").await;
    assert_eq!(next_event(&mut head).await.1, Event::TenantChanged(other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_none_is_refused_and_a_shutdown_ends_the_stream() {
    let world = World::new().await;
    let request = WatchDirectoryEventsRequest {
        after_cursor: "nonsense".into(),
        from_head: false,
    };
    let error = CallError::from(
        world
            .directory(INGEST)
            .watch_directory_events(request)
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (error.code, error.fields[0].field.as_str()),
        (Code::InvalidArgument, "after_cursor")
    );
    let tenant = world.create("Acme", "acmeco").await.tenant_id;
    let request = world.signed(
        WatchDirectoryEventsRequest::default(),
        &tenant,
        "jo",
        &["admin"],
    );
    assert_eq!(
        code(world.directory(HOST).watch_directory_events(request).await),
        Code::PermissionDenied
    );

    let mut events = watch(&world, INGEST, "", false).await;
    next_event(&mut events).await;
    world.process.shutdown.request();
    let ended = timeout(Duration::from_secs(10), async {
        while let Ok(Some(_)) = events.message().await {}
    })
    .await;
    assert!(ended.is_ok());
    assert!(
        world
            .process
            .tasks
            .drained(Duration::from_secs(10))
            .await
            .is_empty()
    );
}
