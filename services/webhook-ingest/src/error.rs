//! Why the ingest does not do what it was asked to, and what the caller is told.

use std::time::Duration;

use common::rpc::CallError;
use common::{Problem, Reason, pg};

/// A refused or failed use case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database.
    #[error("the ingest's database did not do it")]
    Database(#[from] pg::Error),
    /// The vault.
    #[error("the token vault did not give a key")]
    Vault(#[source] CallError),
    /// The broker.
    #[error("the OAuth broker did not answer as it should")]
    Broker(#[source] CallError),
    /// The scheduler.
    #[error("the sync scheduler did not answer as it should")]
    Scheduler(#[source] CallError),
    /// The directory.
    #[error("the tenant directory did not answer as it should")]
    Directory(#[source] CallError),
    /// The request.
    #[error("the request cannot be taken")]
    Request(#[source] Problem),
    /// No such thing, or another tenant's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// A source of that id is there already.
    #[error("the tenant has a source of this id")]
    SourceExists,
    /// A sealed value does not open: it was altered, or its key is another's.
    #[error("what was sealed does not open")]
    Sealed(#[from] envelope::OpenError),
    /// The vault's key is none.
    #[error("the vault gave a key that is none")]
    Key,
    /// What the source says of its scheme is not understood any more.
    #[error("the source's scheme cannot be used")]
    Scheme,
    /// A newer holder of the stream's lease has written.
    #[error("the stream's lease is another's")]
    LeaseLost,
    /// There are more webhooks waiting than we can hold.
    #[error("too many webhooks wait to be written")]
    Full,
    /// The database did not take a webhook, or did not say so.
    #[error("the webhook was not written")]
    Unwritten,
}

impl Error {
    /// Whether the same may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_unavailable() || error.is_retryable(),
            Self::Vault(error)
            | Self::Broker(error)
            | Self::Scheduler(error)
            | Self::Directory(error) => error.is_transient(),
            Self::Full | Self::Unwritten => true,
            Self::Request(_)
            | Self::NotFound(_)
            | Self::SourceExists
            | Self::Sealed(_)
            | Self::Key
            | Self::Scheme
            | Self::LeaseLost => false,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Request(problem)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.problem(),
            Error::Vault(error) => error.into_problem("the token vault"),
            Error::Broker(error) => error.into_problem("the OAuth broker"),
            Error::Scheduler(error) => error.into_problem("the sync scheduler"),
            Error::Directory(error) => error.into_problem("the tenant directory"),
            Error::Request(problem) => problem,
            Error::NotFound(what) => Self::not_found(what),
            Error::SourceExists => {
                Self::already_exists("the tenant has a source of this id; choose another, or none")
            }
            Error::Sealed(_) | Error::Key | Error::Scheme => Self::internal(&error),
            Error::LeaseLost => Self::aborted(
                Reason::LeaseLost,
                "a newer holder of the stream's lease has written; drop the job and lease again",
            ),
            Error::Full | Error::Unwritten => {
                Self::unavailable("too much waits to be written", Duration::from_secs(1))
            }
        }
    }
}
