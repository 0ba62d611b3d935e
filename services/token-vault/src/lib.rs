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
mod renewal;
mod spool;
mod store;
mod vault;

mod access_records;
mod drop_access_records;
mod exchange_authorization;
mod get_credential;
mod list_access_records;
mod push_authorization_request;
mod put_credential;
mod put_oauth_client;
mod refresh_grant;
mod revoke_grant;
mod rewrap_data_keys;
mod rotate_data_keys;
mod run_key_job;
mod settle_answer;
mod shred_tenant;
mod start_device_authorization;
mod verify_access_records;
mod verify_macs;

mod api;
mod app;
mod tasks;

mod base64_bytes;
mod failpoint;

pub use app::{SCHEMA, TokenVault};
pub use config::{
    AccessRecordsConfig, AwsKmsConfig, Config, Environment, KekConfig, KeysConfig,
    KubernetesLoginConfig, RefreshConfig, TasksConfig, TransitConfig,
};
pub use keys::{KekError, key_ring};
