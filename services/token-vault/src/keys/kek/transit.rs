//! A key of a transit secrets engine (OpenBao, HashiCorp Vault). What is wrapped is bound to its place as associated data,
//! and as the context of a key that derives.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::{Deps, Secret};
use egress::{Egress, Request, Response, Url};
use envelope::{KEY_LEN, Kek, KekId, KeyFuture, KeyPlace};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::service::{Attempts, Failure, Next, ServiceError, WatchedSecret, secret_body, wipe};
use crate::config::{KubernetesLoginConfig, TransitConfig};

/// The format byte: what follows the header is the key version as 4 bytes, and the ciphertext.
const FORMAT: u8 = 3;
const VERSION_LEN: usize = 4;
/// A login's token is used for this part of its time.
const USED_PART: (u32, u32) = (4, 5);

#[derive(Debug)]
pub(super) struct Transit {
    id: KekId,
    encrypt: Url,
    decrypt: Url,
    key_version: Option<u32>,
    server: Server,
    access: Access,
}

#[derive(Debug)]
struct Server {
    namespace: Option<String>,
    egress: Egress,
    timeout: Duration,
    deps: Deps,
}

#[derive(Debug)]
enum Access {
    Token(WatchedSecret),
    Kubernetes {
        url: Url,
        role: String,
        pod: WatchedSecret,
        /// The token, and until when it is used.
        kept: Mutex<Option<(Secret<String>, Duration)>>,
    },
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: String,
    context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_version: Option<u32>,
}

#[derive(Serialize)]
struct Decrypt {
    ciphertext: String,
    associated_data: String,
    context: String,
}

#[derive(Serialize)]
struct Login<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Transit {
    /// `None` where there is no address, or no way to authenticate.
    pub(super) fn new(
        id: &KekId,
        config: &TransitConfig,
        egress: Egress,
        deps: &Deps,
    ) -> Option<Self> {
        let address = config.address.as_ref()?;
        let access = match (&config.token_file, &config.kubernetes) {
            (Some(file), _) => Access::Token(WatchedSecret::new(file.clone())),
            (None, Some(login)) => Access::kubernetes(address, login)?,
            (None, None) => return None,
        };
        Some(Self {
            id: id.clone(),
            encrypt: below(address, &[&config.mount, "encrypt", &config.key])?,
            decrypt: below(address, &[&config.mount, "decrypt", &config.key])?,
            key_version: config.key_version,
            server: Server {
                namespace: config.namespace.clone(),
                egress,
                timeout: config.timeout.get(),
                deps: deps.clone(),
            },
            access,
        })
    }

    async fn call(&self, url: &Url, body: Bytes) -> Result<Response, Failure> {
        let mut attempts = Attempts::new(&self.server.deps, self.server.timeout);
        loop {
            let attempt = async {
                let token = self.access.token(&self.server).await?;
                self.server.post(url, Some(&token), body.clone()).await
            };
            let failure = match attempt.await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match attempts.after(&failure).await {
                Next::Again => {}
                Next::Renew => self.access.renew().await,
                Next::GiveUp => return Err(failure),
            }
        }
    }

    async fn encrypt(
        &self,
        header: &[u8],
        place: KeyPlace<'_>,
        key: &[u8; KEY_LEN],
    ) -> Result<Vec<u8>, Failure> {
        let plaintext = Zeroizing::new(STANDARD.encode(key));
        let request = Encrypt {
            plaintext: &plaintext,
            associated_data: associated_data(header, place),
            context: STANDARD.encode(place.encode()),
            key_version: self.key_version,
        };
        let response = self.call(&self.encrypt, secret_body(&request)).await?;
        let ciphertext = response
            .json::<Answer<Encrypted>>()
            .ok()
            .and_then(|answer| unpack(&answer.data.ciphertext));
        ciphertext.ok_or_else(|| unintelligible(&response))
    }

