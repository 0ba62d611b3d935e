//! A provider's good answer, sealed: what lies in the spool until the database has taken it.

use std::collections::BTreeMap;

use common::TenantKey;
use provider_catalog::ReauthorizationCause;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alternate, ClientKey, EventKind, Grant, GrantKey, Kind, Previous, State, Strategy};
use crate::base64_bytes;

/// New tokens, ready to be written into the row. Nothing in it is readable without the tenant's data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) tenant_id: Uuid,
    pub(crate) grant_id: Uuid,
    /// The lease under which it was asked for.
    pub(crate) fence: i64,
    /// The version that it was asked for with; it becomes the next one.
    pub(crate) read_version: i64,
    /// Set where it answers an exchange.
    pub(crate) exchange: Option<ExchangeFacts>,
    #[serde(with = "base64_bytes")]
    pub(crate) credential: Vec<u8>,
    #[serde(with = "base64_bytes::option")]
    pub(crate) refresh_token: Option<Vec<u8>>,
    /// The token that was sent, for as long as the provider still takes it.
    #[serde(with = "base64_bytes::option")]
    pub(crate) previous: Option<Vec<u8>>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) previous_until: Option<OffsetDateTime>,
    pub(crate) key_version: i32,
    pub(crate) token_type: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) scope_raw: String,
    pub(crate) token_names: Vec<String>,
    /// When it was asked for, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) issued_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) refresh_token_expires_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(crate) consent_ends_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) next_refresh_at: Option<OffsetDateTime>,
    pub(crate) raw_json: String,
}

/// What an exchange adds to a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExchangeFacts {
    /// Tells a repetition of the call from another one.
    #[serde(with = "base64_bytes")]
    pub(crate) hash: Vec<u8>,
    /// How the tokens are renewed, by its word.
    pub(crate) strategy: String,
    pub(crate) client_tenant_id: Uuid,
    pub(crate) client_id: Uuid,
    pub(crate) parameters: BTreeMap<String, String>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is the grant's present set of tokens.
    Committed(EventKind),
    /// It had been already.
    AlreadyCommitted,
    /// The grant has got others meanwhile.
    Superseded,
    /// The grant was revoked meanwhile, and so is to be what came.
    TooLate,
}

/// An unconfirmed grant is revoked after this long.
pub(crate) const TIME_TO_CONFIRM: time::Duration = time::Duration::minutes(15);

impl ExchangeFacts {
    /// Who asked for the tokens.
    pub(crate) fn client(&self) -> Option<ClientKey> {
        Some(ClientKey {
            tenant: TenantKey::from_id(self.client_tenant_id).ok()?,
            id: self.client_id,
        })
    }
}

impl Answer {
    /// Whose tokens they are; `None` where the spool holds nonsense.
    pub(crate) fn grant(&self) -> Option<GrantKey> {
        Some(GrantKey {
            tenant: TenantKey::from_id(self.tenant_id).ok()?,
            id: self.grant_id,
        })
    }

    /// The version that it will be.
    pub(crate) fn version(&self) -> i64 {
        self.read_version + 1
    }
}

impl Grant {
    /// Takes an answer in, if it is the next version, whatever became of the lease under which it was asked for: a
    /// provider's good answer is newer than any verdict.
    pub(crate) fn settle(&mut self, answer: &Answer) -> Settled {
        if matches!(self.state, State::Revoking | State::Revoked) {
            return Settled::TooLate;
        }
        if self.version == answer.version()
            && self.credential.as_deref() == Some(answer.credential.as_slice())
        {
            return Settled::AlreadyCommitted;
        }
        if self.version != answer.read_version {
            return Settled::Superseded;
        }
        let kind = self.event_of(answer);
        self.take_tokens(answer);
        if let Some(exchange) = &answer.exchange {
            self.take_exchange(exchange);
        }
        self.state = if self.confirm_until.is_some() {
            State::Unconfirmed
        } else {
            State::Active
        };
        self.consecutive_failures = 0;
        self.last_failure = None;
        self.last_error.clear();
        self.answer_lost = false;
        self.cause = None;
        self.retry_at = None;
        if self.fence == answer.fence {
            self.let_go();
        }
        Settled::Committed(self.tell(kind))
    }

    /// Keeps the refresh token of an answer that was superseded. Where the provider has refused the newer one, the grant
    /// has another chance.
    pub(crate) fn keep_alternate(&mut self, alternate: Alternate) -> Option<EventKind> {
        let is_refused = self.state == State::ReauthorizationRequired
            && matches!(
                self.cause,
                Some(
                    ReauthorizationCause::Revoked
                        | ReauthorizationCause::Expired
                        | ReauthorizationCause::LostRotation
                )
            );
        let is_newest = self
            .alternate
            .as_ref()
            .is_none_or(|kept| kept.version <= alternate.version);
        if !is_newest || !(self.is_alive() || is_refused) {
            return None;
        }
        self.alternate = Some(alternate);
        if !is_refused {
            return None;
        }
        self.state = State::RefreshFailing;
        self.cause = None;
        self.next_refresh_at = Some(self.read_at);
        Some(self.tell(EventKind::RefreshFailing))
    }

    fn event_of(&self, answer: &Answer) -> EventKind {
        let was_failing = matches!(
            self.state,
            State::RefreshFailing | State::ReauthorizationRequired
        );
        if !self.is_visible() {
            EventKind::Created
        } else if was_failing || self.consecutive_failures > 0 {
            EventKind::Recovered
        } else if is_same_set(&self.scopes, &answer.scopes) {
            EventKind::Refreshed
        } else {
            EventKind::ScopesChanged
        }
    }

    fn take_tokens(&mut self, answer: &Answer) {
        self.version = answer.version();
        self.credential = Some(answer.credential.clone());
        self.refresh_token.clone_from(&answer.refresh_token);
        self.previous = match (&answer.previous, answer.previous_until) {
            (Some(sealed), Some(until)) => Some(Previous {
                sealed: sealed.clone(),
                until,
            }),
            _ => None,
        };
        self.alternate = None;
        self.key_version = answer.key_version;
        self.token_type.clone_from(&answer.token_type);
        self.scopes.clone_from(&answer.scopes);
        self.scope_raw.clone_from(&answer.scope_raw);
        self.token_names.clone_from(&answer.token_names);
        self.issued_at = Some(answer.issued_at);
        self.refreshed_at = Some(answer.issued_at);
        self.expires_at = answer.expires_at;
        self.remind_at = self.next_reminder(answer.refresh_token_expires_at);
        self.refresh_token_expires_at = answer.refresh_token_expires_at;
        self.consent_ends_at = answer.consent_ends_at;
        self.next_refresh_at = answer.next_refresh_at;
        self.raw_json.clone_from(&answer.raw_json);
    }

    fn take_exchange(&mut self, exchange: &ExchangeFacts) {
        if !self.is_visible() {
            self.confirm_until = Some(self.read_at + TIME_TO_CONFIRM);
        }
        self.kind = Kind::OAuth2;
        self.strategy = Strategy::from_word(&exchange.strategy).unwrap_or(Strategy::None);
        self.exchange_hash = Some(exchange.hash.clone());
        self.parameters.clone_from(&exchange.parameters);
        self.client = exchange.client().or(self.client);
    }
}

/// Providers name scopes in any order.
fn is_same_set(a: &[String], b: &[String]) -> bool {
    a.iter().all(|scope| b.contains(scope)) && b.iter().all(|scope| a.contains(scope))
}
