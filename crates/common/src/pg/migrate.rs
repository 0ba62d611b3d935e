//! Migrations: forward only, each in a transaction of its own, never edited once landed.
//!
//! Two components share a service's schema: `common`, whose tables every service has, and the service's own. What has
//! been applied stands in `<schema>.schema_migrations`, with the checksum of its text and the oldest code that can live with it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use super::connect::connect;
use super::{Error, PgConfig};

/// How long to wait for another migrator.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// One migration; made by [`pg::migrations!`](crate::pg::migrations).
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i32,
    /// `0001_create_tenants`.
    pub name: &'static str,
    /// The text; `{schema}` stands for the schema's name.
    pub sql: &'static str,
    /// The oldest version whose code can live with the schema as it is afterwards.
    pub min_compatible: i32,
}

/// A service's schema.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name, and its part of the roles' names: `vault`.
    pub name: &'static str,
    /// The service's own migrations; those of `common` come before them.
    pub migrations: &'static [Migration],
}

impl Schema {
    /// The migrations of `common`, and then the service's own.
    pub fn all_migrations(&self) -> impl Iterator<Item = &'static Migration> {
        COMMON.iter().chain(self.migrations)
    }
}

/// Why a schema cannot be migrated, or be lived with.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Database trouble.
    #[error("the schema {schema} cannot be migrated or checked")]
    Database {
        /// Which.
        schema: &'static str,
        /// Why.
        #[source]
        source: Error,
    },
    /// The text of a migration failed.
    #[error("migration {name} of {component} in the schema {schema} failed")]
    Migration {
        /// Which schema.
        schema: &'static str,
        /// `common`, or the schema's name.
        component: &'static str,
        /// Which one.
        name: &'static str,
        /// Why.
        #[source]
        source: Error,
    },
    /// A migration that has been applied reads differently now.
    #[error(
        "migration {version} of {component} in the schema {schema} was applied as {applied}, and is another text here: a migration is never edited once it has landed"
    )]
    Changed {
        /// Which schema.
        schema: &'static str,
        /// `common`, or the schema's name.
        component: &'static str,
        /// Which one.
        version: i32,
        /// Under which name it was applied.
        applied: String,
    },
    /// The schema was migrated by a newer program.
    #[error(
        "the schema {schema} is at version {found} of {component}, and this program knows {known}: use the newer program"
    )]
    Newer {
        /// Which schema.
        schema: &'static str,
        /// `common`, or the schema's name.
        component: &'static str,
        /// What it is at.
        found: i32,
        /// What we know.
        known: i32,
    },
    /// The schema has to be migrated first.
    #[error(
        "the schema {schema} is at version {found} of {component}, and this program needs {known}: run `hawser migrate` first"
    )]
    Older {
        /// Which schema.
        schema: &'static str,
        /// `common`, or the schema's name.
        component: &'static str,
        /// What it is at.
        found: i32,
        /// What we need.
        known: i32,
    },
    /// Another migrator does not come to an end.
    #[error(
        "another process has been migrating the schema {schema} for {PATIENCE:?}: wait for it, or look what it is waiting for"
    )]
    Busy {
        /// Which schema.
        schema: &'static str,
    },
    /// The login may not act as the owner.
    #[error(
        "the login may not act as hawser_{schema}_owner: run `hawser db bootstrap` with a login that may create roles, or have it granted"
    )]
    NotOwner {
        /// Which schema.
        schema: &'static str,
        /// What the server said.
        #[source]
        source: Error,
    },
    /// The schema or its roles have not been made.
    #[error("the schema {schema} or its roles are not there: run `hawser db bootstrap` first")]
    NotBootstrapped {
        /// Which schema.
        schema: &'static str,
    },
}

/// What has been applied.
struct Applied {
    name: String,
    checksum: String,
    min_compatible: i32,
}

type History = BTreeMap<i32, Applied>;

/// The migrations of `common` itself.
pub(super) const COMMON: &[Migration] = crate::pg::migrations!["0001_create_common_tables"];

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtext('hawser.migrate.' || $1))";

const HISTORY_TABLE_CREATE: &str = "
CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
    component text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    min_compatible integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, version)
);
GRANT SELECT ON {schema}.schema_migrations TO hawser_{schema}_system;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {schema}.schema_migrations FROM hawser_{schema}_system";

const HISTORY_TABLE_FIND: &str = "SELECT to_regclass('{schema}.schema_migrations') IS NOT NULL";

const HISTORY_LIST: &str = "
SELECT version, name, checksum, min_compatible
FROM {schema}.schema_migrations
WHERE component = $1";

