//! The services' configurations, as `hawser up` fills them in. What is not said here is as in production.

use std::path::Path;

use anyhow::{Context as _, Result};
use common::Deps;
use common::identity::authority::Authority;
use common::identity::{Identity, IssuerConfig};
use common::rpc::{ClientConfig, IdentityConfig, ServerConfig};
use egress::EgressConfig;

use super::database::Server;
use crate::data_dir::DataDir;
use crate::instance::Instance;

/// What the configurations are made from.
pub(super) struct Configs<'a> {
    pub(super) dir: &'a DataDir,
    pub(super) server: &'a Server,
    pub(super) authority: &'a Authority,
    pub(super) instance: &'a Instance,
    pub(super) verifying_key: &'a Path,
}

impl Configs<'_> {
    pub(super) fn directory(&self) -> Result<tenant_directory::Config> {
        Ok(tenant_directory::Config {
            grpc: self.grpc("tenant-directory")?,
            identity: self.identity(),
            database: self.server.login("directory")?,
            egress: loopback_too(),
            ..tenant_directory::Config::default()
        })
    }

    pub(super) fn vault(&self, deps: &Deps) -> Result<token_vault::Config> {
        let key_file = self.dir.secret_file("key-encryption-key", deps)?;
        Ok(token_vault::Config {
            grpc: self.grpc("token-vault")?,
            identity: self.identity(),
            database: self.server.login("vault")?,
            egress: loopback_too(),
            environment: token_vault::Environment::Development,
            keys: token_vault::KeysConfig {
                file: Some(key_file),
                ..token_vault::KeysConfig::default()
            },
            spool_dir: self.dir.spool(),
            ..token_vault::Config::default()
        })
    }

    pub(super) fn broker(&self) -> Result<oauth_broker::Config> {
        Ok(oauth_broker::Config {
            grpc: self.grpc("oauth-broker")?,
            identity: self.identity(),
            database: self.server.login("broker")?,
            vault: self.client("vault")?,
            directory: self.client("directory")?,
            egress: loopback_too(),
            ..oauth_broker::Config::default()
        })
    }

    pub(super) fn scheduler(&self) -> Result<sync_scheduler::Config> {
        Ok(sync_scheduler::Config {
            grpc: self.grpc("sync-scheduler")?,
            identity: self.identity(),
            database: self.server.login("scheduler")?,
            egress: loopback_too(),
            broker: self.client("broker")?,
            directory: self.client("directory")?,
            ..sync_scheduler::Config::default()
        })
    }

    pub(super) fn ingest(&self) -> Result<webhook_ingest::Config> {
        Ok(webhook_ingest::Config {
            grpc: self.grpc("webhook-ingest")?,
            identity: self.identity(),
            database: self.server.login("ingest")?,
            egress: loopback_too(),
            vault: self.client("vault")?,
            broker: self.client("broker")?,
            scheduler: self.client("scheduler")?,
            directory: self.client("directory")?,
            ..webhook_ingest::Config::default()
        })
    }

    pub(super) fn worker(&self) -> Result<sync_worker::Config> {
        Ok(sync_worker::Config {
            tls: self.grpc("sync-worker")?.tls,
            scheduler: self.client("scheduler")?,
            broker: self.client("broker")?,
            ingest: self.client("ingest")?,
            egress: loopback_too(),
            ..sync_worker::Config::default()
        })
    }

    fn grpc(&self, service: &str) -> Result<ServerConfig> {
        let tls = self.authority.issue(&Identity::service(service), &[])?;
        Ok(ServerConfig {
            tls,
            ..ServerConfig::default()
        })
    }

    /// Tokens of the development issuer are taken.
    fn identity(&self) -> IdentityConfig {
        let jwt = &self.instance.jwt;
        let issuer = IssuerConfig {
            public_key_file: Some(self.verifying_key.to_owned()),
            ..IssuerConfig::new(&jwt.issuer, &jwt.audience)
        };
        IdentityConfig {
            policy_file: None,
            issuers: vec![issuer],
        }
    }

    fn client(&self, name: &str) -> Result<ClientConfig> {
        let address = self
            .instance
            .grpc
            .get(name)
            .context("every service has an address")?;
        Ok(ClientConfig {
            address: address.to_string(),
        })
    }
}

/// Providers on this machine, the simulated one among them, may be spoken to without TLS.
fn loopback_too() -> EgressConfig {
    EgressConfig {
        allow_loopback_http: true,
        ..EgressConfig::default()
    }
}
