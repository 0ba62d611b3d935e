//! How the client proves itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Deps, Secret};
use egress::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use thiserror::Error;
use url::Url;

/// An OAuth client of ours at a provider.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// How it proves itself.
    pub auth: ClientAuth,
}

/// One way of client authentication; never two at once (RFC 6749, 2.3).
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// HTTP Basic, both parts form-encoded first (RFC 6749, 2.3.1).
    SecretBasic(Secret<String>),
    /// In the body.
    SecretPost(Secret<String>),
    /// A signed assertion (RFC 7523, 2.2).
    PrivateKeyJwt {
        /// What signs.
        key: SigningKey,
        /// `kid` in the header.
        key_id: Option<String>,
        /// Who the assertion is for: the issuer's identifier, or the token endpoint where there is no issuer.
        audience: String,
    },
    /// A public client.
    None,
}

/// A private key, RSA, P-256, P-384, or Ed25519.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
}

/// The PEM text holds no private key that can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the client's key is no PEM private key of RSA (2048 bits or more), P-256, P-384, or Ed25519 in PKCS #8"
)]
pub struct BadKey;

/// A field of a request. Its value is treated as a secret, whatever it is.
pub(crate) type Field<'a> = (&'a str, Secret<String>);

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

/// How far `iat` lies back, for providers whose clock is behind (checklist 60).
const BACKDATED_SECONDS: i64 = 30;
/// `exp` less `iat` is below the five minutes that are customary.
const ASSERTION_SECONDS: i64 = 120;

impl SigningKey {
    /// Reads a PEM private key.
    ///
    /// # Errors
    ///
    /// Where there is none that can sign.
    pub fn from_pem(pem: &Secret<String>) -> Result<Self, BadKey> {
        let bytes = pem.expose().as_bytes();
        let candidates = [
            (EncodingKey::from_rsa_pem(bytes), &[Algorithm::RS256][..]),
            (
                EncodingKey::from_ec_pem(bytes),
                &[Algorithm::ES256, Algorithm::ES384],
            ),
            (EncodingKey::from_ed_pem(bytes), &[Algorithm::EdDSA]),
        ];
        // The PEM text tells the family and not the curve, nor whether the key is any good: signing does.
        for (key, algorithms) in candidates {
            let Ok(key) = key else { continue };
            for algorithm in algorithms {
                if jsonwebtoken::crypto::sign(b"probe", &key, *algorithm).is_ok() {
                    return Ok(Self {
                        key,
                        algorithm: *algorithm,
                    });
                }
            }
        }
        Err(BadKey)
    }

    /// A JSON Web Token with these claims.
    pub(crate) fn sign(
        &self,
        key_id: Option<&str>,
        claims: &impl Serialize,
    ) -> Result<Secret<String>, BadKey> {
        let mut header = Header::new(self.algorithm);
        header.kid = key_id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.key)
            .map(Secret::new)
            .map_err(|_| BadKey)
    }
}

/// What no other token of ours has.
pub(crate) fn token_id(deps: &Deps) -> String {
    URL_SAFE_NO_PAD.encode(deps.random::<16>())
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm)
    }
}

impl Client {
    /// The fields and, for Basic, the header that authenticate a request.
    pub(crate) fn authenticate(&self, deps: &Deps) -> Result<Authentication, BadKey> {
        let field = |name: &'static str, value: &str| (name, Secret::from(value));
        Ok(match &self.auth {
            ClientAuth::SecretBasic(secret) => Authentication {
                basic: Some((
                    form_encoded(&self.id),
                    Secret::new(form_encoded(secret.expose())),
                )),
                fields: Vec::new(),
            },
            ClientAuth::SecretPost(secret) => Authentication {
                basic: None,
                fields: vec![
                    field("client_id", &self.id),
                    ("client_secret", secret.clone()),
                ],
            },
            ClientAuth::PrivateKeyJwt {
                key,
                key_id,
                audience,
            } => {
                let assertion = self.assertion(key, key_id.as_deref(), audience, deps)?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                Authentication {
                    basic: None,
                    fields: vec![
                        field("client_id", &self.id),
                        field("client_assertion_type", kind),
                        ("client_assertion", assertion),
                    ],
                }
            }
            ClientAuth::None => Authentication {
                basic: None,
                fields: vec![field("client_id", &self.id)],
            },
        })
    }

    /// A request with `fields` in its form and whatever authenticates the client, which is one way alone.
    pub(crate) fn request(
        &self,
        url: &Url,
        mut fields: Vec<Field<'_>>,
        deps: &Deps,
    ) -> Result<Request, BadKey> {
        let authentication = self.authenticate(deps)?;
        fields.extend(authentication.fields);
        let mut request = Request::post(url.clone()).accept_json();
        if let Some((username, password)) = &authentication.basic {
            request = request.basic(username, password);
        }
        let pairs = fields
            .iter()
            .map(|(name, value)| (*name, value.expose().as_str()));
        Ok(request.form(pairs))
    }

    fn assertion(
        &self,
        key: &SigningKey,
        key_id: Option<&str>,
        audience: &str,
        deps: &Deps,
    ) -> Result<Secret<String>, BadKey> {
        let iat = deps.now().unix_timestamp() - BACKDATED_SECONDS;
        let claims = Assertion {
            iss: &self.id,
            sub: &self.id,
            aud: audience,
            jti: token_id(deps),
            iat,
            exp: iat + BACKDATED_SECONDS + ASSERTION_SECONDS,
        };
        key.sign(key_id, &claims)
    }

    /// Whether what authenticates it says `client_id` in the body; requests that want it there anyway add it otherwise.
    pub(crate) fn is_named_in_body(&self) -> bool {
        !matches!(self.auth, ClientAuth::SecretBasic(_))
    }

    /// The client's own secrets, which must not come back in a log.
    pub(crate) fn secrets(&self) -> Vec<Secret<String>> {
        match &self.auth {
            ClientAuth::SecretBasic(secret) | ClientAuth::SecretPost(secret) => {
                vec![secret.clone()]
            }
            ClientAuth::PrivateKeyJwt { .. } | ClientAuth::None => Vec::new(),
        }
    }
}

/// Parameters that prove a client, and that nothing else sets.
pub(crate) const AUTHENTICATION: [&str; 3] =
    ["client_assertion", "client_assertion_type", "client_secret"];

/// What authenticates one request.
pub(crate) struct Authentication {
    /// User name and password, form-encoded.
    pub(crate) basic: Option<(String, Secret<String>)>,
    /// Fields of the body.
    pub(crate) fields: Vec<Field<'static>>,
}

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
