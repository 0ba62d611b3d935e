//! Migrating, and living with a schema that is newer or older.

use common::pg::{self, MigrateError, Migration, Schema};
use testkit::TestDatabase;

const ONE: Migration = Migration {
    version: 1,
    name: "0001_create_things",
    sql: "CREATE TABLE {schema}.things (n int)",
    min_compatible: 1,
};
const TWO: Migration = Migration {
    version: 2,
    name: "0002_fill_things",
    sql: "INSERT INTO {schema}.things VALUES (1)",
    min_compatible: 1,
};
const BREAKING: Migration = Migration {
    version: 3,
    name: "0003_drop_things",
    sql: "DROP TABLE {schema}.things",
    min_compatible: 3,
};

static BARE: Schema = schema(&[]);

const fn schema(migrations: &'static [Migration]) -> Schema {
    Schema {
        name: "trial_migrate",
        migrations,
    }
}

#[tokio::test]
async fn of_several_migrators_at_once_each_migration_is_applied_by_one() {
    let test = TestDatabase::create(&[&BARE]).await;
    let config = test.admin_config();
    let full = schema(&[ONE, TWO]);
    let migrators: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let config = config.clone();
                async move { pg::migrate(&config, &full).await }
            })
        })
        .collect();
    for migrator in migrators {
        migrator.await.unwrap().unwrap();
    }
    let admin = test.admin().await;
    let filled: i64 = admin
        .query_one("SELECT count(*) FROM trial_migrate.things", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(filled, 1);
    let owner: String = admin
        .query_one(
            "SELECT tableowner::text FROM pg_tables WHERE tablename = 'things'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(owner, "hawser_trial_migrate_owner");
    pg::check_schema(&test.config("trial_migrate"), &full)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let test = TestDatabase::create(&[&BARE]).await;
    pg::migrate(&test.admin_config(), &schema(&[ONE]))
        .await
        .unwrap();
    let edited = schema(&[Migration {
        sql: "CREATE TABLE {schema}.things (n bigint)",
        ..ONE
    }]);
    for outcome in [
        pg::migrate(&test.admin_config(), &edited).await,
        pg::check_schema(&test.config("trial_migrate"), &edited).await,
    ] {
        assert!(
            matches!(
                outcome,
                Err(MigrateError::Changed {
                    component: "trial_migrate",
                    version: 1,
                    ..
                })
            ),
            "{outcome:?}"
        );
    }
}

const WITH_BREAKING: Schema = schema(&[ONE, TWO, BREAKING]);

#[tokio::test]
async fn old_and_new_programs_run_side_by_side_where_the_schema_says_so() {
    let test = TestDatabase::create(&[&BARE]).await;
    let (admin, service) = (test.admin_config(), test.config("trial_migrate"));
    let (old, new) = (schema(&[ONE]), schema(&[ONE, TWO]));
    pg::migrate(&admin, &old).await.unwrap();
    let outcome = pg::check_schema(&service, &new).await;
    assert!(
        matches!(
            outcome,
            Err(MigrateError::Older {
                found: 1,
                known: 2,
                ..
            })
        ),
        "{outcome:?}"
    );
    assert!(outcome.unwrap_err().to_string().contains("migrate"));

    pg::migrate(&admin, &new).await.unwrap();
    pg::check_schema(&service, &old).await.unwrap();
    let outcome = pg::migrate(&admin, &old).await;
    assert!(
        matches!(
            outcome,
            Err(MigrateError::Newer {
                found: 2,
                known: 1,
                ..
            })
        ),
        "{outcome:?}"
    );

    pg::migrate(&admin, &WITH_BREAKING).await.unwrap();
    pg::check_schema(&service, &WITH_BREAKING).await.unwrap();
    let outcome = pg::check_schema(&service, &new).await;
    assert!(
        matches!(
            outcome,
            Err(MigrateError::Newer {
                found: 3,
                known: 2,
                ..
            })
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let test = TestDatabase::create(&[&BARE]).await;
    let wrong = schema(&[Migration {
        sql: "CREATE TABLE {schema}.things (n int); SELECT nonsense",
        ..ONE
    }]);
    let outcome = pg::migrate(&test.admin_config(), &wrong).await;
    assert!(
        matches!(
            outcome,
            Err(MigrateError::Migration {
                name: "0001_create_things",
                ..
            })
        ),
        "{outcome:?}"
    );
    pg::migrate(&test.admin_config(), &schema(&[ONE]))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_missing_is_said() {
    static NOWHERE: Schema = Schema {
        name: "trial_nowhere",
        migrations: &[],
    };
    let test = TestDatabase::create(&[&BARE]).await;
    let outcome = pg::migrate(&test.admin_config(), &NOWHERE).await;
    assert!(
        matches!(outcome, Err(MigrateError::NotBootstrapped { .. })),
        "{outcome:?}"
    );
    // A service's login may not migrate.
    let outcome = pg::migrate(&test.config("trial_migrate"), &BARE).await;
    assert!(
        matches!(outcome, Err(MigrateError::NotOwner { .. })),
        "{outcome:?}"
    );
    // Roles are the server's, schemas the database's.
    let empty = TestDatabase::create_empty().await;
    let outcome = pg::migrate(&empty.admin_config(), &BARE).await;
    assert!(
        matches!(outcome, Err(MigrateError::NotBootstrapped { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_bootstrap_can_be_run_again() {
    let test = TestDatabase::create(&[&BARE]).await;
    pg::apply_bootstrap(&test.admin_config(), &[&BARE], &[])
        .await
        .unwrap();
    test.database(&BARE).ping().await.unwrap();
}

#[tokio::test]
async fn an_administrator_needs_no_superuser() {
    let test = TestDatabase::create_empty().await;
    let (role, schema) = (
        format!("dba_{}", test.name()),
        Schema {
            name: "trial_dba",
            migrations: &[],
        },
    );
    let admin = test.admin().await;
    let database = test.name();
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'dba'; ALTER DATABASE {database} OWNER TO {role}"))
        .await
        .unwrap();
    let mut config = test.admin_config().with_login(&role, None, None).unwrap();
    config.url.push_str(" password=dba");
    let outcome = async {
        pg::apply_bootstrap(&config, &[&schema], &[]).await?;
        pg::migrate(&config, &schema).await?;
        anyhow::Ok(())
    }
    .await;
    // Roles outlive the database.
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {database} OWNER TO postgres; DROP OWNED BY {role}"
        ))
        .await
        .unwrap();
    for role in [
        "hawser_trial_dba_owner",
        "hawser_trial_dba_tenant",
        "hawser_trial_dba_system",
        "hawser_trial_dba",
        &role,
    ] {
        admin
            .batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
            .await
            .unwrap();
    }
    outcome.unwrap();
}
