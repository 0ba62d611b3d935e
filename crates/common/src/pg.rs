//! Postgres: the pool, transactions that know whose data they may see, migrations, roles, and what is kept in every
//! service's schema: its outbox, its consumers' places, audit events, statistics, and answers by request id.
//!
//! - **Isolation.** A statement runs in a [`Scope`]: as the schema's tenant role, whose row-level security shows one
//!   tenant alone, or as its system role. The login role inherits nothing, so a statement without a scope reads nothing.
//! - **No session state.** Everything is `SET LOCAL`, so a pooler in transaction mode may stand in between.
//! - **One round trip.** The scope travels with the first statement; a single statement travels with its own COMMIT.
//!
//! Outside of this module only a service's `store` names its types.

pub mod audit;
mod config;
mod connect;
pub mod consumer;
mod database;
mod error;
mod metrics;
mod migrate;
pub mod outbox;
pub mod request_ids;
mod roles;
mod statement;
pub mod statistics;
mod tx;
mod upkeep;

pub use config::{PgConfig, PgConfigError, TlsMode};
pub use database::{Database, Isolation, Scope};
pub use error::{Error, ErrorClass, ServerError};
pub use migrate::{MigrateError, Migration, Schema, check_schema, migrate};
pub use roles::{Login, RolesError, apply_bootstrap, bootstrap_sql, drop_schemas};
pub use tokio_postgres::Row;
pub use tokio_postgres::types::{FromSql, FromSqlOwned, Json, ToSql, Type};
pub use tx::Tx;
pub use upkeep::spawn_upkeep;

pub use crate::__pg_migrations as migrations;

#[doc(hidden)]
pub mod __private {
    pub use super::migrate::version_of;
}
