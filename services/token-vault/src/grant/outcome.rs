//! How a request for tokens that gave none changes a grant.

use std::time::Duration;

use provider_catalog::ReauthorizationCause;

use super::{EventKind, FailureKind, Grant, IntentKind, State};

/// A request without tokens that says nothing of the grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What sort.
    pub(crate) kind: FailureKind,
    /// The provider's error code and description, secrets removed.
    pub(crate) error: String,
    /// No other request before this long.
    pub(crate) wait: Duration,
    /// Whether it is the client's alone: then it is the client that waits, and the grant is as good as before.
    pub(crate) is_clients: bool,
}

/// Why an exchange failed of which nobody knows what came of it.
pub(crate) const ANSWER_LOST: &str = "the answer was lost";

/// Whether a failure was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It was; others are told where it is the first one.
    Written(Option<EventKind>),
    /// Somebody else has the lease now.
    NotMine,
}

/// What became of the provider's refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The user has to connect again.
    Ended(EventKind),
    /// There are newer tokens than the ones that were refused: a race that was lost, not a dead grant.
    Newer,
    /// A late answer has brought another refresh token meanwhile.
    TryAlternate,
    /// Somebody else has the lease now.
    NotMine,
}

/// What the provider refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The lease under which it was asked.
    pub(crate) fence: i64,
    /// The version of the token that was sent.
    pub(crate) version: i64,
    /// The alternate that was sent too.
    pub(crate) alternate: Option<i64>,
    /// Whether the provider rotates.
    pub(crate) rotates: bool,
    /// As the provider puts it.
    pub(crate) cause: ReauthorizationCause,
}

impl Failure {
    /// The provider refuses the client.
    pub(crate) fn of_client(error: &str, wait: Duration) -> Self {
        Self {
            kind: FailureKind::Configuration,
            error: error.to_owned(),
            wait,
            is_clients: true,
        }
    }
}

impl Grant {
    /// Lets go of a lease under which nothing is under way; whether it was there to let go of.
    pub(crate) fn give_up_lease(&mut self, fence: i64) -> bool {
        let is_mine = self.fence == fence && self.intent.is_some();
        if is_mine {
            self.let_go();
            self.next_refresh_at = Some(self.read_at);
        }
        is_mine
    }

    /// Writes a failure down and lets go of the lease.
    pub(crate) fn fail(&mut self, fence: i64, failure: &Failure) -> Recorded {
        if self.fence != fence || self.intent.is_none() {
            return Recorded::NotMine;
        }
        let retry_at = self.read_at + failure.wait;
        self.let_go();
        self.next_refresh_at = Some(retry_at);
        if failure.is_clients {
            return Recorded::Written(None);
        }
        self.last_failure = Some(failure.kind);
        self.last_error.clone_from(&failure.error);
        self.retry_at = Some(retry_at);
        if failure.kind == FailureKind::Configuration {
            // Nothing is said of the grant; it is only not tried again at once.
            return Recorded::Written(None);
        }
        self.consecutive_failures += 1;
        self.answer_lost |= matches!(
            failure.kind,
            FailureKind::Ambiguous | FailureKind::ProviderBug
        );
        self.revision += 1;
        if self.state == State::Active {
            self.state = State::RefreshFailing;
            return Recorded::Written(Some(EventKind::RefreshFailing));
        }
        Recorded::Written(None)
    }

    /// Lets go of the lease for an exchange that came to nothing: the grant is as it was.
    pub(crate) fn abandon_exchange(&mut self, fence: i64) -> Recorded {
        if self.fence != fence || self.intent.is_none() {
            return Recorded::NotMine;
        }
        self.let_go();
        Recorded::Written(None)
    }

    /// Closes an intent of an instance that has come back without an answer.
    pub(crate) fn close_lost_intent(&mut self) {
        let Some(intent) = self.intent else { return };
        self.let_go();
        match (intent.kind, intent.sent_at) {
            (IntentKind::Refresh, sent_at) => {
                self.next_refresh_at = Some(self.read_at);
                if sent_at.is_some() {
                    self.answer_lost = true;
                    // What has to be sent again before a window closes does not wait behind what is merely due.
                    self.abandon(intent);
                }
            }
            // The code may be used up, and it is not sent twice.
            (IntentKind::Exchange, Some(_)) if !self.is_visible() => {
                self.exchange_failed(ANSWER_LOST);
            }
            (IntentKind::Exchange, _) => {}
        }
    }

    /// Each repetition of the call is told the same.
    pub(crate) fn exchange_failed(&mut self, error: &str) {
        self.let_go();
        self.state = State::ExchangeFailed;
        error.clone_into(&mut self.last_error);
    }

    /// Ends the grant, if what was refused is the newest there is.
    pub(crate) fn refuse(&mut self, refused: &Refused, error: &str) -> Verdict {
        if self.version != refused.version || !self.is_alive() {
            return Verdict::Newer;
        }
        if self.fence != refused.fence || self.intent.is_none() {
            return Verdict::NotMine;
        }
        self.let_go();
        if self.alternate.as_ref().map(|kept| kept.version) != refused.alternate {
            self.next_refresh_at = Some(self.read_at);
            return Verdict::TryAlternate;
        }
        self.alternate = None;
        self.previous = None;
        self.consecutive_failures += 1;
        error.clone_into(&mut self.last_error);
        Verdict::Ended(self.require_reauthorization(self.likely_cause(refused)))
    }

    /// Ends a grant that has run out and cannot be renewed.
    pub(crate) fn expire(&mut self) -> Option<EventKind> {
        let ended = self.expires_at.is_some_and(|end| end <= self.read_at);
        if !self.is_alive() || self.is_refreshable() {
            return None;
        }
        if ended {
            return Some(self.require_reauthorization(ReauthorizationCause::Expired));
        }
        self.next_refresh_at = self.expires_at;
        None
    }

    fn require_reauthorization(&mut self, cause: ReauthorizationCause) -> EventKind {
        self.state = State::ReauthorizationRequired;
        self.cause = Some(cause);
        self.next_refresh_at = None;
        self.retry_at = None;
        self.remind_at = None;
        self.tell(EventKind::ReauthorizationRequired)
    }

    /// A refusal that follows a lost answer was very likely earned by that answer, and one that follows the end of the
    /// refresh token by that.
    fn likely_cause(&self, refused: &Refused) -> ReauthorizationCause {
        let is_vague = matches!(
            refused.cause,
            ReauthorizationCause::Revoked | ReauthorizationCause::Expired
        );
        let is_over = self
            .refresh_token_expires_at
            .is_some_and(|end| end <= self.read_at);
        match refused.cause {
            _ if is_vague && self.answer_lost && refused.rotates => {
                ReauthorizationCause::LostRotation
            }
            _ if is_vague && is_over => ReauthorizationCause::Expired,
            cause => cause,
        }
    }
}
