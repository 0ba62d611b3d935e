//! The roles of each schema, and what they may do.
//!
//! | role | may |
//! | --- | --- |
//! | `hawser_<schema>_owner` | everything in its schema; migrations act as it |
//! | `hawser_<schema>_tenant` | read and write rows of the tenant in `hawser.tenant`, in tables with forced row-level security |
//! | `hawser_<schema>_system` | read and write rows of every tenant |
//! | `hawser_<schema>` | log in, and become one of the last two; nothing by itself |
//!
//! None is a superuser, none goes round row-level security, none reaches another service's schema.

use std::fmt::Write as _;

use super::connect::connect;
use super::{Error, PgConfig, Schema};
use crate::Secret;

/// The login of a service, and its password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The schema that the login is for.
    pub schema: &'static str,
    /// Sent to the server only as its SCRAM verifier.
    pub password: Secret<String>,
}

/// The roles could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "the roles and schemas cannot be made: this needs a login that may create roles and schemas"
)]
pub struct RolesError(#[from] Error);

/// What a database administrator runs, once and again after an upgrade: roles, schemas, grants. It is idempotent, and needs
/// no superuser: CREATEROLE, and CREATE on the database, are enough.
pub fn bootstrap_sql(schemas: &[&Schema]) -> String {
    let mut sql = String::from(
        "-- Roles and schemas of Hawser. Run it in the database that is to hold them; running it again changes nothing.\n\
         DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $$;\n",
    );
    for schema in schemas {
        let name = schema.name;
        let _ = writeln!(sql, "\n-- {name}");
        for (suffix, attributes) in [
            ("_owner", "NOLOGIN"),
            ("_tenant", "NOLOGIN"),
            ("_system", "NOLOGIN"),
            ("", "LOGIN NOINHERIT"),
        ] {
            let _ = writeln!(
                sql,
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hawser_{name}{suffix}') \
                 THEN CREATE ROLE hawser_{name}{suffix} {attributes}; END IF; END $$;"
            );
        }
        let _ = write!(
            sql,
            "GRANT hawser_{name}_owner TO CURRENT_USER;\n\
             GRANT hawser_{name}_tenant, hawser_{name}_system TO hawser_{name};\n\
             DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO hawser_{name}', current_database()); END $$;\n\
             CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION hawser_{name}_owner;\n\
             REVOKE ALL ON SCHEMA {name} FROM PUBLIC;\n\
             GRANT USAGE ON SCHEMA {name} TO hawser_{name}_tenant, hawser_{name}_system;\n\
             ALTER DEFAULT PRIVILEGES FOR ROLE hawser_{name}_owner IN SCHEMA {name}\n\
             \x20   GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO hawser_{name}_tenant, hawser_{name}_system;\n"
        );
    }
    sql.push_str("\n-- Then give each login a password: \\password hawser_<schema>\n");
    sql
}

/// Runs [`bootstrap_sql`], and sets the logins' passwords.
///
/// # Errors
/// Where the login of `config` may not do that.
pub async fn apply_bootstrap(
    config: &PgConfig,
    schemas: &[&Schema],
    logins: &[Login],
) -> Result<(), RolesError> {
    let failed = |error| RolesError(Error::of_statement("bootstrap", error));
    let client = connect(config).await?;
    let mut sql =
        String::from("BEGIN; SELECT pg_advisory_xact_lock(hashtext('hawser.bootstrap'));\n");
    sql.push_str(&bootstrap_sql(schemas));
    for login in logins {
        // The verifier's alphabet has no quote in it.
        let verifier =
            postgres_protocol::password::scram_sha_256(login.password.expose().as_bytes());
        let _ = writeln!(
            sql,
            "ALTER ROLE hawser_{} PASSWORD '{verifier}';",
            login.schema
        );
    }
    sql.push_str("COMMIT;");
    client.batch_execute(&sql).await.map_err(failed)
}

/// Drops the schemas with all that is in them, for a development database that is to be made anew.
///
/// # Errors
/// Where the login of `config` may not do that.
pub async fn drop_schemas(config: &PgConfig, schemas: &[&Schema]) -> Result<(), RolesError> {
    let client = connect(config).await?;
    let mut sql = String::from("BEGIN;\n");
    for schema in schemas {
        let _ = writeln!(sql, "DROP SCHEMA IF EXISTS {} CASCADE;", schema.name);
    }
    sql.push_str("COMMIT;");
    client
        .batch_execute(&sql)
        .await
        .map_err(|error| RolesError(Error::of_statement("drop_schemas", error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_is_named_in_another_schemas_part() {
        let schemas = [
            Schema {
                name: "vault",
                migrations: &[],
            },
            Schema {
                name: "broker",
                migrations: &[],
            },
        ];
        let sql = bootstrap_sql(&[&schemas[0], &schemas[1]]);
        let (vault, broker) = sql
            .split_once("-- broker")
            .expect("each schema has its part");
        assert!(!vault.contains("broker"));
        assert!(!broker.contains("vault"));
    }
}
