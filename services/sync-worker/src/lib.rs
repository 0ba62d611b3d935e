#![doc = include_str!("../README.md")]

mod app;
mod broker;
mod config;
mod failure;
mod fetch_pages;
mod ledger;
mod limits;
mod metrics;
mod progress;
mod sync_job;

pub use app::{Connectors, SyncWorker, start};
pub use config::{Config, PageConfig};
