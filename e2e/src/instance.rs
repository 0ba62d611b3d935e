//! `hawser.json`, as its users read it: by what its documentation says, and not by the types that wrote it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Where everything is.
#[derive(Clone, Debug, Deserialize)]
pub struct Instance {
    /// gRPC addresses by service.
    pub grpc: BTreeMap<String, SocketAddr>,
    /// HTTP base URLs by listener.
    pub http: BTreeMap<String, String>,
    /// An operator's client certificate.
    pub tls: ClientTls,
    /// Who issues users' tokens.
    pub jwt: Issuer,
    /// The database, without its password.
    pub database_url: String,
    /// The file with its password.
    pub database_password_file: PathBuf,
}

/// Files of a client certificate.
#[derive(Clone, Debug, Deserialize)]
pub struct ClientTls {
    /// Whom to believe.
    pub ca: PathBuf,
    /// The certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// An issuer of users' tokens.
#[derive(Clone, Debug, Deserialize)]
pub struct Issuer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// The tokens' `aud`.
    pub audience: String,
    /// The signing key, PEM.
    pub private_key: PathBuf,
}

impl Instance {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not as documented", path.display()))
    }

    /// The address of a service: `broker`.
    ///
    /// # Panics
    /// Where the file does not name it.
    pub fn grpc(&self, service: &str) -> SocketAddr {
        *self
            .grpc
            .get(service)
            .unwrap_or_else(|| panic!("hawser.json names no gRPC address of {service}"))
    }

    /// The base URL of a listener: `ingest`.
    ///
    /// # Panics
    /// Where the file does not name it.
    pub fn http(&self, listener: &str) -> &str {
        self.http
            .get(listener)
            .unwrap_or_else(|| panic!("hawser.json names no URL of {listener}"))
    }
}
