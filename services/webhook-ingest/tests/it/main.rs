//! The ingest from outside: webhooks over real HTTP, its methods over mutual TLS, on a database of its own. The services that it
//! asks are stand-ins that serve exactly the methods it calls.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod changes;
mod crash;
mod documents;
mod intake;
mod others;
mod outage;
mod routing;
mod sources;
mod world;
