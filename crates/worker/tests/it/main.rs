//! A worker against a scheduler that does what the test says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ends;
mod leases;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod world;
