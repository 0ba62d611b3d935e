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
    /// The environment variable is set, and what is in it is no key.
    #[error("the environment variable {name} holds no key-encryption key")]
    Variable {
        /// The variable.
        name: String,
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
    /// The key never leaves its service, so nothing can be derived from it.
    #[error(
        "no key can be derived from the key-encryption key `{id}`, which its key service keeps to itself"
    )]
    NotDerivable {
        /// The key that was asked for.
        id: KekId,
    },
    /// What was wrapped for one place unwraps for another.
    #[error(
        "the key service for `{id}` does not bind what it encrypts to associated data; take a key and a version of the service that do"
    )]
    NotBound {
        /// The key that was asked for.
        id: KekId,
    },
    /// A key service answered, and will answer the same again: a person has to act.
    #[error("the key service refuses to use the key-encryption key `{id}`")]
    Forbidden {
        /// The key that was asked for.
        id: KekId,
        /// What the key service said, and what to do.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A key service did not answer, or cannot at the moment. It passes by itself.
    #[error("the key service for `{id}` cannot be had")]
    Unavailable {
        /// The key that was asked for.
        id: KekId,
        /// What the key service's client said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A key that is kept wrapped cannot be read or written where it is kept.
    #[error("what is kept under the key-encryption keys cannot be had")]
    Storage {
        /// Whether it passes by itself.
        is_away: bool,
        /// What the store said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl KeyError {
    /// Whether it passes by itself.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Storage { is_away: true, .. }
        )
    }

    /// Whether a key service said so, or did not answer: nothing is known of what was to be unwrapped.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Forbidden { .. })
    }
}
