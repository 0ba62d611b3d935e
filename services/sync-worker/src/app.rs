//! Puts the sync worker together.

use std::sync::Arc;

use common::identity::tls::Tls;
use common::pg::Schema;
use common::rpc::Client;
use common::service::{Listeners, Runtime, Service, Shared, StartError};
use connectors::Connector;
use egress::Egress;
use worker::Worker;

use crate::broker::Broker;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::sync_job::SyncJobs;

/// The sync worker.
#[derive(Clone, Copy, Debug)]
pub struct SyncWorker;

/// Where connectors come from: the ones that are compiled in, or others.
pub type Connectors = fn(&str) -> Option<&'static Connector>;

impl Service for SyncWorker {
    const NAME: &'static str = "sync-worker";
    type Config = Config;

    fn schema() -> Option<&'static Schema> {
        None
    }

    fn shared(config: &Config) -> Shared<'_> {
        Shared {
            telemetry: &config.telemetry,
            admin: &config.admin,
            lifecycle: &config.lifecycle,
            database: None,
            grpc: None,
            http: None,
        }
    }

    async fn start(config: Config, _: Listeners, runtime: Runtime) -> Result<(), StartError> {
        start(config, runtime, connectors::find)
    }
}

/// Starts a sync worker with these connectors.
///
/// # Errors
/// Where certificates or addresses cannot be used.
pub fn start(config: Config, runtime: Runtime, connectors: Connectors) -> Result<(), StartError> {
    let Runtime {
        deps,
        tasks,
        shutdown,
        readiness: _,
    } = runtime;
    let tls = Tls::load(&config.tls, deps.clock.clone())?;
    let client = Client::new(tls, &deps);
    let scheduler = client.channel("sync-scheduler", &config.scheduler)?;
    let handler = SyncJobs {
        broker: Broker::new(client.channel("oauth-broker", &config.broker)?),
        ledger: Ledger::new(client.channel("webhook-ingest", &config.ingest)?, &deps),
        egress: Egress::new(config.egress, &deps)?,
        pages: config.pages,
        metrics: Arc::new(Metrics::new(&deps.meter)),
        connectors,
        deps: deps.clone(),
    };
    Worker::new(SyncWorker::NAME, scheduler, config.jobs, &deps).start(handler, &tasks, &shutdown);
    Ok(())
}
