//! The lock of the one-time historical sync, and the override that opens it once.

use common::TenantKey;
use contracts::scheduler::v1::InitialSyncState;
use time::OffsetDateTime;
use uuid::Uuid;

/// Whose historical sync it is. It outlives the connection: connecting anew does not open it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LockKey {
    /// The tenant.
    pub(crate) tenant: TenantKey,
    /// The integration.
    pub(crate) integration_id: String,
    /// The user.
    pub(crate) user_id: String,
    /// The provider's id of the account; empty where it has none.
    pub(crate) external_account_id: String,
    /// The stream.
    pub(crate) stream: String,
}

/// A lock as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct SyncLock {
    /// Whose.
    pub(crate) key: LockKey,
    /// The connection that started it last.
    pub(crate) connection_id: Uuid,
    /// The provider's key in the catalogue.
    pub(crate) provider: String,
    /// The user's address.
    pub(crate) user_email: String,
    /// The run that holds it.
    pub(crate) run_id: Uuid,
    /// How that run stands.
    pub(crate) state: InitialSyncState,
    /// Why it is locked, for people.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) locked_at: OffsetDateTime,
    /// When the run was complete.
    pub(crate) completed_at: Option<OffsetDateTime>,
    /// Goes up with every change.
    pub(crate) revision: i64,
}

impl SyncLock {
    /// Why it is locked while the sync runs, and after it is complete; for people.
    pub(crate) fn used(provider: &str, locked_at: OffsetDateTime) -> String {
        let day = locked_at.date();
        format!(
            "The historical sync of {provider} was started on {day} and can be run only once; ask your operator to allow another."
        )
    }

    /// Why it is locked although the sync did not come to its end; for people.
    pub(crate) fn broken_off(&self, why: &str) -> String {
        let (provider, day) = (&self.provider, self.locked_at.date());
        let why = if why.is_empty() {
            "it was cancelled"
        } else {
            why
        };
        format!(
            "The historical sync of {provider}, started on {day}, did not come to its end: {why}. Ask your operator to let it go on."
        )
    }
}

/// An operator's word that one more historical sync may start.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    /// Its tenant.
    pub(crate) tenant: TenantKey,
    /// Its id.
    pub(crate) id: Uuid,
    /// For this connection; `None` for whichever of the tenant starts first.
    pub(crate) connection_id: Option<Uuid>,
    /// Why.
    pub(crate) reason: String,
    /// The operator's identity.
    pub(crate) granted_by: String,
    /// When.
    pub(crate) granted_at: OffsetDateTime,
    /// In force until then.
    pub(crate) expires_at: Option<OffsetDateTime>,
    /// When it was used up.
    pub(crate) used_at: Option<OffsetDateTime>,
    /// By which job.
    pub(crate) used_by_job_id: Option<Uuid>,
    /// When it was taken back.
    pub(crate) revoked_at: Option<OffsetDateTime>,
}

/// How the initial sync of several streams stands.
pub(crate) fn overall(states: impl IntoIterator<Item = InitialSyncState>) -> InitialSyncState {
    let states: Vec<_> = states.into_iter().collect();
    let all = |state| !states.is_empty() && states.iter().all(|found| *found == state);
    if states.is_empty() {
        InitialSyncState::NeverStarted
    } else if states.contains(&InitialSyncState::Running) {
        InitialSyncState::Running
    } else if all(InitialSyncState::Completed) {
        InitialSyncState::Completed
    } else if all(InitialSyncState::Failed) {
        InitialSyncState::Failed
    } else {
        InitialSyncState::Partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InitialSyncState::{Completed, Failed, NeverStarted, Partial, Running};

    #[test]
    fn streams_add_up() {
        assert_eq!(overall([]), NeverStarted);
        assert_eq!(overall([Running, Completed]), Running);
        assert_eq!(overall([Completed, Completed]), Completed);
        assert_eq!(overall([Failed, Failed]), Failed);
        assert_eq!(overall([Failed, Completed]), Partial);
    }
}
