#![doc = include_str!("../README.md")]

pub mod api_key;
pub mod app;
pub mod config;
pub mod deletion;
pub mod directory;
pub mod email;
pub mod error;
pub mod etag;
pub mod field_path;
pub mod name;
pub mod page_token;
pub mod seed;
pub mod store;
pub mod subdomain;
pub mod tenant;
pub mod tenant_config;
pub mod user;

mod access;
mod advance_deletion;
mod api;
mod authenticate_api_key;
mod claim_names;
mod create_tenant;
mod delete_tenant;
mod encode;
mod events;
mod issue_api_key;
mod json;
mod keep_users;
mod look_up;
mod read_tenants;
mod tasks;
mod update_tenant;

pub use app::TenantDirectory;
pub use config::Config;
pub use directory::Directory;
pub use seed::{Development, NotDevelopment, Seeded, seed};

use common::pg::Schema;

/// What the directory keeps.
pub static SCHEMA: Schema = Schema {
    name: "directory",
    migrations: common::pg::migrations![
        "0001_create_tenants",
        "0002_create_users",
        "0003_create_deletions",
        "0004_create_api_keys",
    ],
};
