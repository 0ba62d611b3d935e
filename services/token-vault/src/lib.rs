#![doc = include_str!("../README.md")]

mod config;

mod grant;
mod oauth_client;
mod secrets;
mod text_enum;

mod contract;
mod error;

mod instance;
mod keys;
mod providers;
mod spool;
mod store;
mod vault;

mod access_records;
mod exchange_authorization;
mod get_credential;
mod grant_reads;
mod put_credential;
mod put_oauth_client;
mod refresh_grant;
mod revoke_grant;
mod settle_answer;

mod api;
mod app;
mod tasks;

mod base64_bytes;
mod failpoint;

pub use app::{SCHEMA, TokenVault};
pub use config::{Config, Environment, KeysConfig, RefreshConfig, TasksConfig};
