//! A grant: what is known of it besides its secrets, and how it changes.
//!
//! All changes are functions here, on a row that the caller holds locked; they judge time by the database's clock
//! ([`Grant::read_at`]) alone. The store writes what they leave.

mod answer;
mod claim;
mod outcome;
mod readable;
mod reminder;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use common::TenantKey;
use provider_catalog::{ReauthorizationCause, ReplayWindow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::text_enum::text_enum;

pub(crate) use answer::{Answer, ExchangeFacts, Settled, TIME_TO_CONFIRM};
pub(crate) use claim::{Claim, Claimant, Silence};
pub(crate) use outcome::{ANSWER_LOST, Failure, Recorded, Refused, Verdict};
pub(crate) use readable::Readable;

/// Which grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GrantKey {
    /// Whose it is, as the request says.
    pub(crate) tenant: TenantKey,
    /// Its id.
    pub(crate) id: Uuid,
}

/// Which OAuth client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey {
    /// Whose it is: the grant's tenant, or the platform.
    pub(crate) tenant: TenantKey,
    /// Its id.
    pub(crate) id: Uuid,
}

text_enum! {
    /// What the credential is.
    pub(crate) enum Kind {
        /// Tokens of an OAuth provider.
        OAuth2 = "oauth2",
        /// One key.
        ApiKey = "api_key",
        /// User name and password.
        Basic = "basic",
    }
}

text_enum! {
    /// What renews the access token.
    pub(crate) enum Strategy {
        /// A refresh token.
        RefreshToken = "refresh_token",
        /// The client's own credentials.
        ClientCredentials = "client_credentials",
        /// A signed assertion.
        JwtBearer = "jwt_bearer",
        /// The access token itself, traded for one that lives longer.
        TokenExchange = "token_exchange",
        /// Nothing.
        None = "none",
    }
}

text_enum! {
    /// Where a grant stands.
    pub(crate) enum State {
        /// The first tokens are being asked for; nobody sees the grant yet.
        Exchanging = "exchanging",
        /// They were refused, and so is each repetition of the call.
        ExchangeFailed = "exchange_failed",
        /// Made, and to be revoked unless somebody confirms it.
        Unconfirmed = "unconfirmed",
        /// In use.
        Active = "active",
        /// The last refresh failed for a passing reason.
        RefreshFailing = "refresh_failing",
        /// The provider refused it for good.
        ReauthorizationRequired = "reauthorization_required",
        /// Being revoked at the provider.
        Revoking = "revoking",
        /// Its secrets are destroyed.
        Revoked = "revoked",
    }
}

text_enum! {
    /// Why a request for tokens gave none, in so far as it says nothing of the grant.
    pub(crate) enum FailureKind {
        /// It passes by itself.
        Transient = "transient",
        /// It was sent, and no whole answer came.
        Ambiguous = "ambiguous",
        /// Too many requests.
        RateLimited = "rate_limited",
        /// An answer that makes no sense.
        ProviderBug = "provider_bug",
        /// The client is refused, or cannot be used as it is.
        Configuration = "configuration",
    }
}

text_enum! {
    /// What an open intent is about.
    pub(crate) enum IntentKind {
        /// New tokens for old ones.
        Refresh = "refresh",
        /// Tokens for a code, or for the client's credentials.
        Exchange = "exchange",
    }
}

/// What others are told of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It is there.
    Created,
    /// It has new tokens.
    Refreshed,
    /// It has new tokens, and they may do other things than the ones before.
    ScopesChanged,
    /// It could not be refreshed, for the first time since it could.
    RefreshFailing,
    /// It could be refreshed again.
    Recovered,
    /// The user has to connect again.
    ReauthorizationRequired,
    /// The user will have to soon: the end is near, and nothing moves it.
    ReauthorizationDue,
    /// It is gone.
    Revoked,
}

