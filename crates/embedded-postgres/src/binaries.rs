//! Finding the server's programs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// `STRATEGY` of CREATE DATABASE, and security invoker views, are from 15.
const OLDEST: u32 = 15;

/// A folder with `postgres` and `initdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) folder: PathBuf,
    pub(crate) major: u32,
}

impl Binaries {
    /// Those that made `data`, or the newest.
    pub(crate) fn find(named: Option<&Path>, data: &Path) -> Result<Self, Error> {
        let all = match named
            .map(Path::to_owned)
            .or_else(|| setting("HAWSER_POSTGRES_BIN").map(PathBuf::from))
        {
            Some(folder) => vec![Self::at(&folder).ok_or(Error::NotBinaries { folder })?],
            None => Self::all(),
        };
        let version_file = data.join("PG_VERSION");
        if !version_file.exists() {
            return all.into_iter().next().ok_or(Error::NoBinaries);
        }
        let made_by = fs::read_to_string(&version_file)
            .map_err(Error::file(&version_file))?
            .trim()
            .to_owned();
        let found = all
            .iter()
            .map(|binaries| binaries.major.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        match all
            .into_iter()
            .find(|binaries| binaries.major.to_string() == made_by)
        {
            Some(binaries) => Ok(binaries),
            None if found.is_empty() => Err(Error::NoBinaries),
            None => Err(Error::Version {
                data: data.to_owned(),
                made_by,
                found,
            }),
        }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Newest first.
    fn all() -> Vec<Self> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for (parent, below) in [
            ("/usr/lib/postgresql", "bin"),
            ("/usr/local/opt", "bin"),
            ("/opt/homebrew/opt", "bin"),
            ("/usr", "bin"),
        ] {
            let entries = fs::read_dir(parent).into_iter().flatten().flatten();
            let named = entries.filter(|entry| {
                let name = entry.file_name();
                parent == "/usr/lib/postgresql"
                    || name.to_string_lossy().starts_with("postgresql@")
                    || name.to_string_lossy().starts_with("pgsql-")
            });
            folders.extend(named.map(|entry| entry.path().join(below)));
        }
        folders.extend(std::env::split_paths(&setting("PATH").unwrap_or_default()));
        let mut all: Vec<_> = folders
            .iter()
            .filter_map(|folder| Self::at(folder))
            .collect();
        all.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        all.dedup_by_key(|binaries| binaries.major);
        all
    }

    fn at(folder: &Path) -> Option<Self> {
        // Through symbolic links, as Postgres finds its share folder from where the program really lies.
        let folder = fs::canonicalize(folder.join("postgres"))
            .ok()?
            .parent()?
            .to_owned();
        if !folder.join("initdb").exists() {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let major = major(&String::from_utf8_lossy(&output.stdout))?;
        (major >= OLDEST).then_some(Self { folder, major })
    }
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → 15; also `18beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL) ").nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "where programs lie is the machine's setting and not a service's"
)]
fn setting(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("sh: not found"), None);
    }

    #[test]
    fn data_of_another_version_is_refused_in_a_sentence() {
        let data = tempfile::tempdir().expect("a temporary folder");
        fs::write(data.path().join("PG_VERSION"), "99\n").expect("it is ours");
        let error = Binaries::find(None, data.path()).expect_err("there is no Postgres 99");
        let said = error.to_string();
        assert!(
            said.contains("PostgreSQL 99") && said.contains("install"),
            "{said}"
        );
    }

    #[test]
    fn a_folder_without_binaries_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Binaries::find(Some(folder.path()), Path::new("/nonexistent"))
            .expect_err("it is empty");
        assert!(error.to_string().contains("HAWSER_POSTGRES_BIN"));
    }
}
