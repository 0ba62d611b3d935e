//! Handing out a credential: one that is good for as long as was asked, recorded before it leaves.

use std::time::Duration;

use common::Secret;
use time::OffsetDateTime;

use crate::access_records::{Access, Recipient, Recorder};
use crate::error::Error;
use crate::grant::{Grant, GrantKey, State, Validity};
use crate::grant_reads::GrantReads;
use crate::refresh_grant::{RefreshError, Refresher};
use crate::secrets::{self, Credential};
use crate::vault::Vault;

/// Hands out credentials. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handout {
    vault: Vault,
    refresher: Refresher,
    reads: GrantReads,
    recorder: Recorder,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) grant: GrantKey,
    /// How long it has to be good for at least.
    pub(crate) min_validity: Option<Duration>,
    pub(crate) purpose: String,
    /// One of the grant's token names; empty for the main one.
    pub(crate) token_name: String,
    pub(crate) recipient: Recipient,
    /// The method.
    pub(crate) action: &'static str,
    /// When the caller stops waiting.
    pub(crate) deadline: Option<tokio::time::Instant>,
}

/// What is handed out.
pub(crate) struct Handed {
    pub(crate) version: i64,
    pub(crate) secret: HandedSecret,
    pub(crate) token_type: String,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) scopes: Vec<String>,
}

/// The secret itself.
pub(crate) enum HandedSecret {
    AccessToken(Secret<String>),
    ApiKey(Secret<String>),
    Basic {
        username: String,
        password: Secret<String>,
    },
}

/// The caller gets its answer this long before it stops listening.
const ANSWER_TIME: Duration = Duration::from_millis(100);
/// A caller that waits too long may come again after this.
const COME_AGAIN: Duration = Duration::from_secs(1);
/// After this many refreshes in one call there is no use in another.
const MOST_REFRESHES: u32 = 2;

impl Handout {
    pub(crate) fn new(
        vault: Vault,
        refresher: Refresher,
        reads: GrantReads,
        recorder: Recorder,
    ) -> Self {
        Self {
            vault,
            refresher,
            reads,
            recorder,
        }
    }

    /// The credential, refreshed first where it has to be.
    pub(crate) async fn get(&self, request: Request) -> Result<Handed, Error> {
        match request.deadline {
            Some(deadline) => {
                let until = deadline.checked_sub(ANSWER_TIME).unwrap_or(deadline);
                let in_time = tokio::time::timeout_at(until, self.get_patiently(&request)).await;
                in_time.unwrap_or(Err(Error::ProviderUnavailable { wait: COME_AGAIN }))
            }
            None => self.get_patiently(&request).await,
        }
    }

    async fn get_patiently(&self, request: &Request) -> Result<Handed, Error> {
        let mut refreshes = 0;
        loop {
            let grant = self
                .reads
                .get(request.grant)
                .await?
                .filter(Grant::is_visible)
                .ok_or(Error::GrantNotFound)?;
            refuse_ended(&grant)?;
            if let (Some(demand), Some(lifetime)) = (request.min_validity, grant.lifetime())
                && demand > lifetime * 4 / 5
            {
                return Err(Error::DemandTooLong { lifetime });
            }
            match grant.validity(request.min_validity) {
                Validity::Good => return self.hand_out(request, &grant).await,
                Validity::Expiring => {
                    // It goes on by itself; what it says, the next caller hears.
                    drop(self.refresher.start(request.grant, grant.version));
                    return self.hand_out(request, &grant).await;
                }
                Validity::Short if refreshes == MOST_REFRESHES => {
                    return Err(Error::ProviderUnavailable { wait: COME_AGAIN });
                }
                Validity::Short => match self.refresher.refresh(request.grant, grant.version).await
                {
                    Ok(()) => refreshes += 1,
                    // The row says how it ended.
                    Err(RefreshError::Ended) if refreshes == 0 => refreshes = MOST_REFRESHES,
                    Err(RefreshError::NotRefreshable) if request.min_validity.is_some() => {
                        return Err(Error::ProviderUnavailable { wait: COME_AGAIN });
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    async fn hand_out(&self, request: &Request, grant: &Grant) -> Result<Handed, Error> {
        let sealed = grant.credential.as_deref().ok_or(Error::GrantNotFound)?;
        let place = secrets::credential_place(request.grant, grant.version);
        let credential: Credential = secrets::open(&self.vault.keys, &place, sealed).await?;
        let secret = secret_of(&credential, &request.token_name).ok_or(Error::TokenNotFound)?;
        let access = Access {
            tenant: request.grant.tenant,
            grant_id: Some(request.grant.id),
            resource: String::new(),
            recipient: request.recipient.clone(),
            action: request.action,
            purpose: request.purpose.clone(),
        };
        self.recorder.append(access).await?;
        self.vault
            .statistics
            .count(request.grant.tenant, "credentials_handed_out", &[]);
        Ok(Handed {
            version: grant.version,
            secret,
            token_type: grant.token_type.clone(),
            expires_at: grant.expires_at,
            scopes: grant.scopes.clone(),
        })
    }
}

/// What hands out nothing says why.
pub(crate) fn refuse_ended(grant: &Grant) -> Result<(), Error> {
    match grant.state {
        State::Unconfirmed | State::Active | State::RefreshFailing => Ok(()),
        State::Exchanging | State::ExchangeFailed => Err(Error::GrantNotFound),
        State::ReauthorizationRequired => {
            Err(Error::ReauthorizationRequired { cause: grant.cause })
        }
        State::Revoking | State::Revoked => Err(Error::GrantRevoked),
    }
}

fn secret_of(credential: &Credential, token_name: &str) -> Option<HandedSecret> {
    match credential {
        Credential::AccessToken { value, .. } if token_name.is_empty() => {
            Some(HandedSecret::AccessToken(Secret::new(value.clone())))
        }
        Credential::AccessToken { others, .. } => {
            let other = others.iter().find(|other| other.name == token_name)?;
            Some(HandedSecret::AccessToken(Secret::new(other.value.clone())))
        }
        Credential::ApiKey { value } if token_name.is_empty() => {
            Some(HandedSecret::ApiKey(Secret::new(value.clone())))
        }
        Credential::Basic { username, password } if token_name.is_empty() => {
            Some(HandedSecret::Basic {
                username: username.clone(),
                password: Secret::new(password.clone()),
            })
        }
        Credential::ApiKey { .. } | Credential::Basic { .. } => None,
    }
}
