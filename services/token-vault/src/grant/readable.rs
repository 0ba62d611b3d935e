//! What handing out needs to know of a grant. Most of a row is about renewing it, and stays in the database.

use std::time::Duration;

use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;

use super::{State, Strategy, Validity};

/// A grant as it is read to be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readable {
    pub(crate) state: State,
    pub(crate) cause: Option<ReauthorizationCause>,
    pub(crate) version: i64,
    /// Sealed with the version; `None` where there is none, or its key was destroyed.
    pub(crate) credential: Option<Vec<u8>>,
    pub(crate) token_type: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) strategy: Strategy,
    pub(crate) has_refresh_token: bool,
    pub(crate) issued_at: Option<OffsetDateTime>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) next_refresh_at: Option<OffsetDateTime>,
    /// When it was read, by the database's clock.
    pub(crate) read_at: OffsetDateTime,
}

impl Readable {
    /// Whether anybody but the vault knows of it.
    pub(crate) fn is_visible(&self) -> bool {
        self.state.is_visible()
    }

    /// How good its credential is at [`Readable::read_at`]. It counts as expiring when its refresh is due, which a failed
    /// one puts off.
    pub(crate) fn validity(&self, demand: Option<Duration>) -> Validity {
        let left = self.expires_at.map(|end| end - self.read_at);
        let is_due = self.next_refresh_at.is_some_and(|at| at <= self.read_at);
        if left.is_some_and(|left| left <= demand.unwrap_or_default()) {
            Validity::Short
        } else if is_due && self.strategy.renews(self.has_refresh_token) {
            Validity::Expiring
        } else {
            Validity::Good
        }
    }

    /// How long the token was made for.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        Duration::try_from(self.expires_at? - self.issued_at?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_judged_by_what_is_due_and_what_is_demanded() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let in_seconds = |seconds| Some(now + time::Duration::seconds(seconds));
        let mut grant = Readable {
            state: State::Active,
            cause: None,
            version: 1,
            credential: None,
            token_type: String::new(),
            scopes: Vec::new(),
            strategy: Strategy::RefreshToken,
            has_refresh_token: true,
            issued_at: Some(now),
            expires_at: None,
            next_refresh_at: None,
            read_at: now,
        };
        assert_eq!(
            grant.validity(Some(Duration::from_mins(1))),
            Validity::Good,
            "it has no end"
        );
        let mut with = |left: i64, due_in: i64, demand: Option<u64>| {
            grant.expires_at = in_seconds(left);
            grant.next_refresh_at = in_seconds(due_in);
            grant.validity(demand.map(Duration::from_secs))
        };
        assert_eq!(with(301, 1, None), Validity::Good);
        assert_eq!(with(300, 0, None), Validity::Expiring);
        assert_eq!(with(1, -299, None), Validity::Expiring);
        assert_eq!(with(0, -300, None), Validity::Short);
        assert_eq!(
            with(1, 60, None),
            Validity::Good,
            "the last attempt failed, and the next is not due"
        );
        assert_eq!(with(600, 60, Some(600)), Validity::Short);
        assert_eq!(with(601, 60, Some(600)), Validity::Good);
        assert_eq!(grant.lifetime(), Some(Duration::from_secs(601)));
        grant.has_refresh_token = false;
        grant.next_refresh_at = in_seconds(0);
        assert_eq!(grant.validity(None), Validity::Good, "nothing renews it");
    }
}
