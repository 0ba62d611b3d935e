//! The loop that leases.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::Deps;
use common::lifecycle::{Shutdown, Tasks};
use common::rpc::{CallError, Channel};
use contracts::scheduler::v1::{LeaseJobsRequest, LeasedJob};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backoff::Backoff;
use crate::config::WorkerConfig;
use crate::heartbeat::{self, Held};
use crate::job;
use crate::lease::{Lease, Stop};
use crate::outcome::Outcome;
use crate::scheduler::Scheduler;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// More jobs are not asked for in one call.
const MOST_JOBS: usize = 64;
/// So long a worker that ends waits to hear what it was given last.
const PARTING: Duration = Duration::from_secs(2);

/// Does the work.
pub trait Handler: Send + Sync + 'static {
    /// Works on one job. It is dropped where it waits when the lease ends, so what it does has to stand being repeated from
    /// the last checkpoint on.
    fn work(&self, lease: Lease) -> impl Future<Output = Outcome> + Send;
}

/// Leases jobs and has them worked on.
#[derive(Debug)]
pub struct Worker {
    scheduler: Scheduler,
    config: WorkerConfig,
    id: String,
    held: Held,
}

impl Worker {
    /// A worker of the service `name`.
    pub fn new(name: &'static str, scheduler: Channel, config: WorkerConfig, deps: &Deps) -> Self {
        let id = format!("{name}-{}", hex::encode(deps.random::<8>()));
        Self {
            scheduler: Scheduler::new(scheduler, name, deps),
            config,
            id,
            held: Held::default(),
        }
    }

    /// What the scheduler knows it by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Works until a shutdown is requested; then gives back at once what is not through.
    pub fn start<H: Handler>(self, handler: H, tasks: &Tasks, shutdown: &Shutdown) {
        let lease = self.config.lease.get();
        let beats = heartbeat::run(
            self.scheduler.clone(),
            self.held.clone(),
            self.id.clone(),
            lease,
            shutdown.clone(),
        );
        tasks.spawn_until_drained("heartbeat", beats);
        tasks.spawn(
            "jobs",
            self.run(Arc::new(handler), tasks.clone(), shutdown.clone()),
        );
    }

    async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        tasks: Tasks,
        shutdown: Shutdown,
    ) -> Result<(), Infallible> {
        let slots = Arc::new(Semaphore::new(self.config.concurrency));
        loop {
            let free = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                free = free_slots(&slots) => free,
            };
            let request = self.request(free.len());
            let leased = tokio::select! {
                biased;
                leased = self.wait_for_jobs(&request) => leased,
                () = shutdown.requested() => {
                    self.give_back(request).await;
                    return Ok(());
                }
            };
            let good_until = self.scheduler.deps().clock.boottime() + self.config.lease.get();
            for (leased, slot) in leased.into_iter().zip(free) {
                self.begin(leased, good_until, slot, &handler, &tasks, &shutdown);
            }
        }
    }

    fn begin<H: Handler>(
        &self,
        leased: LeasedJob,
        good_until: Duration,
        slot: OwnedSemaphorePermit,
        handler: &Arc<H>,
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) {
        let Some(lease) = Lease::new(leased, good_until, self.scheduler.clone()) else {
            return;
        };
        self.held.add(&lease);
        let (handler, scheduler, held, shutdown) = (
            Arc::clone(handler),
            self.scheduler.clone(),
            self.held.clone(),
            shutdown.clone(),
        );
        tasks.spawn_work("job", async move {
            let work = job::run(&*handler, lease.clone(), &scheduler, &held);
            let watch = async {
                shutdown.requested().await;
                lease.halt(Stop::Shutdown);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = work => {}
                () = watch => {}
            }
            drop(slot);
        });
    }

    /// Jobs, however long it takes.
    async fn wait_for_jobs(&self, request: &LeaseJobsRequest) -> Vec<LeasedJob> {
        let mut backoff = Backoff::new(self.scheduler.deps(), FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match self
                .scheduler
                .lease(request.clone(), self.config.wait.get())
                .await
            {
                Ok(leased) => {
                    if backoff.attempts() > 0 {
                        tracing::info!(
                            event = "scheduler_available",
                            "the scheduler gives out jobs again"
                        );
                    }
                    return leased;
                }
                Err(error) => {
                    tell_once(&error, backoff.attempts());
                    // The same request again: where it was its answer that was lost, the leases were not.
                    backoff.pause().await;
                }
            }
        }
    }

    /// The call that was waiting may have been given jobs that nobody heard of: asks again, and gives them back.
    async fn give_back(&self, request: LeaseJobsRequest) {
        let request = LeaseJobsRequest {
            max_wait: None,
            ..request
        };
        let asked = self.scheduler.lease(request, Duration::ZERO);
        let Ok(Ok(leased)) = tokio::time::timeout(PARTING, asked).await else {
            return;
        };
        let good_until = self.scheduler.deps().clock.boottime() + PARTING;
        for leased in leased {
            let Some(lease) = Lease::new(leased, good_until, self.scheduler.clone()) else {
                continue;
            };
            let told = self
                .scheduler
                .release(vec![lease.reference().clone()], || lease.is_good())
                .await;
            if told.is_err() {
                tracing::debug!(
                    event = "job_not_released",
                    job.id = lease.job().job_id,
                    "a job runs out its lease"
                );
            }
        }
    }

    fn request(&self, jobs: usize) -> LeaseJobsRequest {
        LeaseJobsRequest {
            worker_id: self.id.clone(),
            providers: self.config.providers.clone(),
            max_jobs: i32::try_from(jobs).unwrap_or(i32::MAX),
            lease: self.config.lease.get().try_into().ok(),
            max_wait: self.config.wait.get().try_into().ok(),
            queues: self.config.queues.clone(),
            request_id: hex::encode(self.scheduler.deps().random::<16>()),
        }
    }
}

/// All slots that are free, as soon as there is one.
async fn free_slots(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let first = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let mut free = vec![first];
    while free.len() < MOST_JOBS
        && let Ok(slot) = Arc::clone(slots).try_acquire_owned()
    {
        free.push(slot);
    }
    free
}

/// An outage is one line, however long it is.
fn tell_once(error: &CallError, attempts: u32) {
    if attempts == 0 {
        tracing::warn!(event = "scheduler_unavailable", %error, "the scheduler gives out no jobs; it is asked again until it does");
    } else {
        tracing::debug!(event = "scheduler_unavailable", %error, attempts, "the scheduler gives out no jobs");
    }
}
