#![doc = include_str!("../README.md")]

mod config;
mod connection;
mod credential;
mod error;
mod integration;
mod link_token;
mod page_token;
mod routing_key;
mod session;

mod broker;
mod clients;
mod events;
mod provider_api;
mod sealer;

mod choose_account;
mod complete_session;
mod create_integration;
mod create_session;
mod delete_integration;
mod disconnect;
mod finish_authorization;
mod follow_grant;
mod import_connection;
mod refresh_accounts;
mod request_context;
mod resolve_integration;
mod route;
mod save_connection;
mod select_account;
mod settle_grants;
mod start_authorization;
mod status;
mod update_integration;

mod api;
mod app;
mod pages;
mod store;
mod tasks;

pub use app::{OauthBroker, SCHEMA};
pub use config::{Config, HttpConfig, PagesConfig, UpkeepConfig};
