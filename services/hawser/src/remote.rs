//! A running instance, called as its operator or as somebody else.

use std::path::Path;

use anyhow::{Context as _, Result};
use common::Deps;
use common::identity::tls::{Tls, TlsConfig};
use common::rpc::{Channel, Client, ClientConfig};

use crate::instance::Instance;

/// The services by their short names, as `hawser.json` has them.
pub const SERVICES: [(&str, &str); 5] = [
    ("directory", "tenant-directory"),
    ("vault", "token-vault"),
    ("broker", "oauth-broker"),
    ("scheduler", "sync-scheduler"),
    ("ingest", "webhook-ingest"),
];

/// Channels to every service.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The tenant directory.
    pub directory: Channel,
    /// The token vault.
    pub vault: Channel,
    /// The OAuth broker.
    pub broker: Channel,
    /// The sync scheduler.
    pub scheduler: Channel,
    /// The webhook ingest.
    pub ingest: Channel,
}

impl Remote {
    /// Calls the instance with its operator's certificate.
    ///
    /// # Errors
    /// Where the certificate cannot be read.
    pub fn operator(instance: &Instance, deps: &Deps) -> Result<Self> {
        let tls = &instance.tls;
        Self::with_certificate(instance, &tls.ca, &tls.client_cert, &tls.client_key, deps)
    }

    /// Calls the instance with another certificate.
    ///
    /// # Errors
    /// Where the certificate cannot be read.
    pub fn with_certificate(
        instance: &Instance,
        ca: &Path,
        cert: &Path,
        key: &Path,
        deps: &Deps,
    ) -> Result<Self> {
        let config = TlsConfig {
            ca_file: ca.to_owned(),
            cert_file: cert.to_owned(),
            key_file: key.to_owned(),
        };
        let client = Client::new(Tls::load(&config, deps.clock.clone())?, deps);
        let channel = |short: &str| -> Result<Channel> {
            let (_, service) = SERVICES
                .iter()
                .find(|(name, _)| *name == short)
                .context("every service has a name")?;
            let address = instance
                .grpc
                .get(short)
                .with_context(|| format!("hawser.json names no address of {service}"))?;
            Ok(client.channel(
                service,
                &ClientConfig {
                    address: address.to_string(),
                },
            )?)
        };
        Ok(Self {
            directory: channel("directory")?,
            vault: channel("vault")?,
            broker: channel("broker")?,
            scheduler: channel("scheduler")?,
            ingest: channel("ingest")?,
        })
    }
}
