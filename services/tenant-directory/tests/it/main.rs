//! The tenant directory, through its gRPC client, over mutual TLS, on Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::too_many_lines,
    reason = "a test tells one story from its beginning to its end"
)]

mod access;
mod api_keys;
mod deletions;
mod events;
mod faults;
mod isolation;
mod races;
mod seeding;
mod tenant_configs;
mod tenants;
mod users;
mod world;
