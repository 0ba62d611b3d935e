//! Kinds of settings: durations as people write them, and secrets as paths.

use std::fmt;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Secret;

/// A span of time, written as "30s", "1h 30m" or "250ms".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(#[serde(with = "humantime_serde")] std::time::Duration);

/// The path of a file that holds one secret; the configuration itself never does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

/// A secret that could not be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file is not there, or is not ours to read.
    #[error("cannot read the secret in {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing but white space in the file.
    #[error("there is no secret in {}", .0.display())]
    Empty(PathBuf),
    /// Secrets are text; keys are PEM or base64.
    #[error("the secret in {} is not UTF-8 text", .0.display())]
    NotText(PathBuf),
}

impl Duration {
    /// `seconds`.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// `millis`.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl Deref for Duration {
    type Target = std::time::Duration;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SecretFile {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret, without the white space around it. Warns if everybody on the machine could.
    pub fn read(&self) -> Result<Secret<String>, SecretFileError> {
        let unreadable = |source| SecretFileError::Unreadable {
            path: self.0.clone(),
            source,
        };
        let mode = fs::metadata(&self.0)
            .map_err(unreadable)?
            .permissions()
            .mode();
        if mode & 0o004 != 0 {
            tracing::warn!(
                event = "secret_file_exposed",
                path = %self.0.display(),
                mode = %format_args!("{:04o}", mode & 0o7777),
                "a secret's file can be read by every user of this machine; chmod it to 0600 or 0640",
            );
        }
        let bytes = Zeroizing::new(fs::read(&self.0).map_err(unreadable)?);
        let text = str::from_utf8(&bytes).map_err(|_| SecretFileError::NotText(self.0.clone()))?;
        match text.trim() {
            "" => Err(SecretFileError::Empty(self.0.clone())),
            secret => Ok(Secret::new(secret.to_owned())),
        }
    }
}

impl From<PathBuf> for SecretFile {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl SecretFileError {
    /// One line for the configuration's problems, the cause included.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Unreadable { path, source } => format!(
                "the file {} cannot be read ({source}); put the secret there, readable by this process, or correct the path",
                path.display()
            ),
            Self::Empty(path) => format!(
                "the file {} is empty; put the secret into it",
                path.display()
            ),
            Self::NotText(path) => format!(
                "the file {} must hold UTF-8 text (PEM or base64)",
                path.display()
            ),
        }
    }
}
