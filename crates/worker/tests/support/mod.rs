//! A scheduler that does what a test says, behind real mutual TLS, and a log of what it was told.
//!
//! Shared by the tests of everything that works on jobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::identity::authority::Authority;
use common::identity::tls::{Tls, TlsConfig};
use common::identity::{Actor, Identity};
use common::lifecycle::{Process, Shutdown};
use common::rpc::{Guard, IdentityConfig, Server, ServerConfig, caller, unimplemented};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Code, Deps, Problem, Reason, TenantKey};
use contracts::scheduler::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use contracts::scheduler::v1::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::{Request, Response, Status};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// As long as a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Certificates, and the stand-ins that were started with them.
pub(crate) struct Ground {
    authority: Authority,
    pub(crate) deps: Deps,
    pub(crate) tenant: TenantKey,
    shutdown: Shutdown,
    _folder: TempDir,
}

/// What happened, in its order, at all stand-ins.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Entry>>>);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: &'static str,
    pub(crate) job_id: String,
    pub(crate) detail: Value,
}

/// How calls fail.
#[derive(Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<BTreeMap<&'static str, VecDeque<Failing>>>>);

/// How a call fails, and whether after its work is done.
type Failing = (Problem, bool);

/// The stand-in for the scheduler. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Scheduler(Arc<State>);

