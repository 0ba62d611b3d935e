//! The crate's integration tests, in one binary.

mod admin;
mod config;
mod lifecycle;
mod pg;
mod rpc;
mod telemetry;
