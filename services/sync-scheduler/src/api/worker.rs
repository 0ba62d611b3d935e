//! `WorkerService`.

use std::collections::HashSet;
use std::time::Duration;

use common::Problem;
use common::identity::{Acting, Caller, Tenants};
use common::rpc::{caller, unimplemented};
use common::validate::Fields;
use contracts::scheduler::v1::worker_service_server::WorkerService;
use contracts::scheduler::v1::{
    AcquireBudgetRequest, AcquireBudgetResponse, CheckpointRequest, CheckpointResponse,
    CompleteJobsRequest, CompleteJobsResponse, FailJobsRequest, FailJobsResponse, FailureKind,
    HeartbeatRequest, HeartbeatResponse, LeaseJobsRequest, LeaseJobsResponse, LeaseRef,
    Progress as ContractProgress, ReleaseJobsRequest, ReleaseJobsResponse, ReportRateLimitRequest,
    ReportRateLimitResponse,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::checks::{check_name, check_names, check_request_id};
use crate::app::Scheduler;
use crate::error::Error;
use crate::finish_jobs;
use crate::job::{CONNECTORS, Progress};
use crate::keep_leases::{self, Held};
use crate::lease_jobs::{
    self, DEFAULT_LEASE, LONGEST_LEASE, LONGEST_WAIT, MOST_JOBS, SHORTEST_LEASE, Wanted,
};
use crate::store::leases::{Checkpoint, Servable};

/// Leases in one call at most.
const MOST_LEASES: usize = 256;
/// A cursor's size at most.
const LONGEST_CURSOR: usize = 256 * 1024;

pub(super) struct Worker(pub(super) Scheduler);

#[tonic::async_trait]
impl WorkerService for Worker {
    async fn lease_jobs(
        &self,
        request: Request<LeaseJobsRequest>,
    ) -> Result<Response<LeaseJobsResponse>, Status> {
        let caller = worker(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.require("worker_id", &request.worker_id);
        check_name(&mut fields, "worker_id", &request.worker_id);
        check_request_id(&mut fields, &request.request_id);
        check_names(&mut fields, "providers", &request.providers);
        check_names(&mut fields, "queues", &request.queues);
        fields.check(request.max_jobs >= 0, "max_jobs", "must not be negative");
        let lease = span(
            &mut fields,
            "lease",
            request.lease,
            DEFAULT_LEASE,
            SHORTEST_LEASE..=LONGEST_LEASE,
        );
        let wait = span(
            &mut fields,
            "max_wait",
            request.max_wait,
            Duration::ZERO,
            Duration::ZERO..=LONGEST_WAIT,
        );
        let queues = if request.queues.is_empty() {
            vec![CONNECTORS.to_owned()]
        } else {
            request.queues
        };
        let strange = is_outsider(&caller) && queues.iter().any(|queue| queue == CONNECTORS);
        let own =
            format!("name a queue of your own: `{CONNECTORS}` is served by the built-in worker");
        fields.check(!strange, "queues", own);
        fields.finish()?;
        let most = if request.max_jobs == 0 {
            1
        } else {
            request.max_jobs.min(MOST_JOBS)
        };
        let wanted = Wanted {
            worker_id: request.worker_id,
            request_id: request.request_id,
            servable: Servable {
                queues,
                providers: request.providers,
                tenants: reach(&caller),
            },
            most: most.unsigned_abs() as usize,
            lease,
            wait,
        };
        let jobs = lease_jobs::lease_jobs(&self.0, &caller, &wanted)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(LeaseJobsResponse { jobs }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let caller = worker(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        check_name(&mut fields, "worker_id", &request.worker_id);
        let lease = span(
            &mut fields,
            "lease",
            request.lease,
            DEFAULT_LEASE,
            SHORTEST_LEASE..=LONGEST_LEASE,
        );
        let named = request.leases.iter().map(Some);
        let (leases, strange) = holders(&caller, &mut fields, "leases", "", named);
        fields.finish()?;
        let leases = leases.into_iter().map(|(_, held)| held).collect();
        let mut answer = keep_leases::heartbeat(&self.0, leases, lease)
            .await
            .map_err(Problem::from)?;
        answer.lost_job_ids.extend(strange);
        Ok(Response::new(answer))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        let caller = worker(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let named = holder(&caller, &mut fields, "lease", request.lease.as_ref());
        fields.check(
            request.checkpoint_number > 0,
            "checkpoint_number",
            "must count up from 1 within the lease",
        );
        check_cursor(&mut fields, "cursor_json", &request.cursor_json);
        check_cursor(
            &mut fields,
            "incremental_cursor_json",
            &request.incremental_cursor_json,
        );
        check_progress(&mut fields, "progress", request.progress.as_ref());
        fields.finish()?;
        let Named::Held(held) = named else {
            return Err(Problem::from(Error::LeaseLost).into());
        };
        let at = Checkpoint {
            number: request.checkpoint_number,
            cursor_json: some(request.cursor_json),
            incremental_cursor_json: some(request.incremental_cursor_json),
            progress: request.progress.map(Progress::from).unwrap_or_default(),
        };
        let cancelled = keep_leases::checkpoint(&self.0, held, at)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(CheckpointResponse { cancelled }))
    }

    async fn complete_jobs(
        &self,
        request: Request<CompleteJobsRequest>,
    ) -> Result<Response<CompleteJobsResponse>, Status> {
        let caller = worker(&request)?;
        let completions = request.into_inner().completions;
        let mut fields = Fields::new();
        for (index, completion) in completions.iter().enumerate() {
            let at = format!("completions[{index}]");
            check_cursor(
                &mut fields,
                &format!("{at}.cursor_json"),
                &completion.cursor_json,
            );
            check_cursor(
                &mut fields,
                &format!("{at}.incremental_cursor_json"),
                &completion.incremental_cursor_json,
            );
            check_progress(
                &mut fields,
                &format!("{at}.progress"),
                completion.progress.as_ref(),
            );
        }
        let named = completions
            .iter()
            .map(|completion| completion.lease.as_ref());
        let (leases, strange) = holders(&caller, &mut fields, "completions", ".lease", named);
        fields.finish()?;
        let said = leases
            .into_iter()
            .map(|(index, held)| (held, completions[index].clone()))
            .collect();
        let lost = finish_jobs::complete_jobs(&self.0, said)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(CompleteJobsResponse {
            lost_job_ids: texts(&lost, strange),
        }))
    }

    async fn release_jobs(
        &self,
        request: Request<ReleaseJobsRequest>,
    ) -> Result<Response<ReleaseJobsResponse>, Status> {
        let caller = worker(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let (leases, strange) = holders(
            &caller,
            &mut fields,
            "leases",
            "",
            request.leases.iter().map(Some),
        );
        fields.finish()?;
        let leases = leases.into_iter().map(|(_, held)| held).collect();
        let lost = finish_jobs::release_jobs(&self.0, leases)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(ReleaseJobsResponse {
            lost_job_ids: texts(&lost, strange),
        }))
    }

    async fn fail_jobs(
        &self,
        request: Request<FailJobsRequest>,
    ) -> Result<Response<FailJobsResponse>, Status> {
        let caller = worker(&request)?;
        let failures = request.into_inner().failures;
        let mut fields = Fields::new();
        for (index, failure) in failures.iter().enumerate() {
            let at = format!("failures[{index}]");
            fields.require(&format!("{at}.error"), &failure.error);
            let kind = FailureKind::try_from(failure.kind);
            fields.check(kind.is_ok(), format!("{at}.kind"), "is no kind of failure");
            let retry_after = failure
                .retry_after
                .is_none_or(|span| Duration::try_from(span).is_ok());
            fields.check(
                retry_after,
                format!("{at}.retry_after"),
                "must not be negative",
            );
        }
        let named = failures.iter().map(|failure| failure.lease.as_ref());
        let (leases, strange) = holders(&caller, &mut fields, "failures", ".lease", named);
        fields.finish()?;
        let said = leases
            .into_iter()
            .map(|(index, held)| (held, failures[index].clone()))
            .collect();
        let lost = finish_jobs::fail_jobs(&self.0, said)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(FailJobsResponse {
            lost_job_ids: texts(&lost, strange),
        }))
    }

    async fn acquire_budget(
        &self,
        _: Request<AcquireBudgetRequest>,
    ) -> Result<Response<AcquireBudgetResponse>, Status> {
        Err(unimplemented("WorkerService/AcquireBudget"))
    }

    async fn report_rate_limit(
        &self,
        _: Request<ReportRateLimitRequest>,
    ) -> Result<Response<ReportRateLimitResponse>, Status> {
        Err(unimplemented("WorkerService/ReportRateLimit"))
    }
}

/// A worker is a program: a user who acts for itself alone has no business with leases.
fn worker<T>(request: &Request<T>) -> Result<Caller, Problem> {
    let caller = caller(request)?;
    if caller.own_user().is_some() {
        return Err(Problem::permission_denied(
            "workers are no users: leave the user's token out",
        ));
    }
    Ok(caller)
}

/// Whether it is a worker of the host application's, for its own queues.
fn is_outsider(caller: &Caller) -> bool {
    caller.acting < Acting::Service
}

/// The tenants whose jobs the worker may have; `None` for all.
fn reach(caller: &Caller) -> Option<Vec<Uuid>> {
    match (&caller.user, &caller.tenants) {
        (Some(user), _) if is_outsider(caller) => Some(vec![user.tenant.id()]),
        (_, Tenants::Any) => None,
        (_, Tenants::Only(tenants)) => Some(tenants.iter().map(common::TenantKey::id).collect()),
    }
}

/// A lease as a call names it.
enum Named {
    Held(Held),
    /// Of a tenant that the caller does not reach: it is another's.
    Strange(String),
    /// What is wrong with it has been noted.
    Malformed,
}

/// The leases that the call names, each with its place, and the jobs that are another's beyond doubt.
fn holders<'a>(
    caller: &Caller,
    fields: &mut Fields,
    list: &str,
    member: &str,
    named: impl ExactSizeIterator<Item = Option<&'a LeaseRef>>,
) -> (Vec<(usize, Held)>, Vec<String>) {
    let count = named.len();
    fields.check(
        count <= MOST_LEASES,
        list,
        format_args!("must have at most {MOST_LEASES} items, and has {count}"),
    );
    let (mut leases, mut strange) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (index, lease) in named.enumerate() {
        let field = format!("{list}[{index}]{member}");
        match holder(caller, fields, &field, lease) {
            Named::Held(held) => {
                fields.check(
                    seen.insert(held.job_id),
                    format!("{field}.job_id"),
                    "is named twice",
                );
                leases.push((index, held));
            }
            Named::Strange(job_id) => strange.push(job_id),
            Named::Malformed => {}
        }
    }
    (leases, strange)
}

fn holder(caller: &Caller, fields: &mut Fields, field: &str, lease: Option<&LeaseRef>) -> Named {
    let lease = lease.cloned().unwrap_or_default();
    let tenant = fields.tenant(&format!("{field}.tenant_id"), &lease.tenant_id);
    let job_id = fields.id(&format!("{field}.job_id"), &lease.job_id);
    let token = "must be the one that came with the lease";
    let proved = fields.check(lease.lease_token > 0, format!("{field}.lease_token"), token);
    match (tenant, job_id) {
        (Some(tenant), Some(job_id)) if proved => {
            if tenant.shares_bucket_with(job_id) && caller.reaches(tenant) {
                Named::Held(Held {
                    tenant,
                    job_id,
                    fence: lease.lease_token,
                    outsider: is_outsider(caller),
                })
            } else {
                Named::Strange(lease.job_id)
            }
        }
        _ => Named::Malformed,
    }
}

fn texts(lost: &[Uuid], strange: Vec<String>) -> Vec<String> {
    lost.iter().map(Uuid::to_string).chain(strange).collect()
}

fn check_cursor(fields: &mut Fields, field: &str, cursor: &[u8]) {
    fields.check(
        cursor.len() <= LONGEST_CURSOR,
        field,
        format_args!("must have at most {LONGEST_CURSOR} bytes"),
    );
    let json = cursor.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(cursor).is_ok();
    fields.check(json, field, "must be JSON in UTF-8");
}

fn check_progress(fields: &mut Fields, field: &str, progress: Option<&ContractProgress>) {
    let Some(progress) = progress else { return };
    let counts = [
        progress.records_read,
        progress.records_written,
        progress.records_unchanged,
        progress.records_expected,
        progress.bytes_read,
        progress.api_calls,
        progress.records_deleted,
    ];
    fields.check(
        counts.iter().all(|count| *count >= 0),
        field,
        "must not count below zero",
    );
}

fn some(cursor: Vec<u8>) -> Option<Vec<u8>> {
    (!cursor.is_empty()).then_some(cursor)
}

fn span(
    fields: &mut Fields,
    field: &str,
    given: Option<prost_types::Duration>,
    unset: Duration,
    allowed: std::ops::RangeInclusive<Duration>,
) -> Duration {
    let Some(given) = given else { return unset };
    match Duration::try_from(given) {
        Ok(span) if allowed.contains(&span) => span,
        _ => {
            let (least, most) = (allowed.start().as_secs(), allowed.end().as_secs());
            fields.violate(field, format_args!("must be from {least} s to {most} s"));
            unset
        }
    }
}
