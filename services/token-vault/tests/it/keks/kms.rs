//! What KMS may answer, one answer after the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use common::Deps;
use envelope::{KeyEncryptionKeys as _, KeyError, KeyRing};
use serde_json::json;
use tempfile::TempDir;
use token_vault::{AwsKmsConfig, Environment, KekConfig, key_ring};
use tokio::net::TcpListener;

use super::{TENANT, data_key, one};

type Script = Arc<Mutex<Vec<(u16, String)>>>;

/// Gives the answers that it was told; at the end it wraps everything as the same blob.
struct Scripted {
    script: Script,
    ring: KeyRing,
    _folder: TempDir,
}

async fn next(State(script): State<Script>) -> (StatusCode, String) {
    let mut script = script.lock().unwrap();
    if script.is_empty() {
        return (
            StatusCode::OK,
            json!({"CiphertextBlob": "AAEC"}).to_string(),
        );
    }
    let (status, body) = script.remove(0);
    (StatusCode::from_u16(status).unwrap(), body)
}

async fn serve(script: &Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(next).with_state(Arc::clone(script));
    // Ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

impl Scripted {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let script = Script::default();
        let address = serve(&script).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        super::write_credentials(&file, "id", "secret");
        let kms = AwsKmsConfig {
            key: "alias/hawser".into(),
            region: Some("eu-central-1".into()),
            endpoint: Some(format!("http://{address}").parse().unwrap()),
            credentials_file: Some(file),
            ..AwsKmsConfig::default()
        };
        let kek = KekConfig {
            aws_kms: Some(kms),
            ..KekConfig::default()
        };
        let config = one("kms", kek);
        let ring = key_ring(&config, Environment::Production, &Deps::system("test"));
        Self {
            script,
            ring: ring.unwrap(),
            _folder: folder,
        }
    }

    /// Wraps a key while KMS answers so.
    async fn wrap(
        &self,
        answers: impl IntoIterator<Item = (u16, String)>,
    ) -> Result<Vec<u8>, KeyError> {
        self.script.lock().unwrap().extend(answers);
        let outcome = self.ring.wrap(TENANT, &data_key()).await;
        outcome.inspect(|_| assert!(self.script.lock().unwrap().is_empty()))
    }
}

fn refusal(kind: &str) -> (u16, String) {
    (
        400,
        json!({"__type": kind, "message": "because"}).to_string(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again() {
    let kms = Scripted::new().await;
    let trouble = [
        refusal("ThrottlingException"),
        refusal("com.amazonaws.kms#KMSInternalException"),
        (500, "<html>".into()),
    ];
    kms.wrap(trouble).await.unwrap();
    for kind in ["ThrottlingException", "KeyUnavailableException"] {
        let error = kms
            .wrap(std::iter::repeat_n(refusal(kind), 4))
            .await
            .unwrap_err();
        assert!(error.is_unavailable(), "{kind}: {error:?}");
        assert!(kms.script.lock().unwrap().is_empty(), "{kind}: four times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_is_said_at_once_with_what_to_do() {
    let kms = Scripted::new().await;
    for (kind, advice) in [
        ("DisabledException", "enable the key"),
        ("KMSInvalidStateException", "cancel the deletion"),
        ("NotFoundException", "correct `key` and `region`"),
        ("InvalidKeyUsageException", "symmetric key"),
        ("AccessDeniedException", "allow kms:Encrypt and kms:Decrypt"),
        ("InvalidSignatureException", "clock is right"),
        ("SomethingNewException", "KMS refuses"),
    ] {
        let error = kms.wrap([refusal(kind)]).await.unwrap_err();
        assert!(matches!(error, KeyError::Forbidden { .. }), "{error:?}");
        let said = common::problem::Chain(&error).to_string();
        assert!(said.contains(advice), "{said}");
        assert!(said.contains(&format!("{kind}: because")), "{said}");
    }
    for garbage in ["", "{}", "[]", "<html>"] {
        let error = kms.wrap([(200, garbage.into())]).await.unwrap_err();
        assert!(matches!(error, KeyError::Forbidden { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_ended_are_renewed_once() {
    let kms = Scripted::new().await;
    kms.wrap([refusal("ExpiredTokenException")]).await.unwrap();
    let twice = std::iter::repeat_n(refusal("UnrecognizedClientException"), 2);
    let error = kms.wrap(twice).await.unwrap_err();
    let said = common::problem::Chain(&error).to_string();
    assert!(said.contains("renew them"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ciphertext_that_is_refused_is_not_the_services_fault() {
    let kms = Scripted::new().await;
    let wrapped = kms.wrap([]).await.unwrap();
    let unwrap = async |answer| {
        kms.script.lock().unwrap().push(answer);
        kms.ring.unwrap(TENANT, 3, &wrapped).await.unwrap_err()
    };
    let refused = unwrap(refusal("InvalidCiphertextException")).await;
    assert!(matches!(refused, KeyError::Refused), "{refused:?}");
    let another = unwrap(refusal("IncorrectKeyException")).await;
    assert!(matches!(another, KeyError::WrongKey { .. }), "{another:?}");
    let short = unwrap((200, json!({"Plaintext": "AAEC"}).to_string())).await;
    assert!(matches!(short, KeyError::Forbidden { .. }), "{short:?}");
}
