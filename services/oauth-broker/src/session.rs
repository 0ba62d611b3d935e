//! A connect session: one user's way through an authorization.

use std::collections::BTreeMap;

use common::TenantKey;
use contracts::broker::v1::{Cardinality, ConnectSessionState};
use provider_catalog::Person;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::Url;
use uuid::Uuid;

use crate::connection::{Account, GrantFacts};
use crate::integration::Integration;

/// A session without a `ttl` of its own.
pub(crate) const DEFAULT_TTL: Duration = Duration::minutes(15);
/// The longest.
pub(crate) const LONGEST_TTL: Duration = Duration::hours(1);
/// How long a state is good (RFC 9700, 2.1).
pub(crate) const STATE_TTL: Duration = Duration::minutes(10);

/// A session as it is kept.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "ids are named as in the contract"
)]
pub(crate) struct Session {
    pub(crate) tenant: TenantKey,
    pub(crate) session_id: Uuid,
    pub(crate) token_hash: Vec<u8>,
    pub(crate) browser_hash: Option<Vec<u8>>,
    pub(crate) state: ConnectSessionState,
    pub(crate) user_id: String,
    pub(crate) user_email: String,
    pub(crate) integration: Option<(TenantKey, String)>,
    pub(crate) allowed_integration_ids: Vec<String>,
    pub(crate) return_url: String,
    pub(crate) opener_origin: String,
    pub(crate) locale: String,
    pub(crate) connection_parameters: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) authorization_params: BTreeMap<String, String>,
    pub(crate) reconnect_connection_id: Option<Uuid>,
    pub(crate) require_confirmation: bool,
    pub(crate) confirmation_hash: Option<Vec<u8>>,
    pub(crate) authorized: Option<Authorized>,
    pub(crate) connection_id: Option<Uuid>,
    pub(crate) external_user_id: String,
    pub(crate) external_account_id: String,
    pub(crate) error: String,
    pub(crate) error_reason: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) finished_at: Option<OffsetDateTime>,
}

/// What came out of an authorization: a grant, and what the provider says of the one who gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authorized {
    pub(crate) grant: GrantFacts,
    pub(crate) person: PersonFacts,
    pub(crate) accounts: Vec<Account>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) requested_scopes: Vec<String>,
    pub(crate) metadata_json: String,
    /// Which of the accounts was chosen.
    pub(crate) chosen: Option<String>,
}

/// Who the user is at the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PersonFacts {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) name: String,
}

impl From<&Person> for PersonFacts {
    fn from(person: &Person) -> Self {
        Self {
            user_id: person.user_id.clone().unwrap_or_default(),
            email: person.email.clone().unwrap_or_default(),
            name: person.name.clone().unwrap_or_default(),
        }
    }
}

impl Authorized {
    /// The accounts that may become the active one.
    pub(crate) fn selectable(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().filter(|account| account.usable)
    }

    /// The account that becomes the active one: the chosen, else the first that can be used.
    pub(crate) fn active(&self) -> Option<&Account> {
        match &self.chosen {
            Some(chosen) => self
                .accounts
                .iter()
                .find(|account| account.external_account_id == *chosen),
            None => self.selectable().next(),
        }
    }

    /// Whether a person has to choose: there are several accounts, and a call cannot choose among them later.
    pub(crate) fn needs_choice(&self, integration: &Integration, multiple_accounts: bool) -> bool {
        let account_is_identity = matches!(
            integration.cardinality,
            Cardinality::PerAccount | Cardinality::PerUserAndAccount
        );
        let matters = account_is_identity || integration.exclusive_accounts || !multiple_accounts;
        matters && self.chosen.is_none() && self.selectable().count() > 1
    }
}

impl Session {
    /// The state as it is now, by the time.
    pub(crate) fn state_at(&self, now: OffsetDateTime) -> ConnectSessionState {
        let waits = self.finished_at.is_none() && self.state != ConnectSessionState::Authorizing;
        if waits && now >= self.expires_at {
            ConnectSessionState::Expired
        } else {
            self.state
        }
    }

    /// Whether the person may still say yes.
    pub(crate) fn is_open(&self, now: OffsetDateTime) -> bool {
        let open = matches!(
            self.state,
            ConnectSessionState::Pending | ConnectSessionState::Authorizing
        );
        open && now < self.expires_at
    }

    /// Where the browser goes at the end; `None` where the host application named nothing.
    pub(crate) fn destination(&self, confirmation_code: Option<&str>) -> Option<Url> {
        let mut url = Url::parse(&self.return_url).ok()?;
        let connection_id = self
            .connection_id
            .map(|id| id.to_string())
            .unwrap_or_default();
        let session_id = self.session_id.to_string();
        let mut pairs = vec![("session_id", session_id.as_str())];
        if self.error.is_empty() {
            pairs.push(("connection_id", &connection_id));
            pairs.push(("user_id", &self.user_id));
            pairs.push(("external_user_id", &self.external_user_id));
            pairs.push(("external_account_id", &self.external_account_id));
            pairs.extend(confirmation_code.map(|code| ("confirmation_code", code)));
        } else {
            pairs.push(("error", &self.error));
            pairs.push(("error_reason", &self.error_reason));
        }
        url.query_pairs_mut()
            .extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
        Some(url)
    }
}
