//! The only way out: every HTTP request that Hawser makes goes through an [`Egress`].
//!
//! It refuses addresses inside the operator's network, speaks https alone, follows no redirect, asks no proxy, and
//! bounds each answer in time and in bytes. What it promises beyond that is to say *how far a request came*: a failed
//! call is either [`Delivery::NotSent`], or [`Delivery::Ambiguous`], or [`Delivery::Answered`], and whoever refreshes a
//! rotating token depends on the difference. That is why it drives hyper's connections itself: a client with a pool inside
//! can neither open a connection ahead of the request nor say of every failure whether a byte had left.
//!
//! HTTP/1.1 only, one request at a time on a connection, no decompression (answers are asked for as they are).
//!
//! Not here: what an answer means (`oauth-client`), which host a tenant may name (`provider-catalog`), and the clients
//! that operators alone configure: the KMS, OTLP, Postgres.

mod address;
mod client;
mod config;
mod connect;
mod error;
mod keys;
mod pool;
mod request;
mod resolve;
mod response;

pub use address::AddressPolicy;
pub use client::{Connection, Egress};
pub use config::EgressConfig;
pub use error::{Delivery, EgressError, Refusal};
pub use http::{HeaderMap, Method, StatusCode};
pub use keys::KeyFetcher;
pub use request::Request;
pub use resolve::{Resolve, SystemResolver};
pub use response::{NotJson, Response, retry_after};
pub use url::Url;
