//! `hawser.json`: where everything is, for whoever wants to call it. It names files with secrets, and holds none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, DataDirError, write_private};

/// A running instance, or the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// gRPC addresses by service.
    pub grpc: BTreeMap<String, SocketAddr>,
    /// HTTP base URLs by listener.
    pub http: BTreeMap<String, String>,
    /// An operator's client certificate.
    pub tls: ClientTls,
    /// The development issuer of users' tokens.
    pub jwt: Issuer,
    /// The database, without its password.
    pub database_url: String,
    /// The file with its password.
    pub database_password_file: PathBuf,
}

/// Files of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    /// Whom to believe.
    pub ca: PathBuf,
    /// The certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// A development issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// The tokens' `aud`.
    pub audience: String,
    /// The signing key, PEM.
    pub private_key: PathBuf,
}

/// No instance was started in this folder, or its file is damaged.
#[derive(Debug, thiserror::Error)]
#[error("{path} is missing or damaged; start Hawser with `hawser up` first")]
pub struct NoInstance {
    path: PathBuf,
}

impl Instance {
    /// The instance that was last started in this folder.
    ///
    /// # Errors
    /// [`NoInstance`] where there was none.
    pub fn read(dir: &DataDir) -> Result<Self, NoInstance> {
        let path = dir.instance_file();
        let bytes = std::fs::read(&path).ok();
        let instance = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        instance.ok_or(NoInstance { path })
    }

    /// Writes it down, mode 0600.
    ///
    /// # Errors
    /// [`DataDirError::File`] where it cannot be written.
    pub fn write(&self, dir: &DataDir) -> Result<(), DataDirError> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("paths and addresses can be written as JSON");
        text.push(b'\n');
        write_private(&dir.instance_file(), &text)
    }
}
