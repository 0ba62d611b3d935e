//! Why the broker does not do what it was asked to, and what the caller is told.

use std::time::Duration;

use common::problem::{FieldViolation, reason_name};
use common::rpc::CallError;
use common::{Code, Problem, Reason, pg};
use egress::EgressError;
use provider_catalog::{FieldProblem, FillError};

/// A refused or failed use case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database.
    #[error("the broker's database did not do it")]
    Database(#[from] pg::Error),
    /// The vault.
    #[error("the token vault did not answer as it should")]
    Vault(#[source] CallError),
    /// The directory.
    #[error("the tenant directory did not answer as it should")]
    Directory(#[source] CallError),
    /// The request.
    #[error("the request cannot be taken")]
    Request(#[source] Problem),
    /// No such thing, or another tenant's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// There is one already.
    #[error("there is such {0} already")]
    Exists(&'static str),
    /// Somebody else has changed it.
    #[error("the etag is not the current one")]
    EtagMismatch,
    /// Another change of the same thing came first; it is worth trying again.
    #[error("another change came first")]
    Raced,
    /// The integration cannot be used as it is.
    #[error("the integration is misconfigured: {0}")]
    Misconfigured(String),
    /// The provider cannot be reached, or is in trouble.
    #[error("the provider cannot be had")]
    Provider(#[source] ProviderError),
    /// The connection is in a state in which this cannot be done.
    #[error("the connection cannot be used")]
    NotUsable {
        /// What to do.
        advice: &'static str,
    },
    /// The user has to connect again.
    #[error("the connection has to be authorised again")]
    Reauthorization {
        /// A `ReauthorizationCause` without its prefix.
        cause: String,
    },
    /// The account is somebody else's already.
    #[error("the account is connected already")]
    AlreadyConnected,
    /// Another person signed in than the one whose connection is to be renewed.
    #[error("another account was used than the one that was connected")]
    OtherAccount,
    /// The session cannot go on.
    #[error("the session cannot go on")]
    SessionOver {
        /// What to do.
        advice: &'static str,
    },
    /// The integration still has connections.
    #[error("the integration has connections")]
    InUse,
    /// What is sealed cannot be opened.
    #[error("a sealed value cannot be opened")]
    Seal(#[from] envelope::OpenError),
    /// A row that no code of ours writes.
    #[error("a stored value cannot be read")]
    Corrupt(#[source] serde_json::Error),
}

/// A call to a provider's API that gave nothing of use. Holds nothing that the provider wrote.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// No answer.
    #[error("the provider was not reached")]
    Egress(#[from] EgressError),
    /// An answer that is a refusal.
    #[error("the provider answers with HTTP {0}")]
    Status(u16),
    /// An answer that is not what the catalogue describes.
    #[error("the provider's answer is not what the catalogue describes")]
    Shape,
    /// The catalogue's URL cannot be filled in.
    #[error("the provider's URL cannot be made")]
    Url(#[from] FillError),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Request(problem)
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl From<Vec<FieldProblem>> for Error {
    fn from(problems: Vec<FieldProblem>) -> Self {
        Self::Request(invalid(problems, ""))
    }
}

/// The catalogue's problems as one answer; `prefix` leads to where the fields stand in the request.
pub(crate) fn invalid(problems: Vec<FieldProblem>, prefix: &str) -> Problem {
    let violation = |problem: FieldProblem| FieldViolation {
        field: format!("{prefix}{}", problem.field),
        description: problem.description,
    };
    Problem::invalid(problems.into_iter().map(violation).collect())
}

impl Error {
    /// What a connect session keeps of a failure: a stable word, and an `ErrorReason` without its prefix or a word of ours.
    pub(crate) fn session_outcome(&self) -> (&'static str, String) {
        let named = |reason: Reason| reason_name(reason).to_owned();
        match self {
            Self::AlreadyConnected => (
                "account_already_connected",
                named(Reason::AccountAlreadyConnected),
            ),
            Self::OtherAccount => ("other_account", "OTHER_ACCOUNT".to_owned()),
            Self::Misconfigured(_) => ("server_error", named(Reason::IntegrationMisconfigured)),
            Self::Vault(CallError {
                reason: Some(reason),
                ..
            }) => {
                let word = match reason {
                    Reason::ProviderUnavailable | Reason::ProviderRateLimited => {
                        "temporarily_unavailable"
                    }
                    _ => "authorization_failed",
                };
                (word, named(*reason))
            }
            Self::Provider(_) => (
                "temporarily_unavailable",
                named(Reason::ProviderUnavailable),
            ),
            Self::Database(_) | Self::Vault(_) | Self::Directory(_) | Self::Raced => {
                ("temporarily_unavailable", "UNAVAILABLE".to_owned())
            }
            Self::SessionOver { .. } => ("session_expired", named(Reason::AuthorizationExpired)),
            _ => ("server_error", "INTERNAL".to_owned()),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.problem(),
            Error::Vault(error) => error.into_problem("the token vault"),
            Error::Directory(error) => error.into_problem("the tenant directory"),
            Error::Request(problem) => problem,
            Error::NotFound(what) => Self::not_found(what),
            Error::Exists(what) => Self::already_exists(format!("there is such {what} already; choose another id")),
            Error::EtagMismatch => Self::aborted(
                Reason::EtagMismatch,
                "somebody else has changed it meanwhile; read it again, and send its etag",
            ),
            Error::Raced => {
                Self::unavailable("another change of the same thing is under way", Duration::from_millis(100))
            }
            Error::Misconfigured(what) => Self::failed_precondition(Reason::IntegrationMisconfigured, what),
            Error::Provider(error) => provider_problem(&error),
            Error::NotUsable { advice } => Self::failed_precondition(Reason::ConnectionNotUsable, advice),
            Error::Reauthorization { cause } => Self::failed_precondition(
                Reason::ReauthorizationRequired,
                "the provider wants the user to connect again: make a connect session with `reconnect_connection_id`",
            )
            .with_metadata("cause", cause),
            Error::AlreadyConnected => Self::new(
                Code::AlreadyExists,
                Reason::AccountAlreadyConnected,
                "the account is connected already by somebody else; choose another, or let them disconnect it",
            ),
            Error::OtherAccount => Self::failed_precondition(
                Reason::ConnectionNotUsable,
                "another account signed in than the one that was connected; sign in with that one, or disconnect first",
            ),
            Error::SessionOver { advice } => Self::failed_precondition(Reason::AuthorizationExpired, advice),
            Error::InUse => Self::failed_precondition(
                Reason::ConnectionNotUsable,
                "the integration still has connections; disconnect them, or set `disconnect_all`",
            ),
            error @ (Error::Seal(_) | Error::Corrupt(_)) => Self::internal(&error),
        }
    }
}

fn provider_problem(error: &ProviderError) -> Problem {
    let unavailable = |message: String| {
        Problem::new(Code::Unavailable, Reason::ProviderUnavailable, message)
            .with_retry_after(Duration::from_secs(5))
    };
    match error {
        ProviderError::Egress(EgressError::Refused(refusal)) => {
            Problem::failed_precondition(Reason::IntegrationMisconfigured, refusal.to_string())
        }
        ProviderError::Status(429) => Problem::new(
            Code::Unavailable,
            Reason::ProviderRateLimited,
            "the provider limits our requests",
        )
        .with_retry_after(Duration::from_secs(30)),
        ProviderError::Status(status) if *status < 500 => Problem::failed_precondition(
            Reason::IntegrationMisconfigured,
            format!(
                "the provider answers with HTTP {status}; check the credential and the integration's endpoints"
            ),
        ),
        ProviderError::Shape | ProviderError::Url(_) => {
            Problem::failed_precondition(Reason::IntegrationMisconfigured, error.to_string())
        }
        ProviderError::Egress(_) | ProviderError::Status(_) => unavailable(error.to_string()),
    }
}
