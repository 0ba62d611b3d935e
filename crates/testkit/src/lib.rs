//! What tests of every crate share: a database each, a clock that stands still, a network that fails on demand, a log
//! that is looked into.
//!
//! Postgres is real: one server for all test processes, started by the first that needs it and left running for the
//! next run, and a fresh clone of a migrated template for each test ([`TestDatabase`]).

pub mod chaos;
mod clock;
mod cluster;
mod database;
pub mod logs;
mod wait;

pub use clock::{MockClock, SeededRng, deps, deps_at};
pub use cluster::{TestCluster, cluster};
pub use database::TestDatabase;
pub use wait::{eventually, eventually_some};
