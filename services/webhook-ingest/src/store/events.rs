//! Events.

use std::collections::{BTreeMap, HashSet};

use common::TenantKey;
use common::pg::{Database, Error, Json, Row, Scope, Tx};
use time::OffsetDateTime;
use uuid::Uuid;

use super::tenant_in;
use crate::event::{BodyForm, Event, EventState, NewEvent, slot_of};

macro_rules! columns {
    () => {
        "tenant_id, event_id, source_tenant_id, source_id, source_key, inbound_event_id, external_event_id, event_type,
    routing_keys, headers, body_form, state, attempts, replays, connection_ids, job_ids, last_error, traceparent,
    occurred_at, received_at, processed_at"
    };
}

/// Whoever changes the turn of the tables waits for this transaction, and this one for him. A statement of its own: the
/// next one sees what was committed before the lock was had.
const TURN_SHARE: &str = "\
-- ingest.turn_share
SELECT generation
FROM ingest.calendar
FOR KEY SHARE";

const EVENTS_TAKE: &str = "\
-- ingest.events_take
WITH input AS (
    SELECT bucket, tenant_id, event_id, slot, source_tenant_id, source_id, source_key, inbound_event_id,
        external_event_id, key_hash, event_type, routing_keys, headers, body, body_form, state, traceparent,
        occurred_at, received_at
    FROM unnest($2::smallint[], $3::uuid[], $4::uuid[], $5::smallint[], $6::uuid[], $7::text[], $8::uuid[], $9::uuid[],
        $10::text[], $11::bytea[], $12::text[], $13::text[], $14::text[], $15::bytea[], $16::smallint[],
        $17::smallint[], $18::text[], $19::timestamptz[], $20::timestamptz[])
        AS i (bucket, tenant_id, event_id, slot, source_tenant_id, source_id, source_key, inbound_event_id,
        external_event_id, key_hash, event_type, routing_keys, headers, body, body_form, state, traceparent,
        occurred_at, received_at)
), fresh AS (
    INSERT INTO ingest.dedup_keys (bucket, tenant_id, generation, source_key, key_hash, event_id)
    SELECT i.bucket, i.tenant_id, $1::smallint, i.source_key, i.key_hash, i.event_id
    FROM input AS i
    WHERE i.key_hash IS NOT NULL
        AND NOT EXISTS (
            SELECT
            FROM ingest.dedup_keys AS k
            WHERE k.bucket = i.bucket
                AND k.generation = 1 - $1::smallint
                AND k.source_key = i.source_key
                AND k.key_hash = i.key_hash)
    ORDER BY i.bucket, i.source_key, i.key_hash
    ON CONFLICT (bucket, generation, source_key, key_hash) DO NOTHING
    RETURNING event_id
), taken AS (
    INSERT INTO ingest.events (
        bucket, tenant_id, event_id, slot, source_tenant_id, source_id, source_key, inbound_event_id, external_event_id,
        event_type, routing_keys, headers, body, body_form, state, traceparent, occurred_at, received_at)
    SELECT i.bucket, i.tenant_id, i.event_id, i.slot, i.source_tenant_id, i.source_id, i.source_key, i.inbound_event_id,
        i.external_event_id, i.event_type, i.routing_keys::jsonb, i.headers::jsonb, i.body, i.body_form, i.state,
        i.traceparent, i.occurred_at, i.received_at
    FROM input AS i
    WHERE i.key_hash IS NULL
        OR i.event_id IN (SELECT event_id FROM fresh)
    ON CONFLICT (bucket, tenant_id, event_id, slot) DO NOTHING
    RETURNING bucket, tenant_id, event_id, state
), queued AS (
    INSERT INTO ingest.event_queue (bucket, tenant_id, event_id, due_at)
    SELECT bucket, tenant_id, event_id, now()
    FROM taken
    WHERE state = 1
)
SELECT event_id
FROM taken";

const EVENT_GET: &str = concat!(
    "-- ingest.event_get\nSELECT ",
    columns!(),
    ", body
FROM ingest.events
WHERE bucket = $1
    AND tenant_id = $2
    AND event_id = $3
    AND slot = $4"
);

const EVENT_LIST: &str = concat!(
    "-- ingest.event_list\nSELECT ",
    columns!(),
    "
FROM ingest.events
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3 = '' OR source_id = $3)
    AND ($4::smallint = 0 OR state = $4)
    AND received_at > $5
    AND received_at < $6
    AND event_id < $7
ORDER BY event_id DESC
LIMIT $8"
);

const EVENT_SETTLE: &str = "\
-- ingest.event_settle
UPDATE ingest.events
SET state = $5,
    attempts = $6,
    connection_ids = $7,
    job_ids = $8,
    last_error = $9,
    processed_at = $10
WHERE bucket = $1
    AND tenant_id = $2
    AND event_id = $3
    AND slot = $4";

const EVENTS_REPLAY: &str = "\
-- ingest.events_replay
WITH again AS (
    INSERT INTO ingest.event_queue (bucket, tenant_id, event_id, due_at)
    SELECT bucket, tenant_id, event_id, now()
    FROM ingest.events
    WHERE bucket = $1
        AND tenant_id = $2
        AND event_id = ANY ($3)
        AND slot = ANY ($4)
    ON CONFLICT (bucket, event_id) DO NOTHING
    RETURNING event_id
)
UPDATE ingest.events
SET state = 1,
    attempts = 0,
    replays = replays + 1,
    last_error = '',
    processed_at = NULL
WHERE bucket = $1
    AND tenant_id = $2
    AND event_id IN (SELECT event_id FROM again)
    AND slot = ANY ($4)";

