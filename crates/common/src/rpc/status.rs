//! A [`Problem`] as a gRPC status with google.rpc details (AIP-193), and what a client reads of it.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::problem::{FieldViolation, reason_from_name};
use crate::{Code, Problem, Reason};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "hawser";

/// A call to another service that failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What the service answered, or UNAVAILABLE where it did not.
    pub code: Code,
    /// Its reason, where it gave one that is known here.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The fields that it named.
    pub fields: Vec<FieldViolation>,
    /// The values it gave for programs.
    pub metadata: HashMap<String, String>,
}

/// The status of a method that stands in the contract and is not built yet.
pub fn unimplemented(method: &str) -> Status {
    Problem::unimplemented(method).into()
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let request_id = crate::identity::current()
            .map(|caller| caller.request_id)
            .unwrap_or_default();
        let mut details = ErrorDetails::new();
        if let Some(reason) = problem.reason {
            let metadata: HashMap<_, _> = problem.metadata.into_iter().collect();
            details.set_error_info(crate::problem::reason_name(reason), DOMAIN, metadata);
        }
        if let Some(delay) = problem.retry_after {
            details.set_retry_info(Some(delay));
        }
        for violation in problem.fields {
            details.add_bad_request_violation(violation.field, violation.description);
        }
        if !request_id.is_empty() {
            details.set_request_info(request_id, "");
        }
        Self::with_error_details(code_to_tonic(problem.code), problem.message, details)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        Self {
            code: code_from_tonic(status.code()),
            reason: info.and_then(|info| reason_from_name(&info.reason)),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            fields: details.bad_request().map_or_else(Vec::new, |bad| {
                let violation = |violation: &tonic_types::FieldViolation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                };
                bad.field_violations.iter().map(violation).collect()
            }),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        }
    }
}

impl CallError {
    /// An answer without what the contract promises: the other service is broken.
    pub fn incomplete(service: &str) -> Self {
        Self {
            code: Code::Internal,
            reason: None,
            message: format!("the answer of {service} is not complete"),
            retry_after: None,
            fields: Vec::new(),
            metadata: HashMap::new(),
        }
    }

    /// What our own caller is told: the other service's answer where it is about the request, UNAVAILABLE where the
    /// other service cannot be had, INTERNAL where it broke or refused us.
    pub fn into_problem(self, service: &str) -> Problem {
        match self.code {
            Code::Unavailable | Code::Cancelled | Code::Unknown if self.reason.is_none() => {
                tracing::warn!(event = "dependency_unavailable", service, error = %self, "another service cannot be had");
                Problem::unavailable(
                    format!("{service} is not available"),
                    self.retry_after.unwrap_or(Duration::from_secs(1)),
                )
            }
            Code::DeadlineExceeded => Problem::bare(
                Code::DeadlineExceeded,
                format!("{service} did not answer in time"),
            ),
            Code::Internal | Code::Unauthenticated | Code::PermissionDenied | Code::DataLoss => {
                Problem::internal(&self)
            }
            _ => Problem {
                code: self.code,
                reason: self.reason,
                message: self.message,
                retry_after: self.retry_after,
                fields: self.fields,
                metadata: self.metadata.into_iter().collect(),
            },
        }
    }

    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::ResourceExhausted
                | Code::Cancelled
                | Code::Unknown
        )
    }
}

fn code_to_tonic(code: Code) -> tonic::Code {
    tonic::Code::from_i32(code as i32)
}

fn code_from_tonic(code: tonic::Code) -> Code {
    use tonic::Code as Theirs;
    match code {
        Theirs::Cancelled => Code::Cancelled,
        Theirs::Ok | Theirs::Unknown => Code::Unknown,
        Theirs::InvalidArgument => Code::InvalidArgument,
        Theirs::DeadlineExceeded => Code::DeadlineExceeded,
        Theirs::NotFound => Code::NotFound,
        Theirs::AlreadyExists => Code::AlreadyExists,
        Theirs::PermissionDenied => Code::PermissionDenied,
        Theirs::ResourceExhausted => Code::ResourceExhausted,
        Theirs::FailedPrecondition => Code::FailedPrecondition,
        Theirs::Aborted => Code::Aborted,
        Theirs::OutOfRange => Code::OutOfRange,
        Theirs::Unimplemented => Code::Unimplemented,
        Theirs::Internal => Code::Internal,
        Theirs::Unavailable => Code::Unavailable,
        Theirs::DataLoss => Code::DataLoss,
        Theirs::Unauthenticated => Code::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_wire() {
        let problem = Problem::invalid_field("tenant.subdomain", "must be a DNS label")
            .with_retry_after(Duration::from_secs(3))
            .with_metadata("etag", "7");
        let error = CallError::from(Status::from(problem.clone()));
        assert_eq!(error.code, problem.code);
        assert_eq!(error.reason, problem.reason);
        assert_eq!(error.retry_after, problem.retry_after);
        assert_eq!(error.fields, problem.fields);
        assert_eq!(error.metadata["etag"], "7");
        assert_eq!(error.into_problem("the directory"), problem);
    }
}
