//! A database for each test: a clone of a template that is migrated once for each set of migrations.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest;
use common::pg::{self, Database, Login, PgConfig, Schema};
use common::{Deps, Secret};
use tokio_postgres::Client;

use crate::cluster::{TestCluster, cluster};
use crate::deps;

/// Who prepares templates holds this lock, on the database `postgres`. Roles belong to the whole server, so it is one for all.
const TEMPLATES_LOCK: &str = "SELECT pg_advisory_lock(hashtext('testkit.templates'))";

/// Databases of tests that were killed, and templates that no test has been cloned from for long. The file is
/// written once, when the database is made.
const LEFT_OVER_LIST: &str = "
SELECT d.datname
FROM pg_database d
WHERE (d.datname LIKE 'test\\_%' AND modified('base/' || d.oid || '/PG_VERSION') < now() - '1 h'::interval
       AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid))
   OR (d.datname LIKE 'template\\_%' AND modified('base/' || d.oid || '/PG_VERSION') < now() - '7 d'::interval)
   OR d.datname LIKE 'making\\_%'";

/// A database of its own, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    cluster: &'static TestCluster,
    deps: Deps,
}

impl TestDatabase {
    /// A database with these schemas, migrated.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub async fn create(schemas: &[&'static Schema]) -> Self {
        Self::try_create(schemas)
            .await
            .unwrap_or_else(|error| panic!("no database to test with: {error:#}"))
    }

    /// An empty database: no roles, no schemas.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub async fn create_empty() -> Self {
        let create = async {
            let cluster = cluster().await;
            let name = fresh_name();
            clone(&cluster.admin("postgres").await?, &name, "template0").await?;
            Ok::<_, anyhow::Error>(Self {
                name,
                cluster,
                deps: deps(),
            })
        };
        create
            .await
            .unwrap_or_else(|error| panic!("no database to test with: {error:#}"))
    }

    async fn try_create(schemas: &[&'static Schema]) -> Result<Self> {
        let cluster = cluster().await;
        let admin = cluster.admin("postgres").await?;
        let template = template(cluster, &admin, schemas).await?;
        let name = fresh_name();
        clone(&admin, &name, &template).await?;
        // What may be done with a database is not cloned with it.
        let logins: Vec<_> = schemas
            .iter()
            .map(|schema| format!("hawser_{}", schema.name))
            .collect();
        let grants = format!(
            "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {}",
            logins.join(", ")
        );
        if !logins.is_empty() {
            admin.batch_execute(&grants).await?;
        }
        Ok(Self {
            name,
            cluster,
            deps: deps(),
        })
    }

    /// How the service with this schema connects.
    pub fn config(&self, schema: &str) -> PgConfig {
        PgConfig {
            url: format!(
                "postgres://hawser_{schema}@127.0.0.1:{}/{}",
                self.cluster.port(),
                self.name
            ),
            password_file: Some(self.cluster.service_password_file.clone()),
            max_size: 8,
            event_poll_interval: Duration::from_millis(100),
            ..PgConfig::default()
        }
    }

    /// As [`TestDatabase::config`], through a proxy on this port.
    pub fn config_through(&self, port: u16, schema: &str) -> PgConfig {
        PgConfig {
            url: format!("postgres://hawser_{schema}@127.0.0.1:{port}/{}", self.name),
            ..self.config(schema)
        }
    }

    /// The pool of the service with this schema.
    ///
    /// # Panics
    /// Never, as the configuration is ours.
    pub fn database(&self, schema: &Schema) -> Database {
        self.database_with(schema, &self.deps)
    }

    /// As [`TestDatabase::database`], with other time or randomness.
    ///
    /// # Panics
    /// Never, as the configuration is ours.
    pub fn database_with(&self, schema: &Schema, deps: &Deps) -> Database {
        Database::open(&self.config(schema.name), schema, deps)
            .expect("the test server's configuration is sound")
    }

    /// How a database administrator connects.
    pub fn admin_config(&self) -> PgConfig {
        self.cluster.admin_config(&self.name)
    }

    /// A superuser's connection, to look behind what services may see.
    ///
    /// # Panics
    /// Where the server does not take it.
    pub async fn admin(&self) -> Client {
        self.cluster
            .admin(&self.name)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The server's port, for a proxy in between.
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    /// From a thread of its own, as the test's runtime may be about to end.
    fn drop(&mut self) {
        let (name, cluster) = (self.name.clone(), self.cluster);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let admin = cluster.admin("postgres").await?;
                admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await?;
                anyhow::Ok(())
            })
        });
        if !matches!(dropping.join(), Ok(Ok(()))) {
            tracing::info!(
                event = "test_database_left",
                "a test's database could not be dropped; a later run does it"
            );
        }
    }
}

/// The template's name; makes it where it is not there.
async fn template(
    cluster: &TestCluster,
    admin: &Client,
    schemas: &[&'static Schema],
) -> Result<String> {
    let name = format!("template_{}", fingerprint(schemas));
    if exists(admin, &name).await? {
        return Ok(name);
    }
    admin.execute(TEMPLATES_LOCK, &[]).await?;
    if !exists(admin, &name).await? {
        remove_left_overs(admin).await?;
        let making = format!("making_{}", fingerprint(schemas));
        clone(admin, &making, "template0").await?;
        let config = cluster.admin_config(&making);
        let password = Secret::new(std::fs::read_to_string(&cluster.service_password_file)?);
        let logins: Vec<_> = schemas
            .iter()
            .map(|schema| Login {
                schema: schema.name,
                password: password.clone(),
            })
            .collect();
        pg::apply_bootstrap(&config, schemas, &logins).await?;
        for schema in schemas {
            pg::migrate(&config, schema).await?;
        }
        // The name says that it is whole.
        admin
            .batch_execute(&format!("ALTER DATABASE {making} ALLOW_CONNECTIONS false"))
            .await?;
        admin
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                &[&making],
            )
            .await?;
        crate::eventually(std::time::Duration::from_secs(10), async || {
            admin
                .batch_execute(&format!("ALTER DATABASE {making} RENAME TO {name}"))
                .await
                .is_ok()
        })
        .await;
    }
    admin
        .execute("SELECT pg_advisory_unlock_all()", &[])
        .await?;
    Ok(name)
}

async fn clone(admin: &Client, name: &str, template: &str) -> Result<()> {
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY");
    admin
        .batch_execute(&sql)
        .await
        .with_context(|| format!("cloning {template}"))
}

async fn exists(admin: &Client, name: &str) -> Result<bool> {
    Ok(admin
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])
        .await?
        .is_some())
}

async fn remove_left_overs(admin: &Client) -> Result<()> {
    let list = LEFT_OVER_LIST
        .replace("modified(", "(SELECT modification FROM pg_stat_file(")
        .replace("/PG_VERSION')", "/PG_VERSION', true))");
    for row in admin.query(&list, &[]).await? {
        let name: String = row.get(0);
        let _ = admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await;
    }
    Ok(())
}

fn fresh_name() -> String {
    format!("test_{}", hex::encode(deps().random::<10>()))
}

/// Of everything that makes a template what it is.
fn fingerprint(schemas: &[&'static Schema]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(pg::bootstrap_sql(schemas).as_bytes());
    for schema in schemas {
        for migration in schema.all_migrations() {
            hash.update(migration.name.as_bytes());
            hash.update(&migration.min_compatible.to_be_bytes());
            hash.update(migration.sql.as_bytes());
        }
    }
    hex::encode(&hash.finish().as_ref()[..10])
}