/// What the holder of the lease is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) kind: IntentKind,
    pub(crate) instance: Uuid,
    /// The version that it began from.
    pub(crate) version: i64,
    pub(crate) at: OffsetDateTime,
    /// When the token that it is about was first sent. `None`: no byte has left, so the provider cannot have acted on it.
    pub(crate) sent_at: Option<OffsetDateTime>,
}

/// A sealed token that stands in for the present one under conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) sealed: Vec<u8>,
    /// When the provider stops taking it.
    pub(crate) until: OffsetDateTime,
}

/// An answer's refresh token that came when the grant had another one already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternate {
    pub(crate) sealed: Vec<u8>,
    /// The row version that it is sealed with.
    pub(crate) version: i64,
}

/// A row of `grants`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) key: GrantKey,
    pub(crate) kind: Kind,
    pub(crate) strategy: Strategy,
    pub(crate) client: Option<ClientKey>,
    pub(crate) state: State,
    pub(crate) version: i64,
    pub(crate) revision: i64,

    pub(crate) credential: Option<Vec<u8>>,
    pub(crate) refresh_token: Option<Vec<u8>>,
    pub(crate) previous: Option<Previous>,
    pub(crate) alternate: Option<Alternate>,
    pub(crate) key_version: i32,

    pub(crate) token_type: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) scope_raw: String,
    pub(crate) token_names: Vec<String>,
    pub(crate) issued_at: Option<OffsetDateTime>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) refresh_token_expires_at: Option<OffsetDateTime>,
    /// When the user's consent ends, whatever happens.
    pub(crate) consent_ends_at: Option<OffsetDateTime>,
    /// When others are next told that the end is near.
    pub(crate) remind_at: Option<OffsetDateTime>,
    pub(crate) raw_json: String,
    pub(crate) parameters: BTreeMap<String, String>,

    pub(crate) fence: i64,
    pub(crate) lease_until: Option<OffsetDateTime>,
    pub(crate) intent: Option<Intent>,
    pub(crate) exchange_hash: Option<Vec<u8>>,

    pub(crate) consecutive_failures: i32,
    pub(crate) last_failure: Option<FailureKind>,
    pub(crate) last_error: String,
    pub(crate) answer_lost: bool,
    pub(crate) cause: Option<ReauthorizationCause>,
    pub(crate) refreshed_at: Option<OffsetDateTime>,
    pub(crate) next_refresh_at: Option<OffsetDateTime>,
    pub(crate) retry_at: Option<OffsetDateTime>,
    pub(crate) confirm_until: Option<OffsetDateTime>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) revoked_at: Option<OffsetDateTime>,

    /// The database's time when the row was read.
    pub(crate) read_at: OffsetDateTime,
}

/// What a provider's catalogue entry and the client say about refreshing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefreshRules {
    /// Each refresh may end the token it was made with.
    pub(crate) rotates: bool,
    /// For how long a token that was used already may be used again.
    pub(crate) replay: ReplayWindow,
    /// A token counts as expiring this long before its end.
    pub(crate) margin: Duration,
    /// A refresh token that is not used for this long ends.
    pub(crate) idle: Option<Duration>,
    /// A grant ends this long after the user's consent.
    pub(crate) absolute: Option<Duration>,
}

/// How good the present credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Good for as long as was asked.
    Good,
    /// Good, and a new one should be on its way.
    Expiring,
    /// Not good for as long as was asked.
    Short,
}

/// Margin where the client names none.
pub(crate) const DEFAULT_MARGIN: Duration = Duration::from_mins(5);

impl State {
    /// Whether anybody but the vault knows of a grant in this state.
    fn is_visible(self) -> bool {
        !matches!(self, Self::Exchanging | Self::ExchangeFailed)
    }
}

impl Strategy {
    /// Whether it can get another access token.
    fn renews(self, has_refresh_token: bool) -> bool {
        match self {
            Self::RefreshToken | Self::TokenExchange => has_refresh_token,
            Self::ClientCredentials | Self::JwtBearer => true,
            Self::None => false,
        }
    }
}