#[derive(Default)]
struct State {
    log: Log,
    failures: Failures,
    wake: Notify,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    due: VecDeque<LeasedJob>,
    /// What was given for a request, for when it is repeated.
    given: BTreeMap<String, Vec<LeasedJob>>,
    cancelled: BTreeSet<String>,
    lost: BTreeSet<String>,
    /// Workers that were killed: their calls may still be waiting here.
    dead: BTreeSet<String>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let deps = Deps::system("test");
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let tenant = TenantKey::new_tenant(&deps);
        Self {
            authority,
            deps,
            tenant,
            shutdown: Shutdown::new(),
            _folder: folder,
        }
    }

    pub(crate) fn tls(&self, service: &str) -> TlsConfig {
        self.authority
            .issue(&Identity::service(service), &[])
            .unwrap()
    }

    /// A server with the identity of the service `name`, to which a stand-in is added.
    pub(crate) fn server(&self, name: &'static str) -> Server {
        let config = ServerConfig {
            tls: self.tls(name),
            ..ServerConfig::default()
        };
        let tls = Tls::load(&config.tls, Arc::clone(&self.deps.clock)).unwrap();
        let guard = Guard::new(&IdentityConfig::default(), None, &self.deps).unwrap();
        Server::new(name, config, tls, guard, &self.deps)
    }

    pub(crate) async fn serve(&self, server: Server) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.serve(listener, self.shutdown.clone()));
        address
    }

    pub(crate) async fn serve_scheduler(&self, scheduler: &Scheduler) -> SocketAddr {
        self.serve(
            self.server("sync-scheduler")
                .service(WorkerServiceServer::new(scheduler.clone())),
        )
        .await
    }

    /// A job that nothing is known of but what a test sets.
    pub(crate) fn job(&self, kind: JobKind) -> Job {
        Job {
            tenant_id: self.tenant.to_string(),
            job_id: self.tenant.new_id(&self.deps).to_string(),
            connection_id: self.tenant.new_id(&self.deps).to_string(),
            provider: "procore".to_owned(),
            stream: "projects".to_owned(),
            kind: kind.into(),
            state: JobState::Running.into(),
            user_id: "ada".to_owned(),
            attempt: 1,
            ..Job::default()
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// A process that writes no log of its own.
pub(crate) fn process() -> Process {
    let sink = BoxMakeWriter::new(std::io::sink);
    let (telemetry, _) = Telemetry::build("test", &TelemetryConfig::default(), sink).unwrap();
    Process::new(telemetry)
}

impl Log {
    pub(crate) fn add(&self, what: &'static str, job_id: &str, detail: Value) {
        self.entries().push(Entry {
            what,
            job_id: job_id.to_owned(),
            detail,
        });
    }

    /// Everything of a kind, so far.
    pub(crate) fn all(&self, what: &str) -> Vec<Entry> {
        self.entries()
            .iter()
            .filter(|entry| entry.what == what)
            .cloned()
            .collect()
    }

    /// What happened, without how.
    pub(crate) fn whats(&self) -> Vec<&'static str> {
        self.entries().iter().map(|entry| entry.what).collect()
    }

    /// Waits for so many of a kind.
    pub(crate) async fn wait(&self, what: &str, count: usize) -> Vec<Entry> {
        let found = testkit::eventually_some(PATIENCE, async || {
            let found = self.all(what);
            (found.len() >= count).then_some(found)
        });
        found.await
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    /// The next call of the method fails so; where `after`, its work is done all the same.
    pub(crate) fn next(&self, method: &'static str, problem: Problem, after: bool) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .entry(method)
            .or_default()
            .push_back((problem, after));
    }

    fn take(&self, method: &'static str) -> Option<(Problem, bool)> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get_mut(method)?.pop_front()
    }

    /// Does the work, unless the call is to fail before.
    pub(crate) fn around<T>(
        &self,
        method: &'static str,
        work: impl FnOnce() -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        match self.take(method) {
            None => work().map(Response::new),
            Some((problem, after)) => {
                if after {
                    work()?;
                }
                Err(problem.into())
            }
        }
    }
}

/// What every service answers to whoever holds a lease no more.
pub(crate) fn lease_lost() -> Problem {
    Problem::new(Code::Aborted, Reason::LeaseLost, "the lease is another's")
}

/// What was told of the actor of a call.
pub(crate) fn actor(actor: &Actor) -> Value {
    json!({
        "identity": actor.identity, "tenant": actor.tenant_id, "user": actor.user_id, "purpose": actor.purpose,
    })
}

impl Scheduler {
    pub(crate) fn log(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Makes a job due.
    pub(crate) fn give(&self, job: Job, lease_token: i64) {
        let leased = LeasedJob {
            job: Some(job),
            lease_token,
            stream_epoch: 10 + lease_token,
            ..LeasedJob::default()
        };
        self.jobs().due.push_back(leased);
        self.0.wake.notify_waiters();
    }

    pub(crate) fn cancel(&self, job_id: &str) {
        self.jobs().cancelled.insert(job_id.to_owned());
    }

    /// Gives nothing more to the workers so far.
    pub(crate) fn bury_workers(&self) {
        let leased = self.log().all("leased");
        let workers = leased
            .iter()
            .filter_map(|entry| entry.detail["worker"].as_str().map(str::to_owned));
        self.jobs().dead.extend(workers);
    }

    pub(crate) fn lose(&self, job_id: &str) {
        self.jobs().lost.insert(job_id.to_owned());
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, request: &LeaseJobsRequest) -> Vec<LeasedJob> {
        let mut jobs = self.jobs();
        if jobs.dead.contains(&request.worker_id) {
            return Vec::new();
        }
        if let Some(given) = jobs.given.get(&request.request_id) {
            return given.clone();
        }
        let count = jobs.due.len().min(request.max_jobs.unsigned_abs() as usize);
        let taken: Vec<_> = jobs.due.drain(..count).collect();
        if !taken.is_empty() {
            jobs.given.insert(request.request_id.clone(), taken.clone());
        }
        drop(jobs);
        for leased in &taken {
            let id = leased.job.as_ref().map_or("", |job| &job.job_id);
            self.0.log.add(
                "leased",
                id,
                json!({"max": request.max_jobs, "providers": request.providers, "worker": request.worker_id}),
            );
        }
        taken
    }

    fn refuse_lost(&self, lease: Option<&LeaseRef>) -> Result<String, Status> {
        let id = lease.map(|lease| lease.job_id.clone()).unwrap_or_default();
        if self.jobs().lost.contains(&id) {
            Err(lease_lost().into())
        } else {
            Ok(id)
        }
    }

    /// Says the end of jobs, and which of them were lost.
    fn end(
        &self,
        what: &'static str,
        ends: impl IntoIterator<Item = (Option<LeaseRef>, Value)>,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for (lease, mut detail) in ends {
            let lease = lease.unwrap_or_default();
            if self.jobs().lost.contains(&lease.job_id) {
                lost.push(lease.job_id);
                continue;
            }
            detail["token"] = lease.lease_token.into();
            self.0.log.add(what, &lease.job_id, detail);
        }
        lost
    }
}

fn text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

fn counts(progress: Option<Progress>) -> Value {
    let progress = progress.unwrap_or_default();
    json!({
        "read": progress.records_read,
        "written": progress.records_written,
        "unchanged": progress.records_unchanged,
        "deleted": progress.records_deleted,
        "expected": progress.records_expected,
        "calls": progress.api_calls,
        "bytes": progress.bytes_read,
    })
}

#[tonic::async_trait]
impl WorkerService for Scheduler {
    async fn lease_jobs(
        &self,
        request: Request<LeaseJobsRequest>,
    ) -> Result<Response<LeaseJobsResponse>, Status> {
        let request = request.into_inner();
        let wait = request
            .max_wait
            .and_then(|wait| Duration::try_from(wait).ok())
            .unwrap_or_default();
        let until = tokio::time::Instant::now() + wait;
        loop {
            let woken = self.0.wake.notified();
            if self.0.failures.0.lock().unwrap().contains_key("lease_jobs")
                || !self.jobs().due.is_empty()
                || self.jobs().given.contains_key(&request.request_id)
            {
                let again = self.0.failures.around("lease_jobs", || {
                    Ok(LeaseJobsResponse {
                        jobs: self.take(&request),
                    })
                });
                if !again
                    .as_ref()
                    .is_ok_and(|answer| answer.get_ref().jobs.is_empty())
                {
                    return again;
                }
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(until) => return Ok(Response::new(LeaseJobsResponse::default())),
            }
        }
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("heartbeat", || {
            let named = |among: &BTreeSet<String>| {
                let ids = request.leases.iter().map(|lease| lease.job_id.clone());
                ids.filter(|id| among.contains(id)).collect::<Vec<_>>()
            };
            let jobs = self.jobs();
            let (cancelled_job_ids, lost_job_ids) = (named(&jobs.cancelled), named(&jobs.lost));
            drop(jobs);
            for lease in &request.leases {
                self.0.log.add("heartbeat", &lease.job_id, json!({}));
            }
            Ok(HeartbeatResponse {
                cancelled_job_ids,
                lost_job_ids,
                lease_expires_at: None,
            })
        })
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("checkpoint", || {
            let id = self.refuse_lost(request.lease.as_ref())?;
            let detail = json!({
                "number": request.checkpoint_number,
                "cursor": text(&request.cursor_json),
                "mark": text(&request.incremental_cursor_json),
                "progress": counts(request.progress),
            });
            self.0.log.add("checkpoint", &id, detail);
            Ok(CheckpointResponse {
                cancelled: self.jobs().cancelled.contains(&id),
            })
        })
    }

    async fn complete_jobs(
        &self,
        request: Request<CompleteJobsRequest>,
    ) -> Result<Response<CompleteJobsResponse>, Status> {
        let actor = actor(caller(&request)?.actor());
        let request = request.into_inner();
        self.0.failures.around("complete_jobs", || {
            let ends = request.completions.into_iter().map(|completion| {
                let detail = json!({
                    "cursor": text(&completion.cursor_json),
                    "mark": text(&completion.incremental_cursor_json),
                    "progress": counts(completion.progress),
                    "actor": actor,
                });
                (completion.lease, detail)
            });
            Ok(CompleteJobsResponse {
                lost_job_ids: self.end("completed", ends),
            })
        })
    }

    async fn release_jobs(
        &self,
        request: Request<ReleaseJobsRequest>,
    ) -> Result<Response<ReleaseJobsResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("release_jobs", || {
            let ends = request
                .leases
                .into_iter()
                .map(|lease| (Some(lease), json!({})));
            Ok(ReleaseJobsResponse {
                lost_job_ids: self.end("released", ends),
            })
        })
    }

    async fn fail_jobs(
        &self,
        request: Request<FailJobsRequest>,
    ) -> Result<Response<FailJobsResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("fail_jobs", || {
            let ends = request.failures.into_iter().map(|failure| {
                let detail = json!({
                    "kind": failure.kind().as_str_name(),
                    "error": failure.error,
                    "retry_after": failure.retry_after.map(|wait| wait.seconds),
                    "missing_scopes": failure.missing_scopes,
                });
                (failure.lease, detail)
            });
            Ok(FailJobsResponse {
                lost_job_ids: self.end("failed", ends),
            })
        })
    }

    async fn acquire_budget(
        &self,
        _: Request<AcquireBudgetRequest>,
    ) -> Result<Response<AcquireBudgetResponse>, Status> {
        Err(unimplemented("WorkerService/AcquireBudget"))
    }

    async fn report_rate_limit(
        &self,
        request: Request<ReportRateLimitRequest>,
    ) -> Result<Response<ReportRateLimitResponse>, Status> {
        let request = request.into_inner();
        let seconds = request.retry_after.map(|wait| wait.seconds);
        self.0.log.add(
            "rate_limit",
            &request.lease.unwrap_or_default().job_id,
            json!({"retry_after": seconds}),
        );
        Err(unimplemented("WorkerService/ReportRateLimit"))
    }
}
