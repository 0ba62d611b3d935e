//! A user's connection to a provider, and what may become of it.

use std::collections::BTreeMap;

use common::TenantKey;
use contracts::broker::v1::{Cardinality, ConnectionEventKind, ConnectionState};
use contracts::vault::v1::{Grant, GrantState, ReauthorizationCause};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;

/// A connection as it is kept.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_field_names,
    reason = "ids are named as in the contract"
)]
pub(crate) struct Connection {
    pub(crate) tenant: TenantKey,
    pub(crate) connection_id: Uuid,
    pub(crate) integration_tenant: TenantKey,
    pub(crate) integration_id: String,
    pub(crate) provider: String,
    pub(crate) identity_key: String,
    pub(crate) user_id: String,
    pub(crate) user_email: String,
    pub(crate) external_user_id: String,
    pub(crate) state: ConnectionState,
    pub(crate) grant: GrantFacts,
    pub(crate) requested_scopes: Vec<String>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) metadata_json: String,
    pub(crate) last_error: String,
    pub(crate) reauthorization_cause: String,
    pub(crate) connected_at: OffsetDateTime,
    pub(crate) disconnected_at: Option<OffsetDateTime>,
    pub(crate) revoked_at: Option<OffsetDateTime>,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) revision: i64,
}

/// What is known of a grant without asking the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GrantFacts {
    pub(crate) grant_id: Uuid,
    pub(crate) scopes: Vec<String>,
    pub(crate) scope_raw: String,
    pub(crate) token_type: String,
    pub(crate) has_refresh_token: bool,
    pub(crate) token_expires_at: Option<OffsetDateTime>,
    pub(crate) refresh_token_expires_at: Option<OffsetDateTime>,
}

/// One of the accounts that a connection's grant reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) external_account_id: String,
    pub(crate) name: String,
    /// The provider lets it be used.
    pub(crate) usable: bool,
    pub(crate) active: bool,
    pub(crate) disconnected_at: Option<OffsetDateTime>,
}

/// What a grant's change makes of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) state: ConnectionState,
    pub(crate) cause: String,
    pub(crate) event: ConnectionEventKind,
}

impl GrantFacts {
    /// What the vault says of a grant.
    pub(crate) fn of(grant: &Grant) -> Option<Self> {
        let moment = |at: Option<&prost_types::Timestamp>| at.and_then(crate::api::encode::moment);
        Some(Self {
            grant_id: grant.grant_id.parse().ok()?,
            scopes: grant.scopes.clone(),
            scope_raw: grant.scope_raw.clone(),
            // RFC 6749 makes the type a part of the answer; who leaves it out means this one.
            token_type: if grant.token_type.is_empty() {
                "Bearer".to_owned()
            } else {
                grant.token_type.clone()
            },
            has_refresh_token: grant.has_refresh_token,
            token_expires_at: moment(grant.expires_at.as_ref()),
            refresh_token_expires_at: moment(grant.refresh_token_expires_at.as_ref()),
        })
    }
}

impl Connection {
    /// It has to be one that works.
    pub(crate) fn check_usable(&self) -> Result<(), Error> {
        let advice = match self.state {
            ConnectionState::Connected | ConnectionState::Degraded => return Ok(()),
            ConnectionState::ReauthorizationRequired => {
                return Err(Error::Reauthorization {
                    cause: self.reauthorization_cause.clone(),
                });
            }
            ConnectionState::Disconnected => "the connection was disconnected; connect again first",
            ConnectionState::Unclaimed => {
                "the connection has no user yet; a user has to connect in its place first"
            }
            ConnectionState::Unspecified => {
                "the connection is in no known state; an operator has to look at it"
            }
        };
        Err(Error::NotUsable { advice })
    }

    /// It has to be there: what was disconnected is forgotten.
    pub(crate) fn check_there(&self) -> Result<(), Error> {
        if self.state == ConnectionState::Disconnected {
            Err(Error::NotFound("connection"))
        } else {
            Ok(())
        }
    }

    /// What the grant's state makes of the connection; `None` where nothing changes.
    pub(crate) fn follow(&self, grant: &Grant) -> Option<Transition> {
        let state = match grant.state() {
            GrantState::Active => ConnectionState::Connected,
            GrantState::RefreshFailing => ConnectionState::Degraded,
            GrantState::ReauthorizationRequired | GrantState::Revoked | GrantState::Revoking => {
                ConnectionState::ReauthorizationRequired
            }
            GrantState::Unspecified | GrantState::Unconfirmed => return None,
        };
        let cause = match (state, grant.reauthorization_cause()) {
            (ConnectionState::ReauthorizationRequired, ReauthorizationCause::Unspecified) => {
                "REVOKED"
            }
            (ConnectionState::ReauthorizationRequired, cause) => {
                let name = cause.as_str_name();
                name.strip_prefix("REAUTHORIZATION_CAUSE_").unwrap_or(name)
            }
            _ => "",
        };
        // Who disconnected, and who never claimed, is not brought back by what the grant does.
        let is_final = matches!(
            self.state,
            ConnectionState::Disconnected | ConnectionState::Unclaimed
        );
        let is_same = self.state == state && self.reauthorization_cause == cause;
        let event = match state {
            ConnectionState::ReauthorizationRequired => {
                ConnectionEventKind::ReauthorizationRequired
            }
            ConnectionState::Connected => ConnectionEventKind::Recovered,
            _ => ConnectionEventKind::StateChanged,
        };
        (!is_final && !is_same).then(|| Transition {
            state,
            cause: cause.to_owned(),
            event,
        })
    }
}

/// What makes two connections of an integration the same one. `None` where the provider does not tell the account that
/// the cardinality needs.
pub(crate) fn identity_key(
    cardinality: Cardinality,
    user_id: &str,
    external_account_id: &str,
) -> Option<String> {
    let account = (!external_account_id.is_empty()).then_some(external_account_id);
    let parts = match cardinality {
        Cardinality::Unspecified | Cardinality::PerUser => vec!["user", user_id],
        Cardinality::PerAccount => vec!["account", account?],
        Cardinality::PerUserAndAccount => vec!["user-account", user_id, account?],
        Cardinality::PerTenant => vec!["tenant"],
    };
    Some(serde_json::to_string(&parts).expect("texts can be written as JSON"))
}

/// The key of a connection without a user, which is never the same as another.
pub(crate) fn unclaimed_key(connection_id: Uuid) -> String {
    serde_json::to_string(&["unclaimed", &connection_id.to_string()])
        .expect("texts can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_keys_follow_the_cardinality_and_cannot_be_confused() {
        let key = |cardinality, user: &str, account: &str| identity_key(cardinality, user, account);
        assert_eq!(
            key(Cardinality::PerUser, "a", "1"),
            key(Cardinality::PerUser, "a", "2")
        );
        assert_ne!(
            key(Cardinality::PerUser, "a", "1"),
            key(Cardinality::PerUser, "b", "1")
        );
        assert_eq!(
            key(Cardinality::PerAccount, "a", "1"),
            key(Cardinality::PerAccount, "b", "1")
        );
        assert_ne!(
            key(Cardinality::PerUserAndAccount, "a\",\"b", "c"),
            key(Cardinality::PerUserAndAccount, "a", "b\",\"c")
        );
        assert_eq!(
            key(Cardinality::PerTenant, "a", "1"),
            key(Cardinality::PerTenant, "b", "2")
        );
        assert_eq!(key(Cardinality::PerAccount, "a", ""), None);
    }
}
