#![doc = include_str!("../README.md")]

mod allow_sync;
mod api;
mod app;
mod choose;
mod clients;
mod config;
mod encode;
mod error;
mod events;
mod field_mappings;
mod finish_jobs;
mod job;
mod json;
mod keep_leases;
mod lease_jobs;
mod lock;
mod read_syncs;
mod repeat;
mod settle_sync;
mod start_initial_sync;
mod steer_jobs;
mod store;
mod stream;
mod sync_state;
mod tasks;
mod trigger_sync;
mod turns;
mod wake;

pub use app::SyncScheduler;
pub use config::Config;

use common::pg::Schema;

/// What the scheduler keeps.
pub static SCHEMA: Schema = Schema {
    name: "scheduler",
    migrations: common::pg::migrations!["0001_create_sync_tables"],
};
