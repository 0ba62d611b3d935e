//! From the configuration to the keys.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::config::Duration;
use common::{Deps, Secret};
use egress::{Egress, EgressConfig};
use envelope::{Kek, KekId, KeyEncryptionKey, KeyError, KeyRing, Random, development_key};

use super::aws_credentials::CredentialSource;
use super::kms::AwsKms;
use super::transit::Transit;
use crate::config::{AwsKmsConfig, Environment, KekConfig, KeysConfig, TransitConfig};
use crate::store::StoreError;

/// Why the key-encryption keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// Production makes none by itself.
    #[error(
        "there is no key-encryption key: set `keys.file` to a file with the output of `openssl rand -hex 32`, \
         name keys in `keys.keks`, or set `environment` to \"development\""
    )]
    None,
    /// One of the keys is not what it should be.
    #[error("the key-encryption key `{id}` cannot be used")]
    Key {
        /// Its id.
        id: KekId,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A file that is configured without an id.
    #[error("the key-encryption key cannot be used")]
    Unusable(#[from] KeyError),
    /// An environment variable that was not set.
    #[error(
        "the environment variable {name}, which `keys.keks.{id}` names, is not set; it has to hold 64 hexadecimal characters"
    )]
    Variable {
        /// The variable.
        name: String,
        /// The key's id.
        id: KekId,
    },
    /// A setting is missing that only this machine could have given.
    #[error("`keys.keks.{id}` is not complete: {advice}")]
    Incomplete {
        /// The key's id.
        id: KekId,
        /// What to do.
        advice: &'static str,
    },
    /// A file with a certificate authority.
    #[error("the certificate authorities for the key service of `{id}` cannot be read")]
    Authorities {
        /// The key's id.
        id: KekId,
        /// What the system said.
        source: io::Error,
    },
    /// A key service that was waited for.
    #[error(
        "the key service for `{id}` could not be had within {patience}: see that it runs, that its address in `keys.keks.{id}` \
         can be reached from here, and start the vault again (`keys.start_timeout` says how long it waits)"
    )]
    Away {
        /// The key's id.
        id: KekId,
        /// How long.
        patience: Duration,
        /// What it said last.
        source: KeyError,
    },
    /// Other keys altogether.
    #[error(
        "none of the configured key-encryption keys is this database's; it was written with: {}. \
         Configure one of those beside a new one",
        known.join(", ")
    )]
    Unknown {
        /// The ids.
        known: Vec<String>,
    },
    /// A key that was taken away too early.
    #[error(
        "data keys are wrapped under the key-encryption key `{id}`, and no key-encryption key with the id `{id}` is configured; \
         configure it until RewrapDataKeys has left nothing under it"
    )]
    InUse {
        /// The key's id.
        id: KekId,
    },
    /// What is kept under the keys cannot be read or written.
    #[error("what is kept under the key-encryption keys cannot be had")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl KekError {
    pub(super) fn key(id: &KekId, source: KeyError) -> Self {
        Self::Key {
            id: id.clone(),
            source,
        }
    }
}

impl From<StoreError> for KekError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// A variable of the process's environment.
type Variable<'a> = &'a dyn Fn(&str) -> Option<Secret<String>>;

/// The configured keys; in development one that is made when there is none. Asks no key service yet.
///
/// # Errors
/// [`KekError`], for what the configuration and this machine cannot give.
pub fn key_ring(
    config: &KeysConfig,
    environment: Environment,
    deps: &Deps,
) -> Result<KeyRing, KekError> {
    let variable = |name: &str| {
        let mut all = common::config::environment();
        all.find(|(found, _)| found == name)
            .map(|(_, value)| Secret::new(value))
    };
    load(config, environment, &variable, deps)
}

fn load(
    config: &KeysConfig,
    environment: Environment,
    variable: Variable<'_>,
    deps: &Deps,
) -> Result<KeyRing, KekError> {
    let rng = Arc::clone(&deps.rng);
    let random: Random = Arc::new(move |bytes| rng.fill(bytes));
    let local = |key: KeyEncryptionKey| -> Box<dyn Kek> { Box::new(key.with(random.clone())) };

    let mut keks: Vec<Box<dyn Kek>> = Vec::new();
    match (&config.file, environment) {
        (Some(file), _) => keks.push(local(KeyEncryptionKey::from_file(file)?)),
        (None, _) if !config.keks.is_empty() => {}
        (None, Environment::Development) => {
            keks.push(local(development(&config.development_file, deps)?));
        }
        (None, Environment::Production) => return Err(KekError::None),
    }
    for (id, kek) in &config.keks {
        let id: KekId = id.parse()?;
        let made: Box<dyn Kek> = match (&kek.aws_kms, &kek.transit) {
            (Some(kms), _) => Box::new(aws_kms(id, kms, variable, deps)?),
            (_, Some(transit)) => Box::new(self::transit(id, transit, deps)?),
            _ => local(in_memory(&id, kek, variable)?.named(id)),
        };
        if config.current() == Some(made.id().as_str()) {
            keks.insert(0, made);
        } else {
            keks.push(made);
        }
    }
    for file in &config.older_files {
        keks.push(local(KeyEncryptionKey::from_file(file)?));
    }
    let current = keks.remove(0);
    Ok(KeyRing::new(current, keks)?)
}

