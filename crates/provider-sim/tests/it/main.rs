//! The simulator as its callers see it: over HTTP on a real port.
#![expect(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod apis;
mod authorization;
mod control;
mod faults;
mod front;
mod rotation;
mod support;
mod tokens;
mod webhooks;
