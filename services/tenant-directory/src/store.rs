//! SQL and its rows; the only module that names database types.
//!
//! Each statement has the bucket as an equality, but for those in `store/across.rs`: they go over all buckets, to find
//! work or to fill a page of an operator's list.

pub(crate) mod across;
pub(crate) mod api_key;
pub(crate) mod creation;
pub(crate) mod deletion;
pub(crate) mod log;
pub(crate) mod name;
pub(crate) mod tenant;
pub(crate) mod tenant_config;
pub(crate) mod user;

pub(crate) use common::pg::{Database, Error as PgError, Scope, Tx};

use common::pg::{ErrorClass, FromSqlOwned, Row};

/// A statement failed, or gave what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said so.
    #[error("the directory's database did not do as asked")]
    Database(#[from] common::pg::Error),
    /// A row holds a value that this version does not know.
    #[error("a row of {table} has an impossible {column}")]
    Impossible {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

/// A row's column; one of another type is a mistake of ours.
fn column<T: FromSqlOwned>(row: &Row, name: &str) -> Result<T, StoreError> {
    row.try_get(name)
        .map_err(|error| StoreError::Database(error.into()))
}

/// Whether a statement failed because there is such a row already.
fn violates(error: &common::pg::Error, constraint: &str) -> bool {
    error.class() == ErrorClass::UniqueViolation { constraint }
}

/// A stored text as what it stands for.
fn known<T>(value: Option<T>, table: &'static str, column: &'static str) -> Result<T, StoreError> {
    value.ok_or(StoreError::Impossible { table, column })
}

#[cfg(test)]
mod tests {
    use testkit::TestDatabase;

    use super::*;

    /// What is asked at every call, or by every instance all the time.
    const HOT: [&str; 21] = [
        across::CREATIONS_OLD,
        across::DELETIONS_OPEN,
        across::DELETION_PARTS_DUE,
        across::NAMES_LEFT,
        across::NAME_CLAIMS_OLD,
        across::NAME_CLAIMS_RELEASED,
        across::TENANTS_LIST,
        api_key::API_KEYS_LIST,
        api_key::API_KEY_FIND,
        api_key::API_KEY_HASH_GET,
        deletion::DELETIONS_LIST,
        deletion::DELETION_PARTS_GET,
        name::NAME_CLAIM_GET,
        name::NAME_CLAIM_RELEASE,
        name::NAME_GET,
        tenant::TENANTS_GET,
        tenant::TENANT_GET,
        tenant_config::TENANT_CONFIG_GET,
        user::USERS_ERASE,
        user::USERS_LIST,
        user::USER_GET,
    ];

    #[tokio::test]
    async fn hot_statements_use_an_index() {
        let database = TestDatabase::create(&[&crate::SCHEMA]).await;
        let admin = database.admin().await;
        // Of empty tables every plan is as good as another; so it is asked whether there is one without a scan.
        let ask = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan";
        admin.batch_execute(ask).await.expect("settings");
        for sql in HOT {
            let count = admin.prepare(sql).await.expect(sql).params().len();
            let nulls = vec!["NULL"; count].join(", ");
            let call = if count == 0 {
                String::new()
            } else {
                format!("({nulls})")
            };
            admin
                .batch_execute(&format!("PREPARE hot AS {sql}"))
                .await
                .expect(sql);
            let plan = admin
                .query(&format!("EXPLAIN EXECUTE hot{call}"), &[])
                .await
                .expect(sql);
            admin
                .batch_execute("DEALLOCATE hot")
                .await
                .expect("it is there");
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            assert!(
                !plan.iter().any(|line| line.contains("Seq Scan")),
                "{sql}\n{}",
                plan.join("\n")
            );
        }
    }
}
