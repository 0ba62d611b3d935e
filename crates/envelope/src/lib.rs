//! Sealing: how secrets lie in a database so that a copy of the database shows none of them, and a writer in the
//! database can neither move nor bring back one of them unseen.
//!
//! ```text
//! key-encryption key      from a file, the environment, or a KMS     [`KeyEncryptionKeys`], [`Kek`]
//!   └─ data key           one per tenant and version, kept wrapped   [`DataKey`]
//!        ├─ service key   what another service seals its own under   [`derive_service_key`]
//!        └─ value key     one per sealed value, from a random salt   [`seal`], [`open`]
//! ```
//!
//! A value is bound to its place by [`AssociatedData`]. `docs/sealed-values.md` has each format byte by byte, and
//! `vectors.json` beside this crate has test vectors for who wants to read them in another language.
//!
//! The crate knows no database, no network, no clock, and no random source: whoever calls passes the random bytes in.
//! A key that a key service holds is a [`Kek`] of the caller's; what it has to bind, and to what, is said by [`KeyPlace`].
//! When a data key is worn out, where wrapped keys are stored, and who may ask for them is the vault's business.

mod associated_data;
mod committed;
mod data_key;
mod derive;
mod kek;
mod sealed;

pub use associated_data::AssociatedData;
pub use data_key::{DataKey, derive_service_key};
pub use kek::{
    Kek, KekId, KeyEncryptionKey, KeyEncryptionKeys, KeyError, KeyFuture, KeyPlace, KeyRing,
    LocalKek, MacKey, Random, check_value,
    development::{DevelopmentKey, development_key},
    kek_id, verify_binding, verify_check_value,
};
pub use sealed::{OVERHEAD, OpenError, data_key_version, open, seal};

/// Bytes of every symmetric key here.
pub const KEY_LEN: usize = 32;
