//! The vault from outside: its methods over mutual TLS, on a database of its own, with a provider that listens on a real port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod access_chain;
mod device;
mod events;
mod exchange;
mod isolation;
mod keks;
mod keys;
mod macs;
mod outage;
mod pacing;
mod par;
mod refresh;
mod revoke;
mod sealing;
mod startup;
mod strategies;
mod sweep;
mod token_names;
mod world;
