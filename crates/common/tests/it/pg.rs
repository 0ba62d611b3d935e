//! The database layer, against a real server.
#![expect(clippy::unwrap_used, reason = "a test may")]

mod audit;
mod connection;
mod consumer;
mod isolation;
mod migrate;
mod outbox;
mod request_ids;
mod statistics;
mod transaction;

use common::pg::{Database, Error, Migration, Schema};
use common::{Deps, TenantKey};
use testkit::TestDatabase;

/// A service with one table of tenants' data, one that forgot its row-level security, and one of nobody's.
static SCHEMA: Schema = Schema {
    name: "trial",
    migrations: &[Migration {
        version: 1,
        name: "0001_create_notes",
        sql: CREATE_NOTES,
        min_compatible: 1,
    }],
};

const CREATE_NOTES: &str = "
CREATE TABLE {schema}.notes (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    note_id uuid NOT NULL,
    body text NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (bucket, note_id),
    CONSTRAINT notes_body_key UNIQUE (bucket, tenant_id, body)
);
ALTER TABLE {schema}.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.notes TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.notes TO hawser_{schema}_system USING (true);

CREATE TABLE {schema}.forgotten (bucket smallint NOT NULL, tenant_id uuid NOT NULL);
GRANT ALL ON {schema}.forgotten TO hawser_{schema}_tenant;";

const NOTE_ADD: &str = "-- trial.note_add
INSERT INTO trial.notes (bucket, tenant_id, note_id, body)
VALUES ($1, $2, $3, $4)";

const NOTES_COUNT: &str = "-- trial.notes_count
SELECT count(*)
FROM trial.notes";

async fn trial() -> (TestDatabase, Database) {
    let test = TestDatabase::create(&[&SCHEMA]).await;
    let db = test.database(&SCHEMA);
    (test, db)
}

fn tenant() -> TenantKey {
    TenantKey::new_tenant(&testkit::deps())
}

async fn add(tx: &common::pg::Tx, deps: &Deps, tenant: TenantKey, body: &str) -> Result<(), Error> {
    tx.execute(
        NOTE_ADD,
        &[&tenant.bucket(), &tenant.id(), &tenant.new_id(deps), &body],
    )
    .await
    .map(drop)
}

/// What is there, whoever's it is.
async fn count(test: &TestDatabase, table: &str) -> i64 {
    test.admin()
        .await
        .query_one(&format!("SELECT count(*) FROM {table}"), &[])
        .await
        .unwrap()
        .get(0)
}
