//! A Postgres server of our own, from the binaries that the machine has.
//!
//! [`Cluster::start`] makes a cluster in a folder, starts it on a Unix socket and a loopback port with a generated
//! password, and keeps its data. In the folder:
//!
//! | what | |
//! | --- | --- |
//! | `data/` | Postgres' own; made aside and renamed, so it is whole or not there |
//! | `superuser.password` | of the login `postgres`; mode 0600 |
//! | `postgres.log` | what the server says |
//! | `lock` | held by the process that the server belongs to |
//!
//! The server is stopped with us: by [`Cluster::stop`] when there is time, by the parent-death signal (`setpriv
//! --pdeathsig`) when we are killed, and where neither happened, by the next start, which ends what still runs in the
//! folder before it starts anew. What was committed survives each of these.
//!
//! As root, which Postgres refuses to run as, every program runs as the user `postgres`.
//!
//! Not here: roles, schemas, and databases; nothing that speaks SQL.

mod binaries;
mod cluster;
mod error;
mod postmaster;
mod run_as;

pub use cluster::{Cluster, Lifetime, Options, StopMode};
pub use error::Error;
