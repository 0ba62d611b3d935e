//! Calls that are repeated: their first answer comes before everything that may have changed since. A use case runs
//! [`request_ids::run`](common::pg::request_ids::run) with [`Probe::Fresh`] as its work first, which leaves no trace.

use common::{Problem, pg};

use crate::error::Error;

/// Why there is no first answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Probe {
    /// The call comes for the first time.
    #[error("the call was not answered before")]
    Fresh,
    /// The database.
    #[error("the database did not say whether the call was answered before")]
    Database(#[from] pg::Error),
    /// The request id came with another body before.
    #[error("the request id cannot be taken")]
    Refused(#[source] Problem),
}

impl From<Problem> for Probe {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// The first answer, where there was one.
///
/// # Errors
/// `REQUEST_ID_REUSED`; database trouble.
pub(crate) fn first_answer<R>(probed: Result<R, Probe>) -> Result<Option<R>, Error> {
    match probed {
        Ok(answer) => Ok(Some(answer)),
        Err(Probe::Fresh) => Ok(None),
        Err(Probe::Database(error)) => Err(error.into()),
        Err(Probe::Refused(problem)) => Err(problem.into()),
    }
}
