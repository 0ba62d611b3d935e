//! What the vault keeps in its schema. The one place that names database types.
//!
//! A grant changes in one way: its row is locked, changed by a function of [`Grant`](crate::grant::Grant), and written
//! back together with the event that tells of it ([`Store::grant_change`]).

mod access_chains;
mod access_records;
mod data_keys;
mod grant_row;
mod grants;
mod instances;
mod keks;
mod key_jobs;
mod lists;
mod oauth_clients;
mod readables;
mod refreshes;
mod revocations;
mod sealed_rows;

use std::collections::BTreeMap;

use common::pg::{self, Database, Json, Row};
use common::{Problem, Reason};
use uuid::Uuid;

pub(crate) use access_chains::ChainRow;
pub(crate) use access_records::{AccessRow, Flush, RecordFilter, RecordPosition};
pub(crate) use data_keys::{DataKeyRow, TenantKeysRow};
pub(crate) use grants::{Attribution, Change};
pub(crate) use keks::{KekCheckRow, MacKeyRow};
pub(crate) use key_jobs::{EVERY_TENANT, KeyJob, KeyJobKind, Superseded, WrappedKey};
pub(crate) use lists::GrantFilter;
pub(crate) use oauth_clients::PutOutcome;
pub(crate) use revocations::{Revocation, RevokeOutcome};
pub(crate) use sealed_rows::{SealedRow, SealedTable, SealedValue};

/// The schema, with its pool.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    db: Database,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database refused, or is not there.
    #[error("the database failed")]
    Database(#[from] pg::Error),
    /// What was sealed for the tenant can never be read again, and nothing is sealed for it any more.
    #[error("the tenant's data keys were destroyed")]
    Shredded,
    /// A row that no code of ours writes.
    #[error("a row of {table} is impossible: {what}")]
    Impossible {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StoreError {
    /// What a caller is told.
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Database(error) => error.problem(),
            Self::Shredded => shredded(),
            Self::Impossible { .. } => Problem::internal(self),
        }
    }

    /// Whether it will pass by itself.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_unavailable() || error.is_retryable())
    }
}

impl Store {
    pub(crate) fn new(db: Database) -> Self {
        Self { db }
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.db.ping().await?)
    }

    /// The database's time.
    pub(crate) async fn server_time(&self) -> Result<time::OffsetDateTime, StoreError> {
        Ok(self.db.server_time().await?)
    }

    /// The pool, for what `common` does on it.
    pub(crate) fn database(&self) -> &Database {
        &self.db
    }
}

/// What is told of a tenant whose data keys were destroyed.
pub(crate) fn shredded() -> Problem {
    Problem::failed_precondition(
        Reason::GrantRevoked,
        "the tenant's data keys were destroyed: nothing of it can be read or sealed any more",
    )
}

/// A column's value.
fn get<'a, T: pg::FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    Ok(row.try_get(column).map_err(pg::Error::from)?)
}

/// A word's variant.
fn word<T>(
    row: &Row,
    table: &'static str,
    column: &'static str,
    from_word: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    from_word(get(row, column)?).ok_or(StoreError::Impossible {
        table,
        what: column,
    })
}

/// A word's variant, where there is one.
fn opt_word<T>(
    row: &Row,
    table: &'static str,
    column: &'static str,
    from_word: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let found: Option<&str> = get(row, column)?;
    found
        .map(|found| {
            from_word(found).ok_or(StoreError::Impossible {
                table,
                what: column,
            })
        })
        .transpose()
}

/// A `jsonb` object of texts.
fn texts(row: &Row, column: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let Json(texts) = get::<Json<BTreeMap<String, String>>>(row, column)?;
    Ok(texts)
}

fn tenant(
    row: &Row,
    table: &'static str,
    column: &'static str,
) -> Result<common::TenantKey, StoreError> {
    common::TenantKey::from_id(get::<Uuid>(row, column)?).map_err(|_| StoreError::Impossible {
        table,
        what: column,
    })
}
