//! Adapters: decode and validate, call the use case, encode. No SQL, no policy.

pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod encode;
pub(crate) mod http;
pub(crate) mod integrations;
