//! The signing keys of id_tokens: one RSA and one elliptic-curve key, made at the first start.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::IdTokenAlg;

/// Both keys.
#[derive(Debug)]
pub(crate) struct Keys {
    saved: SavedKeys,
    rsa: SigningKey,
    ec: SigningKey,
}

struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Jwk,
}

/// The keys as they are kept over a restart: PKCS #8 in base64.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedKeys {
    rsa: String,
    ec: String,
}

/// A key that could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library made none.
    #[error("a signing key could not be made")]
    Generate(#[from] aws_lc_rs::error::Unspecified),
    /// What was kept is no key.
    #[error("a signing key could not be read")]
    Read(#[from] jsonwebtoken::errors::Error),
}

impl Keys {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let rsa = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&KeyPair::generate(
            KeySize::Rsa2048,
        )?)?;
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?.to_pkcs8v1()?;
        Self::restore(SavedKeys {
            rsa: STANDARD.encode(rsa.as_ref()),
            ec: STANDARD.encode(ec.as_ref()),
        })
    }

    pub(crate) fn restore(saved: SavedKeys) -> Result<Self, KeyError> {
        let rsa = SigningKey::new(
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(&pem(&saved.rsa))?,
        )?;
        let ec = SigningKey::new(Algorithm::ES256, EncodingKey::from_ec_pem(&pem(&saved.ec))?)?;
        Ok(Self { saved, rsa, ec })
    }

    pub(crate) fn save(&self) -> SavedKeys {
        self.saved.clone()
    }

    /// The JWK set (RFC 7517, section 5).
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.rsa.jwk, self.ec.jwk]})
    }

    pub(crate) fn sign(&self, alg: IdTokenAlg, claims: &Value) -> Result<String, KeyError> {
        let key = match alg {
            IdTokenAlg::Rs256 => &self.rsa,
            IdTokenAlg::Es256 => &self.ec,
        };
        let mut header = Header::new(key.algorithm);
        header.kid.clone_from(&key.jwk.common.key_id);
        Ok(jsonwebtoken::encode(&header, claims, &key.key)?)
    }
}

impl SigningKey {
    fn new(algorithm: Algorithm, key: EncodingKey) -> Result<Self, KeyError> {
        let mut jwk = Jwk::from_encoding_key(&key, algorithm)?;
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
        Ok(Self {
            algorithm,
            key,
            jwk,
        })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("jwk", &self.jwk)
            .finish_non_exhaustive()
    }
}

/// PEM (RFC 7468) of a PKCS #8 key.
fn pem(base64: &str) -> Vec<u8> {
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = base64;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem.into_bytes()
}
