//! The broker through its gRPC client and its pages, over real mutual TLS and real HTTP, on a database of its own. The provider is
//! `provider-sim`; vault and directory are other services, so they are stood in for by what their contracts say.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod attacks;
mod browser_flow;
mod connections;
mod directory;
mod grants;
mod imports;
mod integrations;
mod isolation;
mod procore;
mod routing;
mod vault;
mod world;
