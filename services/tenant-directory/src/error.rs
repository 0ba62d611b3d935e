//! Why a call fails, and what its caller is told.

use std::time::Duration;

use common::problem::FieldViolation;
use common::{Code, Problem, Reason};

use crate::deletion::ReportError;
use crate::etag::Etag;
use crate::name::NameKind;
use crate::store::{PgError, StoreError};
use crate::tenant::{State, TransitionError};
use crate::tenant_config::Violation;

/// A use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, or it is not for the caller to know.
    #[error("tenant not found")]
    TenantNotFound,
    /// There is none, or it is not for the caller to know.
    #[error("user not found")]
    UserNotFound,
    /// There is none.
    #[error("API key not found")]
    ApiKeyNotFound,
    /// There is none.
    #[error("deletion not found")]
    DeletionNotFound,
    /// The caller is known and may not.
    #[error("{0}")]
    Denied(&'static str),
    /// Another tenant has the name.
    #[error("another tenant has this {0}: choose another one")]
    NameTaken(NameKind),
    /// Another user of the tenant has the address.
    #[error("another user of the tenant has this e-mail address")]
    EmailTaken,
    /// The resource is at another revision.
    #[error(
        "the resource has changed meanwhile: read it again, and apply the change to what it is now"
    )]
    EtagMismatch {
        /// Its present etag.
        current: Etag,
    },
    /// The request id came with another body before.
    #[error("the request id was used before with another body: take a new one")]
    RequestIdReused,
    /// What must be repeated to delete a tenant was not.
    #[error("the confirmation does not match")]
    NotConfirmed,
    /// The tenant is on its way out.
    #[error("the tenant is {}: nothing of it can be changed any more", .0.as_str())]
    TenantEnding(State),
    /// A tenant does not go there.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// The configuration would hold values that nobody can work with.
    #[error("the configuration would not be usable")]
    Config(Vec<Violation>),
    /// A report that is not expected.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The key is revoked or past its end.
    #[error("the API key is revoked or past its end: make a new one")]
    ApiKeyEnded,
    /// A key is to reach a tenant that there is not.
    #[error("there is no such tenant")]
    NoSuchTenants(Vec<usize>),
    /// A claim on a name was given up on before it was used; a new one may succeed.
    #[error("the claim on a name was lost")]
    ClaimLost,
    /// Others are at the same thing.
    #[error("others are making the same change: try again")]
    Busy,
    /// What `common` says to a repeated call.
    #[error(transparent)]
    Call(#[from] Problem),
    /// The database, or what it holds.
    #[error("the directory cannot read or write")]
    Store(#[from] StoreError),
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        Self::Store(error.into())
    }
}

const A_MOMENT: Duration = Duration::from_millis(500);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        match error {
            Error::TenantNotFound => Self::not_found("tenant"),
            Error::UserNotFound => Self::not_found("user"),
            Error::ApiKeyNotFound => Self::not_found("API key"),
            Error::DeletionNotFound => Self::not_found("deletion"),
            Error::Denied(_) => Self::permission_denied(said),
            Error::NameTaken(_) | Error::EmailTaken => Self::already_exists(said),
            Error::EtagMismatch { current } => {
                Self::aborted(Reason::EtagMismatch, said).with_metadata("etag", current)
            }
            Error::RequestIdReused => Self::new(Code::AlreadyExists, Reason::RequestIdReused, said),
            Error::NotConfirmed => Self::invalid_field(
                "confirm_subdomain",
                "must repeat the tenant's subdomain, or its id where it has none",
            ),
            Error::TenantEnding(_) | Error::ApiKeyEnded | Error::Report(ReportError::TooEarly) => {
                Self::bare(Code::FailedPrecondition, said)
            }
            Error::Transition(_) => Self::bare(Code::FailedPrecondition, said),
            Error::Report(ReportError::NoPart) => Self::invalid_field("step", said),
            Error::Config(violations) => {
                Self::invalid(violations.iter().map(config_violation).collect())
            }
            Error::NoSuchTenants(places) => {
                Self::invalid(places.into_iter().map(missing_tenant).collect())
            }
            Error::ClaimLost | Error::Busy => {
                Self::unavailable("others are making the same change: try again", A_MOMENT)
            }
            Error::Call(problem) => problem,
            Error::Store(StoreError::Database(source)) => source.problem(),
            Error::Store(source @ StoreError::Impossible { .. }) => Self::internal(&source),
        }
    }
}

fn config_violation(violation: &Violation) -> FieldViolation {
    FieldViolation {
        field: format!("config.{}", violation.path),
        description: violation.description.to_owned(),
    }
}

fn missing_tenant(place: usize) -> FieldViolation {
    FieldViolation {
        field: format!("api_key.tenant_ids[{place}]"),
        description: "there is no such tenant".to_owned(),
    }
}
