//! The vault from outside: its methods over mutual TLS, on a database of its own, with a provider that listens on a real port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod crash;
mod exchange;
mod isolation;
mod outage;
mod refresh;
mod revoke;
mod startup;
mod world;
