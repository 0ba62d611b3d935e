//! A Postgres of one test's own, which can be taken away: stopped, crashed, and brought back on the same port.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use common::Secret;
use common::pg::{self, Login, PgConfig, Schema};
use embedded_postgres::{Cluster, Options, StopMode};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::deps;

const DATABASE: &str = "hawser";

/// The server, with one migrated database; it ends with this value.
#[derive(Debug)]
pub struct TestServer {
    cluster: Option<Cluster>,
    folder: TempDir,
    port: u16,
}

impl TestServer {
    /// A server with these schemas. It takes a moment: a test that takes nothing away has [`TestDatabase`].
    ///
    /// [`TestDatabase`]: crate::TestDatabase
    ///
    /// # Panics
    /// Where there can be none; the message says what to do.
    pub async fn start(schemas: &[&'static Schema]) -> Self {
        Self::try_start(schemas)
            .await
            .unwrap_or_else(|error| panic!("no Postgres to test with: {error:#}"))
    }

    async fn try_start(schemas: &[&'static Schema]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("hawser-postgres-")
            .tempdir()?;
        // Where we are root, the server runs as another user, who has to get through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let cluster = launch(folder.path(), None).await?;
        let server = Self {
            port: cluster.port(),
            cluster: Some(cluster),
            folder,
        };
        let password = deps().token("");
        fs::write(server.service_password_file(), password.expose())?;
        server
            .connect("postgres")
            .await?
            .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
            .await?;
        let config = server.admin_config();
        let logins: Vec<_> = schemas
            .iter()
            .map(|schema| Login {
                schema: schema.name,
                password: Secret::clone(&password),
            })
            .collect();
        pg::apply_bootstrap(&config, schemas, &logins).await?;
        for schema in schemas {
            pg::migrate(&config, schema).await?;
        }
        Ok(server)
    }

    /// How the service with this schema connects, directly or through a proxy on this port.
    pub fn config_through(&self, port: u16, schema: &str) -> PgConfig {
        PgConfig {
            password_file: Some(self.service_password_file()),
            max_size: 8,
            ..PgConfig::new(format!(
                "postgres://hawser_{schema}@127.0.0.1:{port}/{DATABASE}"
            ))
        }
    }

    /// The port on loopback; it stays the same.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A superuser's connection.
    ///
    /// # Panics
    /// Where the server does not take it.
    pub async fn admin(&self) -> Client {
        self.connect(DATABASE)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The folder that holds the data, for a test that does to it what disks do while the server is down.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Gives a file in it to whoever runs the server.
    ///
    /// # Panics
    /// Where it cannot be given.
    pub fn own(&self, path: &Path) {
        let owner = fs::metadata(self.data_folder()).expect("the data is there");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("the file can be given");
    }

    /// Ends the server: in order, or as a crash does.
    ///
    /// # Panics
    /// Where it does not stop.
    pub async fn stop(&mut self, mode: StopMode) {
        if let Some(cluster) = self.cluster.take() {
            let stopped = cluster.stop(mode).await;
            stopped.expect("the test's server stops");
        }
    }

    /// Brings it back.
    ///
    /// # Panics
    /// Where it does not start, or another process has taken its port.
    pub async fn start_again(&mut self) {
        let cluster = launch(self.folder.path(), Some(self.port)).await;
        let cluster = cluster.expect("the test's server starts again");
        assert_eq!(cluster.port(), self.port, "another process has its port");
        self.cluster = Some(cluster);
    }

    fn service_password_file(&self) -> PathBuf {
        self.folder.path().join("service.password")
    }

    fn admin_config(&self) -> PgConfig {
        let password_file = self
            .cluster
            .as_ref()
            .map(|cluster| cluster.password_file().to_owned());
        PgConfig {
            password_file,
            application_name: "testkit".to_owned(),
            ..PgConfig::new(format!(
                "postgres://postgres@127.0.0.1:{}/{DATABASE}",
                self.port
            ))
        }
    }

    async fn connect(&self, database: &str) -> Result<Client> {
        let cluster = self.cluster.as_ref().context("the server is stopped")?;
        let mut config: tokio_postgres::Config = cluster.socket_url(database).parse()?;
        config.password(fs::read_to_string(cluster.password_file())?);
        let (client, connection) = config
            .connect(NoTls)
            .await
            .context("the test's server refuses its superuser")?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for TestServer {
    /// From a thread of its own, as the test's runtime may be about to end; before its folder goes.
    fn drop(&mut self) {
        let Some(cluster) = self.cluster.take() else {
            return;
        };
        let stopping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.is_ok_and(|runtime| runtime.block_on(cluster.stop(StopMode::Immediate)).is_ok())
        });
        if !matches!(stopping.join(), Ok(true)) {
            tracing::info!(
                event = "test_server_left",
                "a test's server could not be stopped; it ends with the test's process"
            );
        }
    }
}

async fn launch(folder: &Path, port: Option<u16>) -> Result<Cluster> {
    let options = Options {
        durable: false,
        port,
        ..Options::default()
    };
    Ok(Cluster::start(folder, &options, &deps()).await?)
}
