//! Where the database is and how to speak to it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::config::{Host, SslMode};

use crate::config::{Problems, Validate};
use crate::problem::Chain;

/// A Postgres server, the login, and the pool.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PgConfig {
    /// The server and the database: `postgres://user@host:5432/name`, or `host=/run/postgresql user=… dbname=…` for a Unix
    /// socket. A password belongs into `password_file`.
    pub url: String,
    /// A file with the login's password; read at each new connection, so that it may be changed while running.
    pub password_file: Option<PathBuf>,
    /// At most this many connections.
    pub max_size: usize,
    /// How long a new connection may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a call waits for a free connection.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long one statement may run; it is cancelled then, by the server or, where that is not heard of, by us.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// Whether the connection is encrypted.
    pub tls: TlsMode,
    /// Certificates to trust instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The name that the server shows for these connections.
    pub application_name: String,
    /// Whether statements are prepared once a connection. Only a pooler in transaction mode that does not know prepared
    /// statements (PgBouncer before 1.21) needs `false`.
    pub prepared_statements: bool,
    /// How often an idle service looks for events that another replica of it has written; its own it knows of at once.
    /// Where there is no other replica, seldom is enough.
    #[serde(with = "humantime_serde")]
    pub event_poll_interval: Duration,
}

/// Whether a connection is encrypted. Where it is, the server's certificate and name are always verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Required, unless the server is on loopback or a Unix socket.
    #[default]
    Auto,
    /// Required, on loopback too.
    Require,
    /// Never: for a network that is trusted otherwise.
    Disable,
}

/// What is wrong with a [`PgConfig`].
#[derive(Debug, thiserror::Error)]
pub enum PgConfigError {
    /// The text is not shown: it may hold a password.
    #[error(
        "the database url cannot be read: it should look like postgres://user@host:5432/name or host=… user=… dbname=…"
    )]
    Url,
    /// Names no server.
    #[error("the database url names no host")]
    NoHost,
    /// Asks for plain text over a network.
    #[error(
        "the database url says sslmode=disable for a server that is not on this machine: set tls = \"disable\" if its network is trusted"
    )]
    PlainText,
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate in PEM", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
    },
    /// The system's certificates are needed and there are none.
    #[error("no trusted certificates were found on this machine: set ca_file")]
    NoRoots,
    /// Rustls refuses the parameters.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A pool without connections.
    #[error("max_size must be at least 1")]
    EmptyPool,
}

impl PgConfig {
    /// A configuration for this address, the rest as it is by default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// Says what is wrong, without connecting.
    pub fn check(&self) -> Result<(), PgConfigError> {
        if self.max_size == 0 {
            return Err(PgConfigError::EmptyPool);
        }
        self.parse()?;
        if let Some(path) = &self.password_file {
            read(path)?;
        }
        if let Some(path) = &self.ca_file {
            read(path)?;
        }
        Ok(())
    }

    /// The database's name, where the url says it.
    pub fn database(&self) -> Option<String> {
        self.parse().ok()?.get_dbname().map(str::to_owned)
    }

    /// The same server and settings, with another login and database.
    pub fn with_login(
        &self,
        user: &str,
        password_file: Option<&Path>,
        database: Option<&str>,
    ) -> Result<Self, PgConfigError> {
        let mut parsed = self.parse()?;
        parsed.user(user);
        if let Some(database) = database {
            parsed.dbname(database);
        }
        Ok(Self {
            url: to_url(&parsed),
            password_file: password_file.map(Path::to_owned),
            ..self.clone()
        })
    }

    /// The url as tokio-postgres has it, the encryption decided.
    pub(super) fn parse(&self) -> Result<tokio_postgres::Config, PgConfigError> {
        // We always verify fully, which is libpq's strictest mode and unknown to tokio-postgres.
        let url = self
            .url
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config = tokio_postgres::Config::from_str(&url).map_err(|_| PgConfigError::Url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(PgConfigError::NoHost);
        }
        let asked = config.get_ssl_mode();
        let mode = match self.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Auto if asked != SslMode::Require && is_local(&config) => SslMode::Disable,
            TlsMode::Auto if asked == SslMode::Disable => return Err(PgConfigError::PlainText),
            TlsMode::Auto | TlsMode::Require => SslMode::Require,
        };
        config
            .ssl_mode(mode)
            .connect_timeout(self.connect_timeout)
            .application_name(self.application_name.as_str());
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        Ok(config)
    }

    /// The password in the file, without the line's end.
    pub(super) fn password(&self) -> Result<Option<crate::Secret<String>>, PgConfigError> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let text = crate::Secret::new(read(path)?);
        Ok(Some(crate::Secret::from(
            text.expose().trim_end_matches(['\r', '\n']),
        )))
    }
}

impl Validate for PgConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(self.max_size > 0, "max_size", "must be at least 1");
        let minute = Duration::from_mins(1);
        for (field, value) in [
            ("connect_timeout", self.connect_timeout),
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
            ("event_poll_interval", self.event_poll_interval),
        ] {
            problems.check(
                !value.is_zero() && value <= 10 * minute,
                field,
                "must be more than 0s and at most 10m",
            );
        }
        if let Err(error) = self.parse() {
            problems.report("url", error.to_string());
        }
        for (field, path) in [
            ("password_file", &self.password_file),
            ("ca_file", &self.ca_file),
        ] {
            if let Some(Err(error)) = path.as_deref().map(read) {
                problems.report(field, Chain(&error).to_string());
            }
        }
    }
}

