//! Puts the directory together.

use std::sync::Arc;

use common::identity::tls::Tls;
use common::pg::{self, Database, Schema, outbox};
use common::rpc::{Guard, Server};
use common::service::{Listeners, Runtime, Service, Shared, StartError};
use egress::{Egress, KeyFetcher};

use crate::config::Config;
use crate::directory::Directory;
use crate::{SCHEMA, api, tasks};

/// The tenant directory.
#[derive(Clone, Copy, Debug)]
pub struct TenantDirectory;

impl Service for TenantDirectory {
    const NAME: &'static str = "tenant-directory";
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
        let db = Database::open(&config.database, &SCHEMA, &deps)?;
        readiness.register("database", {
            let db = db.clone();
            move || {
                let db = db.clone();
                async move { Ok(db.ping().await?) }
            }
        });
        let tls = Tls::load(&config.grpc.tls, deps.clock.clone())?;
        let statistics = pg::spawn_upkeep(outbox::Publisher::new(&db), &db, &tasks, &shutdown);
        let directory = Directory::new(db, &deps, statistics, config.api_keys);
        let itself = Arc::new(directory.clone());
        let fetch = Arc::new(KeyFetcher::new(Egress::new(config.egress.clone(), &deps)?));
        let guard =
            Guard::new(&config.identity, Some(fetch), &deps)?.with_lookups(itself.clone(), itself);

        tasks.spawn(
            "names",
            tasks::reap_names::run(
                directory.clone(),
                config.tasks.reap_every.get(),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "deletions",
            tasks::finish_deletions::run(
                directory.clone(),
                config.tasks.deletions_every.get(),
                shutdown.clone(),
            ),
        );
        let server = Server::new(Self::NAME, config.grpc, tls, guard, &deps);
        let server = api::register(server, &directory, &shutdown);
        let listener = listeners
            .grpc
            .ok_or("the directory needs a gRPC listener")?;
        tasks.spawn("grpc", server.serve(listener, shutdown));
        Ok(())
    }
}
