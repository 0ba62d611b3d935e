//! Verifying that a webhook comes from its provider, and reading what it says of itself.
//!
//! A [`Scheme`] is one provider's way to sign, as data: a file in `schemes/`, compiled in, checked when it is read. A
//! few verifiers in code read the data. [`verify`] works on the raw bytes of the request, compares in constant time,
//! tries the new and the old secret while one replaces the other, and refuses whatever it does not understand.
//! The body is parsed only once its signature has been found good.
//!
//! The crate is pure: no network, no storage, no clock. It does not take requests in, store events, or find
//! connections; the ingest does.
//!
//! Reading order: [`scheme`] is the data, [`verify`] the verification, `event` what is read afterwards.
//! [`standard_webhooks`] and [`github`] sign, for what Hawser sends itself and for tests.

mod algorithm;
mod catalogue;
mod event;
#[doc(hidden)]
pub mod fuzz;
pub mod github;
mod json;
mod options;
mod refused;
pub mod scheme;
mod secret;
pub mod standard_webhooks;
mod template;
mod verify;

pub use catalogue::schemes;
pub use event::{RoutingKey, Unread, Verified};
pub use options::{InvalidOptions, SchemeOptions};
pub use refused::Refused;
pub use scheme::Scheme;
pub use secret::InvalidSecret;
pub use verify::verify;

use http::{HeaderMap, Method};

/// A request as it came in. `body` is the raw bytes, before any decoding or parsing.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The whole address as the provider knows it: public scheme and host, path, query.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body's bytes as they were sent.
    pub body: &'a [u8],
}
