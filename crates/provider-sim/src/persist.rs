//! The state file: what a restarted simulator has to know to honour the tokens it has issued.
//!
//! It is replaced as a whole, by a rename, before the answer that depends on it is sent. Counters, faults and open consent pages are not in it.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::config::ClientConfig;
use crate::data::SavedRecords;
use crate::oauth::grants::Grants;
use crate::oauth::keys::SavedKeys;
use crate::world::World;

const VERSION: u32 = 1;

/// Where the state is kept, and how far it is written.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    changes: AtomicU64,
    written: Mutex<u64>,
}

/// What is kept. Generic over ownership, to write without copying.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved<G = Grants> {
    version: u32,
    pub(crate) keys: SavedKeys,
    pub(crate) advanced_ms: i64,
    pub(crate) clients: Vec<(String, Vec<ClientConfig>)>,
    pub(crate) records: SavedRecords,
    pub(crate) grants: G,
}

/// State that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("the state file {} could not be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a state file.
    #[error("the state file {} could not be understood; remove it to start afresh", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by another version.
    #[error("the state file {} has version {version}, and this simulator reads version {VERSION}; remove it to start afresh", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// All that is read of a file before it is known to be of this version.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl StateFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            changes: AtomicU64::new(0),
            written: Mutex::new(0),
        }
    }

    /// What was kept, if anything was.
    pub(crate) fn load(&self) -> Result<Option<Saved>, StateError> {
        let path = || self.path.clone();
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StateError::Io {
                    path: path(),
                    source,
                });
            }
        };
        let parse = |source| StateError::Parse {
            path: path(),
            source,
        };
        let Version { version } = serde_json::from_slice(&bytes).map_err(parse)?;
        if version != VERSION {
            return Err(StateError::Version {
                path: path(),
                version,
            });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(parse)
    }
}

impl World {
    /// Takes back what was kept.
    pub(crate) fn restore(&self, saved: Saved) {
        self.clock.set_advanced_ms(saved.advanced_ms);
        for (slug, clients) in saved.clients {
            for client in clients {
                self.put_client(&slug, client);
            }
        }
        self.records().restore(saved.records);
        *self.grants() = saved.grants;
    }

    /// Adds a client to a provider, in place of the one with its id. Says whether there is such a provider.
    pub(crate) fn put_client(&self, slug: &str, client: ClientConfig) -> bool {
        let Some(provider) = self.provider(slug) else {
            return false;
        };
        let mut provider = (*provider).clone();
        provider
            .clients
            .retain(|known| known.client_id != client.client_id);
        provider.clients.push(client);
        self.replace_provider(provider);
        true
    }

    /// Returns once every change made before the call is kept. One write serves all who wait.
    pub(crate) async fn keep(&self) -> Result<(), StateError> {
        let Some(file) = &self.state_file else {
            return Ok(());
        };
        let wanted = file.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let mut written = file.written.lock().await;
        if *written >= wanted {
            return Ok(());
        }
        let at = file.changes.load(Ordering::SeqCst);
        let bytes = self.snapshot();
        let path = file.path.clone();
        let result = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|source| StateError::Io {
            path: file.path.clone(),
            source,
        })?;
        *written = at;
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        let clients = self
            .providers()
            .iter()
            .map(|provider| (provider.slug.clone(), provider.clients.clone()))
            .collect();
        let records = self.records().save();
        let grants = self.grants();
        let saved = Saved {
            version: VERSION,
            keys: self.keys.save(),
            advanced_ms: self.clock.advanced_ms(),
            clients,
            records,
            grants: &*grants,
        };
        serde_json::to_vec(&saved).expect("the state has only string keys and finite numbers")
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidFilename)?
        .to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}
