//! What a source's secret has to look like.

use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::algorithm::{Algorithm, SecretEncoding};

/// Why a secret cannot be used with a scheme. Never holds the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidSecret {
    /// There is space around it, most likely from copying.
    #[error("has space before or after it; remove it")]
    Space,
    /// Neither prefix nor encoding is one of the scheme's.
    #[error("is not in the form that the provider shows; copy it whole, prefix included")]
    Form,
    /// It could be guessed.
    #[error("is too short; take at least {min_bytes} bytes")]
    TooShort {
        /// How many bytes the key has at least.
        min_bytes: usize,
    },
}

/// The form of the secret that one signature method takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretForm {
    pub(crate) encoding: SecretEncoding,
    #[serde(default)]
    pub(crate) prefix: String,
    #[serde(default)]
    pub(crate) prefix_required: bool,
    pub(crate) min_bytes: usize,
}

impl SecretForm {
    /// The key in `secret`, if it is of this form.
    pub(crate) fn key(&self, algorithm: Algorithm, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let text = match secret.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) => rest,
            None if self.prefix_required => return None,
            None => secret,
        };
        self.encoding
            .decode(text)
            .filter(|key| algorithm.takes_key_of(key.len()))
    }

    pub(crate) fn check(&self, algorithm: Algorithm, secret: &[u8]) -> Result<(), InvalidSecret> {
        if secret.trim_ascii().len() != secret.len() {
            return Err(InvalidSecret::Space);
        }
        let key = self.key(algorithm, secret).ok_or(InvalidSecret::Form)?;
        if key.len() < self.min_bytes {
            return Err(InvalidSecret::TooShort {
                min_bytes: self.min_bytes,
            });
        }
        Ok(())
    }
}
