//! Puts the parts together.

use std::sync::Arc;

use common::identity::tls::Tls;
use common::identity::{self, FetchKeys};
use common::pg::outbox::Publisher;
use common::pg::{self, Database, Schema};
use common::rpc::{Client, Guard, Operations, Server};
use common::service::{Listeners, Runtime, Service, Shared, StartError};
use contracts::broker::v1::connect_service_server::ConnectServiceServer;
use contracts::broker::v1::connection_service_server::ConnectionServiceServer;
use contracts::broker::v1::integration_service_server::IntegrationServiceServer;
use contracts::operations::v1::operations_service_server::OperationsServiceServer;
use egress::{Egress, KeyFetcher};
use oauth_client::Documents;

use crate::api::{connect, connections, http, integrations};
use crate::broker::Broker;
use crate::clients::{Directory, Vault};
use crate::config::Config;
use crate::sealer::Sealer;
use crate::tasks::{follow_grants, reap};

/// The broker's schema.
pub static SCHEMA: Schema = Schema {
    name: "broker",
    migrations: pg::migrations!["0001_create_broker"],
};

/// The OAuth broker.
#[derive(Clone, Copy, Debug)]
pub struct OauthBroker;

impl Service for OauthBroker {
    const NAME: &'static str = "oauth-broker";
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
        let grpc = listeners.grpc.ok_or("the broker needs its gRPC listener")?;
        let public = listeners
            .http
            .ok_or("the broker needs its public HTTP listener")?;
        let tls = Tls::load(&config.grpc.tls, deps.clock.clone())?;
        let client = Client::new(tls.clone(), &deps);
        let vault = Vault::new(client.channel("token-vault", &config.vault)?);
        let directory = client.channel("tenant-directory", &config.directory)?;
        let egress = Egress::new(config.egress.clone(), &deps)?;
        let fetch: Arc<dyn FetchKeys> = Arc::new(KeyFetcher::new(egress.clone()));
        let guard = Guard::new(&config.identity, Some(fetch), &deps)?.with_directory(Arc::new(
            identity::Directory::new(Self::NAME, directory.clone(), deps.clone()),
        ));

        let db = Database::open(&config.database, &SCHEMA, &deps)?;
        let statistics = pg::spawn_upkeep(Publisher::new(&db), &db, &tasks, &shutdown);
        let public_url = config.http.public_url(public.local_addr()?);
        let broker = Arc::new(Broker {
            sealer: Sealer::new(vault.clone(), &deps),
            documents: Documents::new(egress.clone(), &deps),
            directory: Directory::new(directory, &deps),
            vault,
            egress,
            statistics,
            public_url,
            pages: config.pages.clone(),
            deps: deps.clone(),
            db: db.clone(),
        });

        tasks.spawn(
            "grant-events",
            follow_grants(broker.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "reaper",
            reap(
                broker.clone(),
                config.upkeep.interval.get(),
                shutdown.clone(),
            ),
        );
        let server = Server::new(Self::NAME, config.grpc.clone(), tls, guard, &deps)
            .service(IntegrationServiceServer::new(
                integrations::Integrations::new(broker.clone()),
            ))
            .service(ConnectServiceServer::new(connect::Connect::new(
                broker.clone(),
            )))
            .service(ConnectionServiceServer::new(connections::Connections::new(
                broker.clone(),
                shutdown.clone(),
            )))
            .service(OperationsServiceServer::new(Operations::new(db.clone())));
        tasks.spawn("grpc", server.serve(grpc, shutdown.clone()));
        tasks.spawn("http", http::serve(public, broker, shutdown));
        readiness.register("database", move || {
            let db = db.clone();
            async move { Ok(db.ping().await?) }
        });
        Ok(())
    }
}