const HISTORY_ADD: &str = "
INSERT INTO {schema}.schema_migrations (component, version, name, checksum, min_compatible)
VALUES ($1, $2, $3, $4, $5)";

/// A table without forced row-level security is out of a tenant's reach, whatever a migration grants.
const UNPROTECTED_REVOKE: &str = "
DO $$
DECLARE unprotected regclass;
BEGIN
    FOR unprotected IN
        SELECT c.oid::regclass
        FROM pg_class c
        WHERE c.relnamespace = '{schema}'::regnamespace
          AND c.relkind IN ('r', 'p')
          AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
          AND has_table_privilege('hawser_{schema}_tenant', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM hawser_{schema}_tenant', unprotected);
    END LOOP;
END $$";

/// Brings the schema up to date, as its owner; the login of `config` must be allowed to act as that.
///
/// Several may do so at once: one at a time works, the others wait and find it done.
///
/// # Errors
/// [`MigrateError`]; what has been applied until then stays.
pub async fn migrate(config: &PgConfig, schema: &Schema) -> Result<(), MigrateError> {
    let database = |source| MigrateError::Database {
        schema: schema.name,
        source,
    };
    let client = connect(config).await.map_err(database)?;
    // That a table exists already is what is hoped for.
    client
        .batch_execute("SET client_min_messages = warning")
        .await
        .map_err(|error| database(Error::of_statement("migrate", error)))?;
    for (component, migrations) in components(schema) {
        while step(&client, schema.name, component, migrations).await? {}
    }
    Ok(())
}

/// Whether this program can live with the schema as it is: not older than it, and newer only where that says so.
///
/// # Errors
/// [`MigrateError::Older`] says to migrate, [`MigrateError::Newer`] to use a newer program.
pub async fn check_schema(config: &PgConfig, schema: &Schema) -> Result<(), MigrateError> {
    let database = |source| MigrateError::Database {
        schema: schema.name,
        source,
    };
    let client = connect(config).await.map_err(database)?;
    for (component, migrations) in components(schema) {
        let known = newest(migrations);
        act_as(&client, schema.name, "system").await?;
        let history = history(&client, schema.name, component).await?;
        run(&client, schema.name, "ROLLBACK").await?;
        let found = history.keys().last().copied().unwrap_or_default();
        let demanded = history
            .values()
            .map(|applied| applied.min_compatible)
            .max()
            .unwrap_or_default();
        if found < known {
            return Err(MigrateError::Older {
                schema: schema.name,
                component,
                found,
                known,
            });
        }
        if demanded > known {
            return Err(MigrateError::Newer {
                schema: schema.name,
                component,
                found,
                known,
            });
        }
        verify(schema.name, component, migrations, &history)?;
    }
    Ok(())
}

fn components(schema: &Schema) -> [(&'static str, &'static [Migration]); 2] {
    [("common", COMMON), (schema.name, schema.migrations)]
}

/// Applies the next migration, if there is one.
async fn step(
    client: &Client,
    schema: &'static str,
    component: &'static str,
    migrations: &[Migration],
) -> Result<bool, MigrateError> {
    lock(client, schema).await?;
    let history = history(client, schema, component).await?;
    verify(schema, component, migrations, &history)?;
    let known = newest(migrations);
    if let Some(&found) = history.keys().last().filter(|&&found| found > known) {
        return Err(MigrateError::Newer {
            schema,
            component,
            found,
            known,
        });
    }
    let Some(next) = migrations
        .iter()
        .find(|migration| !history.contains_key(&migration.version))
    else {
        run(client, schema, "COMMIT").await?;
        return Ok(false);
    };
    let failed = |error| MigrateError::Migration {
        schema,
        component,
        name: next.name,
        source: Error::of_statement(next.name, error),
    };
    client
        .batch_execute(&next.sql.replace("{schema}", schema))
        .await
        .map_err(failed)?;
    run(client, schema, UNPROTECTED_REVOKE).await?;
    client
        .execute(
            &HISTORY_ADD.replace("{schema}", schema),
            &[
                &component,
                &next.version,
                &next.name,
                &checksum(next),
                &next.min_compatible,
            ],
        )
        .await
        .map_err(failed)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    tracing::info!(
        event = "migration_applied",
        schema,
        component,
        migration = next.name,
        "applied migration {} to {schema}",
        next.name
    );
    Ok(true)
}

/// Begins a transaction that holds the migrators' lock, as the owner. The lock ends with the transaction, so that a
/// pooler may stand in between.
async fn lock(client: &Client, schema: &'static str) -> Result<(), MigrateError> {
    let failed = |error| MigrateError::Database {
        schema,
        source: Error::of_statement("migration_lock", error),
    };
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        act_as(client, schema, "owner").await?;
        if client
            .query_one(LOCK, &[&schema])
            .await
            .map_err(failed)?
            .get(0)
        {
            return run(client, schema, HISTORY_TABLE_CREATE).await;
        }
        run(client, schema, "ROLLBACK").await?;
        tokio::time::sleep(POLL).await;
    }
    Err(MigrateError::Busy { schema })
}