impl Default for PgConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            max_size: 16,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            tls: TlsMode::default(),
            ca_file: None,
            application_name: "hawser".to_owned(),
            prepared_statements: true,
            event_poll_interval: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.parse().map_or_else(
            |_| "[unreadable]".to_owned(),
            |mut parsed| {
                parsed.password("");
                to_url(&parsed)
            },
        );
        f.debug_struct("PgConfig")
            .field("url", &url)
            .field("max_size", &self.max_size)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<String, PgConfigError> {
    std::fs::read_to_string(path).map_err(|source| PgConfigError::File {
        path: path.to_owned(),
        source,
    })
}

fn is_local(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse()
                    .is_ok_and(|address: IpAddr| address.is_loopback())
        }
    });
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// In the key-value form, which can say everything: several hosts, sockets, options.
fn to_url(config: &tokio_postgres::Config) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let hosts: Vec<_> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    pairs.push(("host", hosts.join(",")));
    pairs.push((
        "hostaddr",
        config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    ));
    pairs.push((
        "port",
        config
            .get_ports()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    ));
    pairs.push(("user", config.get_user().unwrap_or_default().to_owned()));
    pairs.push((
        "password",
        String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned(),
    ));
    pairs.push(("dbname", config.get_dbname().unwrap_or_default().to_owned()));
    pairs.push((
        "options",
        config.get_options().unwrap_or_default().to_owned(),
    ));
    if config.get_ssl_mode() == SslMode::Require {
        pairs.push(("sslmode", "require".to_owned()));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    let quoted = pairs.iter().map(|(key, value)| {
        format!(
            "{key}='{}'",
            value.replace('\\', "\\\\").replace('\'', "\\'")
        )
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str, tls: TlsMode) -> Option<SslMode> {
        PgConfig {
            tls,
            ..PgConfig::new(url)
        }
        .parse()
        .ok()
        .map(|config| config.get_ssl_mode())
    }

    #[test]
    fn tls_is_required_unless_the_server_is_on_this_machine() {
        assert_eq!(
            mode("postgres://a@db.internal/x", TlsMode::Auto),
            Some(SslMode::Require)
        );
        assert_eq!(
            mode("postgres://a@db.internal/x?sslmode=prefer", TlsMode::Auto),
            Some(SslMode::Require)
        );
        assert_eq!(
            mode(
                "postgres://a@db.internal/x?sslmode=verify-full",
                TlsMode::Auto
            ),
            Some(SslMode::Require)
        );
        assert_eq!(
            mode("postgres://a@db.internal/x?sslmode=disable", TlsMode::Auto),
            None
        );
        assert_eq!(
            mode("postgres://a@db.internal/x", TlsMode::Disable),
            Some(SslMode::Disable)
        );
        for local in [
            "postgres://a@127.0.0.1/x",
            "postgres://a@localhost:1/x",
            "host=/run/pg user=a",
            "postgres://a@[::1]/x",
        ] {
            assert_eq!(
                mode(local, TlsMode::Auto),
                Some(SslMode::Disable),
                "{local}"
            );
            assert_eq!(
                mode(local, TlsMode::Require),
                Some(SslMode::Require),
                "{local}"
            );
        }
        assert_eq!(
            mode("postgres://a@localhost,db.internal/x", TlsMode::Auto),
            Some(SslMode::Require)
        );
    }

    #[test]
    fn a_password_is_in_no_debug_output_and_no_error() {
        for url in [
            "postgres://a:canary@localhost/x",
            "host=localhost user=a password=canary",
            "postgres://a:canary@local host:x",
        ] {
            let config = PgConfig::new(url);
            let said = format!(
                "{config:?} {:?}",
                config.parse().map_err(|error| format!("{error} {error:?}"))
            );
            assert!(!said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn another_login_keeps_the_server() {
        let config = PgConfig::new("postgres://postgres:x@127.0.0.1:7777/postgres");
        let other = config
            .with_login("hawser_vault", Some(Path::new("/p w")), Some("it's"))
            .expect("it parses");
        let parsed = other.parse().expect("it parses");
        assert_eq!(parsed.get_user(), Some("hawser_vault"));
        assert_eq!(parsed.get_dbname(), Some("it's"));
        assert_eq!(parsed.get_ports(), [7777]);
        assert_eq!(other.password_file.as_deref(), Some(Path::new("/p w")));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error =
            serde_json::from_str::<PgConfig>(r#"{"uri": "x"}"#).expect_err("`uri` is no field");
        assert!(error.to_string().contains("uri"));
        let config: PgConfig =
            serde_json::from_str(r#"{"url": "host=/run", "statement_timeout": "3s"}"#)
                .expect("both are fields");
        assert_eq!(config.statement_timeout, Duration::from_secs(3));
    }
}
