//! From an event to the syncs that it leads to: at least once, and its effects once.
//!
//! Whoever processes an event holds a lease on it and proves it by its fence when it says how it went. A sync is asked for
//! under a request id made of the event's own, so whoever asks again, after a crash or with a lease that was lost, gets the same jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use common::identity::{Caller, scope};
use common::pg::{Scope, Tx};
use common::problem::Chain;
use common::telemetry::context;
use common::{Code, TenantKey};
use contracts::scheduler::v1::{TriggerSource, TriggerSyncRequest};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::app::Ingest;
use crate::clients::Routed;
use crate::error::Error;
use crate::event::{BodyForm, Event, EventState, NewEvent, split_id};
use crate::keys::Place;
use crate::source::{RECORD, Source};
use crate::store::events::{Settled, event_get, event_settle, events_take};
use crate::store::queue::{Claimed, queue_leave, queue_postpone};
use crate::store::sources::source_get;

/// An event that names more records leads to a sync of the whole stream.
const MOST_RECORDS: usize = 100;
/// Of an error that is kept with an event.
const LONGEST_ERROR: usize = 1000;

/// What an event led to.
#[derive(Debug, Default)]
struct Outcome {
    connection_ids: Vec<Uuid>,
    job_ids: Vec<String>,
    /// What could not be done, and will not be by trying again.
    failed: Option<String>,
    /// What was left out on purpose.
    left_out: Vec<String>,
    unrouted: bool,
}

/// Processes an event that was claimed, and writes how it went.
pub(crate) async fn process_event(ingest: &Ingest, claimed: Claimed) {
    let Claimed {
        tenant, event_id, ..
    } = claimed;
    let span = tracing::info_span!(
        parent: None,
        "webhook.process",
        otel.kind = "consumer",
        tenant.id = %tenant,
        webhook.event_id = %event_id,
    );
    let ourselves = Caller {
        // The lease's rest is for writing how it went.
        deadline: Some(Instant::now() + ingest.processing.lease.get().mul_f64(0.6)),
        ..Caller::service("webhook-ingest")
    };
    let mut ourselves = ourselves;
    ourselves.actor.tenant_id = tenant.to_string();
    ourselves.actor.purpose = format!("events/{event_id}");
    let work = async {
        if let Err(error) = process(ingest, &claimed).await {
            // Nobody could be told; the lease ends, and it is tried again.
            tracing::warn!(
                event = "webhook_unsettled",
                tenant.id = %tenant,
                webhook.event_id = %event_id,
                error = %Chain(&error),
                "how a webhook's processing went could not be written; it is processed again after its lease"
            );
        }
    };
    scope(ourselves, work.instrument(span)).await;
}

async fn process(ingest: &Ingest, claimed: &Claimed) -> Result<(), Error> {
    let tenant = claimed.tenant;
    let Some(event) = event_get(&ingest.database, tenant, claimed.event_id).await? else {
        // It was too old to be kept.
        return leave(ingest, *claimed, None).await;
    };
    context::link_to(&tracing::Span::current(), &event.new.traceparent);
    let routed = route(ingest, &event).await;
    let outcome = match routed {
        Ok(outcome) => outcome,
        Err(error) if error.is_transient() => {
            let too_often = claimed.attempts >= ingest.processing.max_attempts as i32;
            if !too_often {
                return postpone(ingest, *claimed, &event, &error).await;
            }
            Outcome {
                failed: Some(Chain(&error).to_string()),
                ..Outcome::default()
            }
        }
        Err(error) => Outcome {
            failed: Some(Chain(&error).to_string()),
            ..Outcome::default()
        },
    };
    let state = match &outcome {
        Outcome {
            failed: Some(_), ..
        } => EventState::Dead,
        Outcome { unrouted: true, .. } => EventState::Unrouted,
        _ => EventState::Processed,
    };
    let mut said: Vec<String> = outcome.failed.into_iter().collect();
    said.extend(outcome.left_out);
    let settled = Settled {
        state,
        attempts: claimed.attempts,
        connection_ids: outcome.connection_ids,
        job_ids: outcome.job_ids,
        last_error: shorten(&said.join("; ")),
        processed_at: Some(ingest.now()),
    };
    log(&event, &settled);
    ingest.statistics.count(
        tenant,
        "webhooks_processed",
        &[
            ("state", state_name(state)),
            ("source", &event.new.source_id),
        ],
    );
    leave(ingest, *claimed, Some(settled)).await
}

