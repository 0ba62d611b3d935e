//! The way to the server: how often it is gone, and what happens when it fails.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use common::Code;
use common::pg::{self, Database, Error, ErrorClass, PgConfig, Scope, TlsMode};
use testkit::chaos::Proxy;
use testkit::{TestDatabase, eventually};

use super::{NOTES_COUNT, SCHEMA, add, tenant, trial};

async fn through_a_proxy(change: impl FnOnce(&mut PgConfig)) -> (TestDatabase, Proxy, Database) {
    let (test, _) = trial().await;
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, test.port()))).await;
    let mut config = PgConfig {
        max_size: 1,
        ..test.config_through(proxy.address().port(), "trial")
    };
    change(&mut config);
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    (test, proxy, db)
}

#[tokio::test]
async fn the_scope_travels_with_the_statement() {
    for prepared_statements in [true, false] {
        let (_test, proxy, db) =
            through_a_proxy(|config| config.prepared_statements = prepared_statements).await;
        let ours = tenant();
        let statement = async || {
            db.query_one(Scope::Tenant(ours), NOTES_COUNT, &[])
                .await
                .unwrap()
        };
        statement().await;
        let before = proxy.round_trips();
        statement().await;
        assert_eq!(
            proxy.round_trips() - before,
            1,
            "BEGIN, SET LOCAL, the statement and COMMIT go together"
        );

        let body = async |tx: &common::pg::Tx| {
            tx.query_one(NOTES_COUNT, &[]).await?;
            tx.query_one(NOTES_COUNT, &[]).await.map(drop)
        };
        db.run_tx::<_, Error, _>("twice", Scope::Tenant(ours), body)
            .await
            .unwrap();
        let before = proxy.round_trips();
        db.run_tx::<_, Error, _>("twice", Scope::Tenant(ours), body)
            .await
            .unwrap();
        assert_eq!(
            proxy.round_trips() - before,
            3,
            "BEGIN goes with the first statement"
        );
    }
}

#[tokio::test]
async fn old_poolers_are_served_without_prepared_statements() {
    let (test, _) = trial().await;
    let config = PgConfig {
        prepared_statements: false,
        max_size: 1,
        ..test.config("trial")
    };
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    let ours = tenant();
    for body in ["one", "two"] {
        db.run_tx("add", Scope::Tenant(ours), async move |tx| {
            add(tx, tx.deps(), ours, body).await
        })
        .await
        .unwrap();
    }
    let sql =
        "-- trial.notes_find\nSELECT note_id FROM trial.notes WHERE bucket = $1 AND body = ANY($2)";
    let wanted = vec!["one", "three"];
    for _ in 0..2 {
        assert_eq!(
            db.query(Scope::Tenant(ours), sql, &[&ours.bucket(), &wanted])
                .await
                .unwrap()
                .len(),
            1
        );
    }
    let sql = "-- trial.prepared_list\nSELECT count(*) FROM pg_prepared_statements";
    let prepared: i64 = db.query_one(Scope::System, sql, &[]).await.unwrap().get(0);
    assert_eq!(prepared, 0);
}

#[tokio::test]
async fn an_outage_is_unavailable_and_passes() {
    let (_test, proxy, db) = through_a_proxy(|_| {}).await;
    db.ping().await.unwrap();
    for fail in [Proxy::cut, Proxy::reset] {
        fail(&proxy);
        for _ in 0..2 {
            let error = db.ping().await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
            let problem = error.problem();
            assert_eq!(
                (problem.code, problem.retry_after),
                (Code::Unavailable, Some(Duration::from_secs(1)))
            );
        }
        proxy.pass();
        eventually(Duration::from_secs(5), async || db.ping().await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for_without_end() {
    let (_test, proxy, db) =
        through_a_proxy(|config| config.statement_timeout = Duration::from_millis(100)).await;
    db.ping().await.unwrap();
    proxy.stall();
    let begun = Instant::now();
    let error = db.ping().await.unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5));
    proxy.pass();
    // The connection whose state nobody knows is not used again.
    db.ping().await.unwrap();
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended_by_the_server() {
    let (test, _) = trial().await;
    let config = PgConfig {
        statement_timeout: Duration::from_millis(50),
        max_size: 1,
        ..test.config("trial")
    };
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    let error = db
        .query(Scope::System, "-- trial.sleep\nSELECT pg_sleep(20)", &[])
        .await
        .unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.class()),
        (Some("57014"), ErrorClass::Unavailable)
    );
    db.ping().await.unwrap();
}

