//! What a call finds under its grant's id, and the lease that it takes there.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Authorization, Exchange};
use crate::error::Error;
use crate::grant::{ANSWER_LOST, Claimant, Grant, IntentKind, Kind, State, Strategy};
use crate::providers::Resolved;
use crate::store::{Attribution, Change};
use crate::vault::Vault;

/// What was found under the grant's id.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The lease is ours.
    Taken(Box<Grant>),
    /// This call was made before, and this came of it.
    Done(Box<Grant>),
    /// This call was made before, and failed.
    Failed {
        error: String,
    },
    /// Somebody is at it.
    Busy,
    /// The id is taken.
    Exists,
    /// Another version.
    Version {
        actual: i64,
    },
    Missing,
    Revoked,
}

impl Vault {
    /// Opens an intent under the grant's id, or says what is there already.
    pub(super) async fn exchange_claim(
        &self,
        exchange: &Exchange,
        hash: &[u8],
        resolved: &Resolved,
    ) -> Result<Found, Error> {
        let claimant = Claimant {
            instance: self.instance.id(),
            lease: self.lease(),
        };
        let (key, hash, by) = (exchange.grant, hash.to_vec(), exchange.attribution());
        if exchange.expected_version > 0 {
            let Some(seen) = self.store.grant_get(key).await? else {
                return Ok(Found::Missing);
            };
            let silence = self.silence(&seen).await?;
            let (rules, expected) = (resolved.rules, exchange.expected_version);
            let found = self
                .store
                .grant_change("exchange_claim", key, move |grant| {
                    let found = reconnect(grant, expected, &hash, |grant| {
                        grant.claim_for_exchange(claimant, &rules, silence)
                    });
                    change(found, &by)
                });
            return Ok(found.await?.unwrap_or(Found::Missing));
        }
        let (client, now) = (exchange.client, self.deps.now());
        let is_repeatable = exchange.authorization.is_repeatable();
        let make = move || Grant::new(key, Kind::OAuth2, Strategy::None, Some(client), now);
        let found =
            self.store
                .grant_make_or_change("exchange_begin", key, make, move |grant, is_new| {
                    let call = Call {
                        hash: &hash,
                        is_repeatable,
                    };
                    change(begin(grant, is_new, claimant, call), &by)
                });
        Ok(found.await?)
    }
}

/// A lease that was taken is written, and so is an exchange that turned out to have failed.
fn change(found: Found, by: &Attribution) -> Change<Found> {
    let is_taken = matches!(found, Found::Taken(_));
    let save = is_taken || matches!(found, Found::Failed { .. });
    Change {
        save,
        by: is_taken.then(|| by.clone()),
        ..Change::saved(found)
    }
}

/// What an exchange into a grant that exists finds there.
fn reconnect(
    grant: &mut Grant,
    expected: i64,
    hash: &[u8],
    claim: impl FnOnce(&mut Grant) -> bool,
) -> Found {
    let is_same = grant.exchange_hash.as_deref() == Some(hash);
    if is_same && grant.version == expected + 1 {
        return Found::Done(Box::new(grant.clone()));
    }
    let state = grant.state;
    match state {
        State::Exchanging | State::ExchangeFailed => Found::Missing,
        State::Revoking | State::Revoked => Found::Revoked,
        _ if grant.version != expected => Found::Version {
            actual: grant.version,
        },
        _ if claim(grant) => Found::Taken(Box::new(grant.clone())),
        _ => Found::Busy,
    }
}

/// What tells one call from another.
#[derive(Clone, Copy)]
struct Call<'a> {
    hash: &'a [u8],
    /// What it trades may be sent again when an answer was lost.
    is_repeatable: bool,
}

