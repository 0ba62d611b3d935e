//! What calls of key services have in common: attempts, and what a failure means.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use bytes::Bytes;
use common::config::{SecretFile, SecretFileError};
use common::{Deps, Secret};
use egress::EgressError;
use envelope::{KekId, KeyError};
use serde::Serialize;
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Of what a service says, in characters.
const SHOWN: usize = 300;

/// Why a call gave no key.
#[derive(Debug)]
pub(super) enum Failure {
    /// It passes by itself.
    Passing(ServiceError),
    /// The credentials are not taken; newer ones may be.
    Credentials(ServiceError),
    /// A person has to act.
    Lasting(ServiceError),
    /// What was to be unwrapped was altered, or wrapped for another place.
    Refused,
    /// It lies under another key.
    WrongKey,
}

/// What a key service, or the way to it, said.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// No answer.
    #[error("no answer of the key service")]
    Egress(#[from] EgressError),
    /// An answer that says why not.
    #[error("{advice} ({said})")]
    Said {
        /// What to do about it.
        advice: &'static str,
        /// The service's own words.
        said: String,
    },
    /// An answer in no form that is known.
    #[error(
        "HTTP {status} with an answer that is not the key service's; see that the address is right"
    )]
    Unintelligible { status: u16 },
    /// A file with credentials.
    #[error("the credentials for the key service cannot be read")]
    Secret(#[from] SecretFileError),
    /// The same, of another form.
    #[error("the file {} cannot be read", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The request could not be made.
    #[error("the request cannot be signed")]
    Signing(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ServiceError {
    pub(super) fn said(advice: &'static str, code: &str, message: &str) -> Self {
        let said = match (code, message) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        Self::Said {
            advice,
            said: said.chars().take(SHOWN).collect(),
        }
    }
}

impl From<EgressError> for Failure {
    fn from(error: EgressError) -> Self {
        match error {
            // Nobody is going to answer otherwise.
            EgressError::Refused(_) | EgressError::TooLarge { .. } => Self::Lasting(error.into()),
            other => Self::Passing(other.into()),
        }
    }
}

impl Failure {
    pub(super) fn into_error(self, id: &KekId) -> KeyError {
        let id = id.clone();
        match self {
            Self::Passing(error) => KeyError::Unavailable {
                id,
                source: Box::new(error),
            },
            Self::Lasting(error) | Self::Credentials(error) => KeyError::Forbidden {
                id,
                source: Box::new(error),
            },
            Self::Refused => KeyError::Refused,
            Self::WrongKey => KeyError::WrongKey { id },
        }
    }
}

/// Attempts at one call, with pauses that grow and differ. None begins when the time of one attempt is over, so that
/// callers of a service that hangs do not queue up behind each other's attempts.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    deps: &'a Deps,
    until: Duration,
    made: u32,
    renewed: bool,
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    /// With other credentials than before.
    Renew,
    GiveUp,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(deps: &'a Deps, timeout: Duration) -> Self {
        Self {
            deps,
            until: deps.clock.boottime() + timeout,
            made: 0,
            renewed: false,
        }
    }

    /// Whether to try again; has paused when it says so.
    pub(super) async fn after(&mut self, failure: &Failure) -> Next {
        match failure {
            Failure::Credentials(_) if !self.renewed => {
                self.renewed = true;
                Next::Renew
            }
            Failure::Passing(_)
                if self.made + 1 < ATTEMPTS && self.deps.clock.boottime() < self.until =>
            {
                let longest = FIRST_PAUSE * 2_u32.pow(self.made);
                self.made += 1;
                let part = u32::from(self.deps.random::<1>()[0]) + 1;
                tokio::time::sleep(longest * part / 256).await;
                Next::Again
            }
            _ => Next::GiveUp,
        }
    }
}

/// A file with a secret that others replace: read again when it has changed.
#[derive(Debug)]
pub(super) struct WatchedSecret {
    path: PathBuf,
    /// Put there for the pod's processes, readable by all of them: nothing to warn of.
    is_projected: bool,
    read: Mutex<Option<(Stamp, Secret<String>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: SystemTime,
    len: u64,
}

impl WatchedSecret {
    /// One that a person, or an agent, writes.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_projected: false,
            read: Mutex::new(None),
        }
    }

    /// One that Kubernetes writes.
    pub(super) fn projected(path: PathBuf) -> Self {
        Self {
            is_projected: true,
            ..Self::new(path)
        }
    }

    /// The secret as it is now.
    pub(super) async fn get(&self) -> Result<Secret<String>, ServiceError> {
        let mut read = self.read.lock().await;
        let stamp = self.stamp()?;
        if let Some((known, secret)) = read.as_ref()
            && *known == stamp
        {
            return Ok(secret.clone());
        }
        let secret = if self.is_projected {
            let text = fs::read_to_string(&self.path).map_err(|source| self.unreadable(source))?;
            Secret::new(Zeroizing::new(text).trim().to_owned())
        } else {
            SecretFile::new(&self.path).read()?
        };
        *read = Some((stamp, secret.clone()));
        Ok(secret)
    }

    fn stamp(&self) -> Result<Stamp, ServiceError> {
        let of = |meta: fs::Metadata| {
            Ok(Stamp {
                changed: meta.modified()?,
                len: meta.len(),
            })
        };
        fs::metadata(&self.path)
            .and_then(of)
            .map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: io::Error) -> ServiceError {
        ServiceError::File {
            path: self.path.clone(),
            source,
        }
    }
}

/// JSON that holds a key, wiped when it has been sent.
pub(super) fn secret_body(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value).expect("texts and numbers can be written as JSON");
    Bytes::from_owner(Zeroizing::new(json))
}

/// Wipes an answer that held a key.
pub(super) fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body[..].zeroize();
    }
}
