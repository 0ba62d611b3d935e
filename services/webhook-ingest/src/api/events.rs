//! `WebhookEventService`.

use std::pin::Pin;

use common::Problem;
use common::identity::Acting;
use common::rpc::{caller, unimplemented};
use common::validate::{Fields, page_size};
use contracts::ingest::v1::webhook_event_service_server::WebhookEventService;
use contracts::ingest::v1::{
    EventState, GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse,
    ReplayEventsRequest, ReplayEventsResponse, WatchEventsRequest, WatchEventsResponse,
};
use futures::Stream;
use prost::Message as _;
use time::OffsetDateTime;
use time::macros::datetime;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::MOST_BYTES;
use crate::app::Ingest;
use crate::encode;
use crate::error::Error;
use crate::event::BodyForm;
use crate::keys::Place;
use crate::page_token::Query;
use crate::replay_events::replay_events;
use crate::store::events::{EventFilter, event_get, event_list};

/// Events in one replay.
const MOST_REPLAYED: usize = 1000;
const BEGINNING: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const END: OffsetDateTime = datetime!(9999-12-31 0:00 UTC);

pub(super) struct Events(pub(super) Ingest);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WebhookEventService for Events {
    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

    async fn get_event(&self, request: Request<GetEventRequest>) -> Answer<GetEventResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let event_id = fields.id("event_id", &request.event_id);
        fields.finish()?;
        let (Some(tenant), Some(event_id)) = (tenant, event_id) else {
            return Err(Problem::not_found("event").into());
        };
        let event = event_get(&self.0.database, tenant, event_id).await;
        let mut event = event
            .map_err(Problem::from)?
            .ok_or_else(|| Problem::not_found("event"))?;
        let body = std::mem::take(&mut event.new.body);
        let body = match event.new.body_form {
            BodyForm::Plain => body,
            BodyForm::Sealed => {
                let opened = self
                    .0
                    .keys
                    .open(tenant, Place::EventBody { event_id }, &body)
                    .await;
                opened.map_err(Problem::from)?.expose().clone()
            }
        };
        let event = Some(encode::event(&event, body));
        Ok(Response::new(GetEventResponse { event }))
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let size = page_size(&mut fields, request.page_size);
        let state = EventState::try_from(request.state);
        fields.check(state.is_ok(), "state", "must be one of EventState's");
        let mut moment = |field, at: Option<prost_types::Timestamp>, otherwise| {
            let at = at.map_or(Ok(otherwise), encode::moment);
            fields.value(field, at).unwrap_or(otherwise)
        };
        let received_after = moment("received_after", request.received_after, BEGINNING);
        let received_before = moment("received_before", request.received_before, END);
        let narrowing = format!(
            "{} {} {received_after} {received_before}",
            request.source_id, request.state
        );
        let query = Query::new("ListEvents", &[&request.tenant_id, &narrowing]);
        let before = fields.value("page_token", query.id_key(&request.page_token));
        fields.finish()?;
        let (Some(tenant), Some(before)) = (tenant, before) else {
            return Err(Problem::not_found("tenant").into());
        };
        let filter = EventFilter {
            source_id: request.source_id,
            state: request.state as i16,
            received_after,
            received_before,
            before: before.unwrap_or(Uuid::max()),
        };
        let found = event_list(&self.0.database, tenant, &filter, size + 1).await;
        let found = found.map_err(Problem::from)?;
        let mut answer = ListEventsResponse::default();
        let mut bytes = 0;
        for event in &found {
            let encoded = encode::event(event, Vec::new());
            bytes += encoded.encoded_len();
            let full = answer.events.len() as i64 == size || bytes > MOST_BYTES;
            if let Some(last) = answer.events.last().filter(|_| full) {
                let last: Uuid = last.event_id.parse().expect("it was an id");
                answer.next_page_token = query.token(last.as_bytes());
                break;
            }
            answer.events.push(encoded);
        }
        Ok(Response::new(answer))
    }

    async fn replay_events(
        &self,
        request: Request<ReplayEventsRequest>,
    ) -> Answer<ReplayEventsResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        fields.check(
            request.event_ids.len() <= MOST_REPLAYED,
            "event_ids",
            format_args!("must be at most {MOST_REPLAYED}"),
        );
        let ids = request.event_ids.iter().enumerate();
        let ids: Vec<Uuid> = ids
            .filter_map(|(index, id)| fields.id(&format!("event_ids[{index}]"), id))
            .collect();
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        if ids.is_empty() {
            return Err(unimplemented(
                "WebhookEventService/ReplayEvents by source and time: name `event_ids`; it",
            ));
        }
        if caller.acting == Acting::Own || (tenant.is_platform() && caller.acting < Acting::Service)
        {
            let problem = Problem::permission_denied("only an administrator replays events");
            return Err(problem.into());
        }
        let replayed = replay_events(&self.0, &caller, tenant, ids).await;
        let replayed = replayed.map_err(|error: Error| Problem::from(error))?;
        Ok(Response::new(ReplayEventsResponse {
            events_replayed: replayed as i64,
        }))
    }

    async fn watch_events(
        &self,
        _: Request<WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        Err(unimplemented("WebhookEventService/WatchEvents"))
    }
}