async fn route(ingest: &Ingest, event: &Event) -> Result<Outcome, Error> {
    let new = &event.new;
    let source = source_get(&ingest.database, new.source_tenant, &new.source_id).await?;
    let source = source
        .filter(|source| source.source_key == new.source_key)
        .ok_or(Error::NotFound("the event's source"))?;
    let Some(integration) = &source.integration else {
        // It was asked to keep what comes, and no more.
        return Ok(Outcome::default());
    };
    let keys: Vec<_> = new
        .routing_keys
        .iter()
        .filter(|(name, _)| name != RECORD)
        .cloned()
        .collect();
    let only = (!new.tenant.is_platform()).then_some(new.tenant);
    let mut connections = match only {
        _ if !keys.is_empty() => {
            ingest
                .clients
                .connections_by_key(integration, only, &keys)
                .await?
        }
        // It names nobody, so it is about everybody of the tenant whose own address it came to.
        Some(tenant) if source.tenant == tenant => {
            ingest.clients.connections_of(integration, tenant).await?
        }
        _ => Vec::new(),
    };
    connections.sort_unstable();
    connections.dedup_by_key(|connection| connection.connection_id);
    if connections.is_empty() {
        return Ok(Outcome {
            unrouted: true,
            ..Outcome::default()
        });
    }
    if new.tenant.is_platform() {
        split(ingest, event, connections).await
    } else {
        trigger(ingest, event, &source, &connections).await
    }
}

/// One event for each tenant that the platform's is about. The body goes along where it is about one tenant alone: else
/// it says things of one that are not for another.
async fn split(ingest: &Ingest, event: &Event, connections: Vec<Routed>) -> Result<Outcome, Error> {
    let mut by_tenant: BTreeMap<TenantKey, BTreeSet<(String, String)>> = BTreeMap::new();
    for connection in connections {
        by_tenant
            .entry(connection.tenant)
            .or_default()
            .extend(connection.routing_keys);
    }
    let mut outcome = Outcome::default();
    if let Some(own) = by_tenant.remove(&TenantKey::PLATFORM) {
        // The platform syncs nothing for itself.
        outcome
            .left_out
            .push(format!("{} of its keys are the platform's own", own.len()));
    }
    let alone = by_tenant.len() == 1;
    for (tenant, keys) in by_tenant {
        let child = child(ingest, event, tenant, &keys, alone).await?;
        let taken = ingest
            .database
            .run_tx("event_split", Scope::System, async move |tx: &Tx| {
                events_take(tx, std::slice::from_ref(&child)).await
            })
            .await?;
        if !taken.is_empty() {
            ingest.wake.ring([tenant.bucket()]);
        }
    }
    Ok(outcome)
}

async fn child(
    ingest: &Ingest,
    event: &Event,
    tenant: TenantKey,
    keys: &BTreeSet<(String, String)>,
    alone: bool,
) -> Result<NewEvent, Error> {
    let new = &event.new;
    let event_id = split_id(new.event_id, event.replays, tenant);
    let (body, body_form) = match (alone, new.body_form) {
        (false, _) => (Vec::new(), BodyForm::Plain),
        (true, BodyForm::Plain) => (new.body.clone(), BodyForm::Plain),
        (true, BodyForm::Sealed) => {
            let from = Place::EventBody {
                event_id: new.event_id,
            };
            let body = ingest.keys.open(new.tenant, from, &new.body).await?;
            let place = Place::EventBody { event_id };
            let sealed = ingest.keys.seal(tenant, place, body.expose()).await?;
            (sealed, BodyForm::Sealed)
        }
    };
    // What it says of others stays with the platform.
    let named = |key: &&(String, String)| alone || key.0 == RECORD || keys.contains(key);
    let routing_keys = new.routing_keys.iter().filter(named).cloned().collect();
    Ok(NewEvent {
        tenant,
        event_id,
        inbound_event_id: Some(new.event_id),
        // The one that came in was told from its repeats already, and a replay is meant.
        external_event_id: None,
        routing_keys,
        body,
        body_form,
        state: EventState::Received,
        received_at: new.received_at,
        ..new.clone()
    })
}

