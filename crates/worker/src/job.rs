//! One job, from its lease to its end.

use std::panic::AssertUnwindSafe;

use common::identity::{Actor, Caller, scope};
use contracts::scheduler::v1::{Job, JobCompletion, JobFailure};
use futures::FutureExt as _;
use tracing::{Instrument as _, Span};

use crate::heartbeat::Held;
use crate::lease::{Lease, Stop};
use crate::outcome::{Failure, Outcome};
use crate::scheduler::{CallFailed, Scheduler};
use crate::span;
use crate::worker::Handler;

/// Works on the job, on behalf of whom it is for, until it ends or the lease does.
pub(crate) async fn run<H: Handler>(handler: &H, lease: Lease, scheduler: &Scheduler, held: &Held) {
    let span = span::of(lease.job());
    let caller = caller(scheduler.name(), lease.job());
    let work = async {
        let outcome = work(handler, &lease).await;
        end(&lease, outcome, scheduler).await;
    };
    scope(caller, work).instrument(span).await;
    held.remove(&lease);
}

async fn work<H: Handler>(handler: &H, lease: &Lease) -> Outcome {
    let work = AssertUnwindSafe(handler.work(lease.clone())).catch_unwind();
    // What is not through when the lease ends is dropped where it waits: it may be repeated, as after a crash.
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        _ = lease.stopped() => return Outcome::Stopped,
    };
    outcome.unwrap_or_else(|_| {
        tracing::error!(
            event = "job_panicked",
            "the code that works on a job panicked; a person has to look at it"
        );
        Outcome::Failed(Failure::retry(
            "the worker failed for a reason of its own; its log says which",
        ))
    })
}

async fn end(lease: &Lease, outcome: Outcome, scheduler: &Scheduler) {
    let reference = Some(lease.reference().clone());
    let is_good = || lease.is_good() && lease.stop() != Some(Stop::Lost);
    let told = match (outcome, lease.stop()) {
        (_, Some(Stop::Lost)) => {
            tracing::info!(
                event = "job_lost",
                "the job's lease is another's; nothing more is written"
            );
            return;
        }
        (Outcome::Completed(completion), _) => {
            let completion = JobCompletion {
                lease: reference,
                cursor_json: completion.cursor_json,
                progress: Some(completion.progress),
                incremental_cursor_json: completion.incremental_cursor_json,
            };
            scheduler.complete(completion, is_good).await
        }
        (Outcome::Failed(failure), _) => {
            Span::current().record("otel.status_code", "ERROR");
            tracing::warn!(
                event = "job_failed",
                error = failure.error,
                then = failure.kind.as_str_name(),
                retry_after = failure.retry_after.map(|wait| wait.as_secs()),
                "an attempt at a job failed"
            );
            let failure = JobFailure {
                lease: reference,
                error: failure.error,
                kind: failure.kind.into(),
                retry_after: failure.retry_after.and_then(|wait| wait.try_into().ok()),
                missing_scopes: failure.missing_scopes,
            };
            scheduler.fail(failure, is_good).await
        }
        (Outcome::Stopped, stop) => {
            tracing::info!(
                event = "job_released",
                cancelled = stop == Some(Stop::Cancelled),
                "the job is given back unfinished"
            );
            scheduler
                .release(vec![lease.reference().clone()], is_good)
                .await
        }
    };
    match told {
        Ok(()) => {}
        Err(CallFailed::LeaseLost) => {
            tracing::info!(
                event = "job_lost",
                "the job's lease was another's when its end was told"
            );
        }
        Err(CallFailed::Call(error)) => {
            tracing::warn!(event = "job_end_not_told", %error, "the scheduler did not take the end of a job; it will be leased again");
        }
    }
}

/// The services that are asked for the job's sake learn whose it is, and which one.
fn caller(service: &str, job: &Job) -> Caller {
    let caller = Caller::service(service);
    let actor = Actor {
        tenant_id: job.tenant_id.clone(),
        user_id: job.user_id.clone(),
        purpose: format!("sync job {}", job.job_id),
        ..caller.actor
    };
    Caller {
        actor,
        request_id: job.job_id.clone(),
        ..caller
    }
}
