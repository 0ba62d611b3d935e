//! Signature algorithms and the encodings of what they make.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    hmac,
    signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Secrets are pasted by people, who lose the padding.
const BASE64_OF_A_SECRET: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a signature is made from a key and a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha512,
    Ed25519,
}

impl Algorithm {
    /// Whether any of the signatures is the message's under the key. Each of them is compared, whichever matches.
    pub(crate) fn any_matches(self, key: &[u8], message: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        let hash = match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            Self::Ed25519 => {
                let key = UnparsedPublicKey::new(&ED25519, key);
                let message = message.concat();
                return any(signatures, |signature| {
                    key.verify(&message, signature).is_ok()
                });
            }
        };
        let mac = hmac(hash, key, message);
        any(signatures, |signature| {
            verify_slices_are_equal(mac.as_ref(), signature).is_ok()
        })
    }

    /// Whether a key of this many bytes can be one.
    pub(crate) fn takes_key_of(self, len: usize) -> bool {
        match self {
            Self::Ed25519 => len == ED25519_PUBLIC_KEY_LEN,
            Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha512 => len > 0,
        }
    }
}

pub(crate) fn hmac(hash: hmac::Algorithm, key: &[u8], message: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hash, key));
    for part in message {
        context.update(part);
    }
    context.sign()
}

/// Like `Iterator::any`, without stopping at the first.
fn any(signatures: &[Vec<u8>], matches: impl Fn(&[u8]) -> bool) -> bool {
    signatures
        .iter()
        .fold(false, |found, signature| matches(signature) | found)
}

/// How a signature stands in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SignatureEncoding {
    Hex,
    Base64,
}

impl SignatureEncoding {
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        let bytes = match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
        };
        bytes.filter(|bytes| !bytes.is_empty())
    }
}

/// How a secret's bytes stand in what the provider shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecretEncoding {
    /// The text itself is the key.
    Utf8,
    Hex,
    Base64,
}

impl SecretEncoding {
    pub(crate) fn decode(self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Utf8 => Some(text.to_vec()),
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => BASE64_OF_A_SECRET.decode(text).ok(),
        }
        .map(Zeroizing::new)
    }
}