fn in_memory(
    id: &KekId,
    config: &KekConfig,
    variable: Variable<'_>,
) -> Result<KeyEncryptionKey, KekError> {
    let read = match (&config.file, &config.env) {
        (Some(file), _) => KeyEncryptionKey::from_file(file),
        (_, Some(name)) => {
            let value = variable(name).ok_or_else(|| KekError::Variable {
                name: name.clone(),
                id: id.clone(),
            })?;
            KeyEncryptionKey::from_hex(value.expose()).map_err(|error| KeyError::Variable {
                name: name.clone(),
                source: Box::new(error),
            })
        }
        _ => {
            return Err(KekError::Incomplete {
                id: id.clone(),
                advice: "set one of `file`, `env`, `aws_kms` and `transit`",
            });
        }
    };
    read.map_err(|error| KekError::key(id, error))
}

fn development(path: &Path, deps: &Deps) -> Result<KeyEncryptionKey, KekError> {
    let found = development_key(path, |bytes| deps.rng.fill(bytes))?;
    if found.created {
        tracing::info!(
            event = "development_key_made",
            path = %path.display(),
            "made a key-encryption key for development in {}; without that file nothing in the vault opens again",
            path.display(),
        );
    }
    Ok(found.key)
}

fn aws_kms(
    id: KekId,
    config: &AwsKmsConfig,
    variable: Variable<'_>,
    deps: &Deps,
) -> Result<AwsKms, KekError> {
    let egress = egress(&id, config.ca_file.as_ref(), deps)?;
    let credentials = CredentialSource::find(config, variable);
    let credentials = credentials.ok_or_else(|| KekError::Incomplete {
        id: id.clone(),
        advice: "there are no AWS credentials; set `credentials_file`, or `web_identity_token_file` and `role_arn`, \
                 or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
    })?;
    let region = config
        .region
        .clone()
        .or_else(|| region_of(&config.key).map(str::to_owned))
        .or_else(|| plain(variable("AWS_REGION")))
        .or_else(|| plain(variable("AWS_DEFAULT_REGION")));
    let region = region.ok_or_else(|| KekError::Incomplete {
        id: id.clone(),
        advice: "the key's region is not known; set `region`, or name the key by its ARN",
    })?;
    AwsKms::new(&id, config, region, egress, credentials, deps).ok_or(KekError::Incomplete {
        id,
        advice: "the region gives no address; set `endpoint`",
    })
}

fn transit(id: KekId, config: &TransitConfig, deps: &Deps) -> Result<Transit, KekError> {
    let egress = egress(&id, config.ca_file.as_ref(), deps)?;
    Transit::new(&id, config, egress, deps).ok_or(KekError::Incomplete {
        id,
        advice: "set `address`, and `token_file` or `kubernetes`",
    })
}

/// Operators alone say where a key service is, often in their own network. Cloud metadata stays out of reach.
fn egress(id: &KekId, ca_file: Option<&PathBuf>, deps: &Deps) -> Result<Egress, KekError> {
    let everywhere = ["0.0.0.0/0", "::/0"].into_iter();
    let config = EgressConfig {
        allowed_cidrs: everywhere.filter_map(|net| net.parse().ok()).collect(),
        allow_loopback_http: true,
        body_limit: 64 * 1024,
        ca_files: ca_file.into_iter().cloned().collect(),
        ..EgressConfig::default()
    };
    Egress::new(config, deps).map_err(|source| KekError::Authorities {
        id: id.clone(),
        source,
    })
}

/// The fourth part of `arn:aws:kms:eu-central-1:111122223333:key/…`.
fn region_of(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    let is_arn = parts.next() == Some("arn");
    parts.nth(2).filter(|region| is_arn && !region.is_empty())
}

/// What is no secret.
fn plain(value: Option<Secret<String>>) -> Option<String> {
    value.map(|value| value.expose().clone())
}

#[cfg(test)]
mod tests;
