//! What `hawser up` keeps on disk: one folder with the cluster, keys, certificates, and the addresses of the last run.
//!
//! | what | |
//! | --- | --- |
//! | `VERSION` | the format of this folder |
//! | `lock` | held while a process uses it |
//! | `hawser.json` | where everything is, for clients |
//! | `postgres/` | the cluster |
//! | `certificates/` | a development authority and what it issued |
//! | `keys/` | the key-encryption key, the signing key of users' tokens, the logins' passwords |
//! | `spool/` | the vault's answers that the database has not taken yet |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use common::Deps;
use nix::fcntl::{Flock, FlockArg};

/// The format that this version writes.
const FORMAT: u32 = 1;

/// The folder, without a claim to it.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// The folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct HeldDataDir {
    /// The folder.
    pub dir: DataDir,
    _lock: Flock<File>,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error(
        "{path} is in use by another `hawser up`; stop that one, or choose another folder with --data-dir"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "{path} was written by a newer version of Hawser (format {found}, this one knows {FORMAT}); use that version, or another folder with --data-dir"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// There is something in it that is not ours.
    #[error("{path} is not a data folder of Hawser's; choose an empty or new one with --data-dir")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error(
        "{path} cannot be read or written; check who owns it, or choose another folder with --data-dir"
    )]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataDir {
    /// Names the folder; nothing is touched.
    ///
    /// # Errors
    /// [`DataDirError::File`] where the path cannot be made absolute.
    pub fn at(path: &Path) -> Result<Self, DataDirError> {
        let root = std::path::absolute(path).map_err(|source| DataDirError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { root })
    }

    /// Makes the folder where it is missing, and takes hold of it.
    ///
    /// # Errors
    /// [`DataDirError`] says what is in the way.
    pub fn hold(self) -> Result<HeldDataDir, DataDirError> {
        make_dir(&self.root)?;
        let version = self.root.join("VERSION");
        match fs::read_to_string(&version) {
            Ok(text) => {
                let found = text.trim().parse().map_err(|_| DataDirError::Foreign {
                    path: self.root.clone(),
                })?;
                if found > FORMAT {
                    return Err(DataDirError::Newer {
                        path: self.root,
                        found,
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries =
                    fs::read_dir(&self.root).map_err(|source| self.failed(&self.root, source))?;
                if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lock")) {
                    return Err(DataDirError::Foreign { path: self.root });
                }
            }
            Err(source) => return Err(self.failed(&version, source)),
        }
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|source| self.failed(&path, source))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            DataDirError::InUse {
                path: self.root.clone(),
            }
        })?;
        write_private(&version, format!("{FORMAT}\n").as_bytes())?;
        for folder in [self.certificates(), self.keys(), self.spool()] {
            make_dir(&folder)?;
        }
        Ok(HeldDataDir {
            dir: self,
            _lock: lock,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cluster.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The development authority and its certificates.
    pub fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    /// Keys and passwords.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The vault's spool.
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Where everything is, for clients.
    pub fn instance_file(&self) -> PathBuf {
        self.root.join("hawser.json")
    }

    /// The file of a secret, made of 256 random bits in hex where there is none.
    ///
    /// # Errors
    /// [`DataDirError::File`] where it cannot be read or written.
    pub fn secret_file(&self, name: &str, deps: &Deps) -> Result<PathBuf, DataDirError> {
        let path = self.keys().join(name);
        if !path.exists() {
            let bytes: [u8; 32] = deps.random();
            write_private(&path, hex(&bytes).as_bytes())?;
        }
        Ok(path)
    }

    fn failed(&self, path: &Path, source: io::Error) -> DataDirError {
        debug_assert!(
            path.starts_with(&self.root),
            "only what lies in the folder is touched"
        );
        DataDirError::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// Writes a file whole or not at all, readable by its owner alone.
///
/// # Errors
/// [`DataDirError::File`] where it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let failed = |source| DataDirError::File {
        path: path.to_owned(),
        source,
    };
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}

/// The root may be passed through by the user that Postgres runs as; what is secret in it is closed file by file.
fn make_dir(path: &Path) -> Result<(), DataDirError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(|source| DataDirError::File {
            path: path.to_owned(),
            source,
        })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn one_process_holds_it_at_a_time() {
        let folder = folder();
        let dir = || DataDir::at(&folder.path().join("data")).expect("a path");
        let held = dir().hold().expect("nobody has it");
        assert!(matches!(dir().hold(), Err(DataDirError::InUse { .. })));
        drop(held);
        dir().hold().expect("it was let go");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = folder();
        fs::write(folder.path().join("VERSION"), "2\n").expect("written");
        let refused = DataDir::at(folder.path()).expect("a path").hold();
        assert!(matches!(refused, Err(DataDirError::Newer { found: 2, .. })));
    }

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let folder = folder();
        fs::write(folder.path().join("thesis.txt"), "years of work").expect("written");
        let refused = DataDir::at(folder.path()).expect("a path").hold();
        assert!(matches!(refused, Err(DataDirError::Foreign { .. })));
        assert!(!folder.path().join("VERSION").exists());
    }

    #[test]
    fn a_secret_is_made_once_and_closed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder();
        let held = DataDir::at(&folder.path().join("data"))
            .expect("a path")
            .hold()
            .expect("free");
        let deps = Deps::system("test");
        let path = held.dir.secret_file("kek.hex", &deps).expect("made");
        let first = fs::read(&path).expect("read");
        assert_eq!(first.len(), 64);
        assert_eq!(
            fs::read(held.dir.secret_file("kek.hex", &deps).expect("kept")).expect("read"),
            first
        );
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
    }
}