    async fn decrypt(
        &self,
        header: &[u8],
        place: KeyPlace<'_>,
        body: &[u8],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, Failure> {
        let request = Decrypt {
            ciphertext: pack(body).ok_or(Failure::Refused)?,
            associated_data: associated_data(header, place),
            context: STANDARD.encode(place.encode()),
        };
        let response = self.call(&self.decrypt, secret_body(&request)).await?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let decoded = response
            .json::<Answer<Decrypted>>()
            .ok()
            .and_then(|answer| {
                let text = Zeroizing::new(answer.data.plaintext);
                STANDARD.decode_slice(&*text, key.as_mut_slice()).ok()
            });
        let outcome = match decoded {
            Some(KEY_LEN) => Ok(key),
            _ => Err(unintelligible(&response)),
        };
        wipe(response.body);
        outcome
    }
}

impl Kek for Transit {
    fn id(&self) -> &KekId {
        &self.id
    }

    fn format(&self) -> u8 {
        FORMAT
    }

    fn wrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        key: &'a [u8; KEY_LEN],
    ) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let wrapped = self.encrypt(header, place, key).await;
            wrapped.map_err(|failure| failure.into_error(&self.id))
        })
    }

    fn unwrap<'a>(
        &'a self,
        header: &'a [u8],
        place: KeyPlace<'a>,
        body: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<[u8; KEY_LEN]>> {
        Box::pin(async move {
            let key = self.decrypt(header, place, body).await;
            key.map_err(|failure| failure.into_error(&self.id))
        })
    }
}

impl Server {
    async fn post(
        &self,
        url: &Url,
        token: Option<&Secret<String>>,
        body: Bytes,
    ) -> Result<Response, Failure> {
        let mut request = Request::post(url.clone())
            // An agent in between may insist on it, so that no page in a browser can ask it.
            .header("x-vault-request", "true")
            .body("application/json", body)
            .timeout(self.timeout)
            .repeatable();
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            request = request.secret_header("x-vault-token", token);
        }
        let response = self.egress.send(request).await?;
        if response.status.is_success() {
            Ok(response)
        } else {
            Err(refusal(&response))
        }
    }
}

impl Access {
    fn kubernetes(address: &Url, config: &KubernetesLoginConfig) -> Option<Self> {
        Some(Self::Kubernetes {
            url: below(address, &["auth", &config.mount, "login"])?,
            role: config.role.clone(),
            pod: WatchedSecret::projected(config.token_file.clone()),
            kept: Mutex::new(None),
        })
    }

    async fn token(&self, server: &Server) -> Result<Secret<String>, Failure> {
        let (url, role, pod, kept) = match self {
            Self::Token(file) => return file.get().await.map_err(Failure::Lasting),
            Self::Kubernetes {
                url,
                role,
                pod,
                kept,
            } => (url, role, pod, kept),
        };
        let mut kept = kept.lock().await;
        let now = server.deps.clock.boottime();
        if let Some((token, _)) = kept.as_ref().filter(|(_, until)| now < *until) {
            return Ok(token.clone());
        }
        let jwt = pod.get().await.map_err(Failure::Lasting)?;
        let login = Login {
            role,
            jwt: jwt.expose(),
        };
        let answered = server.post(url, None, secret_body(&login)).await;
        let response = answered.map_err(|failure| match failure {
            Failure::Credentials(error) => Failure::Lasting(error),
            other => other,
        })?;
        let logged_in = response.json::<LoggedIn>();
        let auth = logged_in.map_err(|_| unintelligible(&response))?.auth;
        wipe(response.body);
        let lease = Duration::from_secs(auth.lease_duration);
        // No lease is a token that does not end.
        let until = match auth.lease_duration {
            0 => Duration::MAX,
            _ => now + lease * USED_PART.0 / USED_PART.1,
        };
        let token = Secret::new(auth.client_token);
        *kept = Some((token.clone(), until));
        Ok(token)
    }

    /// Drops a login's token, so that the next is new.
    async fn renew(&self) {
        if let Self::Kubernetes { kept, .. } = self {
            *kept.lock().await = None;
        }
    }
}

/// Everything before the ciphertext, and the place, as for a key that is held here.
fn associated_data(header: &[u8], place: KeyPlace<'_>) -> String {
    STANDARD.encode([header, &place.encode()].concat())
}

