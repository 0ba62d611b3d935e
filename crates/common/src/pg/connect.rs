//! Opening connections: password from its file, TLS by rustls, and the task that serves each one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Connect;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Error, PgConfig, PgConfigError};

type Opened = (Client, JoinHandle<()>);

/// Opens connections for the pool.
pub(super) struct Connector {
    config: PgConfig,
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    pub(super) fn new(config: &PgConfig) -> Result<Self, PgConfigError> {
        config.check()?;
        let tls = match config.parse()?.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(tls(config)?),
        };
        Ok(Self {
            config: config.clone(),
            tls,
        })
    }

    pub(super) async fn open(&self) -> Result<Opened, Error> {
        let mut config = self.config.parse()?;
        if let Some(password) = self.config.password()? {
            config.password(password.expose());
        }
        open(config, self.tls.clone()).await.map_err(Error::Connect)
    }

    /// Asks the server to stop what this connection is doing.
    pub(super) async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let token = client.cancel_token();
        match self.tls.clone() {
            Some(tls) => token.cancel_query(tls).await,
            None => token.cancel_query(NoTls).await,
        }
    }
}

/// For deadpool, whose errors are tokio-postgres' own.
pub(super) struct PoolConnector(pub(super) Arc<Connector>);

impl Connect for PoolConnector {
    fn connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> Pin<Box<dyn Future<Output = Result<Opened, tokio_postgres::Error>> + Send + '_>> {
        let mut config = config.clone();
        Box::pin(async move {
            match self.0.config.password() {
                Ok(Some(password)) => {
                    config.password(password.expose());
                }
                Ok(None) => {}
                Err(error) => tracing::error!(
                    event = "database_password_unreadable",
                    error = %crate::problem::Chain(&error),
                    "the database's password cannot be read; connecting without one"
                ),
            }
            open(config, self.0.tls.clone()).await
        })
    }
}

/// One connection of its own, outside of a pool.
pub(super) async fn connect(config: &PgConfig) -> Result<Client, Error> {
    Ok(Connector::new(config)?.open().await?.0)
}

async fn open(
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
) -> Result<Opened, tokio_postgres::Error> {
    if let Some(tls) = tls {
        let (client, connection) = config.connect(tls).await?;
        Ok((client, tokio::spawn(serve(connection))))
    } else {
        let (client, connection) = config.connect(NoTls).await?;
        Ok((client, tokio::spawn(serve(connection))))
    }
}

/// Whoever waits for an answer hears of the failure too; this only notes the reason of one that nobody was waiting on.
async fn serve(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(event = "database_connection_lost", error = %crate::problem::Chain(&error), "a database connection was lost");
    }
}

fn tls(config: &PgConfig) -> Result<MakeRustlsConnect, PgConfigError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca_file {
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|_| PgConfigError::Certificate { path: path.clone() })?;
        let (added, _) = roots.add_parsable_certificates(certificates.flatten());
        if added == 0 {
            return Err(PgConfigError::Certificate { path: path.clone() });
        }
    } else {
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(PgConfigError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
