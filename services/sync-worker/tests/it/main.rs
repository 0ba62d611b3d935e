//! The sync worker against the simulated providers, with stand-ins for the services that it calls.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod failures;
mod first_sync;
mod interruptions;
mod later_syncs;
mod stand_ins;
#[path = "../../../../crates/worker/tests/support/mod.rs"]
mod support;
mod world;
