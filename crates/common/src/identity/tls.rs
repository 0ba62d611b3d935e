//! Mutual TLS with certificates that are read again when their files change.
//!
//! The files are looked at, at most once a second, when a connection is made; nothing runs in between.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::Clock;
use crate::config::{Problems, Validate};

/// Where the certificates are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate authorities that peers are checked against, PEM.
    pub ca_file: PathBuf,
    /// Our own certificate chain, PEM; its URI SAN is our identity.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or not PEM.
    #[error(
        "{path} cannot be read as PEM; check that it exists, is readable, and holds what `tls` says"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The files do not go together.
    #[error(
        "the certificates in {path} cannot be used; check that key and certificate belong together"
    )]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate authorities' file holds none that can check a client.
    #[error("{path} holds no certificate authority")]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
}

/// Certificates in use, for both sides of a connection.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked_at: Duration,
    changed_at: [Option<SystemTime>; 3],
    loaded: Loaded,
}

#[derive(Clone, Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Validate for TlsConfig {
    fn validate(&self, problems: &mut Problems) {
        for (field, path, holds) in [
            (
                "ca_file",
                &self.ca_file,
                "the certificate authorities that peers are checked against",
            ),
            (
                "cert_file",
                &self.cert_file,
                "this service's certificate chain",
            ),
            ("key_file", &self.key_file, "the private key of `cert_file`"),
        ] {
            problems.check(
                path.is_file(),
                field,
                format!("name a PEM file with {holds}; `hawser up` makes its own"),
            );
        }
    }
}

const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
const ALPN_HTTP2: &[u8] = b"h2";

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn load(config: &TlsConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, TlsError> {
        let state = State {
            looked_at: clock.boottime(),
            changed_at: changed_at(config),
            loaded: Loaded::read(config)?,
        };
        Ok(Arc::new(Self {
            config: config.clone(),
            clock,
            state: Mutex::new(state),
        }))
    }

    /// For a connection that comes in. A client without a certificate is let in: an API key or a user's token may
    /// still say who it is.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }

    /// For a connection that goes out.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    fn current(&self) -> Loaded {
        let mut state = self.state.lock().expect("no holder of this lock can panic");
        let now = self.clock.boottime();
        if now >= state.looked_at + LOOK_AGAIN_AFTER {
            state.looked_at = now;
            let changed = changed_at(&self.config);
            if changed != state.changed_at {
                match Loaded::read(&self.config) {
                    Ok(loaded) => {
                        tracing::info!(event = "certificates_reloaded", file = %self.config.cert_file.display(), "certificates were read again");
                        state.loaded = loaded;
                        state.changed_at = changed;
                    }
                    // Half-written files are normal for a moment; the old ones stay in use and the next look tries again.
                    Err(error) => {
                        tracing::warn!(event = "certificates_unreadable", error = %crate::problem::Chain(&error), "changed certificates cannot be read; the old ones stay in use");
                    }
                }
            }
        }
        state.loaded.clone()
    }
}

impl Loaded {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let unusable = |source| TlsError::Unusable {
            path: config.cert_file.clone(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&config.ca_file)? {
            roots.add(authority).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&config.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(|source| {
            TlsError::Unreadable {
                path: config.key_file.clone(),
                source,
            }
        })?;

        let verifier = WebPkiClientVerifier::builder(roots.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|_| TlsError::NoAuthority {
                path: config.ca_file.clone(),
            })?;
        let mut server = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// The identity in a verified peer's certificate, its URI SAN.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate
        .valid_uri_names()
        .find_map(Identity::from_spiffe)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::Unreadable {
            path: path.to_owned(),
            source,
        })
}

fn changed_at(config: &TlsConfig) -> [Option<SystemTime>; 3] {
    [&config.ca_file, &config.cert_file, &config.key_file].map(|path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    })
}
