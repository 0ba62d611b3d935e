//! A worker whose jobs do what the test says.

use std::sync::Arc;
use std::time::Duration;

use common::identity::tls::Tls;
use common::lifecycle::Process;
use common::rpc::{Channel, Client, ClientConfig};
use tokio::sync::{Mutex, mpsc, oneshot};
use worker::{Handler, Job, Lease, Outcome, Worker, WorkerConfig};

use crate::support::{Ground, PATIENCE, Scheduler, process};

pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) scheduler: Scheduler,
    channel: Channel,
    config: WorkerConfig,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) process: Process,
    begun: Mutex<mpsc::UnboundedReceiver<Begun>>,
}

/// Work that has begun: it ends as the test says, and tells when it is dropped.
pub(crate) struct Begun {
    pub(crate) lease: Lease,
    pub(crate) end: oneshot::Sender<Outcome>,
    pub(crate) dropped: oneshot::Receiver<()>,
}

struct Puppet(mpsc::UnboundedSender<Begun>);

impl Handler for Puppet {
    async fn work(&self, lease: Lease) -> Outcome {
        let (end, ended) = oneshot::channel();
        let (alive, dropped) = oneshot::channel();
        self.0
            .send(Begun {
                lease,
                end,
                dropped,
            })
            .unwrap();
        let outcome = ended.await.expect("the test says how the work ends");
        drop(alive);
        outcome
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(WorkerConfig) -> WorkerConfig) -> Self {
        let ground = Ground::new();
        let scheduler = Scheduler::default();
        let address = ground.serve_scheduler(&scheduler).await;
        let tls = Tls::load(&ground.tls("sync-worker"), Arc::clone(&ground.deps.clock)).unwrap();
        let config = ClientConfig {
            address: address.to_string(),
        };
        let channel = Client::new(tls, &ground.deps)
            .channel("sync-scheduler", &config)
            .unwrap();
        let config = adjust(WorkerConfig {
            lease: Duration::from_secs(3).into(),
            ..WorkerConfig::default()
        });
        Self {
            ground,
            scheduler,
            channel,
            config,
        }
    }

    pub(crate) fn start(&self) -> Running {
        let process = process();
        let (tell, begun) = mpsc::unbounded_channel();
        Worker::new(
            "sync-worker",
            self.channel.clone(),
            self.config.clone(),
            &self.ground.deps,
        )
        .start(Puppet(tell), &process.tasks, &process.shutdown);
        Running {
            process,
            begun: Mutex::new(begun),
        }
    }

    /// Makes a job due, and gives it.
    pub(crate) fn give(&self, change: impl FnOnce(&mut Job)) -> Job {
        let mut job = self.ground.job(worker::JobKind::Incremental);
        change(&mut job);
        self.scheduler.give(job.clone(), 7);
        job
    }
}

impl Running {
    /// The next work that begins.
    pub(crate) async fn begun(&self) -> Begun {
        let mut begun = self.begun.lock().await;
        tokio::time::timeout(PATIENCE, begun.recv())
            .await
            .expect("work begins")
            .expect("the worker runs")
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) async fn stop(&self) {
        self.process.shutdown.request();
        let unfinished = self.process.tasks.drained(PATIENCE).await;
        assert_eq!(unfinished, Vec::<String>::new());
        assert!(!self.process.tasks.any_failed());
    }
}
