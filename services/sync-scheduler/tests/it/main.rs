//! The scheduler, through its gRPC clients, over mutual TLS, on Postgres. The broker and the directory are stand-ins.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broker;
mod directory;
mod events;
mod failures;
mod fairness;
mod faults;
mod initial_sync;
mod isolation;
mod leases;
mod overrides;
mod schedules;
mod triggers;
mod world;
