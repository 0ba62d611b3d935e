//! What tests of every crate share: a database each, a clock that stands still, a network that fails on demand, a log
//! that is looked into.
//!
//! Postgres is real: one server for all test processes, started by the first that needs it and left running for the
//! next run, and a fresh clone of a migrated template for each test ([`TestDatabase`]). A test that takes the database away has
//! a server of its own ([`TestServer`]).

pub mod chaos;
mod clock;
mod cluster;
mod database;
pub mod logs;
mod process;
mod server;
mod wait;

pub use clock::{MockClock, SeededRng, deps, deps_at};
pub use cluster::{TestCluster, cluster};
pub use database::TestDatabase;
pub use embedded_postgres::StopMode;
pub use process::Process;
pub use server::TestServer;
pub use wait::{eventually, eventually_by, eventually_some};
