//! Who changed what, and why: written in the transaction that makes the change, and never changed again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::common::v1::Actor;
use contracts::operations::v1::{AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, Error, Row, Scope, Tx};
use crate::telemetry::context;
use crate::validate::Fields;
use crate::{Problem, TenantKey};

const AUDIT_EVENT_APPEND: &str = "\
-- {schema}.audit_event_append
INSERT INTO {schema}.audit_events
    (bucket, tenant_id, event_id, occurred_at, actor, actor_user_id, action, resource, reason, trace_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const AUDIT_EVENTS_LIST: &str = "\
-- {schema}.audit_events_list
SELECT event_id, occurred_at, tenant_id, actor, actor_user_id, action, resource, reason, trace_id
FROM {schema}.audit_events
WHERE bucket = $1
    AND tenant_id = $2
    AND ($3 = '' OR actor = $3)
    AND ($4 = '' OR resource = $4)
    AND occurred_at > $5
    AND (occurred_at, event_id) < ($6, $7)
ORDER BY occurred_at DESC, event_id DESC
LIMIT $8";

/// Over every tenant, for operators.
const AUDIT_EVENTS_LIST_ALL: &str = "\
-- {schema}.audit_events_list_all
SELECT event_id, occurred_at, tenant_id, actor, actor_user_id, action, resource, reason, trace_id
FROM {schema}.audit_events
WHERE ($1 = '' OR actor = $1)
    AND ($2 = '' OR resource = $2)
    AND occurred_at > $3
    AND (occurred_at, event_id) < ($4, $5)
ORDER BY occurred_at DESC, event_id DESC
LIMIT $6";

/// Notes in the transaction that makes a change who made it. `action` is the method, "SyncPermissionService/GrantOverride", or what a
/// background task did; `resource` is what it was done to, `connections/0190…`.
///
/// # Errors
/// Where the statement fails.
pub async fn append(
    tx: &Tx,
    tenant: TenantKey,
    actor: &Actor,
    action: &str,
    resource: &str,
    reason: &str,
) -> Result<(), Error> {
    let trace_id = context::current_trace_id().unwrap_or_default();
    tx.execute(
        AUDIT_EVENT_APPEND,
        &[
            &tenant.bucket(),
            &tenant.id(),
            &tenant.new_id(tx.deps()),
            &tx.deps().now(),
            &actor.identity,
            &actor.user_id,
            &action,
            &resource,
            &reason,
            &trace_id,
        ],
    )
    .await
    .map(drop)
}

/// The newest first; of `tenant`, as it was allowed, or of all.
///
/// # Errors
/// Fields that cannot be taken; database trouble.
pub async fn list(
    db: &Database,
    tenant: Option<TenantKey>,
    request: &ListAuditEventsRequest,
    mut fields: Fields,
) -> Result<ListAuditEventsResponse, Problem> {
    let page_size = match request.page_size {
        1.. => request.page_size.min(1000),
        _ => 50,
    };
    fields.check(request.page_size >= 0, "page_size", "must not be negative");
    let after = moment(
        &mut fields,
        "occurred_after",
        request.occurred_after.as_ref(),
        OffsetDateTime::UNIX_EPOCH,
    );
    let before = moment(
        &mut fields,
        "occurred_before",
        request.occurred_before.as_ref(),
        END_OF_TIME,
    );
    let place = match request.page_token.as_str() {
        "" => Some(Place {
            occurred_at: before,
            event_id: Uuid::nil(),
        }),
        token => Place::decode(token),
    };
    fields.check(
        place.is_some(),
        "page_token",
        "must be the next_page_token of the page before",
    );
    fields.finish()?;
    let Place {
        occurred_at,
        event_id,
    } = place.expect("it was checked just now");

    // One more, to know whether there is a page after this one.
    let limit = i64::from(page_size) + 1;
    let (actor, resource) = (&request.actor, &request.resource);
    let mut rows = match tenant {
        Some(tenant) => {
            let (bucket, id) = (tenant.bucket(), tenant.id());
            db.query(
                Scope::Tenant(tenant),
                AUDIT_EVENTS_LIST,
                &[
                    &bucket,
                    &id,
                    actor,
                    resource,
                    &after,
                    &occurred_at,
                    &event_id,
                    &limit,
                ],
            )
            .await
        }
        None => {
            db.query(
                Scope::System,
                AUDIT_EVENTS_LIST_ALL,
                &[actor, resource, &after, &occurred_at, &event_id, &limit],
            )
            .await
        }
    }
    .map_err(|error| error.problem())?;

    let more = rows.len() > page_size as usize;
    rows.truncate(page_size as usize);
    let next = rows.last().filter(|_| more).map(|row| Place {
        occurred_at: row.get("occurred_at"),
        event_id: row.get("event_id"),
    });
    Ok(ListAuditEventsResponse {
        audit_events: rows.iter().map(audit_event).collect(),
        next_page_token: next.map(|place| place.encode()).unwrap_or_default(),
    })
}

/// What Postgres and protobuf can both say.
const END_OF_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 0:00 UTC);

fn moment(
    fields: &mut Fields,
    name: &str,
    value: Option<&prost_types::Timestamp>,
    otherwise: OffsetDateTime,
) -> OffsetDateTime {
    let Some(value) = value else { return otherwise };
    let parsed = OffsetDateTime::from_unix_timestamp(value.seconds)
        .ok()
        .and_then(|moment| moment.checked_add(time::Duration::nanoseconds(i64::from(value.nanos))))
        .filter(|moment| (OffsetDateTime::UNIX_EPOCH..=END_OF_TIME).contains(moment));
    fields.check(
        parsed.is_some(),
        name,
        "must be a time between 1970 and 9999",
    );
    parsed.unwrap_or(otherwise)
}

fn audit_event(row: &Row) -> AuditEvent {
    let occurred_at: OffsetDateTime = row.get("occurred_at");
    AuditEvent {
        event_id: row.get::<_, Uuid>("event_id").to_string(),
        occurred_at: Some(prost_types::Timestamp {
            seconds: occurred_at.unix_timestamp(),
            nanos: occurred_at.nanosecond() as i32,
        }),
        tenant_id: row.get::<_, Uuid>("tenant_id").to_string(),
        actor: row.get("actor"),
        actor_user_id: row.get("actor_user_id"),
        action: row.get("action"),
        resource: row.get("resource"),
        reason: row.get("reason"),
        trace_id: row.get("trace_id"),
    }
}

/// The last event of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    occurred_at: OffsetDateTime,
    event_id: Uuid,
}

impl Place {
    fn encode(&self) -> String {
        // Postgres keeps microseconds.
        let micros = (self.occurred_at.unix_timestamp_nanos() / 1000) as i64;
        let mut bytes = micros.to_be_bytes().to_vec();
        bytes.extend(self.event_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(token: &str) -> Option<Self> {
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (micros, id) = bytes.split_first_chunk()?;
        let micros = i64::from_be_bytes(*micros);
        let occurred_at =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()?;
        Some(Self {
            occurred_at,
            event_id: Uuid::from_slice(id).ok()?,
        })
        .filter(|_| (0..253_402_300_800_000_000).contains(&micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_as_it_was_written_and_nothing_else_is() {
        let place = Place {
            occurred_at: time::macros::datetime!(2026-01-15 12:00:00.123456 UTC),
            event_id: Uuid::from_u128(5),
        };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        for wrong in ["", "x", "AAAA", &"_".repeat(32)] {
            assert_eq!(Place::decode(wrong), None, "{wrong}");
        }
    }
}
