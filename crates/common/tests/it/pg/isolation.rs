//! Whose data a statement sees.

use common::pg::{Database, Error, ErrorClass, PgConfig, Schema, Scope};

use super::{NOTE_ADD, NOTES_COUNT, SCHEMA, add, count, tenant, trial};

async fn seen(db: &Database, scope: Scope) -> i64 {
    db.query_one(scope, NOTES_COUNT, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_query_that_forgets_the_tenant_sees_its_own_rows_alone() {
    let (test, db) = trial().await;
    let (ours, theirs) = (tenant(), tenant());
    for tenant in [ours, theirs, theirs] {
        let deps = db.deps().clone();
        let body = tenant.new_id(&deps).to_string();
        db.run_tx("add", Scope::Tenant(tenant), async move |tx| {
            add(tx, &deps, tenant, &body).await
        })
        .await
        .unwrap();
    }
    assert_eq!(count(&test, "trial.notes").await, 3);
    assert_eq!(seen(&db, Scope::Tenant(ours)).await, 1);
    assert_eq!(seen(&db, Scope::Tenant(theirs)).await, 2);
    assert_eq!(seen(&db, Scope::System).await, 3);

    // Nor does it change or remove another's.
    let removed = db
        .execute(
            Scope::Tenant(ours),
            "-- trial.notes_delete\nDELETE FROM trial.notes",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(removed, 1);
    assert_eq!(count(&test, "trial.notes").await, 2);
}

#[tokio::test]
async fn a_row_for_another_tenant_is_refused() {
    let (test, db) = trial().await;
    let (ours, theirs) = (tenant(), tenant());
    let id = theirs.new_id(db.deps());
    let error = db
        .execute(
            Scope::Tenant(ours),
            NOTE_ADD,
            &[&theirs.bucket(), &theirs.id(), &id, &"x"],
        )
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"));
    assert_eq!(count(&test, "trial.notes").await, 0);
}

#[tokio::test]
async fn the_login_by_itself_reads_nothing() {
    let (test, _db) = trial().await;
    let mut config: tokio_postgres::Config = test.config("trial").url.parse().unwrap();
    config.password(std::fs::read_to_string(test.config("trial").password_file.unwrap()).unwrap());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let error = client
        .query("SELECT * FROM trial.notes", &[])
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    );
    assert!(
        client
            .batch_execute("SET ROLE hawser_trial_owner")
            .await
            .is_err()
    );
    // As a tenant that was not named it sees no row.
    client
        .batch_execute("SET ROLE hawser_trial_tenant")
        .await
        .unwrap();
    assert!(
        client
            .query("SELECT * FROM trial.notes", &[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_table_without_forced_row_level_security_is_out_of_a_tenants_reach() {
    let (_test, db) = trial().await;
    let sql = "-- trial.forgotten_list\nSELECT count(*) FROM trial.forgotten";
    let error = db
        .query(Scope::Tenant(tenant()), sql, &[])
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"));
    db.query(Scope::System, sql, &[]).await.unwrap();
    for table in [
        "outbox",
        "event_log",
        "event_log_07",
        "event_head",
        "consumers",
        "schema_migrations",
    ] {
        let sql = format!("-- trial.{table}_list\nSELECT count(*) FROM trial.{table}");
        let error = db
            .query(Scope::Tenant(tenant()), &sql, &[])
            .await
            .unwrap_err();
        assert_eq!(error.sqlstate(), Some("42501"), "{table}");
    }
}

#[tokio::test]
async fn no_role_reaches_another_services_schema() {
    static OTHER: Schema = Schema {
        name: "trial_other",
        migrations: &[],
    };
    let test = testkit::TestDatabase::create(&[&SCHEMA, &OTHER]).await;
    let other = test.database(&OTHER);
    for scope in [Scope::System, Scope::Tenant(tenant())] {
        let error = other.query(scope, NOTES_COUNT, &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("42501"));
    }
}

#[tokio::test]
async fn a_scope_that_cannot_be_had_fails_with_its_own_error() {
    static OTHER: Schema = Schema {
        name: "postgres",
        migrations: &[],
    };
    let (test, _db) = trial().await;
    let config = PgConfig {
        max_size: 1,
        ..test.config("trial")
    };
    // Of a service whose roles the login does not have.
    let stranger = Database::open(&config, &OTHER, &testkit::deps()).unwrap();
    for _ in 0..2 {
        let error = stranger
            .query(Scope::System, "SELECT 1", &[])
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Statement { statement, .. } if statement == "BEGIN"),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Other);
        let error = stranger
            .run_tx("x", Scope::System, async move |tx| {
                tx.query("SELECT 1", &[]).await
            })
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Statement { statement, .. } if statement == "BEGIN"),
            "{error:?}"
        );
    }
}
