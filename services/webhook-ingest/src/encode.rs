//! The ingest's domain as the contract has it.

use std::collections::BTreeMap;

use contracts::ingest::v1 as contract;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;
use webhook_signatures::{InvalidOptions, Scheme, SchemeOptions};

use crate::document::Document;
use crate::event::Event;
use crate::json;
use crate::source::Source;

/// A moment as the contract has it.
pub(crate) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: at.nanosecond() as i32,
    }
}

/// A moment of the contract's; what Postgres keeps, to the microsecond.
///
/// # Errors
/// A sentence where it is out of range.
pub(crate) fn moment(at: prost_types::Timestamp) -> Result<OffsetDateTime, &'static str> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos.div_euclid(1_000) * 1_000)
        .ok()
        .filter(|at| (0..=9999).contains(&at.year()))
        .ok_or("is out of range")
}

/// Reads a scheme's options; the whole reason where they do not fit.
pub(crate) fn scheme_options(scheme: &Scheme, options: Value) -> Result<SchemeOptions, String> {
    SchemeOptions::parse(scheme, options).map_err(|error| match &error {
        InvalidOptions::Form(form) => format!("{error}: {form}"),
        _ => error.to_string(),
    })
}

/// A source.
pub(crate) fn source(source: &Source, url: &str) -> contract::Source {
    contract::Source {
        tenant_id: source.tenant.to_string(),
        source_id: source.source_id.clone(),
        integration_id: source
            .integration
            .as_ref()
            .map(|integration| integration.integration_id.clone())
            .unwrap_or_default(),
        scheme: source.scheme.clone(),
        scheme_options: json::to_struct(&source.scheme_options),
        trigger_streams: source.trigger_streams.clone().into_iter().collect(),
        url: url.to_owned(),
        created_at: Some(timestamp(source.created_at)),
        sealed_bodies: source.sealed_bodies,
        accept_unverified: source.accept_unverified,
        updated_at: Some(timestamp(source.updated_at)),
        ..contract::Source::default()
    }
}

/// A scheme.
pub(crate) fn scheme(scheme: &Scheme) -> contract::Scheme {
    contract::Scheme {
        scheme: scheme.key.clone(),
        display_name: scheme.display_name.clone(),
        confidence: scheme.confidence.as_str().to_owned(),
        docs_url: scheme.docs_url.clone(),
        setup: scheme.setup.clone(),
    }
}

/// An event with this body.
pub(crate) fn event(event: &Event, body: Vec<u8>) -> contract::Event {
    let new = &event.new;
    // One name may have several values; the contract has a text for them.
    let mut routing_keys: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &new.routing_keys {
        routing_keys
            .entry(name.clone())
            .and_modify(|values| {
                values.push(',');
                values.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    contract::Event {
        event_id: new.event_id.to_string(),
        source_id: new.source_id.clone(),
        tenant_id: new.tenant.to_string(),
        connection_ids: event.connection_ids.iter().map(Uuid::to_string).collect(),
        external_event_id: new.external_event_id.clone().unwrap_or_default(),
        event_type: new.event_type.clone(),
        routing_keys: routing_keys.into_iter().collect(),
        state: i32::from(new.state as i16),
        headers: new.headers.clone().into_iter().collect(),
        body,
        attempts: event.attempts,
        last_error: event.last_error.clone(),
        received_at: Some(timestamp(new.received_at)),
        processed_at: event.processed_at.map(timestamp),
        traceparent: new.traceparent.clone(),
        inbound_event_id: new
            .inbound_event_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        job_ids: event.job_ids.clone(),
    }
}

/// A document.
pub(crate) fn document(document: &Document) -> contract::Document {
    let held = &document.held;
    let connection_id = document.stream.connection_id;
    contract::Document {
        tenant_id: document.stream.tenant.to_string(),
        document_id: held.document_id.to_string(),
        connection_id: if connection_id.is_nil() {
            String::new()
        } else {
            connection_id.to_string()
        },
        stream: document.stream.stream.clone(),
        external_id: document.external_id.clone(),
        title: held.content.title.clone(),
        content_json: held.content.json.clone(),
        source_updated_at: held.source_updated_at.map(timestamp),
        ingested_by_user_id: held.by.user_id.clone(),
        ingested_by_user_email: held.by.user_email.clone(),
        ingestion_method: i32::from(held.by.method as i16),
        job_id: held.job_id.clone(),
        first_ingested_at: Some(timestamp(held.first_ingested_at)),
        updated_at: Some(timestamp(held.updated_at)),
        deleted_at: held.deleted_at.map(timestamp),
        external_account_id: document.stream.external_account_id.clone(),
        revision: held.revision,
        content_hash: held.content.hash.clone(),
        content_url: held.content.url.clone(),
    }
}