/// What a new exchange finds under its grant's id.
fn begin(grant: &mut Grant, is_new: bool, claimant: Claimant, call: Call<'_>) -> Found {
    let is_same = grant.exchange_hash.as_deref() == Some(call.hash);
    let may_go_on = call.is_repeatable && grant.last_error == ANSWER_LOST;
    let is_free = grant.lease_until.is_none_or(|until| until <= grant.read_at);
    match grant.state {
        _ if is_new => {}
        State::Exchanging if !is_same => return Found::Exists,
        State::Exchanging if !is_free => return Found::Busy,
        State::Exchanging
            if !call.is_repeatable
                && grant.intent.is_some_and(|intent| intent.sent_at.is_some()) =>
        {
            grant.exchange_failed(ANSWER_LOST);
            return Found::Failed {
                error: grant.last_error.clone(),
            };
        }
        // It was never sent, or may be sent again.
        State::Exchanging => {}
        State::ExchangeFailed if is_same && !may_go_on => {
            return Found::Failed {
                error: grant.last_error.clone(),
            };
        }
        State::ExchangeFailed => grant.state = State::Exchanging,
        _ if is_same => return Found::Done(Box::new(grant.clone())),
        _ => return Found::Exists,
    }
    grant.exchange_hash = Some(call.hash.to_vec());
    grant.take(claimant, IntentKind::Exchange);
    Found::Taken(Box::new(grant.clone()))
}

impl Exchange {
    /// The same for a repetition of the call. What is hashed has more entropy than anybody can guess, or is no secret.
    pub(super) fn hash(&self) -> Vec<u8> {
        let mut context = Context::new(&SHA256);
        let mut field = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        field(&self.client.id.to_string());
        field(&self.expected_version.to_string());
        match &self.authorization {
            Authorization::Code {
                code, redirect_uri, ..
            } => {
                field("authorization_code");
                field(code.expose());
                field(redirect_uri);
            }
            Authorization::ClientCredentials { scopes } => {
                field("client_credentials");
                field(&scopes.join(" "));
            }
            Authorization::DeviceCode { device_code } => {
                field("device_code");
                field(device_code.expose());
            }
            Authorization::JwtBearer { subject, scopes } => {
                field("jwt_bearer");
                field(subject);
                field(&scopes.join(" "));
                for (name, value) in &self.parameters {
                    field(name);
                    field(value);
                }
            }
        }
        context.finish().as_ref().to_vec()
    }

    fn attribution(&self) -> Attribution {
        Attribution {
            actor: self.actor.clone(),
            action: "TokenVaultService/ExchangeAuthorization",
            reason: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::{Deps, TenantKey};
    use uuid::Uuid;

    use super::{Call, Found, begin};
    use crate::grant::{ANSWER_LOST, Claimant, Grant, GrantKey, Kind, State, Strategy};

    const CLAIMANT: Claimant = Claimant {
        instance: Uuid::nil(),
        lease: Duration::from_secs(35),
    };

    /// An exchange that was sent by a vault that has not been heard since, after its lease.
    fn abandoned() -> Grant {
        let deps = Deps::system("test");
        let tenant = TenantKey::new_tenant(&deps);
        let key = GrantKey {
            tenant,
            id: tenant.new_id(&deps),
        };
        let mut grant = Grant::new(key, Kind::OAuth2, Strategy::None, None, deps.now());
        let call = Call {
            hash: b"call",
            is_repeatable: true,
        };
        let taken = begin(&mut grant, true, CLAIMANT, call);
        assert!(matches!(taken, Found::Taken(_)));
        let sent_at = grant.read_at;
        if let Some(intent) = &mut grant.intent {
            intent.sent_at = Some(sent_at);
        }
        grant.read_at += time::Duration::minutes(1);
        grant
    }

    fn again(grant: &mut Grant, is_repeatable: bool) -> Found {
        let call = Call {
            hash: b"call",
            is_repeatable,
        };
        begin(grant, false, CLAIMANT, call)
    }

    #[test]
    fn a_lost_answer_ends_the_exchange_of_a_code_and_no_other() {
        assert!(matches!(
            again(&mut abandoned(), true),
            Found::Taken(grant) if grant.fence == 2
        ));
        let mut grant = abandoned();
        assert!(matches!(again(&mut grant, false), Found::Failed { .. }));
        assert_eq!(grant.state, State::ExchangeFailed);
    }

    #[test]
    fn what_a_restarted_vault_has_given_up_is_taken_up_again() {
        for (is_repeatable, error, is_taken) in [
            (true, ANSWER_LOST, true),
            (true, "access_denied", false),
            (false, ANSWER_LOST, false),
        ] {
            let mut grant = abandoned();
            grant.exchange_failed(error);
            let found = again(&mut grant, is_repeatable);
            assert_eq!(matches!(found, Found::Taken(_)), is_taken, "{error}");
        }
    }
}
