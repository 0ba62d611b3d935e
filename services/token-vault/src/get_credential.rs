//! Handing out a credential: one that is good for as long as was asked, recorded before it leaves.

mod batch;
mod together;

use std::sync::Arc;
use std::time::Duration;

use common::Secret;
use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::access_records::{Access, Recipient, Recorder};
use crate::error::Error;
use crate::grant::{Grant, GrantKey, Readable, State, Validity};
use crate::keys::Place;
use crate::refresh_grant::{RefreshError, Refresher};
use crate::secrets::{self, Credential, NamedToken};
use crate::store::StoreError;
use crate::vault::Vault;
use together::{Served, Waiting};

pub(crate) use together::Lane;

/// Hands out credentials. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handout {
    teller: Teller,
    queue: mpsc::Sender<Waiting>,
}

/// Opens what is handed out, and has it recorded.
#[derive(Clone)]
struct Teller {
    vault: Vault,
    refresher: Refresher,
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
    /// With the tasks that have to run for it.
    pub(crate) fn new(vault: Vault, refresher: Refresher, recorder: Recorder) -> (Self, Vec<Lane>) {
        let teller = Teller {
            vault,
            refresher,
            recorder,
        };
        let (queue, lanes) = together::lanes(&teller);
        (Self { teller, queue }, lanes)
    }

    /// The credential, refreshed first where it has to be.
    pub(crate) async fn get(&self, request: Request) -> Result<Handed, Error> {
        let request = Arc::new(request);
        request.in_time(self.get_patiently(&request)).await
    }

    async fn get_patiently(&self, request: &Arc<Request>) -> Result<Handed, Error> {
        let read = match self.serve(request).await? {
            Served::Handed(handed) => return Ok(handed),
            Served::Read(read) => read,
        };
        let handed = self.teller.open(request, read).await?;
        self.teller.recorder.append(request.access()).await?;
        self.teller.count(request);
        Ok(handed)
    }
}

impl Teller {
    /// What may be handed out once it is recorded, where there is nothing to wait for.
    fn open_at_once(
        &self,
        request: &Request,
        read: Result<Option<Readable>, StoreError>,
    ) -> Result<Served, Error> {
        let grant = read?.ok_or(Error::GrantNotFound)?;
        if self.judge(request, &grant)? == Validity::Short {
            return Ok(Served::Read(grant));
        }
        let (place, sealed) = sealed(request, &grant)?;
        match secrets::open_at_once(&self.vault.keys, &place, sealed)? {
            Some(credential) => pick(request, grant, &credential).map(Served::Handed),
            None => Ok(Served::Read(grant)),
        }
    }

