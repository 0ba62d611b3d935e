//! Where the key-encryption key comes from.

use std::path::Path;
use std::sync::Arc;

use common::Deps;
use envelope::{KeyEncryptionKey, KeyEncryptionKeys, KeyError, LocalKeys, Random, development_key};

use crate::config::{Environment, KeysConfig};

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KekError {
    /// Production makes none by itself.
    #[error(
        "there is no key-encryption key: set `keys.file` to a file with the output of `openssl rand -hex 32`, \
         or `environment` to \"development\""
    )]
    None,
    /// The file is not what it should be.
    #[error("the key-encryption key cannot be used")]
    Unusable(#[from] KeyError),
}

/// The configured keys; in development one that is made when there is none.
pub(crate) fn load(
    config: &KeysConfig,
    environment: Environment,
    deps: &Deps,
) -> Result<Box<dyn KeyEncryptionKeys>, KekError> {
    let current = match (&config.file, environment) {
        (Some(file), _) => KeyEncryptionKey::from_file(file)?,
        (None, Environment::Production) => return Err(KekError::None),
        (None, Environment::Development) => development(&config.development_file, deps)?,
    };
    let older = config
        .older_files
        .iter()
        .map(|file| KeyEncryptionKey::from_file(file));
    let older = older.collect::<Result<Vec<_>, _>>()?;
    let rng = Arc::clone(&deps.rng);
    let random: Random = Arc::new(move |bytes| rng.fill(bytes));
    Ok(Box::new(LocalKeys::new(current, older, random)?))
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
