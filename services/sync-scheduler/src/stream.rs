//! A stream of one account of one connection: where the lease lies, the cursor is kept, and the schedule runs.

use common::TenantKey;
use contracts::broker::v1::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::job::CONNECTORS;

/// Which stream of which account of which connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    /// The connection's tenant.
    pub(crate) tenant: TenantKey,
    /// The connection.
    pub(crate) connection_id: Uuid,
    /// The provider's id of the account; empty where it has none.
    pub(crate) external_account_id: String,
    /// "projects", "messages".
    pub(crate) stream: String,
}

/// A stream as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Which one.
    pub(crate) key: StreamKey,
    /// The provider's key in the catalogue.
    pub(crate) provider: String,
    /// The integration of the connection.
    pub(crate) integration_id: String,
    /// Who owns the connection.
    pub(crate) user_id: String,
    /// That user's address.
    pub(crate) user_email: String,
    /// Leases of any of its jobs so far.
    pub(crate) epoch: i64,
    /// The job that holds the lease, or held it last without letting go.
    pub(crate) running_job_id: Option<Uuid>,
    /// Where incremental runs go on.
    pub(crate) cursor_json: Option<Vec<u8>>,
    /// Goes up each time the cursor changes.
    pub(crate) cursor_version: i64,
    /// Who serves its scheduled runs.
    pub(crate) queue: String,
    /// How often it is to run once its initial sync is complete; `None` where it runs only when it is asked to.
    pub(crate) cadence_seconds: Option<i32>,
    /// How far back its initial sync reached; `None` until that is complete.
    pub(crate) backfilled_from: Option<OffsetDateTime>,
    /// When its schedule is due; `None` where it rests.
    pub(crate) next_run_at: Option<OffsetDateTime>,
    /// When the cursor or the lease last changed.
    pub(crate) updated_at: OffsetDateTime,
}

impl Stream {
    /// One that has nothing yet.
    pub(crate) fn new(connection: &Connection, key: StreamKey, now: OffsetDateTime) -> Self {
        Self {
            key,
            provider: connection.provider.clone(),
            integration_id: connection.integration_id.clone(),
            user_id: connection.user_id.clone(),
            user_email: connection.user_email.clone(),
            epoch: 0,
            running_job_id: None,
            cursor_json: None,
            cursor_version: 0,
            queue: CONNECTORS.to_owned(),
            cadence_seconds: None,
            backfilled_from: None,
            next_run_at: None,
            updated_at: now,
        }
    }

    /// The tick that follows now: a whole number of cadences after the one that is due, so that being late does not
    /// move the schedule.
    pub(crate) fn next_tick(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let cadence = i64::from(self.cadence_seconds?.max(1));
        let due = self.next_run_at.unwrap_or(now);
        let late = (now - due).whole_seconds().max(0);
        Some(due + time::Duration::seconds((late / cadence + 1).saturating_mul(cadence)))
    }
}

#[cfg(test)]
mod tests {
    use common::Deps;

    use super::*;

    #[test]
    fn missed_ticks_are_one_and_the_next_is_on_time() {
        let deps = Deps::system("test");
        let tenant = TenantKey::new_tenant(&deps);
        let due = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("it is in range");
        let key = StreamKey {
            tenant,
            connection_id: tenant.new_id(&deps),
            external_account_id: String::new(),
            stream: "projects".to_owned(),
        };
        let stream = Stream {
            cadence_seconds: Some(600),
            next_run_at: Some(due),
            ..Stream::new(&Connection::default(), key, due)
        };
        let after = |seconds| {
            stream
                .next_tick(due + time::Duration::seconds(seconds))
                .map(|at| (at - due).whole_seconds())
        };
        assert_eq!(after(0), Some(600));
        assert_eq!(after(599), Some(600));
        assert_eq!(after(600), Some(1200));
        assert_eq!(after(6010), Some(6600));
        let resting = Stream {
            cadence_seconds: None,
            ..stream.clone()
        };
        assert_eq!(resting.next_tick(due), None);
    }
}
