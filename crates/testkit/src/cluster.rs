//! One Postgres for all test processes of this user, in the target folder. It stays when they end: the next run finds it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use common::Deps;
use common::pg::PgConfig;
use embedded_postgres::{Cluster, Error, Lifetime, Options};
use nix::unistd::Uid;
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;

/// The server, as tests see it.
#[derive(Debug)]
pub struct TestCluster {
    cluster: Cluster,
    /// The password of every service's login.
    pub(crate) service_password_file: PathBuf,
}

/// The server that all test processes share; started where it does not run.
///
/// # Panics
/// Where there can be none; the message says what to do.
pub async fn cluster() -> &'static TestCluster {
    static CLUSTER: OnceCell<TestCluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(async || {
            start()
                .await
                .unwrap_or_else(|error| panic!("no Postgres to test with: {error:#}"))
        })
        .await
}

impl TestCluster {
    /// The superuser's way to this database.
    pub fn admin_config(&self, database: &str) -> PgConfig {
        PgConfig {
            password_file: Some(self.cluster.password_file().to_owned()),
            application_name: "testkit".to_owned(),
            ..PgConfig::new(self.cluster.tcp_url(database))
        }
    }

    /// A superuser's connection.
    ///
    /// # Errors
    /// Where the server does not take it.
    pub async fn admin(&self, database: &str) -> Result<tokio_postgres::Client> {
        let mut config: tokio_postgres::Config = self.cluster.socket_url(database).parse()?;
        config
            .password(fs::read_to_string(self.cluster.password_file())?)
            .application_name("testkit");
        let (client, connection) = config
            .connect(NoTls)
            .await
            .context("the test server refuses its superuser")?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The port on loopback, for a proxy in between.
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }
}

async fn start() -> Result<TestCluster> {
    let near =
        target_folder().map(|folder| folder.join(format!("test-postgres-{}", Uid::effective())));
    let far = PathBuf::from(format!(
        "/var/tmp/hawser-test-postgres-{}",
        Uid::effective()
    ));
    let mut refused = Vec::new();
    for folder in near.into_iter().chain([far]) {
        match start_in(&folder).await {
            // A checkout below /root, where the server's user cannot get, or one of somebody else's.
            Err(error)
                if error.downcast_ref().is_some_and(|error| {
                    matches!(error, Error::Unreachable { .. } | Error::File { .. })
                }) =>
            {
                refused.push(format!("{error:#}"));
            }
            outcome => return outcome,
        }
    }
    bail!("{}", refused.join("; "))
}

async fn start_in(folder: &Path) -> Result<TestCluster> {
    let deps = Deps::system("test");
    let settings = [
        ("shared_buffers", "128MB"),
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("max_wal_size", "2GB"),
    ];
    let options = Options {
        durable: false,
        lifetime: Lifetime::Shared,
        max_connections: 400,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Options::default()
    };
    let cluster = match Cluster::start(folder, &options, &deps).await {
        // Written without fsync, so a machine that went down may leave it broken; and it may be of a version that is gone.
        Err(Error::Start { .. } | Error::Version { .. }) => {
            fs::remove_dir_all(folder.join("data"))?;
            Cluster::start(folder, &options, &deps).await?
        }
        outcome => outcome?,
    };
    let service_password_file = folder.join("service.password");
    if !service_password_file.exists() {
        let aside = folder.join(format!("service.password.{}", std::process::id()));
        fs::write(&aside, deps.token("").expose())?;
        fs::set_permissions(&aside, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        // Whoever comes first decides.
        let _ = fs::hard_link(&aside, &service_password_file);
        fs::remove_file(&aside)?;
    }
    Ok(TestCluster {
        cluster,
        service_password_file,
    })
}

/// The folder that Cargo marks as its own, above this program.
fn target_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .map(Path::to_owned)
}
