//! Sentences that say what to do.

use std::io;
use std::path::PathBuf;

/// The server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No binaries.
    #[error(
        "no PostgreSQL server of version 15 or newer was found on this machine: install it with `apt-get install postgresql` (or `dnf install postgresql-server`, `brew install postgresql@17`), or set HAWSER_POSTGRES_BIN to the folder that holds `postgres` and `initdb`, or use another server with --database-url"
    )]
    NoBinaries,
    /// The folder that was named holds none.
    #[error("HAWSER_POSTGRES_BIN is {}, which holds no `postgres` and `initdb` of version 15 or newer", folder.display())]
    NotBinaries {
        /// The folder.
        folder: PathBuf,
    },
    /// The data was made by another major version.
    #[error("the data in {} was made by PostgreSQL {made_by}, and this machine has {found}: install PostgreSQL {made_by}, or choose another data dir", data.display())]
    Version {
        /// The data.
        data: PathBuf,
        /// The major version that made it.
        made_by: String,
        /// What there is.
        found: String,
    },
    /// Root, and nobody to run it as.
    #[error(
        "Postgres does not run as root, and there is no user `{user}` to run it as: make one with `useradd --system {user}`, or run this as an ordinary user"
    )]
    NoUser {
        /// The user that was looked for.
        user: String,
    },
    /// Root, and no way to become somebody else.
    #[error(
        "Postgres does not run as root, and neither setpriv, runuser nor su is there to run it as another user: install util-linux, or run this as an ordinary user"
    )]
    NoLauncher,
    /// The user cannot get to the data.
    #[error("the user `{user}`, as whom Postgres runs here, may not enter {}: choose a data dir elsewhere, such as /var/lib/hawser, or run `chmod o+x {}`", folder.display(), folder.display())]
    Unreachable {
        /// As whom.
        user: String,
        /// The folder that is in the way.
        folder: PathBuf,
    },
    /// Somebody else's.
    #[error("another process is using the data in {}: stop it, or choose another data dir", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// `initdb` failed.
    #[error("the database could not be made in {}: {said}", data.display())]
    Initdb {
        /// Where.
        data: PathBuf,
        /// What it said last.
        said: String,
    },
    /// The server ended at once.
    #[error("Postgres did not start: {said} (more in {})", log.display())]
    Start {
        /// What it said last.
        said: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// The server neither came up nor ended.
    #[error("Postgres was not ready after {seconds} s: see {}", log.display())]
    Slow {
        /// How long we waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// The server does not stop.
    #[error("Postgres (process {pid}) does not stop")]
    Stuck {
        /// The postmaster.
        pid: i32,
    },
    /// A program cannot be run.
    #[error("{} cannot be run", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
