//! Puts the parts together.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::identity::tls::Tls;
use common::pg::{self, Database, Schema, outbox};
use common::rpc::{Guard, Operations, Server};
use common::service::{Listeners, Runtime, Service, Shared, StartError};
use contracts::operations::v1::operations_service_server::OperationsServiceServer;
use contracts::vault::v1::service_key_service_server::ServiceKeyServiceServer;
use contracts::vault::v1::token_vault_service_server::TokenVaultServiceServer;
use contracts::vault::v1::vault_admin_service_server::VaultAdminServiceServer;
use egress::{Egress, KeyFetcher};

use crate::access_records::{Recorder, Room};
use crate::api;
use crate::config::Config;
use crate::drop_access_records::Retention;
use crate::get_credential::Handout;
use crate::instance::Instance;
use crate::keys::{self, Keks, Keys};
use crate::providers::Providers;
use crate::refresh_grant::{Limits, Pacing, RefreshMetrics, Refresher};
use crate::spool::Spool;
use crate::store::Store;
use crate::tasks::{self, Sweeper};
use crate::vault::Vault;

/// The service.
#[derive(Clone, Copy, Debug)]
pub struct TokenVault;

/// Its schema.
pub const SCHEMA: Schema = Schema {
    name: "vault",
    migrations: pg::migrations![
        "0001_create_vault",
        "0002_add_data_key_states",
        "0003_partition_access_records",
        "0004_add_refresh_pacing",
        "0005_add_grant_strategies",
        "0006_add_kek_checks",
    ],
};

impl Service for TokenVault {
    const NAME: &'static str = "token-vault";
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
            ..
        } = &runtime;
        let database = Database::open(&config.database, &SCHEMA, deps)?;
        let store = Store::new(database.clone());
        let ring = keys::key_ring(&config.keys, config.environment, deps)?;
        let ring = Keks::new(ring, store.clone(), deps);
        ring.settle(config.keys.start_timeout.get()).await?;
        let keys = Keys::new(Box::new(ring), store.clone(), deps.clone());
        let spool = Spool::open(&config.spool_dir, deps)?;
        let vault = Vault {
            store: store.clone(),
            keys: keys.clone(),
            providers: Providers::new(
                Egress::new(config.egress.clone(), deps)?,
                keys.clone(),
                deps,
            ),
            instance: Instance::new(spool.instance(), store.clone()),
            spool,
            deps: deps.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            statistics: pg::spawn_upkeep(
                outbox::Publisher::new(&database),
                &database,
                tasks,
                shutdown,
            ),
            pacing: Pacing::new(Limits::from(&config.refresh), deps),
            refresh_metrics: RefreshMetrics::new(deps),
            provider_timeout: config.refresh.provider_timeout.get(),
        };
        // Before anything is served: what the last run brought, and what it left open.
        vault.recover().await?;

        let room = Room::new();
        let retention = Retention::new(
            store.clone(),
            keys.clone(),
            config.access_records.retention.get(),
            room.clone(),
            deps,
        );
        retention.make_room().await?;
        let (recorder, flusher) = Recorder::new(
            store.clone(),
            keys.records_key().await?,
            keys.kek_id(),
            room,
            deps,
        );
        let refresher = Refresher::new(vault.clone());
        let (handout, lanes) = Handout::new(vault.clone(), refresher.clone(), recorder.clone());
        spawn(&vault, &refresher, retention, &config);
        // They end when nobody is left who could ask.
        tasks.spawn_until_drained("access_records", flusher.run(shutdown.clone()));
        for lane in lanes {
            tasks.spawn_until_drained("handout", until_drained(shutdown.clone(), lane.run()));
        }
        register(&runtime, &store);
        serve(
            config, listeners, &runtime, &database, vault, refresher, handout, recorder,
        )
    }
}

fn spawn(vault: &Vault, refresher: &Refresher, retention: Retention, config: &Config) {
    let tasks = &vault.tasks;
    let sweeper = Sweeper::new(
        vault.clone(),
        refresher.clone(),
        config.tasks.sweep_every.get(),
        config.refresh.concurrency,
    );
    tasks.spawn("takeover", sweeper.clone().run_takeover());
    tasks.spawn("sweeper", sweeper.run());
    tasks.spawn(
        "reaper",
        tasks::reap(vault.clone(), config.tasks.reap_every.get()),
    );
    tasks.spawn(
        "revoker",
        tasks::revoke(vault.clone(), config.tasks.revoke_every.get()),
    );
    tasks.spawn("key_jobs", tasks::work_on_keys(vault.clone()));
    // Within the first hour, each vault at a moment of its own.
    let first = Duration::from_hours(1).mul_f64(vault.random());
    tasks.spawn(
        "access_retention",
        tasks::drop_old_records(retention, vault.shutdown.clone(), first),
    );
    let beating = vault.instance.clone().beat(vault.shutdown.clone());
    tasks.spawn_until_drained("heartbeat", async {
        beating.await;
        Ok::<_, Infallible>(())
    });
}

/// Ends with the process, after what leans on it has.
async fn until_drained(
    shutdown: common::lifecycle::Shutdown,
    work: impl Future<Output = ()>,
) -> Result<(), Infallible> {
    tokio::select! {
        () = work => {}
        () = shutdown.drained() => {}
    }
    Ok(())
}

fn register(runtime: &Runtime, store: &Store) {
    let store = store.clone();
    runtime.readiness.register("database", move || {
        let store = store.clone();
        async move { store.ping().await.map_err(Into::into) }
    });
}

#[expect(clippy::too_many_arguments, reason = "every part is named once, here")]
fn serve(
    config: Config,
    listeners: Listeners,
    runtime: &Runtime,
    database: &Database,
    vault: Vault,
    refresher: Refresher,
    handout: Handout,
    recorder: Recorder,
) -> Result<(), StartError> {
    let Runtime {
        deps,
        tasks,
        shutdown,
        ..
    } = runtime;
    let tls = Tls::load(&config.grpc.tls, Arc::clone(&deps.clock))?;
    let fetch = Arc::new(KeyFetcher::new(Egress::new(config.egress.clone(), deps)?));
    let guard = Guard::new(&config.identity, Some(fetch), deps)?;
    let listener = listeners
        .grpc
        .ok_or("the vault was started without a gRPC listener")?;
    let server = Server::new(TokenVault::NAME, config.grpc, tls, guard, deps)
        .service(TokenVaultServiceServer::new(api::VaultApi::new(
            vault.clone(),
            refresher,
            handout,
        )))
        .service(ServiceKeyServiceServer::new(api::ServiceKeyApi::new(
            vault.clone(),
            recorder,
        )))
        .service(VaultAdminServiceServer::new(api::AdminApi::new(vault)))
        .service(OperationsServiceServer::new(Operations::new(
            database.clone(),
        )));
    tasks.spawn("grpc", server.serve(listener, shutdown.clone()));
    Ok(())
}
