//! The client against real listeners, which behave as badly as they are told to.

mod addresses;
mod delivery;
mod limits;
mod server;
mod tls;
