//! A job that is ours for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use contracts::scheduler::v1::{
    CheckpointRequest, Job, LeaseRef, LeasedJob, Progress, ReportRateLimitRequest,
};
use tokio::sync::watch;

use crate::scheduler::{CallFailed, Scheduler};

/// Why work on a job is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// Another worker may hold it: nothing more is to be written.
    Lost,
    /// The process ends.
    Shutdown,
}

/// A job, and the proof that it is ours. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    job: Job,
    reference: LeaseRef,
    stream_epoch: i64,
    field_mappings_json: String,
    checkpoints: AtomicI64,
    /// By the clock that runs through suspension.
    good_until: Mutex<Duration>,
    stop: watch::Sender<Option<Stop>>,
    scheduler: Scheduler,
}

impl Lease {
    pub(crate) fn new(
        leased: LeasedJob,
        good_until: Duration,
        scheduler: Scheduler,
    ) -> Option<Self> {
        let job = leased.job?;
        let reference = LeaseRef {
            tenant_id: job.tenant_id.clone(),
            job_id: job.job_id.clone(),
            lease_token: leased.lease_token,
        };
        Some(Self(Arc::new(Inner {
            job,
            reference,
            stream_epoch: leased.stream_epoch,
            field_mappings_json: leased.field_mappings_json,
            checkpoints: AtomicI64::new(0),
            good_until: Mutex::new(good_until),
            stop: watch::Sender::new(None),
            scheduler,
        })))
    }

    /// The job as it was when it was leased.
    pub fn job(&self) -> &Job {
        &self.0.job
    }

    /// Goes with the documents, so that what an older holder writes is refused.
    pub fn stream_epoch(&self) -> i64 {
        self.0.stream_epoch
    }

    /// The tenant's own field names at the provider, by ours; JSON.
    pub fn field_mappings_json(&self) -> &str {
        &self.0.field_mappings_json
    }

    /// Whether to stop, and why.
    pub fn stop(&self) -> Option<Stop> {
        *self.0.stop.borrow()
    }

    /// Waits until work is to stop.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.0.stop.subscribe();
        let found = stop.wait_for(Option::is_some).await.map(|stop| *stop);
        // The sender is in `self`, so waiting does not fail.
        found.ok().flatten().unwrap_or(Stop::Lost)
    }

    /// Stores where the work is; a later attempt begins there. What was done up to there has to be durable before.
    ///
    /// # Errors
    /// [`Stop`] where the work is to end here: cancelled meanwhile, or no longer ours.
    pub async fn checkpoint(
        &self,
        cursor_json: Vec<u8>,
        incremental_cursor_json: Vec<u8>,
        progress: Progress,
    ) -> Result<(), Stop> {
        if let Some(stop) = self.stop() {
            return Err(stop);
        }
        let request = CheckpointRequest {
            lease: Some(self.0.reference.clone()),
            cursor_json,
            progress: Some(progress),
            checkpoint_number: self.0.checkpoints.fetch_add(1, Ordering::SeqCst) + 1,
            incremental_cursor_json,
        };
        match self
            .0
            .scheduler
            .checkpoint(request, || self.is_good())
            .await
        {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.halt(Stop::Cancelled)),
            Err(CallFailed::LeaseLost) => Err(self.halt(Stop::Lost)),
            Err(CallFailed::Call(error)) => {
                tracing::warn!(event = "checkpoint_failed", %error, "a checkpoint could not be stored; the job is left to whoever leases it next");
                Err(self.halt(Stop::Lost))
            }
        }
    }

    /// Tells all who work on the provider account that it asks for a pause.
    pub async fn report_rate_limit(&self, retry_after: Duration) {
        let request = ReportRateLimitRequest {
            lease: Some(self.0.reference.clone()),
            remaining: -1,
            resets_at: None,
            retry_after: retry_after.try_into().ok(),
        };
        self.0.scheduler.report_rate_limit(request).await;
    }

    /// Another service said that the lease is another's.
    pub fn declare_lost(&self) {
        self.halt(Stop::Lost);
    }

    pub(crate) fn reference(&self) -> &LeaseRef {
        &self.0.reference
    }

    /// The first reason stays, but for the one that forbids more.
    pub(crate) fn halt(&self, stop: Stop) -> Stop {
        self.0.stop.send_if_modified(|known| {
            let counts = known.is_none() || (stop == Stop::Lost && *known != Some(Stop::Lost));
            if counts {
                *known = Some(stop);
            }
            counts
        });
        self.stop().unwrap_or(stop)
    }

    pub(crate) fn extend(&self, good_until: Duration) {
        *self
            .0
            .good_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = good_until;
    }

    /// Whether, as far as we can tell, nobody else can hold the job yet.
    pub(crate) fn is_good(&self) -> bool {
        let now = self.0.scheduler.deps().clock.boottime();
        now < *self
            .0
            .good_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
