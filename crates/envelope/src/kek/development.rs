//! A key-encryption key that development makes for itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{KeyEncryptionKey, KeyError};
use crate::KEY_LEN;

/// A key for development, and whether it is new.
#[derive(Debug)]
pub struct DevelopmentKey {
    /// The key in the file.
    pub key: KeyEncryptionKey,
    /// Whether this call made it. Whoever calls says so to the person, for without the file nothing opens again.
    pub created: bool,
}

/// The key in `path`, which is made where it is not there yet, readable by its owner alone.
///
/// The file appears whole or not at all, and where several processes begin at once they all end with the same key.
/// Never for production: who can read the data can then read the key beside it.
pub fn development_key(
    path: &Path,
    random: impl FnMut(&mut [u8]),
) -> Result<DevelopmentKey, KeyError> {
    let created = if path.exists() {
        false
    } else {
        create(path, random).map_err(|source| KeyError::Write {
            path: path.to_owned(),
            source,
        })?
    };
    Ok(DevelopmentKey {
        key: KeyEncryptionKey::from_file(path)?,
        created,
    })
}

/// Whether it was this call that made the file.
fn create(path: &Path, mut random: impl FnMut(&mut [u8])) -> io::Result<bool> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    random(key.as_mut_slice());
    let mut line = Zeroizing::new([b'\n'; 2 * KEY_LEN + 1]);
    hex::encode_to_slice(key.as_slice(), &mut line[..2 * KEY_LEN]).map_err(io::Error::other)?;

    let mut suffix = [0; 8];
    random(&mut suffix);
    let draft = draft_path(path, &suffix);

    let created = write_draft(&draft, line.as_slice()).and_then(|()| publish(&draft, path));
    // Gone in every case; a draft that was never written is gone already.
    let _ = fs::remove_file(&draft);
    created
}

fn draft_path(path: &Path, suffix: &[u8]) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", hex::encode(suffix)));
    path.with_file_name(name)
}

fn write_draft(draft: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(line)?;
    file.sync_all()
}

/// A link, unlike a rename, never replaces a key that another process made in the meantime.
fn publish(draft: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(draft, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()?;
    Ok(true)
}
