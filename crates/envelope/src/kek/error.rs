//! What can be wrong with key-encryption keys.

use std::{error::Error as StdError, io, path::PathBuf};

use thiserror::Error;

use super::KekId;

/// Why a key-encryption key could not be had or used. Never holds a byte of a key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// An id that the wrapped format cannot carry.
    #[error("the id of a key-encryption key is 1 to 255 visible ASCII characters")]
    InvalidId,
    /// Not 32 bytes in hexadecimal.
    #[error("a key-encryption key is 64 hexadecimal characters; `openssl rand -hex 32` makes one")]
    NotHex,
    /// All bytes are the same, which no random key is.
    #[error(
        "a key-encryption key of one byte repeated is a placeholder; `openssl rand -hex 32` makes a real one"
    )]
    Placeholder,
    /// Two keys with one id.
    #[error("two key-encryption keys have the id `{id}`")]
    DuplicateId {
        /// The id.
        id: KekId,
    },
    /// Wrapped under a key that is not configured.
    #[error("no key-encryption key with the id `{id}` is configured; add it to the older keys")]
    UnknownId {
        /// The id in the header.
        id: KekId,
    },
    /// The id is configured with another key.
    #[error("the key-encryption key `{id}` is not the one that was used before under this id")]
    WrongKey {
        /// The id in the header.
        id: KekId,
    },
    /// It does not begin like a wrapped key, or has another length.
    #[error("not a wrapped data key")]
    NotWrapped,
    /// Wrapped by another kind of provider, or by a later version.
    #[error(
        "a wrapped data key of format {format}, which the key-encryption key `{id}` cannot read"
    )]
    UnknownFormat {
        /// The format in the header.
        format: u8,
        /// The id in the header.
        id: KekId,
    },
    /// The key-encryption key is right: the wrapped key was altered, or is another tenant's or version's.
    #[error("the wrapped data key was altered, or belongs to another tenant or version")]
    Refused,
    /// The key file cannot be read.
    #[error("cannot read the key-encryption key in {}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file is there, and what is in it is no key.
    #[error("the file {} holds no key-encryption key", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What is wrong with its content.
        #[source]
        source: Box<KeyError>,
    },
    /// The development key cannot be written.
    #[error("cannot write a development key to {}", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key service did not answer, or refused.
    #[error("the key service for `{id}` failed")]
    Unavailable {
        /// The key that was asked for.
        id: KekId,
        /// What the key service's client said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}
