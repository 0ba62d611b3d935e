//! Who may ask the provider for new tokens.

use std::time::Duration;

use provider_catalog::ReplayWindow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{FailureKind, Grant, Intent, IntentKind, RefreshRules};

/// An instance that wants the lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant {
    /// Its id.
    pub(crate) instance: Uuid,
    /// How long the lease is to last.
    pub(crate) lease: Duration,
}

/// For how long the instance of an open intent has been silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// Which.
    pub(crate) instance: Uuid,
    /// `None`: it was never heard.
    pub(crate) since: Option<Duration>,
    /// For how long it could have been heard, and its answer have been taken: the database was up.
    pub(crate) audible: Duration,
}

/// What became of the wish for new tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The lease is the claimant's.
    Taken,
    /// There are newer tokens than the ones that were not good enough.
    Current,
    /// Somebody else is at it, or may yet come back with an answer.
    Busy,
    /// The last attempts failed, and it is not yet time for another.
    NotBefore {
        /// When it is.
        at: OffsetDateTime,
        /// How the last one failed.
        last: FailureKind,
    },
    /// Nothing can renew it.
    NotRefreshable,
    /// It hands out nothing any more.
    Ended,
}

/// An instance is taken for dead after this long without a heartbeat, where asking again does no harm.
const LONG_SILENCE: Duration = Duration::from_secs(3);
/// Where asking again may be the end of the grant, its instance has this long to come back with its spool.
const PATIENCE: Duration = Duration::from_mins(1);
/// And this long while the access token is still valid, so that nobody has to wait.
const LONG_PATIENCE: Duration = Duration::from_mins(10);

impl Intent {
    /// Its instance has come back, and knows nothing of an answer.
    fn is_abandoned(&self) -> bool {
        self.instance.is_nil()
    }
}

impl Grant {
    /// Takes the lease, if the tokens after `beyond` are still missing and nobody else is about to bring them.
    ///
    pub(crate) fn claim(
        &mut self,
        claimant: Claimant,
        beyond: i64,
        rules: &RefreshRules,
        silence: Option<Silence>,
    ) -> Claim {
        if !self.is_alive() {
            return Claim::Ended;
        }
        if self.version > beyond {
            return Claim::Current;
        }
        if !self.is_refreshable() {
            return Claim::NotRefreshable;
        }
        match self.intent {
            Some(intent) if !self.may_take_over(&intent, rules, silence) => return Claim::Busy,
            Some(intent) => {
                self.answer_lost |= intent.kind == IntentKind::Refresh && intent.sent_at.is_some();
            }
            None => {
                if let (Some(at), Some(last)) = (self.retry_at, self.last_failure)
                    && at > self.read_at
                {
                    return Claim::NotBefore { at, last };
                }
            }
        }
        self.take(claimant, IntentKind::Refresh);
        Claim::Taken
    }

    /// Takes the lease for another exchange into a grant that exists; `false` where somebody is at it.
    pub(crate) fn claim_for_exchange(
        &mut self,
        claimant: Claimant,
        rules: &RefreshRules,
        silence: Option<Silence>,
    ) -> bool {
        if let Some(intent) = self.intent
            && !self.may_take_over(&intent, rules, silence)
        {
            return false;
        }
        self.take(claimant, IntentKind::Exchange);
        true
    }

    /// Raises the fence and opens an intent.
    pub(crate) fn take(&mut self, claimant: Claimant, kind: IntentKind) {
        let lease_until = self.read_at + claimant.lease;
        let sent_at = self
            .unanswered_since()
            .filter(|_| kind == IntentKind::Refresh);
        self.fence += 1;
        self.lease_until = Some(lease_until);
        self.intent = Some(Intent {
            kind,
            instance: claimant.instance,
            version: self.version,
            at: self.read_at,
            sent_at,
        });
        if kind == IntentKind::Refresh {
            // If nothing comes of it, the sweeper looks after it.
            self.next_refresh_at = Some(lease_until);
        }
    }

    /// Since when nobody knows whether the provider has acted on the present token: each takeover inherits it, since the
    /// provider's replay window counts from the first time that a token was used.
    fn unanswered_since(&self) -> Option<OffsetDateTime> {
        let open = self
            .intent
            .filter(|intent| intent.kind == IntentKind::Refresh && intent.version == self.version);
        open.and_then(|intent| intent.sent_at)
    }

    /// The intent stays open, and is nobody's: whoever comes next takes it over.
    pub(super) fn abandon(&mut self, intent: Intent) {
        self.lease_until = Some(self.read_at);
        self.intent = Some(Intent {
            instance: Uuid::nil(),
            ..intent
        });
    }

    /// Whether somebody is about to bring new tokens, as far as anybody knows.
    pub(crate) fn is_under_way(&self) -> bool {
        self.intent.is_some_and(|intent| !intent.is_abandoned())
    }

    fn may_take_over(
        &self,
        intent: &Intent,
        rules: &RefreshRules,
        silence: Option<Silence>,
    ) -> bool {
        if intent.is_abandoned() {
            return true;
        }
        let last_heard = match silence.filter(|silence| silence.instance == intent.instance) {
            Some(Silence {
                since: Some(since), ..
            }) => (self.read_at - since).max(intent.at),
            Some(Silence { since: None, .. }) => intent.at,
            // It took the lease after it was asked for the other one.
            None => self.read_at,
        };
        let lease_until = self.lease_until.unwrap_or(intent.at);
        // An instance that lives and has let its lease run out is as good as silent since then: its request has ended.
        let quiet_for = (self.read_at - last_heard).max(self.read_at - lease_until);
        let quiet_for = Duration::try_from(quiet_for).unwrap_or_default();
        // Whoever waited for the database to come back has its answer in hand, and is to be first.
        let quiet_for = silence.map_or(quiet_for, |silence| quiet_for.min(silence.audible));
        let Some(sent_at) = intent.sent_at else {
            // Before it sends, its holder will find that the fence is not its own.
            return quiet_for >= LONG_SILENCE || lease_until <= self.read_at;
        };
        // A refresh takes nothing away from an exchange: its code is used up, or it is not.
        let needed = if intent.kind == IntentKind::Exchange || self.may_replay(sent_at, rules) {
            LONG_SILENCE
        } else if self.expires_at.is_some_and(|end| end > self.read_at) {
            LONG_PATIENCE
        } else {
            PATIENCE
        };
        quiet_for >= needed
    }

    /// Whether a token that was sent then can be sent again without harm.
    fn may_replay(&self, sent_at: OffsetDateTime, rules: &RefreshRules) -> bool {
        if !rules.rotates || self.strategy != super::Strategy::RefreshToken {
            return true;
        }
        match rules.replay {
            ReplayWindow::None => false,
            ReplayWindow::For(window) => self.read_at - sent_at < window,
            ReplayWindow::UntilSuccessorIsUsed | ReplayWindow::Unlimited => true,
        }
    }
}
