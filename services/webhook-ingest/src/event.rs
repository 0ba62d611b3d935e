//! A webhook as it came in.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use common::TenantKey;
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

/// Partitions of events; a day's number modulo this is its partition.
pub(crate) const SLOTS: i32 = 32;

const DAY_MILLIS: u64 = 86_400_000;

/// An event's state; the numbers are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum EventState {
    /// To be processed, again perhaps.
    Received = 1,
    /// Routed to its connections, its syncs triggered.
    Processed = 2,
    /// No connection has the account it names.
    Unrouted = 3,
    /// Processing failed and is out of attempts.
    Dead = 4,
}

/// How a body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum BodyForm {
    /// As it came.
    Plain = 0,
    /// Sealed under the tenant's service key.
    Sealed = 1,
}

/// An event that is to be taken in.
#[derive(Clone, Debug)]
pub(crate) struct NewEvent {
    pub(crate) tenant: TenantKey,
    pub(crate) event_id: Uuid,
    pub(crate) source_tenant: TenantKey,
    pub(crate) source_id: String,
    pub(crate) source_key: Uuid,
    pub(crate) inbound_event_id: Option<Uuid>,
    /// Without one repeats cannot be told, and none is dropped.
    pub(crate) external_event_id: Option<String>,
    pub(crate) event_type: String,
    pub(crate) routing_keys: Vec<(String, String)>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) body_form: BodyForm,
    pub(crate) state: EventState,
    pub(crate) traceparent: String,
    pub(crate) occurred_at: Option<OffsetDateTime>,
    pub(crate) received_at: OffsetDateTime,
}

/// An event as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) new: NewEvent,
    pub(crate) attempts: i32,
    /// How often it was processed from the beginning.
    pub(crate) replays: i32,
    pub(crate) connection_ids: Vec<Uuid>,
    pub(crate) job_ids: Vec<String>,
    pub(crate) last_error: String,
    pub(crate) processed_at: Option<OffsetDateTime>,
}

impl NewEvent {
    /// What repeats of it have in common; `None` where they cannot be told.
    pub(crate) fn key_hash(&self) -> Option<Vec<u8>> {
        let id = self.external_event_id.as_ref()?;
        Some(digest(&SHA256, id.as_bytes()).as_ref().to_vec())
    }

    /// The partition that it lies in.
    pub(crate) fn slot(&self) -> i16 {
        slot_of(self.event_id)
    }
}

/// The partition that an event lies in, by the time in its id.
pub(crate) fn slot_of(event_id: Uuid) -> i16 {
    slot((millis(event_id) / DAY_MILLIS) as i32)
}

/// The partition of a day, counted from 1970.
pub(crate) fn slot(day: i32) -> i16 {
    day.rem_euclid(SLOTS) as i16
}

/// The day of a moment, counted from 1970 in UTC.
pub(crate) fn day_of(at: OffsetDateTime) -> i32 {
    at.unix_timestamp().div_euclid(86_400) as i32
}

/// The id of the event that `inbound`, one of the platform's, becomes for a tenant: the same however often it is split.
pub(crate) fn split_id(inbound: Uuid, replay: i32, tenant: TenantKey) -> Uuid {
    let (whose, replay) = (tenant.id(), replay.to_be_bytes());
    let parts = [inbound.as_bytes().as_slice(), &replay, whose.as_bytes()];
    let hash = digest(&SHA256, &parts.concat());
    let mut random = [0; 10];
    random[..8].copy_from_slice(&hash.as_ref()[..8]);
    random[8..].copy_from_slice(&tenant.bucket().to_be_bytes());
    Builder::from_unix_timestamp_millis(millis(inbound), &random).into_uuid()
}

/// The first 48 bits of a UUIDv7 (RFC 9562, section 5.7).
fn millis(id: Uuid) -> u64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.as_bytes()[..6]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use common::bucket_of;

    use super::*;

    #[test]
    fn an_id_says_the_day_of_its_event() {
        let clock = testkit::MockClock::new();
        let deps = testkit::deps_at(&clock);
        let tenant = TenantKey::new_tenant(&deps);
        for _ in 0..100 {
            clock.advance(std::time::Duration::from_hours(7));
            let id = tenant.new_id(&deps);
            assert_eq!(slot_of(id), slot(day_of(deps.now())));
        }
    }

    #[test]
    fn a_split_event_has_one_id_for_each_tenant_and_replay() {
        let deps = testkit::deps();
        let inbound = TenantKey::PLATFORM.new_id(&deps);
        let (one, two) = (TenantKey::new_tenant(&deps), TenantKey::new_tenant(&deps));
        let id = split_id(inbound, 0, one);
        assert_eq!(id, split_id(inbound, 0, one));
        assert_ne!(id, split_id(inbound, 0, two));
        assert_ne!(id, split_id(inbound, 1, one));
        assert_eq!(bucket_of(id), one.bucket());
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(slot_of(id), slot_of(inbound));
    }
}
