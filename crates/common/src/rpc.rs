//! gRPC as every service speaks it; with a service's `api`, the one place that names tonic.
//!
//! [`Server`] is the bootstrap: mutual TLS, identity and policy, deadlines, load shedding, panics, health, reflection.
//! [`Client`] makes the channels to other services. [`status`] turns a [`Problem`] into a status and back.

pub mod client;
mod connection;
pub mod guard;
mod operations;
pub mod server;
pub mod status;
mod telemetry;

pub use client::{Channel, Client, ClientConfig};
pub use guard::{Guard, IdentityConfig, IdentityError};
pub use operations::Operations;
pub use server::{Server, ServerConfig};
pub use status::{CallError, unimplemented};

/// A stream of answers, as generated clients give it.
pub type Streaming<T> = tonic::Streaming<T>;

use crate::Problem;
use crate::identity::Caller;

/// A message that may be worked on for longer than a call usually is, or for less; a caller's own deadline stays.
pub fn within<T>(limit: std::time::Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

/// The verified caller of a request.
///
/// # Errors
/// UNAUTHENTICATED where the identity layer has not run, which no server of ours leaves out.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Problem> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Problem::unauthenticated("no verified identity came with the call"))
}
