//! The directory's events, for those who follow it.

use std::pin::Pin;

use common::identity::Caller;
use common::lifecycle::Shutdown;
use common::pg::outbox::{self, Watched};
use common::{Problem, TenantKey};
use contracts::directory::v1::{WatchDirectoryEventsRequest, WatchDirectoryEventsResponse};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::Status;

use crate::directory::Directory;
use crate::{access, encode};

pub(super) type Events =
    Pin<Box<dyn Stream<Item = Result<WatchDirectoryEventsResponse, Status>> + Send>>;

pub(super) async fn watch(
    directory: &Directory,
    caller: &Caller,
    request: WatchDirectoryEventsRequest,
    shutdown: Shutdown,
) -> Result<Events, Problem> {
    access::every_tenant(caller)?;
    let WatchDirectoryEventsRequest {
        after_cursor,
        from_head,
    } = request;
    let every: Option<TenantKey> = None;
    let watched = outbox::watch(&directory.db, &after_cursor, from_head, every).await?;
    let refused = |error| Status::from(Problem::from(error));
    let events = watched.map(move |message| message.map(response).map_err(refused));
    Ok(Box::pin(
        events.take_until(async move { shutdown.requested().await }),
    ))
}

fn response(watched: Watched) -> WatchDirectoryEventsResponse {
    let Watched { cursor, event } = watched;
    let Some(logged) = event else {
        return WatchDirectoryEventsResponse {
            cursor,
            ..WatchDirectoryEventsResponse::default()
        };
    };
    let message = WatchDirectoryEventsResponse::decode(logged.payload.as_slice())
        .expect("events are encoded by this service, and the contract is never broken");
    WatchDirectoryEventsResponse {
        cursor,
        occurred_at: Some(encode::timestamp(logged.occurred_at)),
        ..message
    }
}