async fn trigger(
    ingest: &Ingest,
    event: &Event,
    source: &Source,
    connections: &[Routed],
) -> Result<Outcome, Error> {
    let new = &event.new;
    let mut outcome = Outcome {
        connection_ids: connections
            .iter()
            .map(|connection| connection.connection_id)
            .collect(),
        ..Outcome::default()
    };
    let streams = source.streams(&new.event_type);
    if streams.is_empty() {
        return Ok(outcome);
    }
    let mut records: Vec<String> = new
        .routing_keys
        .iter()
        .filter(|(name, _)| name == RECORD)
        .map(|(_, value)| value.clone())
        .collect();
    if records.len() > MOST_RECORDS {
        records.clear();
    }
    for connection in connections {
        let connection_id = connection.connection_id;
        let request = TriggerSyncRequest {
            request_id: request_id(event, connection_id, &streams),
            tenant_id: new.tenant.to_string(),
            connection_id: connection_id.to_string(),
            streams: streams.clone(),
            source: TriggerSource::Webhook.into(),
            external_ids: records.clone(),
            ..TriggerSyncRequest::default()
        };
        match ingest.clients.trigger_sync(request).await {
            Ok(job_ids) => outcome.job_ids.extend(job_ids),
            Err(error) if error.is_transient() => return Err(Error::Scheduler(error)),
            // Gone since it was found, or not to be synced now: what the event says is read when it is synced again.
            Err(error) if matches!(error.code, Code::NotFound | Code::FailedPrecondition) => {
                outcome.left_out.push(format!(
                    "connections/{connection_id} was not synced: {error}"
                ));
            }
            Err(error) => {
                outcome.failed = Some(format!("connections/{connection_id}: {error}"));
            }
        }
    }
    outcome.job_ids.sort_unstable();
    outcome.job_ids.dedup();
    Ok(outcome)
}

/// The same for each attempt, another one for each replay and each set of streams.
fn request_id(event: &Event, connection_id: Uuid, streams: &[String]) -> String {
    let what = format!("{} {connection_id} {}", event.replays, streams.join(","));
    let hash = digest(&SHA256, what.as_bytes());
    format!(
        "webhook-{}-{}",
        event.new.event_id,
        hex::encode(&hash.as_ref()[..8])
    )
}

async fn leave(ingest: &Ingest, claimed: Claimed, settled: Option<Settled>) -> Result<(), Error> {
    let Claimed {
        tenant, event_id, ..
    } = claimed;
    ingest
        .database
        .run_tx(
            "event_settle",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                // Where another one holds it by now, it is the other's to say.
                if queue_leave(tx, &claimed).await?
                    && let Some(settled) = &settled
                {
                    event_settle(tx, tenant, event_id, settled).await?;
                }
                Ok(())
            },
        )
        .await
}

async fn postpone(
    ingest: &Ingest,
    claimed: Claimed,
    event: &Event,
    error: &Error,
) -> Result<(), Error> {
    let Claimed {
        tenant,
        event_id,
        attempts,
        ..
    } = claimed;
    let pause = pause(ingest, attempts);
    let due_at = ingest.now() + pause;
    tracing::info!(
        event = "webhook_retried",
        tenant.id = %tenant,
        webhook.event_id = %event_id,
        attempts,
        error = %Chain(error),
        "a webhook could not be processed and will be tried again in {pause:?}"
    );
    let settled = Settled {
        state: EventState::Received,
        attempts,
        connection_ids: event.connection_ids.clone(),
        job_ids: event.job_ids.clone(),
        last_error: shorten(&Chain(error).to_string()),
        processed_at: None,
    };
    ingest
        .database
        .run_tx(
            "event_postpone",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                if queue_postpone(tx, &claimed, due_at).await? {
                    event_settle(tx, tenant, event_id, &settled).await?;
                }
                Ok(())
            },
        )
        .await
}

/// Twice as long with each attempt, and half of it by chance.
fn pause(ingest: &Ingest, attempts: i32) -> Duration {
    let (first, longest) = (
        ingest.processing.first_pause.get(),
        ingest.processing.longest_pause.get(),
    );
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    let span = first.saturating_mul(1 << doublings).min(longest);
    let chance = f64::from(u32::from_be_bytes(ingest.deps.random())) / f64::from(u32::MAX);
    span.mul_f64(0.5 + chance / 2.0)
}

fn log(event: &Event, settled: &Settled) {
    let new = &event.new;
    if settled.state == EventState::Dead {
        tracing::warn!(
            event = "webhook_processed",
            tenant.id = %new.tenant,
            source_id = new.source_id,
            webhook.event_id = %new.event_id,
            state = state_name(settled.state),
            attempts = settled.attempts,
            error = settled.last_error,
            "a webhook could not be processed and is kept; replay it once the reason is gone"
        );
    } else {
        tracing::info!(
            event = "webhook_processed",
            tenant.id = %new.tenant,
            source_id = new.source_id,
            webhook.event_id = %new.event_id,
            state = state_name(settled.state),
            connections = settled.connection_ids.len(),
            jobs = settled.job_ids.len(),
            attempts = settled.attempts,
            "a webhook was processed"
        );
    }
}

fn state_name(state: EventState) -> &'static str {
    match state {
        EventState::Received => "received",
        EventState::Processed => "processed",
        EventState::Unrouted => "unrouted",
        EventState::Dead => "dead",
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(LONGEST_ERROR).collect()
}
