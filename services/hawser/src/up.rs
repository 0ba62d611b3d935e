//! Every service in one process, on a Postgres of its own or another: the same services as in production, over the same
//! gRPC with mutual TLS. What differs is who makes the certificates, the keys and the cluster.

mod configs;
mod database;
mod overview;
mod ports;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use common::Deps;
use common::identity::Identity;
use common::identity::authority::Authority;
use common::lifecycle::Process;
use common::service::{Listeners, Runtime, Service};
use oauth_broker::OauthBroker;
use provider_sim::Simulator;
use sync_scheduler::SyncScheduler;
use sync_worker::SyncWorker;
use tenant_directory::TenantDirectory;
use token_vault::TokenVault;
use tokio::net::TcpListener;
use webhook_ingest::WebhookIngest;

use crate::data_dir::{DataDir, HeldDataDir};
use crate::instance::{ClientTls, Instance, Issuer};
use crate::remote::Remote;
use crate::user_token::{self, AUDIENCE, ISSUER};

pub use database::{SCHEMAS, Server};

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Another Postgres than the one that is brought up; its login may create roles and schemas.
    pub database_url: Option<String>,
    /// The file with that login's password.
    pub database_password_file: Option<PathBuf>,
    /// The first of the ports; without it those of the last run, or free ones.
    pub port_base: Option<u16>,
    /// How many records each collection of the simulated provider has.
    pub records: u32,
}

/// What runs.
#[derive(Debug)]
pub struct Running {
    /// Where it is.
    pub instance: Instance,
    server: Server,
    simulator: Simulator,
    held: HeldDataDir,
}

/// What is left when every service has ended: Postgres, and the hold on the folder.
#[derive(Debug)]
pub struct Remains {
    server: Server,
    _held: HeldDataDir,
}

/// Where [`Running::hold`] leaves what remains.
pub type Leavings = Arc<Mutex<Option<Remains>>>;

impl Running {
    /// Leaves it to the process: Postgres is kept running until everything else has drained, and then left in `leavings`,
    /// since what ends last still writes to it.
    pub fn hold(self, process: &Process, leavings: &Leavings) {
        let Self {
            instance,
            server,
            simulator,
            held,
        } = self;
        let (shutdown, leavings) = (process.shutdown.clone(), Arc::clone(leavings));
        process.tasks.spawn_until_drained("postgres", async move {
            let server = server
                .keep(held.dir.clone(), instance, shutdown, Deps::system("hawser"))
                .await?;
            simulator.stop().await;
            let remains = Remains {
                server,
                _held: held,
            };
            *leavings.lock().unwrap_or_else(PoisonError::into_inner) = Some(remains);
            Ok::<_, anyhow::Error>(())
        });
    }
}

impl Remains {
    /// Stops Postgres, and lets go of the folder.
    ///
    /// # Errors
    /// Where it does not stop.
    pub async fn stop(self) -> Result<()> {
        self.server.stop().await
    }
}

/// Starts everything; each service's tasks live in `process`.
///
/// # Errors
/// A sentence that says what is in the way, and what to do.
pub async fn start(options: &Options, process: &Process) -> Result<Running> {
    let deps = Deps::system("hawser");
    let held = DataDir::at(&options.data_dir)?.hold()?;
    let dir = &held.dir;
    let previous = Instance::read(dir).ok();

    let password_file = options.database_password_file.as_deref();
    let server = Server::start(dir, options.database_url.as_deref(), password_file, &deps).await?;
    let (signing_key, verifying_key) = user_token::signing_key(dir)?;
    let authority = Authority::open(&dir.certificates(), &deps)?;
    let operator = authority.issue(&Identity::Operator("local".to_owned()), &[])?;

    let mut ports = ports::bind_all(options.port_base, previous.as_ref()).await?;
    let simulator = simulator(dir, options, ports.take("provider_sim")).await?;
    let instance = Instance {
        grpc: ports.grpc_addresses(),
        http: ports.http_urls(),
        tls: ClientTls {
            ca: operator.ca_file,
            client_cert: operator.cert_file,
            client_key: operator.key_file,
        },
        jwt: Issuer {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            private_key: signing_key,
        },
        database_url: server.url().to_owned(),
        database_password_file: server.password_file().to_owned(),
    };
    let configs = configs::Configs {
        dir,
        server: &server,
        authority: &authority,
        instance: &instance,
        verifying_key: &verifying_key,
    };

    run::<TenantDirectory>(configs.directory()?, ports.of("directory"), process).await?;
    run::<TokenVault>(configs.vault(&deps)?, ports.of("vault"), process).await?;
    run::<OauthBroker>(configs.broker()?, ports.of("broker"), process).await?;
    run::<SyncScheduler>(configs.scheduler()?, ports.of("scheduler"), process).await?;
    run::<WebhookIngest>(configs.ingest()?, ports.of("ingest"), process).await?;
    run::<SyncWorker>(configs.worker()?, Listeners::default(), process).await?;
    let overview = overview::Overview {
        readiness: process.readiness.clone(),
        remote: Remote::operator(&instance, &deps)?,
        addresses: instance.http.clone(),
    };
    let serving = overview::serve(ports.take("console"), overview, process.shutdown.clone());
    process.tasks.spawn("console", serving);

    instance.write(dir)?;
    Ok(Running {
        instance,
        server,
        simulator,
        held,
    })
}

async fn run<S: Service>(config: S::Config, listeners: Listeners, process: &Process) -> Result<()> {
    let runtime = Runtime::new(process, S::NAME);
    S::start(config, listeners, runtime)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("{} cannot start", S::NAME))
}

async fn simulator(dir: &DataDir, options: &Options, listener: TcpListener) -> Result<Simulator> {
    let config = provider_sim::SimConfig {
        records: options.records,
        state_file: Some(dir.root().join("provider-sim.json")),
        ..provider_sim::SimConfig::default()
    };
    Simulator::start(config, listener)
        .await
        .context("the simulated provider cannot start")
}

/// Named lists of addresses, as `hawser.json` has them.
type Named<T> = BTreeMap<String, T>;
