//! What `proto/` generates, and nothing else: messages, clients, servers, and the descriptor set.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all
)]

/// The encoded `google.protobuf.FileDescriptorSet` of every contract, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hawser.bin"));

macro_rules! package {
    ($($name:ident),* $(,)?) => {$(
        pub mod $name {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/hawser.", stringify!($name), ".v1.rs"));
            }
        }
    )*};
}

pub mod hawser {
    package!(
        broker, common, directory, ingest, operations, scheduler, vault
    );
}

pub use hawser::*;
