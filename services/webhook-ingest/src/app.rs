//! Puts the ingest together.

use std::sync::Arc;
use std::time::Duration;

use common::Deps;
use common::identity::Directory;
use common::identity::tls::Tls;
use common::pg::statistics::Statistics;
use common::pg::{Database, PgConfig, Schema, outbox, spawn_upkeep};
use common::rpc::{Client, Guard, Server};
use common::service::{Listeners, Runtime, Service, Shared, StartError};

use egress::{Egress, KeyFetcher};
use time::OffsetDateTime;

use crate::api::{self, hooks::Hooks};
use crate::clients::Clients;
use crate::config::{Config, ProcessingConfig};
use crate::group_commit::group_commit;
use crate::keys::ServiceKeys;
use crate::quotas::Quotas;
use crate::receive_webhook::Intake;
use crate::reseal_sources::SealedSources;
use crate::source_cache::SourceCache;
use crate::wake::Wake;
use crate::{SCHEMA, tasks};

/// A webhook waits for the database no longer than its sender waits for an answer.
const INTAKE_STATEMENT: Duration = Duration::from_secs(2);
const INTAKE_CONNECTION: Duration = Duration::from_secs(1);

/// The webhook ingest.
#[derive(Clone, Copy, Debug)]
pub struct WebhookIngest;

/// What every use case works with.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    /// The schema `ingest`.
    pub(crate) database: Database,
    /// The services it asks.
    pub(crate) clients: Clients,
    /// What it seals under.
    pub(crate) keys: Arc<ServiceKeys>,
    /// How much users may bring in.
    pub(crate) quotas: Arc<Quotas>,
    /// Time and randomness.
    pub(crate) deps: Deps,
    /// Wakes the processing.
    pub(crate) wake: Wake,
    /// Counts by the minute.
    pub(crate) statistics: Statistics,
    /// How events are processed.
    pub(crate) processing: ProcessingConfig,
    /// What sources' addresses begin with.
    pub(crate) public_url: String,
}

impl Ingest {
    /// The time, as exactly as the database keeps it, so that what is answered now and read later is the same.
    pub(crate) fn now(&self) -> OffsetDateTime {
        let now = self.deps.now();
        now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000)
            .expect("it is less than before")
    }

    /// The address of the source with this token.
    pub(crate) fn address(&self, token: &str) -> String {
        format!("{}/hooks/{token}", self.public_url)
    }
}

impl Service for WebhookIngest {
    const NAME: &'static str = "webhook-ingest";
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
            http: Some(config.http.listen),
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
        let grpc = listeners.grpc.ok_or("the ingest needs a gRPC listener")?;
        let http = listeners.http.ok_or("the ingest needs an HTTP listener")?;
        let database = Database::open(&config.database, &SCHEMA, &deps)?;
        let intake_database = Database::open(&impatient(&config.database), &SCHEMA, &deps)?;
        readiness.register("database", {
            let database = intake_database.clone();
            move || {
                let database = database.clone();
                async move { Ok(database.ping().await?) }
            }
        });
        let tls = Tls::load(&config.grpc.tls, deps.clock.clone())?;
        let client = Client::new(tls.clone(), &deps);
        let directory = client.channel("tenant-directory", &config.directory)?;
        let clients = Clients {
            broker: client.channel("oauth-broker", &config.broker)?,
            scheduler: client.channel("sync-scheduler", &config.scheduler)?,
            directory: directory.clone(),
        };
        let keys = Arc::new(ServiceKeys::new(
            client.channel("token-vault", &config.vault)?,
            &deps,
        ));
        let publisher = outbox::Publisher::new(&database);
        let ingest = Ingest {
            statistics: spawn_upkeep(publisher, &database, &tasks, &shutdown),
            quotas: Arc::new(Quotas::new(&clients, &deps)),
            clients,
            keys: keys.clone(),
            wake: Wake::default(),
            processing: config.processing,
            public_url: config.http.public_url(http.local_addr()?),
            deps: deps.clone(),
            database: database.clone(),
        };
        let (group, writer) = group_commit(&intake_database, &ingest.wake);
        let intake = Intake {
            sources: Arc::new(SourceCache::new(intake_database, keys.clone(), &deps)),
            keys,
            writer: group,
            deps: deps.clone(),
        };
        tasks.spawn_until_drained("group-commit", writer.run(shutdown.clone()));
        tasks.spawn(
            "processing",
            tasks::processing::run(ingest.clone(), shutdown.clone()),
        );
        let sealed = SealedSources {
            database: database.clone(),
            keys: ingest.keys.clone(),
        };
        let every = config.keys.reseal_every.get();
        tasks.spawn(
            "reseal",
            common::reseal::run(sealed, every, deps.clone(), shutdown.clone()),
        );
        let retention_days = config.intake.retention_days;
        tasks.spawn(
            "calendar",
            tasks::calendar::run(database, deps.clone(), retention_days, shutdown.clone()),
        );
        let hooks = Hooks::new(intake, &config.intake, ingest.public_url.clone());
        tasks.spawn("http", hooks.serve(http, shutdown.clone()));
        let lookup = Arc::new(Directory::new(Self::NAME, directory, deps.clone()));
        let fetch = Arc::new(KeyFetcher::new(Egress::new(config.egress.clone(), &deps)?));
        let guard = Guard::new(&config.identity, Some(fetch), &deps)?.with_directory(lookup);
        let server = Server::new(Self::NAME, config.grpc, tls, guard, &deps);
        tasks.spawn("grpc", api::register(server, &ingest).serve(grpc, shutdown));
        Ok(())
    }
}

/// The pool that webhooks are taken in through.
fn impatient(config: &PgConfig) -> PgConfig {
    PgConfig {
        statement_timeout: config.statement_timeout.min(INTAKE_STATEMENT),
        acquire_timeout: config.acquire_timeout.min(INTAKE_CONNECTION),
        connect_timeout: config.connect_timeout.min(INTAKE_CONNECTION),
        max_size: config.max_size.clamp(1, 8),
        ..config.clone()
    }
}
