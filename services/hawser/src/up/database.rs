//! The database of an instance: a cluster that we bring up, or another that we are told of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::lifecycle::Shutdown;
use common::pg::{self, Login, PgConfig, Schema};
use common::problem::Chain;
use common::{Deps, Secret};
use embedded_postgres::{Cluster, StopMode};

use crate::data_dir::{DataDir, DataDirError, write_private};
use crate::instance::Instance;

/// Every service's schema.
pub const SCHEMAS: [&Schema; 5] = [
    &tenant_directory::SCHEMA,
    &token_vault::SCHEMA,
    &oauth_broker::SCHEMA,
    &sync_scheduler::SCHEMA,
    &webhook_ingest::SCHEMA,
];

const DATABASE: &str = "postgres";
/// How often it is looked for events that nobody in this process has told of.
const EVENT_POLL: Duration = Duration::from_secs(10);
/// Between attempts to start a cluster that has ended by itself.
const PAUSE: Duration = Duration::from_secs(1);

/// A Postgres, and how Hawser logs into it.
#[derive(Debug)]
pub struct Server {
    cluster: Option<Cluster>,
    owner: PgConfig,
    url: String,
    password_file: PathBuf,
    keys: PathBuf,
}

impl Server {
    /// Starts our own cluster, or finds the other; brings roles and schemas up to date.
    pub(super) async fn start(
        dir: &DataDir,
        url: Option<&str>,
        password_file: Option<&Path>,
        deps: &Deps,
    ) -> Result<Self> {
        let server = match url {
            Some(url) => Self::foreign(dir, url, password_file)?,
            None => Self::embedded(dir, deps).await?,
        };
        server.prepare(dir, deps).await?;
        Ok(server)
    }

    /// Starts the cluster of a folder that is not in use.
    ///
    /// # Errors
    /// Where there is none, or another database was used.
    pub async fn start_development(dir: &DataDir, deps: &Deps) -> Result<Self> {
        let foreign = Instance::read(dir)
            .is_ok_and(|instance| !instance.database_password_file.starts_with(dir.postgres()));
        if foreign || !dir.postgres().exists() {
            bail!(
                "only the database that `hawser up` brings up by itself can be reset or seeded, and {} has none",
                dir.root().display()
            );
        }
        Self::start(dir, None, None, deps).await
    }

