//! What a call finds under its grant's id, and the lease that it takes there.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Authorization, Exchange};
use crate::error::Error;
use crate::grant::{Claimant, Grant, IntentKind, Kind, State, Strategy};
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
        let make = move || Grant::new(key, Kind::OAuth2, Strategy::None, Some(client), now);
        let found =
            self.store
                .grant_make_or_change("exchange_begin", key, make, move |grant, is_new| {
                    change(begin(grant, is_new, claimant, &hash), &by)
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

/// What a new exchange finds under its grant's id.
fn begin(grant: &mut Grant, is_new: bool, claimant: Claimant, hash: &[u8]) -> Found {
    let is_same = grant.exchange_hash.as_deref() == Some(hash);
    let is_free = grant.lease_until.is_none_or(|until| until <= grant.read_at);
    match grant.state {
        _ if is_new => {}
        State::Exchanging if !is_same => return Found::Exists,
        State::Exchanging if !is_free => return Found::Busy,
        State::Exchanging if grant.intent.is_some_and(|intent| intent.sent_at.is_some()) => {
            grant.exchange_failed("the answer was lost");
            return Found::Failed {
                error: grant.last_error.clone(),
            };
        }
        // It was never sent.
        State::Exchanging => {}
        State::ExchangeFailed if is_same => {
            return Found::Failed {
                error: grant.last_error.clone(),
            };
        }
        State::ExchangeFailed => grant.state = State::Exchanging,
        _ if is_same => return Found::Done(Box::new(grant.clone())),
        _ => return Found::Exists,
    }
    grant.exchange_hash = Some(hash.to_vec());
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
