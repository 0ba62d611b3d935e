//! Puts the scheduler together.

use std::sync::Arc;

use common::Deps;
use common::identity::Directory;
use common::identity::tls::Tls;
use common::lifecycle::Shutdown;
use common::pg::{self, Database, Schema, outbox};
use common::rpc::{Client, Guard, Server};
use common::service::{Listeners, Runtime, Service, Shared, StartError};
use egress::{Egress, KeyFetcher};

use crate::clients::Clients;
use crate::config::Config;
use crate::field_mappings::FieldMappings;
use crate::turns::Turns;
use crate::wake::Wake;
use crate::{SCHEMA, api, tasks};

/// The sync scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SyncScheduler;

/// What every use case works with.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    /// The schema `scheduler`.
    pub(crate) database: Database,
    /// The services it asks.
    pub(crate) clients: Clients,
    /// Time and randomness.
    pub(crate) deps: Deps,
    /// Wakes workers that wait.
    pub(crate) wake: Wake,
    /// Which bucket is served next.
    pub(crate) turns: Turns,
    /// Ends long waits.
    pub(crate) shutdown: Shutdown,
    /// What goes with each lease.
    pub(crate) field_mappings: Arc<FieldMappings>,
}

impl Service for SyncScheduler {
    const NAME: &'static str = "sync-scheduler";
    type Config = Config;

    fn schema() -> Option<&'static Schema> {
        Some(&SCHEMA)
    }

    fn shared(config: &Config) -> Shared<'_> {
        Shared {
            telemetry: &config.telemetry,
            admin: &config.admin,
            lifecycle: &config.lifecycle,
            database: Some(&config.database),
            grpc: Some(config.grpc.listen),
            http: None,
        }
    }

    async fn start(
        config: Config,
        listeners: Listeners,
        runtime: Runtime,
    ) -> Result<(), StartError> {
        let Runtime {
            deps,
            tasks,
            shutdown,
            readiness,
        } = runtime;
        let database = Database::open(&config.database, &SCHEMA, &deps)?;
        readiness.register("database", {
            let database = database.clone();
            move || {
                let database = database.clone();
                async move { Ok(database.ping().await?) }
            }
        });
        let tls = Tls::load(&config.grpc.tls, deps.clock.clone())?;
        let client = Client::new(tls.clone(), &deps);
        let broker = client.channel("oauth-broker", &config.broker)?;
        let directory = client.channel("tenant-directory", &config.directory)?;
        let lookup = Arc::new(Directory::new(Self::NAME, directory.clone(), deps.clone()));
        let fetch = Arc::new(KeyFetcher::new(Egress::new(config.egress.clone(), &deps)?));
        let guard = Guard::new(&config.identity, Some(fetch), &deps)?.with_directory(lookup);
        let scheduler = Scheduler {
            clients: Clients::new(broker.clone(), directory),
            wake: Wake::default(),
            turns: Turns::default(),
            shutdown: shutdown.clone(),
            field_mappings: Arc::new(FieldMappings::new(&deps)),
            deps: deps.clone(),
            database: database.clone(),
        };
        pg::spawn_upkeep(
            outbox::Publisher::new(&database),
            &database,
            &tasks,
            &shutdown,
        );
        tasks.spawn("schedules", tasks::schedules::run(scheduler.clone()));
        tasks.spawn(
            "connection-events",
            tasks::connections::run(scheduler.clone(), broker),
        );
        let server = api::register(
            Server::new(Self::NAME, config.grpc, tls, guard, &deps),
            &scheduler,
        );
        let listener = listeners
            .grpc
            .ok_or("the scheduler needs a gRPC listener")?;
        tasks.spawn("grpc", server.serve(listener, shutdown));
        Ok(())
    }
}