/// What lists events.
#[derive(Clone, Debug)]
pub(crate) struct EventFilter {
    /// Empty for every source.
    pub(crate) source_id: String,
    /// 0 for every state.
    pub(crate) state: i16,
    pub(crate) received_after: OffsetDateTime,
    pub(crate) received_before: OffsetDateTime,
    /// Those older than this one.
    pub(crate) before: Uuid,
}

/// How an event's processing ended, for now.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) state: EventState,
    pub(crate) attempts: i32,
    pub(crate) connection_ids: Vec<Uuid>,
    pub(crate) job_ids: Vec<String>,
    pub(crate) last_error: String,
    pub(crate) processed_at: Option<OffsetDateTime>,
}

/// Takes in those that have not been seen, and puts them into the queue; gives their ids. One statement over several tenants.
pub(crate) async fn events_take(tx: &Tx, events: &[NewEvent]) -> Result<HashSet<Uuid>, Error> {
    fn column<'a, T>(events: &'a [NewEvent], of: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
        events.iter().map(of).collect()
    }
    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).expect("pairs and maps of texts are JSON")
    }
    let generation: i16 = tx.query_one(TURN_SHARE, &[]).await?.get("generation");
    let rows = tx
        .query(
            EVENTS_TAKE,
            &[
                &generation,
                &column(events, |event| event.tenant.bucket()),
                &column(events, |event| event.tenant.id()),
                &column(events, |event| event.event_id),
                &column(events, NewEvent::slot),
                &column(events, |event| event.source_tenant.id()),
                &column(events, |event| event.source_id.as_str()),
                &column(events, |event| event.source_key),
                &column(events, |event| event.inbound_event_id),
                &column(events, |event| {
                    event.external_event_id.as_deref().unwrap_or_default()
                }),
                &column(events, NewEvent::key_hash),
                &column(events, |event| event.event_type.as_str()),
                &column(events, |event| json(&event.routing_keys)),
                &column(events, |event| json(&event.headers)),
                &column(events, |event| event.body.as_slice()),
                &column(events, |event| event.body_form as i16),
                &column(events, |event| event.state as i16),
                &column(events, |event| event.traceparent.as_str()),
                &column(events, |event| event.occurred_at),
                &column(events, |event| event.received_at),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("event_id")).collect())
}

/// The tenant's event, with its body as it is kept.
pub(crate) async fn event_get(
    db: &Database,
    tenant: TenantKey,
    event_id: Uuid,
) -> Result<Option<Event>, Error> {
    let row = db
        .query_opt(
            Scope::Tenant(tenant),
            EVENT_GET,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &event_id,
                &slot_of(event_id),
            ],
        )
        .await?;
    Ok(row.as_ref().map(|row| {
        let mut event = event(row);
        event.new.body = row.get("body");
        event
    }))
}

/// The tenant's events, the newest first, without bodies.
pub(crate) async fn event_list(
    db: &Database,
    tenant: TenantKey,
    filter: &EventFilter,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let rows = db
        .query(
            Scope::Tenant(tenant),
            EVENT_LIST,
            &[
                &tenant.bucket(),
                &tenant.id(),
                &filter.source_id,
                &filter.state,
                &filter.received_after,
                &filter.received_before,
                &filter.before,
                &limit,
            ],
        )
        .await?;
    Ok(rows.iter().map(event).collect())
}

/// Writes how its processing ended.
pub(crate) async fn event_settle(
    tx: &Tx,
    tenant: TenantKey,
    event_id: Uuid,
    settled: &Settled,
) -> Result<(), Error> {
    tx.execute(
        EVENT_SETTLE,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &event_id,
            &slot_of(event_id),
            &(settled.state as i16),
            &settled.attempts,
            &settled.connection_ids,
            &settled.job_ids,
            &settled.last_error,
            &settled.processed_at,
        ],
    )
    .await
    .map(drop)
}

/// Puts those of the tenant's events into the queue that are not in it; gives how many.
pub(crate) async fn events_replay(
    tx: &Tx,
    tenant: TenantKey,
    event_ids: &[Uuid],
) -> Result<u64, Error> {
    let mut slots: Vec<i16> = event_ids.iter().copied().map(slot_of).collect();
    slots.sort_unstable();
    slots.dedup();
    tx.execute(
        EVENTS_REPLAY,
        &[&tenant.bucket(), &tenant.id(), &event_ids, &slots],
    )
    .await
}

fn event(row: &Row) -> Event {
    let Json(routing_keys): Json<Vec<(String, String)>> = row.get("routing_keys");
    let Json(headers): Json<BTreeMap<String, String>> = row.get("headers");
    let external_event_id: String = row.get("external_event_id");
    Event {
        new: NewEvent {
            tenant: tenant_in(row, "tenant_id"),
            event_id: row.get("event_id"),
            source_tenant: tenant_in(row, "source_tenant_id"),
            source_id: row.get("source_id"),
            source_key: row.get("source_key"),
            inbound_event_id: row.get("inbound_event_id"),
            external_event_id: Some(external_event_id).filter(|id| !id.is_empty()),
            event_type: row.get("event_type"),
            routing_keys,
            headers,
            body: Vec::new(),
            body_form: match row.get("body_form") {
                1_i16 => BodyForm::Sealed,
                _ => BodyForm::Plain,
            },
            state: match row.get("state") {
                2_i16 => EventState::Processed,
                3 => EventState::Unrouted,
                4 => EventState::Dead,
                _ => EventState::Received,
            },
            traceparent: row.get("traceparent"),
            occurred_at: row.get("occurred_at"),
            received_at: row.get("received_at"),
        },
        attempts: row.get("attempts"),
        replays: row.get("replays"),
        connection_ids: row.get("connection_ids"),
        job_ids: row.get("job_ids"),
        last_error: row.get("last_error"),
        processed_at: row.get("processed_at"),
    }
}