/// `/v1/` and the parts, each of which may have slashes within.
fn below(address: &Url, parts: &[&str]) -> Option<Url> {
    let mut url = address.clone();
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .push("v1")
        .extend(
            parts
                .iter()
                .flat_map(|part| part.split('/'))
                .filter(|part| !part.is_empty()),
        );
    Some(url)
}

/// `vault:v3:…` as bytes. The version is part of what is compared: of two texts for one ciphertext only one is ours.
fn unpack(ciphertext: &str) -> Option<Vec<u8>> {
    let (version, text) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    let version: u32 = version.parse().ok()?;
    let mut out = version.to_be_bytes().to_vec();
    STANDARD.decode_vec(text, &mut out).ok()?;
    Some(out)
}

/// Bytes as `vault:v3:…`. The server would take version 0 for 1, so a version that was altered to it is refused here.
fn pack(body: &[u8]) -> Option<String> {
    let (version, ciphertext) = body.split_first_chunk::<VERSION_LEN>()?;
    let version = u32::from_be_bytes(*version);
    (version > 0).then(|| format!("vault:v{version}:{}", STANDARD.encode(ciphertext)))
}

fn unintelligible(response: &Response) -> Failure {
    Failure::Lasting(ServiceError::Unintelligible {
        status: response.status.as_u16(),
    })
}

fn refusal(response: &Response) -> Failure {
    let status = response.status.as_u16();
    let errors: Errors = response.json().unwrap_or_default();
    let message = errors.errors.join("; ");
    let has = |words: &str| message.contains(words);
    let said = |advice| ServiceError::said(advice, &format!("HTTP {status}"), &message);
    match status {
        400 if has("too old") => Failure::Lasting(said(
            "lower the transit key's min_decryption_version until RewrapDataKeys is through",
        )),
        400 if has("message authentication failed")
            || has("invalid ciphertext")
            || has("unable to decrypt") =>
        {
            Failure::Refused
        }
        400 if has("key not found") => Failure::Lasting(said("make the key, or correct `key`")),
        400 if has("associated_data") => {
            Failure::Lasting(said("take a key of an AEAD type, such as aes256-gcm96"))
        }
        403 => Failure::Credentials(said(
            "allow `update` on the key's encrypt and decrypt paths in the token's policy, or renew the token",
        )),
        404 => Failure::Lasting(said("nothing is there; correct `mount` and `namespace`")),
        300..400 => Failure::Passing(said(
            "a standby points elsewhere; give the active node's address",
        )),
        412 | 429 => Failure::Passing(said("the server is busy")),
        503 => Failure::Passing(said("unseal the server")),
        472 | 473 | 500.. => Failure::Passing(said("the server has trouble of its own")),
        _ => Failure::Lasting(said("the server refuses the request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ciphertext_has_one_form() {
        let packed = unpack("vault:v258:AAEC").expect("a ciphertext");
        assert_eq!(packed, [0, 0, 1, 2, 0, 1, 2]);
        assert_eq!(pack(&packed).expect("the same"), "vault:v258:AAEC");
        assert_eq!(pack(&[0, 0, 0, 0, 1, 2, 3]), None, "version 0 stands for 1");
        assert_eq!(pack(&[0, 0, 1]), None);
        for text in [
            "vault:v1",
            "vault:1:AAEC",
            "vault:v-1:AAEC",
            "vault:v1:A*",
            "v1:AAEC",
            "",
        ] {
            assert_eq!(unpack(text), None, "{text}");
        }
    }

    #[test]
    fn parts_of_a_path_stay_parts() {
        let url = |address: &str, parts: &[&str]| {
            let address = Url::parse(address).expect("an address");
            below(&address, parts).expect("a path").to_string()
        };
        assert_eq!(
            url("https://bao:8200", &["transit", "encrypt", "key"]),
            "https://bao:8200/v1/transit/encrypt/key"
        );
        assert_eq!(
            url(
                "https://bao:8200/behind/",
                &["/team/transit/", "encrypt", "a?b#c"]
            ),
            "https://bao:8200/behind/v1/team/transit/encrypt/a%3Fb%23c"
        );
    }
}
