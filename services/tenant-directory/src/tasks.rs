//! Background loops; each step is idempotent, and any number of instances may take it at once.

pub(crate) mod finish_deletions;
pub(crate) mod reap_names;

use common::problem::Chain;

use crate::error::Error;

/// A step that failed is taken again after the pause.
fn note(task: &'static str, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(
            event = "task_step_failed",
            task,
            error = %Chain(&error),
            "a background step failed and is taken again: {task}",
        );
    }
}
