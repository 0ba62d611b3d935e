//! What becomes of a job when somebody it needs says no: one mapping for each of them.

use std::error::Error as _;

use common::rpc::CallError;
use common::{Code, Reason};
use egress::EgressError;
use worker::Failure;

/// Why a page or a document did not get through.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The job fails.
    Failed(Failure),
    /// The lease is another's, or the job was cancelled: nothing more is written.
    Stopped,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The broker gave no credential.
pub(crate) fn of_broker(error: &CallError) -> Failure {
    let said = format!("the connection gives no credential: {}", error.message);
    match (error.reason, error.code) {
        (
            Some(
                Reason::ReauthorizationRequired
                | Reason::GrantRevoked
                | Reason::ConnectionNotUsable
                | Reason::IntegrationMisconfigured
                | Reason::SubscriptionInactive,
            ),
            _,
        )
        | (None, Code::FailedPrecondition) => Failure::park(said),
        (_, Code::NotFound | Code::InvalidArgument | Code::Unimplemented) => Failure::fatal(said),
        _ => Failure::retry(said).after(error.retry_after),
    }
}

/// The ledger took no documents.
pub(crate) fn of_ledger(error: &CallError) -> Trouble {
    let said = format!("the documents were not taken: {}", error.message);
    match (error.reason, error.code) {
        (Some(Reason::LeaseLost), _) => Trouble::Stopped,
        (Some(Reason::ConnectionNotUsable | Reason::SubscriptionInactive), _) => {
            Failure::park(said).into()
        }
        (_, Code::NotFound | Code::InvalidArgument | Code::Unimplemented) => {
            Failure::fatal(said).into()
        }
        _ => Failure::retry(said).after(error.retry_after).into(),
    }
}

/// The provider gave no answer; whether asking again at once is of any use.
pub(crate) fn of_egress(error: &EgressError, request: &dyn std::fmt::Display) -> (Failure, bool) {
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    let said = format!("{request}: {error}{cause}");
    match error {
        EgressError::Refused(_) | EgressError::TooLarge { .. } => (Failure::fatal(said), false),
        _ => (Failure::retry(said), true),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::Problem;
    use worker::FailureKind;

    use super::*;

    fn error(problem: Problem) -> CallError {
        CallError {
            code: problem.code,
            reason: problem.reason,
            message: problem.message,
            retry_after: problem.retry_after,
            fields: Vec::new(),
            metadata: std::collections::HashMap::new(),
        }
    }

    #[test]
    fn what_only_the_user_can_mend_parks_the_job() {
        for reason in [
            Reason::ReauthorizationRequired,
            Reason::GrantRevoked,
            Reason::ConnectionNotUsable,
        ] {
            let failure = of_broker(&error(Problem::failed_precondition(
                reason,
                "connect again",
            )));
            assert_eq!(failure.kind, FailureKind::Park, "{reason:?}");
        }
    }

    #[test]
    fn an_outage_is_waited_for() {
        let wait = Duration::from_secs(7);
        let failure = of_broker(&error(Problem::unavailable("away", wait)));
        assert_eq!(
            (failure.kind, failure.retry_after),
            (FailureKind::Retry, Some(wait))
        );
        let Trouble::Failed(failure) = of_ledger(&error(Problem::unavailable("away", wait))) else {
            panic!("it fails")
        };
        assert_eq!(
            (failure.kind, failure.retry_after),
            (FailureKind::Retry, Some(wait))
        );
    }

    #[test]
    fn a_connection_that_is_gone_ends_the_job() {
        let failure = of_broker(&error(Problem::not_found("connection")));
        assert_eq!(failure.kind, FailureKind::Fatal);
    }

    #[test]
    fn a_lost_lease_is_no_failure() {
        let lost = of_ledger(&error(Problem::aborted(
            Reason::LeaseLost,
            "another holds it",
        )));
        assert!(matches!(lost, Trouble::Stopped));
    }
}
