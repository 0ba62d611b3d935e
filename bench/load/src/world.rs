//! What every scenario needs: a Postgres, certificates, a key-encryption key, and vaults on it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use common::Deps;
use common::identity::Identity;
use common::identity::authority::Authority;
use common::identity::tls::Tls;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::cluster::Postgres;
use crate::echo::ADDRESS_FILE;
use crate::http2;
use crate::process::{Process, free_address};
use crate::scenario::Options;

pub(crate) const BROKER: &str = "spiffe://hawser/oauth-broker";
pub(crate) const OPERATOR: &str = "spiffe://hawser/operator/bench";

/// One machine's worth of Hawser, in a folder that ends with it.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) deps: Deps,
    authority: Authority,
    programs: PathBuf,
    settings: Vec<String>,
    folder: TempDir,
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// From the start of the process to its readiness.
    pub(crate) ready_after: Duration,
}

impl World {
    /// With an empty, migrated database.
    pub(crate) async fn new(options: &Options) -> Result<Self> {
        let deps = Deps::system("load");
        let folder = tempfile::Builder::new().prefix("hawser-bench-").tempdir()?;
        // Postgres' own user has to get through, where we are root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let postgres = Postgres::start(&folder.path().join("postgres"), &deps).await?;
        let authority = Authority::open(&folder.path().join("certificates"), &deps)?;
        let world = Self {
            postgres,
            deps,
            authority,
            programs: options.programs.clone(),
            settings: options.settings.clone(),
            folder,
        };
        world
            .postgres
            .prepare(&world.path("database.password"), &world.deps)
            .await?;
        world.make_kek("a")?;
        world.write_config(&["a"])?;
        let owner = [
            format!("database.url={}", world.postgres.owner_url()),
            format!(
                "database.password_file={}",
                world.postgres.owner_password_file().display()
            ),
        ];
        world.run("migrate", &owner)?.ended().await?;
        Ok(world)
    }

    /// A new key-encryption key.
    pub(crate) fn make_kek(&self, name: &str) -> Result<()> {
        let bytes: [u8; 32] = self.deps.random();
        let mut text = String::new();
        for byte in bytes {
            write!(text, "{byte:02x}")?;
        }
        let path = self.kek(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Starts a vault whose first key-encryption key wraps, while the others only unwrap.
    pub(crate) async fn vault(&self, keks: &[&str]) -> Result<Running> {
        self.write_config(keks)?;
        let (address, admin) = (free_address().await?, free_address().await?);
        let listeners = [
            format!("grpc.listen={address}"),
            format!("admin.listen={admin}"),
        ];
        let mut process = self.run("serve", &listeners)?;
        let ready_after = process.ready(admin).await?;
        Ok(Running {
            process,
            address,
            ready_after,
        })
    }

    /// Starts the floor.
    pub(crate) async fn echo(&self) -> Result<Running> {
        let address = free_address().await?;
        let certificates = self.path("certificates");
        fs::write(certificates.join(ADDRESS_FILE), address.to_string())?;
        let arguments = [
            "echo".to_owned(),
            "--programs".to_owned(),
            certificates.display().to_string(),
        ];
        let log = self.path("echo.log");
        let mut process = Process::start(&std::env::current_exe()?, &arguments, log)?;
        process.listens(address).await?;
        Ok(Running {
            process,
            address,
            ready_after: Duration::ZERO,
        })
    }

    /// Connections of `caller`'s.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        caller: &str,
        connections: usize,
    ) -> Result<Vec<Channel>> {
        let identity = Identity::from_spiffe(caller).expect("the callers above are identities");
        let certificate = self.authority.issue(&identity, &[])?;
        let tls = Tls::load(&certificate, Arc::clone(&self.deps.clock))?;
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(http2::connect(address, Arc::clone(&tls)).await?);
        }
        Ok(channels)
    }

    /// Stops Postgres and starts it again, with nothing in its own memory.
    pub(crate) async fn restart_postgres(self) -> Result<Self> {
        let folder = self.path("postgres");
        self.postgres.stop().await?;
        let postgres = Postgres::start(&folder, &self.deps).await?;
        Ok(Self { postgres, ..self })
    }

    fn run(&self, command: &str, settings: &[String]) -> Result<Process> {
        let mut arguments = vec![
            command.to_owned(),
            "--config".to_owned(),
            self.path("vault.toml").display().to_string(),
        ];
        let database = [
            format!("database.url={}", self.postgres.url()),
            format!(
                "database.password_file={}",
                self.path("database.password").display()
            ),
        ];
        for setting in database.iter().chain(&self.settings).chain(settings) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        let log = self.path(&format!("{command}.log"));
        Process::start(&self.programs.join("token-vault"), &arguments, log)
    }

    fn write_config(&self, keks: &[&str]) -> Result<()> {
        let tls = self
            .authority
            .issue(&Identity::service("token-vault"), &[])?;
        let (first, others) = keks.split_first().expect("a vault has a key");
        let others: Vec<_> = others.iter().map(|name| self.kek(name)).collect();
        let config = serde_json::json!({
            "environment": "production",
            "spool_dir": self.path("spool"),
            "keys": { "file": self.kek(first), "older_files": others },
            "grpc": { "tls": tls },
            "egress": { "allow_loopback_http": true },
            "telemetry": { "log_format": "json" },
        });
        let config = toml::to_string(&config)?;
        Ok(fs::write(self.path("vault.toml"), config)?)
    }

    fn kek(&self, name: &str) -> PathBuf {
        self.path(&format!("kek-{name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
