//! Changes of grants, as they happen.

use std::pin::Pin;

use common::Problem;
use common::identity::Caller;
use common::pg::outbox::{self, Watched};
use contracts::vault::v1 as pb;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Response, Status};

use super::VaultApi;
use crate::contract::timestamp;

/// What is streamed.
pub(super) type EventStream =
    Pin<Box<dyn Stream<Item = Result<pb::WatchGrantEventsResponse, Status>> + Send>>;

impl VaultApi {
    /// Every tenant's events, so for services and operators alone.
    pub(super) async fn watch(
        &self,
        caller: &Caller,
        request: &pb::WatchGrantEventsRequest,
    ) -> Result<Response<EventStream>, Status> {
        let tenant = caller.tenant_or_all("")?;
        let database = self.vault.store.database();
        let watched =
            outbox::watch(database, &request.after_cursor, request.from_head, tenant).await;
        let watched = watched.map_err(Problem::from)?;
        let shutdown = self.vault.shutdown.clone();
        let events = watched.map(|item| {
            item.map_err(|error| Problem::from(error).into())
                .and_then(response)
        });
        let stream = events.take_until(async move { shutdown.requested().await });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn response(watched: Watched) -> Result<pb::WatchGrantEventsResponse, Status> {
    let Some(event) = watched.event else {
        return Ok(pb::WatchGrantEventsResponse {
            cursor: watched.cursor,
            ..pb::WatchGrantEventsResponse::default()
        });
    };
    let decoded = pb::WatchGrantEventsResponse::decode(event.payload.as_slice());
    let decoded = decoded.map_err(|error| Problem::internal(&error))?;
    Ok(pb::WatchGrantEventsResponse {
        cursor: watched.cursor,
        occurred_at: Some(timestamp(event.occurred_at)),
        ..decoded
    })
}
