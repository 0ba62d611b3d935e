//! A transit secrets engine as OpenBao's documentation and its answers have it: keys with versions, derivation, associated
//! data, policies reduced to a list of tokens, Kubernetes logins, namespaces, a seal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Deps;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

/// A server that listens; it ends with this.
pub(crate) struct OpenBao {
    address: SocketAddr,
    shared: Arc<Mutex<Inside>>,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) struct Inside {
    /// By mount and name: `transit/hawser`.
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) tokens: BTreeSet<String>,
    /// What pods may log in with.
    pub(crate) pods: BTreeSet<String>,
    pub(crate) logins: u32,
    pub(crate) requests: u32,
    pub(crate) namespace: Option<String>,
    pub(crate) is_sealed: bool,
    /// As before associated data was known: fields that are not known are ignored.
    pub(crate) is_old: bool,
    /// Answered next, before anything else.
    pub(crate) failures: Vec<(u16, &'static str)>,
    deps: Deps,
}

pub(crate) struct Key {
    versions: Vec<[u8; 32]>,
    is_derived: bool,
    pub(crate) min_decryption_version: usize,
}

type Answer = (StatusCode, String);

impl OpenBao {
    /// With a key `transit/hawser` and a token `root`.
    pub(crate) async fn start() -> Self {
        let deps = Deps::system("test");
        let inside = Inside {
            keys: BTreeMap::new(),
            tokens: BTreeSet::from(["root".to_owned()]),
            pods: BTreeSet::new(),
            logins: 0,
            requests: 0,
            namespace: None,
            is_sealed: false,
            is_old: false,
            failures: Vec::new(),
            deps,
        };
        let shared = Arc::new(Mutex::new(inside));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let this = Self {
            address,
            shared,
            task,
        };
        this.inside().add_key("transit/hawser", false);
        this
    }

