#![doc = include_str!("../README.md")]

mod app;
mod config;

mod canonical_json;
mod document;
mod encode;
mod error;
mod event;
mod json;
mod page_token;
mod source;
mod source_token;

mod clients;
mod keys;

mod change_feed;
mod group_commit;
mod manage_sources;
mod process_event;
mod quotas;
mod read_documents;
mod receive_webhook;
mod record_documents;
mod replay_events;
mod reseal_sources;
mod source_cache;
mod wake;

mod api;
mod store;
mod tasks;

pub use app::WebhookIngest;
pub use config::{Config, HttpConfig, IntakeConfig, KeysConfig, ProcessingConfig};

use common::pg::Schema;

/// What the ingest keeps.
pub const SCHEMA: Schema = Schema {
    name: "ingest",
    migrations: common::pg::migrations!["0001_create_ingest_tables"],
};
