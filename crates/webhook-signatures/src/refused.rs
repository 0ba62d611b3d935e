//! Why a request was refused.

use http::HeaderName;
use thiserror::Error;

/// Why a request is not taken for the provider's. Holds nothing that the request said, so it can be logged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The body is longer than the scheme allows.
    #[error("the body is longer than the scheme allows")]
    BodyTooLarge,
    /// A header that the scheme needs is not there.
    #[error("the header `{header}` is missing")]
    MissingHeader {
        /// Its name.
        header: HeaderName,
    },
    /// A header that the scheme reads is there more than once, so which one counts is anybody's guess.
    #[error("the header `{header}` is there more than once")]
    DoubledHeader {
        /// Its name.
        header: HeaderName,
    },
    /// A header cannot be read as the scheme says: another encoding, an unknown signature version, a forbidden character.
    #[error("the header `{header}` is malformed")]
    MalformedHeader {
        /// Its name.
        header: HeaderName,
    },
    /// Signed longer ago than the tolerance.
    #[error("the request was signed too long ago")]
    StaleTimestamp,
    /// Signed further ahead than the tolerance: a clock is wrong, the sender's or ours.
    #[error("the request was signed in the future")]
    FutureTimestamp,
    /// No signature is by any of the secrets.
    #[error("no signature matches")]
    SignatureMismatch,
    /// None of the source's secrets fits the scheme. Ours to mend, not the sender's.
    #[error("no secret of the source fits its scheme")]
    UnusableSecret,
}

impl Refused {
    /// A stable name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body_too_large",
            Self::MissingHeader { .. } => "missing_header",
            Self::DoubledHeader { .. } => "doubled_header",
            Self::MalformedHeader { .. } => "malformed_header",
            Self::StaleTimestamp => "stale_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::SignatureMismatch => "signature_mismatch",
            Self::UnusableSecret => "unusable_secret",
        }
    }
}
