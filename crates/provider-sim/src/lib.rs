#![doc = include_str!("../README.md")]

mod api;
pub mod browser;
mod clock;
pub mod config;
mod control;
mod control_api;
mod counters;
mod data;
mod faults;
mod fixtures;
pub mod http_client;
mod oauth;
mod observe;
mod persist;
mod presets;
mod random;
mod server;
mod simulator;
mod webhook;
mod world;

pub use clock::Clock;
pub use config::SimConfig;
pub use control::{Control, ControlError, GrantView, IssuedGrant, Part};
pub use counters::{Call, CallCount, Counters, CountersView, GrantCounters};
pub use data::{Changed, Changes, CollectionName, NoSuchRecord, RecordSummary, Update};
pub use faults::{ActiveFault, ErrorShape, Fault, FaultRule, MalformedBody};
pub use oauth::grants::RevokeCause;
pub use oauth::keys::KeyError;
pub use persist::StateError;
pub use simulator::{Simulator, StartError};
pub use webhook::{WebhookError, WebhookOutcome, WebhookRequest, WebhookScheme};
