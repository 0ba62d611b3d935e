//! Vaults in processes of their own: killed at every step, frozen, robbed of their database, called by all at once.
//!
//! The short forms run with all other tests. `FAULT_KILLS` and `FAULT_GRANTS` make them long, as `just faults` does;
//! `FAULT_SEED` repeats a run whose seed a failure has told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(
    dead_code,
    reason = "the other tests' world, of which these need a part"
)]
#[path = "../it/world.rs"]
mod world;

mod fleet;
mod replica;

mod database;
mod exchanges;
mod exposure;
mod frozen;
mod herd;
mod kills;
mod lost_answers;
mod steps;