impl Grant {
    /// A grant without anything in it yet.
    pub(crate) fn new(
        key: GrantKey,
        kind: Kind,
        strategy: Strategy,
        client: Option<ClientKey>,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            key,
            kind,
            strategy,
            client,
            state: State::Exchanging,
            version: 0,
            revision: 0,
            credential: None,
            refresh_token: None,
            previous: None,
            alternate: None,
            key_version: 0,
            token_type: String::new(),
            scopes: Vec::new(),
            scope_raw: String::new(),
            token_names: Vec::new(),
            issued_at: None,
            expires_at: None,
            refresh_token_expires_at: None,
            consent_ends_at: None,
            remind_at: None,
            raw_json: String::new(),
            parameters: BTreeMap::new(),
            fence: 0,
            lease_until: None,
            intent: None,
            exchange_hash: None,
            consecutive_failures: 0,
            last_failure: None,
            last_error: String::new(),
            answer_lost: false,
            cause: None,
            refreshed_at: None,
            next_refresh_at: None,
            retry_at: None,
            confirm_until: None,
            created_at: now,
            revoked_at: None,
            read_at: now,
        }
    }

    /// Whether anybody but the vault knows of it.
    pub(crate) fn is_visible(&self) -> bool {
        self.state.is_visible()
    }

    /// Whether it can hand something out, now or after a refresh.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(
            self.state,
            State::Unconfirmed | State::Active | State::RefreshFailing
        )
    }

    /// Whether there is a way to get another access token.
    pub(crate) fn is_refreshable(&self) -> bool {
        self.strategy.renews(self.refresh_token.is_some())
    }

    /// One more change that others are told of.
    fn tell(&mut self, kind: EventKind) -> EventKind {
        self.revision += 1;
        kind
    }

    /// The lease is free, and nothing is under way.
    fn let_go(&mut self) {
        self.lease_until = None;
        self.intent = None;
    }

    /// Somebody keeps it: it is not revoked by itself any more.
    pub(crate) fn confirm(&mut self) {
        self.confirm_until = None;
        if self.state == State::Unconfirmed {
            self.state = if self.consecutive_failures == 0 {
                State::Active
            } else {
                State::RefreshFailing
            };
            self.revision += 1;
        }
    }

    /// Hands out nothing from now on. Whoever holds the lease has lost it.
    pub(crate) fn begin_revoking(&mut self) -> Option<EventKind> {
        if matches!(self.state, State::Revoking | State::Revoked) {
            return None;
        }
        self.state = State::Revoking;
        self.fence += 1;
        self.let_go();
        self.destroy_secrets();
        Some(self.tell(EventKind::Revoked))
    }

    /// There is nothing left to revoke.
    pub(crate) fn end_revoking(&mut self) -> Option<EventKind> {
        if self.state != State::Revoking {
            return None;
        }
        self.state = State::Revoked;
        self.revoked_at = Some(self.read_at);
        Some(self.tell(EventKind::Revoked))
    }

    /// What is sealed in it can never be opened again: the tenant's data keys were destroyed, whatever the row says.
    pub(crate) fn shred(&mut self) {
        self.state = State::Revoked;
        self.let_go();
        self.destroy_secrets();
    }

    fn destroy_secrets(&mut self) {
        self.credential = None;
        self.refresh_token = None;
        self.previous = None;
        self.alternate = None;
        self.next_refresh_at = None;
        self.remind_at = None;
        self.retry_at = None;
        self.confirm_until = None;
    }
}

/// A time up to `over` before `at`: what is due together is not done at once.
pub(crate) fn spread(at: OffsetDateTime, over: Duration, random: f64) -> OffsetDateTime {
    at - over.mul_f64(random.clamp(0.0, 1.0))
}
