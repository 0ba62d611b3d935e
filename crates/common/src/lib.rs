//! What every Hawser service shares.
//!
//! In reading order: [`ids`] and [`deps`] (what everything is built from), [`problem`] and [`validate`] (what callers
//! are told), [`config`], [`telemetry`], [`lifecycle`] and [`admin`] (how a process lives), [`identity`] and [`rpc`]
//! (who calls, and how), [`pg`] (what is kept), [`reseal`] (what is kept sealed), [`service`] (all of it put together).
//!
//! Not here: anything that only one service needs, and anything about a provider.

pub mod admin;
pub mod config;
pub mod deps;
pub mod identity;
pub mod ids;
pub mod lifecycle;
pub mod pg;
pub mod problem;
pub mod reseal;
pub mod rpc;
pub mod secret;
pub mod service;
pub mod telemetry;
pub mod validate;

pub use deps::{Clock, Deps, Rng, SystemClock, SystemRng};
pub use ids::{InvalidId, TenantKey, bucket_of};
pub use problem::{Code, Problem, Reason};
pub use secret::Secret;
