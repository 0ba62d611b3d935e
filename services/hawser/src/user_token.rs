//! Users' tokens for development, signed with a key that `hawser up` makes. In production the host application signs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use common::Deps;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use time::Duration;

use crate::data_dir::{DataDir, write_private};
use crate::instance::Issuer;

/// The `iss` of development tokens.
pub const ISSUER: &str = "https://hawser.localhost";
/// The `aud` of tokens that are meant for Hawser.
pub const AUDIENCE: &str = "hawser";

/// For whom a token is made.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The tenant's id, Hawser's or the host application's.
    pub tenant: String,
    /// The user's id in the host application.
    pub user: String,
    /// `admin` administers the tenant.
    pub roles: Vec<String>,
}

/// The signing key's files, private and public, made where there are none.
///
/// # Errors
/// Where they cannot be written.
pub fn signing_key(dir: &DataDir) -> Result<(PathBuf, PathBuf)> {
    let (private, public) = (
        dir.keys().join("user-tokens.pem"),
        dir.keys().join("user-tokens.pub.pem"),
    );
    if !private.exists() || !public.exists() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .context("a signing key could not be made")?;
        write_private(&public, pair.public_key_pem().as_bytes())?;
        write_private(&private, pair.serialize_pem().as_bytes())?;
    }
    Ok((private, public))
}

/// A token for `subject`, good for `life`.
///
/// # Errors
/// Where the signing key cannot be read.
pub fn mint(issuer: &Issuer, subject: &Subject, life: Duration, deps: &Deps) -> Result<String> {
    let pem = std::fs::read(&issuer.private_key).with_context(|| {
        format!(
            "{} cannot be read; start Hawser with `hawser up` first",
            issuer.private_key.display()
        )
    })?;
    let key =
        EncodingKey::from_ed_pem(&pem).context("the signing key is not an Ed25519 key in PEM")?;
    let now = deps.now();
    let claims = json!({
        "iss": issuer.issuer,
        "aud": issuer.audience,
        "sub": subject.user,
        "tenant_id": subject.tenant,
        "roles": subject.roles,
        "iat": now.unix_timestamp(),
        "exp": (now + life).unix_timestamp(),
    });
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key)
        .context("the token could not be signed")
}