    /// What may be handed out once it is recorded; `grant` is as it was read.
    async fn open(&self, request: &Request, mut grant: Readable) -> Result<Handed, Error> {
        let mut refreshes = 0;
        loop {
            match self.judge(request, &grant)? {
                Validity::Good | Validity::Expiring => {
                    let (place, sealed) = sealed(request, &grant)?;
                    let credential = secrets::open(&self.vault.keys, &place, sealed).await?;
                    return pick(request, grant, &credential);
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
            let mut read = self.vault.store.grants_read(&[request.grant]).await?;
            let read = read.pop().ok_or(Error::GrantNotFound)?;
            grant = read?.ok_or(Error::GrantNotFound)?;
        }
    }

    /// How good the grant is as it stands. One that is near its end is good, and a refresh goes on by itself: what comes
    /// of that, the next caller hears.
    fn judge(&self, request: &Request, grant: &Readable) -> Result<Validity, Error> {
        if !grant.is_visible() {
            return Err(Error::GrantNotFound);
        }
        refuse_state(grant.state, grant.cause)?;
        if let (Some(demand), Some(lifetime)) = (request.min_validity, grant.lifetime())
            && demand > lifetime * 4 / 5
        {
            return Err(Error::DemandTooLong { lifetime });
        }
        let validity = grant.validity(request.min_validity);
        if validity == Validity::Expiring {
            drop(self.refresher.start(request.grant, grant.version));
        }
        Ok(validity)
    }

    fn count(&self, request: &Request) {
        self.vault
            .statistics
            .count(request.grant.tenant, "credentials_handed_out", &[]);
    }
}

/// The grant's credential, and where it lies by what the request says.
fn sealed<'a>(request: &Request, grant: &'a Readable) -> Result<(Place, &'a [u8]), Error> {
    let sealed = grant.credential.as_deref().ok_or(Error::GrantNotFound)?;
    let place = secrets::credential_place(request.grant, grant.version);
    Ok((place, sealed))
}

/// What the request asks for of what was opened.
fn pick(request: &Request, grant: Readable, credential: &Credential) -> Result<Handed, Error> {
    let named = named_token(credential, &request.token_name)?;
    // It has an end of its own, which the grant's renewal does not move.
    if named
        .and_then(NamedToken::expires_at)
        .is_some_and(|end| end <= grant.read_at)
    {
        let cause = Some(ReauthorizationCause::Expired);
        return Err(Error::ReauthorizationRequired { cause });
    }
    let secret = match named {
        Some(named) => HandedSecret::AccessToken(Secret::new(named.value.clone())),
        None => main_secret(credential),
    };
    Ok(Handed {
        version: grant.version,
        secret,
        token_type: grant.token_type,
        expires_at: named.map_or(grant.expires_at, NamedToken::expires_at),
        scopes: named.map_or(grant.scopes, |named| named.scopes.clone()),
    })
}

impl Request {
    /// Ends before the caller stops waiting.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(deadline) = self.deadline else {
            return work.await;
        };
        let until = deadline.checked_sub(ANSWER_TIME).unwrap_or(deadline);
        let in_time = tokio::time::timeout_at(until, work).await;
        in_time.unwrap_or(Err(Error::ProviderUnavailable { wait: COME_AGAIN }))
    }

    /// The record of what is handed out.
    fn access(&self) -> Access {
        Access {
            tenant: self.grant.tenant,
            grant_id: Some(self.grant.id),
            resource: String::new(),
            recipient: self.recipient.clone(),
            action: self.action,
            purpose: self.purpose.clone(),
        }
    }
}

/// What hands out nothing says why.
pub(crate) fn refuse_ended(grant: &Grant) -> Result<(), Error> {
    refuse_state(grant.state, grant.cause)
}

fn refuse_state(state: State, cause: Option<ReauthorizationCause>) -> Result<(), Error> {
    match state {
        State::Unconfirmed | State::Active | State::RefreshFailing => Ok(()),
        State::Exchanging | State::ExchangeFailed => Err(Error::GrantNotFound),
        State::ReauthorizationRequired => Err(Error::ReauthorizationRequired { cause }),
        State::Revoking | State::Revoked => Err(Error::GrantRevoked),
    }
}

/// The token of that name; `None` for the main one.
fn named_token<'a>(
    credential: &'a Credential,
    name: &str,
) -> Result<Option<&'a NamedToken>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let others: &[NamedToken] = match credential {
        Credential::AccessToken { others, .. } => others,
        Credential::ApiKey { .. } | Credential::Basic { .. } => &[],
    };
    let named = others.iter().find(|other| other.name == name);
    named.map(Some).ok_or(Error::TokenNotFound)
}

fn main_secret(credential: &Credential) -> HandedSecret {
    match credential {
        Credential::AccessToken { value, .. } => {
            HandedSecret::AccessToken(Secret::new(value.clone()))
        }
        Credential::ApiKey { value } => HandedSecret::ApiKey(Secret::new(value.clone())),
        Credential::Basic { username, password } => HandedSecret::Basic {
            username: username.clone(),
            password: Secret::new(password.clone()),
        },
    }
}