    /// The cluster of a folder, running or not.
    ///
    /// # Errors
    /// Where there is none, or another database was used.
    pub async fn open_development(dir: &DataDir, deps: &Deps) -> Result<Self> {
        match dir.clone().hold() {
            Ok(held) => Self::start_development(&held.dir, deps).await,
            Err(DataDirError::InUse { .. }) => {
                let instance = Instance::read(dir)?;
                if !instance.database_password_file.starts_with(dir.postgres()) {
                    bail!("only the database that `hawser up` brings up by itself can be seeded");
                }
                Ok(Self::of_instance(dir, &instance))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The database of an instance, reached over its port.
    pub fn of_instance(dir: &DataDir, instance: &Instance) -> Self {
        let mut owner = PgConfig::new(instance.database_url.clone());
        owner.password_file = Some(instance.database_password_file.clone());
        Self {
            cluster: None,
            owner,
            url: instance.database_url.clone(),
            password_file: instance.database_password_file.clone(),
            keys: dir.keys(),
        }
    }

    async fn embedded(dir: &DataDir, deps: &Deps) -> Result<Self> {
        // Clients find the database again where it was.
        let before = Instance::read(dir)
            .ok()
            .and_then(|instance| instance.database_url.parse::<url::Url>().ok()?.port());
        let cluster = Cluster::start(&dir.postgres(), &on_port(before), deps).await?;
        let password_file = cluster.password_file().to_owned();
        let mut owner = PgConfig::new(cluster.socket_url(DATABASE));
        owner.password_file = Some(password_file.clone());
        let url = cluster.tcp_url(DATABASE);
        Ok(Self {
            cluster: Some(cluster),
            owner,
            url,
            password_file,
            keys: dir.keys(),
        })
    }

    /// The URL may carry a password; it is moved into a file, and shown nowhere.
    fn foreign(dir: &DataDir, url: &str, password_file: Option<&Path>) -> Result<Self> {
        let mut shown: url::Url = url
            .parse()
            .context("--database-url is no URL; write it as postgres://user@host:5432/database")?;
        let password = shown.password().map(str::to_owned);
        let file = match (password_file, password) {
            (Some(file), None) => file.to_owned(),
            (None, Some(password)) => {
                let file = dir.keys().join("database.password");
                write_private(&file, password.as_bytes())?;
                file
            }
            (Some(_), Some(_)) => bail!(
                "give the password in --database-url or in --database-password-file, not in both"
            ),
            (None, None) => bail!(
                "give the password of --database-url in a file, with --database-password-file"
            ),
        };
        shown
            .set_password(None)
            .ok()
            .context("--database-url names no host")?;
        let mut owner = PgConfig::new(shown.to_string());
        owner.password_file = Some(file.clone());
        Ok(Self {
            cluster: None,
            owner,
            url: shown.to_string(),
            password_file: file,
            keys: dir.keys(),
        })
    }

    async fn prepare(&self, dir: &DataDir, deps: &Deps) -> Result<()> {
        let mut logins = Vec::new();
        for schema in SCHEMAS {
            let file = dir.secret_file(&password_name(schema.name), deps)?;
            let password = std::fs::read_to_string(&file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            logins.push(Login {
                schema: schema.name,
                password: Secret::from(password.trim()),
            });
        }
        pg::apply_bootstrap(&self.owner, &SCHEMAS, &logins)
            .await
            .context("the database cannot be made ready")?;
        for schema in SCHEMAS {
            let migrated = pg::migrate(&self.owner, schema).await;
            migrated.with_context(|| {
                format!("the schema `{}` cannot be brought up to date", schema.name)
            })?;
        }
        Ok(())
    }

    /// Deletes everything, and makes the schemas anew.
    ///
    /// # Errors
    /// Database trouble.
    pub async fn empty(&self, dir: &DataDir, deps: &Deps) -> Result<()> {
        pg::drop_schemas(&self.owner, &SCHEMAS)
            .await
            .context("the schemas cannot be dropped")?;
        self.prepare(dir, deps).await
    }

    /// How the service with this schema logs in.
    ///
    /// # Errors
    /// Where the database's address cannot be read.
    pub fn login(&self, schema: &str) -> Result<PgConfig> {
        let file = self.keys.join(password_name(schema));
        let mut config = self
            .owner
            .with_login(&format!("hawser_{schema}"), Some(&file), None)?;
        config.application_name = format!("hawser-{schema}");
        // Everything that writes events is in this process and wakes who waits for them.
        config.event_poll_interval = EVENT_POLL;
        Ok(config)
    }

    /// The address, without the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the password is.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// Keeps our own cluster running, however it ends, until everything else has drained.
    ///
    /// # Errors
    /// Where a new address cannot be written down.
    pub(super) async fn keep(
        mut self,
        dir: DataDir,
        mut instance: Instance,
        shutdown: Shutdown,
        deps: Deps,
    ) -> Result<Self> {
        while let Some(cluster) = &self.cluster {
            let exit = tokio::select! {
                exit = cluster.exited() => exit,
                () = shutdown.drained() => return Ok(self),
            };
            tracing::warn!(event = "postgres_ended", exit = ?exit, "Postgres has ended by itself, and is started again");
            // The services' logins name the port.
            let port = Some(cluster.port());
            self.cluster = None;
            while self.cluster.is_none() {
                match Cluster::start(&dir.postgres(), &on_port(port), &deps).await {
                    Ok(cluster) => {
                        instance.database_url = cluster.tcp_url(DATABASE);
                        instance.write(&dir)?;
                        self.cluster = Some(cluster);
                    }
                    Err(error) => {
                        tracing::error!(event = "postgres_not_started", error = %Chain(&error), "Postgres cannot be started");
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = shutdown.drained() => return Ok(self),
                        }
                    }
                }
            }
        }
        shutdown.drained().await;
        Ok(self)
    }

    /// Stops our own cluster.
    ///
    /// # Errors
    /// Where it does not stop.
    pub async fn stop(self) -> Result<()> {
        match self.cluster {
            Some(cluster) => Ok(cluster.stop(StopMode::Fast).await?),
            None => Ok(()),
        }
    }
}

fn on_port(port: Option<u16>) -> embedded_postgres::Options {
    embedded_postgres::Options {
        port,
        ..embedded_postgres::Options::default()
    }
}

fn password_name(schema: &str) -> String {
    format!("{schema}.password")
}
