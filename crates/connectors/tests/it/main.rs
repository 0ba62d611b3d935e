//! Connectors against the simulator, over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod graph;
mod procore;
mod world;