#[tokio::test]
async fn a_busy_pool_refuses_in_time() {
    let (test, _) = trial().await;
    let config = PgConfig {
        acquire_timeout: Duration::from_millis(50),
        max_size: 1,
        ..test.config("trial")
    };
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    let error = db
        .run_tx("outer", Scope::System, async |_| {
            Ok::<_, Error>(db.ping().await.unwrap_err())
        })
        .await
        .unwrap();
    assert_eq!(error.class(), ErrorClass::PoolTimeout);
    assert_eq!(error.problem().code, Code::Unavailable);
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_unavailable() {
    let (test, _) = trial().await;
    let db = Database::open(
        &PgConfig {
            max_size: 1,
            ..test.config("trial")
        },
        &SCHEMA,
        &testkit::deps(),
    )
    .unwrap();
    let admin = test.admin().await;
    let error = db
        .run_tx("ended", Scope::System, async |tx| {
            let pid: i32 = tx
                .query_one("-- trial.pid\nSELECT pg_backend_pid()", &[])
                .await?
                .get(0);
            admin
                .query_one("SELECT pg_terminate_backend($1)", &[&pid])
                .await
                .unwrap();
            tx.query_one(NOTES_COUNT, &[]).await.map(drop)
        })
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
    eventually(Duration::from_secs(5), async || db.ping().await.is_ok()).await;
}

#[tokio::test]
async fn a_wrong_password_is_a_mistake_and_no_outage() {
    let (test, _) = trial().await;
    let password_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password_file.path(), "wrong\n").unwrap();
    let config = PgConfig {
        password_file: Some(password_file.path().to_owned()),
        ..test.config("trial")
    };
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    let error = db.ping().await.unwrap_err();
    assert!(matches!(error, Error::Connect(_)));
    assert_eq!(error.class(), ErrorClass::Other);
    // The file is read anew for each connection.
    let right = std::fs::read_to_string(test.config("trial").password_file.unwrap()).unwrap();
    std::fs::write(password_file.path(), right + "\n").unwrap();
    db.ping().await.unwrap();
}

#[tokio::test]
async fn a_server_with_a_certificate_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key, other] =
        ["server.crt", "server.key", "other.crt"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(
        &other,
        rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .unwrap()
            .cert
            .pem(),
    )
    .unwrap();
    if let Ok(Some(user)) = nix::unistd::User::from_name("postgres")
        && nix::unistd::Uid::effective().is_root()
    {
        std::os::unix::fs::chown(&key, Some(user.uid.as_raw()), None).unwrap();
    }
    let settings = [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", certificate.display().to_string()),
        ("ssl_key_file", key.display().to_string()),
    ];
    let options = embedded_postgres::Options {
        durable: false,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        ..embedded_postgres::Options::default()
    };
    let cluster =
        embedded_postgres::Cluster::start(&folder.path().join("pg"), &options, &testkit::deps())
            .await
            .unwrap();
    let config = PgConfig {
        tls: TlsMode::Require,
        ca_file: Some(certificate),
        password_file: Some(cluster.password_file().to_owned()),
        ..PgConfig::new(format!(
            "postgres://postgres@localhost:{}/postgres",
            cluster.port()
        ))
    };
    pg::apply_bootstrap(&config, &[&SCHEMA], &[]).await.unwrap();
    pg::migrate(&config, &SCHEMA).await.unwrap();
    let db = Database::open(&config, &SCHEMA, &testkit::deps()).unwrap();
    db.ping().await.unwrap();
    // Others' connections are seen by the superuser alone.
    let mut admin: tokio_postgres::Config = cluster.socket_url("postgres").parse().unwrap();
    admin.password(std::fs::read_to_string(cluster.password_file()).unwrap());
    let (admin, connection) = admin.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let encrypted = admin
        .query_one("SELECT count(*) FROM pg_stat_ssl WHERE ssl", &[])
        .await
        .unwrap();
    assert_eq!(encrypted.get::<_, i64>(0), 1);

    // Another name, and another authority, are refused.
    let elsewhere = PgConfig {
        url: config.url.replace("localhost", "127.0.0.1"),
        ..config.clone()
    };
    let unknown = PgConfig {
        ca_file: Some(other),
        ..config
    };
    for config in [elsewhere, unknown] {
        let error = Database::open(&config, &SCHEMA, &testkit::deps())
            .unwrap()
            .ping()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Connect(_)), "{error:?}");
    }
    cluster
        .stop(embedded_postgres::StopMode::Immediate)
        .await
        .unwrap();
}
