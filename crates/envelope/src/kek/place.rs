//! What a wrapped key is bound to.

use uuid::Uuid;

use super::KekId;
use crate::associated_data::encode_fields;

const DATA_KEY: &str = "data key";
const MAC_KEY: &str = "mac key";

/// What a wrapped key is, and whose. It unwraps for the same alone.
///
/// Build it from what is asked for, never from the row that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace<'a> {
    /// A tenant's data key.
    DataKey {
        /// The tenant.
        tenant: Uuid,
        /// Which of the tenant's keys.
        version: u32,
    },
    /// A key that authenticates records.
    MacKey {
        /// The key-encryption key that was current when the records were written.
        kek: &'a KekId,
        /// What the records are.
        purpose: &'a str,
    },
}

impl KeyPlace<'_> {
    /// The fields in their order, each behind its length, so that two places never have the same encoding.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::DataKey { tenant, version } => encode_fields(&[
                DATA_KEY.as_bytes(),
                tenant.as_bytes(),
                &version.to_be_bytes(),
            ]),
            Self::MacKey { kek, purpose } => encode_fields(&[
                MAC_KEY.as_bytes(),
                kek.as_str().as_bytes(),
                purpose.as_bytes(),
            ]),
        }
    }

    /// The same as names and values, for a service that takes those. They are no secrets: the service may log them.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::DataKey { tenant, version } => vec![
                ("hawser:key", DATA_KEY.to_owned()),
                ("hawser:tenant", tenant.to_string()),
                ("hawser:version", version.to_string()),
            ],
            Self::MacKey { kek, purpose } => vec![
                ("hawser:key", MAC_KEY.to_owned()),
                ("hawser:of", kek.to_string()),
                ("hawser:purpose", (*purpose).to_owned()),
            ],
        }
    }
}