    pub(crate) fn address(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.shared.lock().unwrap()
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inside {
    pub(crate) fn add_key(&mut self, path: &str, is_derived: bool) {
        let key = Key {
            versions: vec![self.deps.random()],
            is_derived,
            min_decryption_version: 1,
        };
        self.keys.insert(path.to_owned(), key);
    }

    pub(crate) fn rotate(&mut self, path: &str) {
        let version = self.deps.random();
        self.keys.get_mut(path).unwrap().versions.push(version);
    }

    fn handle(&mut self, path: &str, headers: &HeaderMap, body: &Value) -> Answer {
        self.requests += 1;
        if !self.failures.is_empty() {
            let (status, said) = self.failures.remove(0);
            return error(status, said);
        }
        if self.is_sealed {
            return error(503, "Vault is sealed");
        }
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if header("x-vault-request") != Some("true") {
            return error(412, "missing 'X-Vault-Request' header");
        }
        if header("x-vault-namespace") != self.namespace.as_deref() {
            return error(404, &format!("no handler for route \"{path}\""));
        }
        if path == "/v1/auth/kubernetes/login" {
            return self.log_in(body);
        }
        if !header("x-vault-token").is_some_and(|token| self.tokens.contains(token)) {
            return error(403, "permission denied");
        }
        let path = path.trim_start_matches("/v1/");
        if let Some((mount, name)) = path.split_once("/encrypt/") {
            self.encrypt(&format!("{mount}/{name}"), body)
        } else if let Some((mount, name)) = path.split_once("/decrypt/") {
            self.decrypt(&format!("{mount}/{name}"), body)
        } else {
            error(404, &format!("no handler for route \"{path}\""))
        }
    }

    fn log_in(&mut self, body: &Value) -> Answer {
        let jwt = body["jwt"].as_str().unwrap_or_default();
        if body["role"] != "vault" || !self.pods.contains(jwt) {
            return error(403, "permission denied");
        }
        self.logins += 1;
        let token = format!("s.login-{}", self.logins);
        self.tokens.insert(token.clone());
        let auth = json!({"client_token": token, "lease_duration": 3600, "renewable": true});
        (
            StatusCode::OK,
            json!({"auth": auth, "data": null}).to_string(),
        )
    }

    fn encrypt(&self, path: &str, body: &Value) -> Answer {
        let Some(key) = self.keys.get(path) else {
            return error(400, "encryption key not found");
        };
        let version = match body["key_version"].as_u64() {
            None | Some(0) => key.versions.len(),
            Some(version) => usize::try_from(version).unwrap(),
        };
        if version > key.versions.len() {
            return error(
                400,
                "requested version for encryption is higher than the latest key version",
            );
        }
        let cipher = match key.cipher(version, body) {
            Ok(cipher) => cipher,
            Err(refused) => return refused,
        };
        let mut sealed = bytes_of(body, "plaintext");
        let nonce: [u8; NONCE_LEN] = self.deps.random();
        let aad = Aad::from(self.associated_data(body));
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .unwrap();
        let text = STANDARD.encode([nonce.as_slice(), &sealed].concat());
        let data =
            json!({"ciphertext": format!("vault:v{version}:{text}"), "key_version": version});
        (StatusCode::OK, json!({"data": data}).to_string())
    }

    fn decrypt(&self, path: &str, body: &Value) -> Answer {
        let Some(key) = self.keys.get(path) else {
            return error(400, "encryption key not found");
        };
        let ciphertext = body["ciphertext"].as_str().unwrap_or_default();
        let Some((version, text)) = ciphertext
            .strip_prefix("vault:v")
            .and_then(|rest| rest.split_once(':'))
        else {
            return error(400, "invalid ciphertext: no prefix");
        };
        // 0 stands for the first one.
        let version: usize = match version.parse() {
            Ok(0) => 1,
            Ok(version) => version,
            Err(_) => {
                return error(
                    400,
                    "invalid ciphertext: version number could not be decoded",
                );
            }
        };
        if version > key.versions.len() {
            return error(400, "invalid ciphertext: version is too new");
        }
        if version < key.min_decryption_version {
            return error(
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
            );
        }
        let Some((nonce, sealed)) = STANDARD.decode(text).ok().and_then(|bytes| {
            let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
            Some((*nonce, sealed.to_vec()))
        }) else {
            return error(400, "invalid ciphertext: could not decode base64");
        };
        let cipher = match key.cipher(version, body) {
            Ok(cipher) => cipher,
            Err(refused) => return refused,
        };
        let mut sealed = sealed;
        let aad = Aad::from(self.associated_data(body));
        match cipher.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut sealed) {
            Ok(plaintext) => {
                let data = json!({"plaintext": STANDARD.encode(plaintext)});
                (StatusCode::OK, json!({"data": data}).to_string())
            }
            Err(_) => error(400, "cipher: message authentication failed"),
        }
    }

    fn associated_data(&self, body: &Value) -> Vec<u8> {
        if self.is_old {
            Vec::new()
        } else {
            bytes_of(body, "associated_data")
        }
    }
}

impl Key {
    fn cipher(&self, version: usize, body: &Value) -> Result<LessSafeKey, Answer> {
        let mut bytes = self.versions[version - 1];
        if self.is_derived {
            let context = bytes_of(body, "context");
            if context.is_empty() {
                return Err(error(400, "missing 'context' for key derivation"));
            }
            let root = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&bytes);
            root.expand(&[&context], hkdf::HKDF_SHA256)
                .unwrap()
                .fill(&mut bytes)
                .unwrap();
        }
        Ok(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &bytes).unwrap(),
        ))
    }
}

async fn answer(
    State(shared): State<Arc<Mutex<Inside>>>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let body = serde_json::from_str(&body).unwrap_or_default();
    shared.lock().unwrap().handle(uri.path(), &headers, &body)
}

fn bytes_of(body: &Value, field: &str) -> Vec<u8> {
    STANDARD
        .decode(body[field].as_str().unwrap_or_default())
        .unwrap()
}

fn error(status: u16, said: &str) -> Answer {
    (
        StatusCode::from_u16(status).unwrap(),
        json!({"errors": [said]}).to_string(),
    )
}
