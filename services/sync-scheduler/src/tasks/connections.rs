//! Follows the broker's connections: what was parked for one goes on when it works again, and rests while it does not.

use std::convert::Infallible;

use common::TenantKey;
use common::pg::consumer::{self, Consumer, FeedError, Received, Start};
use common::pg::{Scope, Tx};
use common::rpc::{CallError, Channel};
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::{
    Connection, ConnectionState, ListConnectionsRequest, WatchConnectionEventsRequest,
    WatchConnectionEventsResponse,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

use crate::app::Scheduler;
use crate::error::Error;
use crate::steer_jobs::{rest_connection, resume_connection};

/// The consumer's name, and that of what it has applied.
const NAME: &str = "broker.connections";

/// Follows until a shutdown is requested.
///
/// # Errors
/// None.
pub(crate) async fn run(scheduler: Scheduler, broker: Channel) -> Result<(), Infallible> {
    let shutdown = scheduler.shutdown.clone();
    let open = move |start| open(ConnectionServiceClient::new(broker.clone()), start);
    Consumer::new(&scheduler.database.clone(), NAME)
        .run(shutdown, open, move |message| {
            let scheduler = scheduler.clone();
            async move { apply(&scheduler, message).await }
        })
        .await
}

type Feed = BoxStream<'static, Result<Received<Option<Connection>>, FeedError>>;

async fn open(
    mut client: ConnectionServiceClient<Channel>,
    start: Start,
) -> Result<Feed, FeedError> {
    let (after_cursor, from_head) = match &start {
        Start::After(cursor) => (cursor.clone(), false),
        Start::Beginning => (String::new(), false),
        Start::Resync => (String::new(), true),
    };
    let request = WatchConnectionEventsRequest {
        after_cursor,
        tenant_id: String::new(),
        from_head,
    };
    let events = client
        .watch_connection_events(request)
        .await
        .map_err(CallError::from)?
        .into_inner();
    let mut events = events
        .map_err(|status| FeedError::from(CallError::from(status)))
        .map_ok(received)
        .boxed();
    if start != Start::Resync {
        return Ok(events);
    }
    // The head first, then everything as it is, then what follows the head.
    let head = events
        .next()
        .await
        .ok_or_else(|| FeedError::failed("the stream ended"))??;
    let listed = list_all(client)
        .await?
        .into_iter()
        .map(|connection| Received {
            cursor: None,
            message: Some(connection),
        });
    let before: Vec<_> = listed.chain([head]).map(Ok).collect();
    Ok(stream::iter(before).chain(events).boxed())
}

fn received(message: WatchConnectionEventsResponse) -> Received<Option<Connection>> {
    Received {
        cursor: Some(message.cursor),
        message: message.connection,
    }
}

async fn list_all(
    mut client: ConnectionServiceClient<Channel>,
) -> Result<Vec<Connection>, FeedError> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListConnectionsRequest {
            page_size: 1000,
            page_token,
            ..ListConnectionsRequest::default()
        };
        let page = client
            .list_connections(request)
            .await
            .map_err(CallError::from)?
            .into_inner();
        all.extend(page.connections);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Applies one change, once, whatever is seen twice or late.
async fn apply(scheduler: &Scheduler, connection: Option<Connection>) -> Result<(), Error> {
    let Some(connection) = connection else {
        return Ok(());
    };
    let (Ok(tenant), Ok(connection_id)) = (
        TenantKey::parse(&connection.tenant_id),
        connection.connection_id.parse::<Uuid>(),
    ) else {
        return Ok(());
    };
    let resumed = scheduler
        .database
        .run_tx(
            "connection_follow",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let resource = format!("connections/{connection_id}");
                if !consumer::advance(tx, tenant, NAME, &resource, connection.revision).await? {
                    return Ok::<_, Error>(0);
                }
                match connection.state() {
                    ConnectionState::Connected | ConnectionState::Degraded => {
                        resume_connection(tx, tenant, connection_id).await
                    }
                    _ => rest_connection(tx, tenant, connection_id).await.map(|()| 0),
                }
            },
        )
        .await?;
    if resumed > 0 {
        tracing::info!(event = "jobs_resumed", tenant.id = %tenant, connection.id = %connection_id, jobs = resumed, "jobs that waited for a connection go on");
    }
    scheduler.wake.ring();
    Ok(())
}