/// Begins a transaction in one of the schema's roles.
async fn act_as(client: &Client, schema: &'static str, role: &str) -> Result<(), MigrateError> {
    client
        .batch_execute(&format!("BEGIN; SET LOCAL ROLE hawser_{schema}_{role}"))
        .await
        .map_err(|error| {
            let source = Error::of_statement("SET ROLE", error);
            match source.sqlstate() {
                Some("42501") => MigrateError::NotOwner { schema, source },
                Some("22023") => MigrateError::NotBootstrapped { schema },
                _ => MigrateError::Database { schema, source },
            }
        })
}

async fn run(client: &Client, schema: &'static str, sql: &'static str) -> Result<(), MigrateError> {
    client
        .batch_execute(&sql.replace("{schema}", schema))
        .await
        .map_err(|error| {
            let source = Error::of_statement("migration_step", error);
            match source.sqlstate() {
                Some("3F000") => MigrateError::NotBootstrapped { schema },
                _ => MigrateError::Database { schema, source },
            }
        })
}

/// Empty where nothing has been applied yet.
async fn history(
    client: &Client,
    schema: &'static str,
    component: &'static str,
) -> Result<History, MigrateError> {
    let failed = |error| MigrateError::Database {
        schema,
        source: Error::of_statement("migration_list", error),
    };
    let there = client
        .query_one(&HISTORY_TABLE_FIND.replace("{schema}", schema), &[])
        .await
        .map_err(failed)?;
    if !there.get::<_, bool>(0) {
        return Ok(History::new());
    }
    let rows = client
        .query(&HISTORY_LIST.replace("{schema}", schema), &[&component])
        .await
        .map_err(failed)?;
    let applied = rows.into_iter().map(|row| {
        let applied = Applied {
            name: row.get("name"),
            checksum: row.get("checksum"),
            min_compatible: row.get("min_compatible"),
        };
        (row.get("version"), applied)
    });
    Ok(applied.collect())
}

/// What has been applied is what we would apply.
fn verify(
    schema: &'static str,
    component: &'static str,
    migrations: &[Migration],
    history: &History,
) -> Result<(), MigrateError> {
    for (migration, version) in migrations.iter().zip(1..) {
        assert_eq!(
            migration.version, version,
            "migrations of {component} are numbered from 1 without gaps"
        );
        if let Some(applied) = history
            .get(&version)
            .filter(|applied| applied.checksum != checksum(migration))
        {
            return Err(MigrateError::Changed {
                schema,
                component,
                version,
                applied: applied.name.clone(),
            });
        }
    }
    Ok(())
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.version)
}

fn checksum(migration: &Migration) -> String {
    hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        migration.sql.as_bytes(),
    ))
}

/// `0012_create_grants` → 12.
#[doc(hidden)]
pub const fn version_of(name: &str) -> i32 {
    let name = name.as_bytes();
    assert!(
        name.len() > 5 && name[4] == b'_',
        "a migration is named NNNN_verb_noun"
    );
    let (mut version, mut at) = (0, 0);
    while at < 4 {
        assert!(
            name[at].is_ascii_digit(),
            "a migration is named NNNN_verb_noun"
        );
        version = version * 10 + (name[at] - b'0') as i32;
        at += 1;
    }
    version
}

/// The migrations in the crate's `migrations/` folder, by name and in order:
///
/// ```text
/// const MIGRATIONS: &[Migration] = pg::migrations!["0001_create_tenants", "0002_drop_names" min_compatible 2];
/// ```
///
/// `min_compatible` says the oldest version whose code can live with the schema afterwards; without it, any.
#[doc(hidden)]
#[macro_export]
macro_rules! __pg_migrations {
    (@min) => { 1 };
    (@min $min:literal) => { $min };
    ($($name:literal $(min_compatible $min:literal)?),* $(,)?) => {
        &[$($crate::pg::Migration {
            version: $crate::pg::__private::version_of($name),
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $name, ".sql")),
            min_compatible: $crate::__pg_migrations!(@min $($min)?),
        }),*]
    };
}
