//! Why the scheduler does not do what it was asked to, and what the caller is told.

use common::problem::FieldViolation;
use common::rpc::CallError;
use common::{Code, Problem, Reason, pg};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A refused or failed use case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database.
    #[error("the scheduler's database did not do it")]
    Database(#[from] pg::Error),
    /// The broker.
    #[error("the OAuth broker did not answer as it should")]
    Broker(#[source] CallError),
    /// The directory.
    #[error("the tenant directory did not answer as it should")]
    Directory(#[source] CallError),
    /// The request.
    #[error("the request cannot be taken")]
    Request(#[source] Problem),
    /// No such thing, or another tenant's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The one-time sync has been used.
    #[error("the historical sync has been used")]
    Locked {
        /// Why, for people.
        reason: String,
        /// Since when.
        locked_at: OffsetDateTime,
    },
    /// Another start of the same sync came first; the transaction is to be run again.
    #[error("another start came first")]
    Raced,
    /// The lease is another's.
    #[error("the lease is another's")]
    LeaseLost,
    /// The connection cannot be synced now.
    #[error("the connection cannot be synced")]
    NotUsable {
        /// What to do.
        advice: String,
    },
    /// The subscription does not allow it.
    #[error("the subscription is not active")]
    SubscriptionInactive,
    /// A job or an override is in a state in which this cannot be done.
    #[error("it is {state}")]
    WrongState {
        /// Which.
        state: &'static str,
    },
    /// The connector has no such stream.
    #[error("there is no such stream")]
    UnknownStreams {
        /// Those asked for.
        unknown: Vec<String>,
        /// Those that there are.
        known: Vec<String>,
    },
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
            Error::Broker(error) => error.into_problem("the OAuth broker"),
            Error::Directory(error) => error.into_problem("the tenant directory"),
            Error::Request(problem) => problem,
            Error::NotFound(what) => Self::not_found(what),
            Error::Locked { reason, locked_at } => {
                let since = locked_at.format(&Rfc3339).unwrap_or_default();
                Self::failed_precondition(Reason::SyncLocked, reason)
                    .with_metadata("locked_at", since)
            }
            Error::Raced => Self::unavailable(
                "another start of the same sync is under way",
                std::time::Duration::from_millis(100),
            ),
            Error::LeaseLost => Self::aborted(
                Reason::LeaseLost,
                "the job's lease is not yours any more; drop the job and lease again",
            ),
            Error::NotUsable { advice } => {
                Self::failed_precondition(Reason::ConnectionNotUsable, advice)
            }
            Error::SubscriptionInactive => Self::failed_precondition(
                Reason::SubscriptionInactive,
                "the tenant's subscription is not active; nothing new is synced until it is",
            ),
            Error::WrongState { state } => Self::bare(
                Code::FailedPrecondition,
                format!("it is {state}; this cannot be done with it any more"),
            ),
            Error::UnknownStreams { unknown, known } => {
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                let violation = |stream: &String| FieldViolation {
                    field: "streams".to_owned(),
                    description: format!(
                        "`{stream}` is no stream of this provider's; it has: {known}"
                    ),
                };
                Self::invalid(unknown.iter().map(violation).collect())
            }
        }
    }
}
