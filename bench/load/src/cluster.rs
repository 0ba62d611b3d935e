//! A Postgres of the run's own, as durable as in production.

use std::path::Path;

use anyhow::{Context as _, Result};
use common::pg::{self, Login, PgConfig, Schema};
use common::{Deps, Secret};
use embedded_postgres::{Cluster, Options, StopMode};
use tokio_postgres::{Client, NoTls};

/// The name is all that is needed to make its roles; its tables are made by the service's own `migrate`.
const SCHEMA: Schema = Schema {
    name: "vault",
    migrations: &[],
};

/// Sizes that suit the machine, and the statements counted. Everything else is as Postgres has it: fsync and synchronous
/// commits on.
const SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("shared_preload_libraries", "pg_stat_statements"),
    ("track_io_timing", "off"),
];

/// The server and a superuser's connection.
pub(crate) struct Postgres {
    cluster: Cluster,
    pub(crate) admin: Client,
}

impl Postgres {
    /// Starts it in `folder`; made where there is none.
    pub(crate) async fn start(folder: &Path, deps: &Deps) -> Result<Self> {
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options {
            durable: true,
            settings: settings.to_vec(),
            ..Options::default()
        };
        let cluster = Cluster::start(folder, &options, deps).await?;
        let mut config: tokio_postgres::Config = cluster.socket_url("postgres").parse()?;
        config.password(std::fs::read_to_string(cluster.password_file())?);
        let (admin, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { cluster, admin })
    }

    /// The service's roles, and what counts statements.
    pub(crate) async fn prepare(&self, password_file: &Path, deps: &Deps) -> Result<()> {
        let password = deps.token("");
        std::fs::write(password_file, password.expose())?;
        let admin = PgConfig {
            password_file: Some(self.cluster.password_file().to_owned()),
            ..PgConfig::new(self.cluster.tcp_url("postgres"))
        };
        let logins = [Login {
            schema: SCHEMA.name,
            password: Secret::new(password.expose().clone()),
        }];
        pg::apply_bootstrap(&admin, &[&SCHEMA], &logins).await?;
        self.admin
            .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .await
            .context("statements cannot be counted")
    }

    /// How the service connects.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://hawser_{}@127.0.0.1:{}/postgres",
            SCHEMA.name,
            self.cluster.port()
        )
    }

    /// How the owner of the tables connects.
    pub(crate) fn owner_url(&self) -> String {
        self.cluster.tcp_url("postgres")
    }

    /// The owner's password.
    pub(crate) fn owner_password_file(&self) -> &Path {
        self.cluster.password_file()
    }

    /// The server's main process.
    pub(crate) fn pid(&self) -> i32 {
        self.cluster.pid()
    }

    /// One number.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64> {
        Ok(self.admin.query_one(sql, &[]).await?.get(0))
    }

    /// Statistics as they are after long use, and no checkpoint about to begin.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.admin.batch_execute("VACUUM ANALYZE").await?;
        self.admin.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Stops it; the data stays.
    pub(crate) async fn stop(self) -> Result<()> {
        self.cluster.stop(StopMode::Fast).await?;
        Ok(())
    }
}
