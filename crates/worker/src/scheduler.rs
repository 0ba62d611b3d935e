//! The scheduler, as a worker speaks to it. What is said twice has the effect of once, so every call is tried again while
//! that is of use.

use std::time::Duration;

use common::Deps;
use common::identity::{Caller, scope};
use common::rpc::{CallError, Channel};
use common::{Code, Reason};
use contracts::scheduler::v1::worker_service_client::WorkerServiceClient;
use contracts::scheduler::v1::{
    CheckpointRequest, CompleteJobsRequest, FailJobsRequest, HeartbeatRequest, HeartbeatResponse,
    JobCompletion, JobFailure, LeaseJobsRequest, LeaseRef, LeasedJob, ReleaseJobsRequest,
    ReportRateLimitRequest,
};
use tokio::time::Instant;

use crate::backoff::Backoff;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The answer to a waiting call may take this much longer than the wait.
const GRACE: Duration = Duration::from_secs(5);

/// A client of the scheduler's.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    channel: Channel,
    name: &'static str,
    deps: Deps,
}

/// Why the scheduler did not take what it was told.
#[derive(Debug)]
pub(crate) enum CallFailed {
    /// The lease is another's.
    LeaseLost,
    /// Anything else.
    Call(CallError),
}

impl From<CallError> for CallFailed {
    fn from(error: CallError) -> Self {
        if error.reason == Some(Reason::LeaseLost) {
            Self::LeaseLost
        } else {
            Self::Call(error)
        }
    }
}

impl Scheduler {
    pub(crate) fn new(channel: Channel, name: &'static str, deps: &Deps) -> Self {
        Self {
            channel,
            name,
            deps: deps.clone(),
        }
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for jobs.
    pub(crate) async fn lease(
        &self,
        request: LeaseJobsRequest,
        wait: Duration,
    ) -> Result<Vec<LeasedJob>, CallError> {
        let mut client = self.client();
        let call = async { Ok(client.lease_jobs(request).await?.into_inner().jobs) };
        self.within(wait + GRACE, call).await
    }

    /// Extends leases; once, since the next beat follows.
    pub(crate) async fn heartbeat(
        &self,
        request: HeartbeatRequest,
        patience: Duration,
    ) -> Result<HeartbeatResponse, CallError> {
        let mut client = self.client();
        self.within(patience, async {
            Ok(client.heartbeat(request).await?.into_inner())
        })
        .await
    }

    /// Whether the job was cancelled.
    pub(crate) async fn checkpoint(
        &self,
        request: CheckpointRequest,
        is_good: impl Fn() -> bool,
    ) -> Result<bool, CallFailed> {
        let call = || {
            let (mut client, request) = (self.client(), request.clone());
            async move { Ok(client.checkpoint(request).await?.into_inner()) }
        };
        Ok(self.repeat(call, is_good).await?.cancelled)
    }

    pub(crate) async fn complete(
        &self,
        completion: JobCompletion,
        is_good: impl Fn() -> bool,
    ) -> Result<(), CallFailed> {
        let request = CompleteJobsRequest {
            completions: vec![completion],
        };
        let call = || {
            let (mut client, request) = (self.client(), request.clone());
            async move { Ok(client.complete_jobs(request).await?.into_inner()) }
        };
        taken(&self.repeat(call, is_good).await?.lost_job_ids)
    }

    pub(crate) async fn fail(
        &self,
        failure: JobFailure,
        is_good: impl Fn() -> bool,
    ) -> Result<(), CallFailed> {
        let request = FailJobsRequest {
            failures: vec![failure],
        };
        let call = || {
            let (mut client, request) = (self.client(), request.clone());
            async move { Ok(client.fail_jobs(request).await?.into_inner()) }
        };
        taken(&self.repeat(call, is_good).await?.lost_job_ids)
    }

    pub(crate) async fn release(
        &self,
        leases: Vec<LeaseRef>,
        is_good: impl Fn() -> bool,
    ) -> Result<(), CallFailed> {
        let request = ReleaseJobsRequest { leases };
        let call = || {
            let (mut client, request) = (self.client(), request.clone());
            async move { Ok(client.release_jobs(request).await?.into_inner()) }
        };
        taken(&self.repeat(call, is_good).await?.lost_job_ids)
    }

    /// It is a courtesy to the others: where it fails they find out by themselves.
    pub(crate) async fn report_rate_limit(&self, request: ReportRateLimitRequest) {
        if let Err(status) = self.client().report_rate_limit(request).await {
            let error = CallError::from(status);
            tracing::debug!(event = "rate_limit_not_reported", %error, "the scheduler did not take a rate limit");
        }
    }

    fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel.clone())
    }

    /// For the worker's own calls, which no job stands behind.
    async fn within<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let caller = Caller {
            deadline: Some(Instant::now() + patience),
            ..Caller::service(self.name)
        };
        scope(caller, call).await
    }

    /// Again while it is of use: the scheduler may be away for a moment, and the lease is still good.
    async fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        mut call: impl FnMut() -> F,
        is_good: impl Fn() -> bool,
    ) -> Result<T, CallFailed> {
        let mut backoff = Backoff::new(&self.deps, FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match call().await.map_err(CallFailed::from) {
                Err(CallFailed::Call(error)) if is_passing(&error) && is_good() => {
                    backoff.pause().await;
                }
                outcome => return outcome,
            }
        }
    }
}

fn is_passing(error: &CallError) -> bool {
    error.is_transient() && error.code != Code::Aborted
}

fn taken(lost: &[String]) -> Result<(), CallFailed> {
    if lost.is_empty() {
        Ok(())
    } else {
        Err(CallFailed::LeaseLost)
    }
}
