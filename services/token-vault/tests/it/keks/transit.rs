//! Keys that a transit secrets engine holds.

use std::path::PathBuf;

use common::Deps;
use common::config::Duration as Setting;
use envelope::{DataKey, KeyEncryptionKeys as _, KeyError, KeyRing, kek_id};
use tempfile::TempDir;
use token_vault::{
    Environment, KekConfig, KeysConfig, KubernetesLoginConfig, TransitConfig, key_ring,
};
use uuid::Uuid;

use super::openbao::OpenBao;
use super::{TENANT, data_key, one, refused_when_altered, write_secret};

/// A server, and files beside it.
struct Setup {
    bao: OpenBao,
    folder: TempDir,
}

impl Setup {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let setup = Self {
            bao: OpenBao::start().await,
            folder: tempfile::tempdir().unwrap(),
        };
        write_secret(&setup.file("token"), "root");
        setup
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> TransitConfig {
        super::transit(&self.bao, self.file("token"))
    }

    fn ring(&self) -> KeyRing {
        ring(self.config())
    }
}

fn ring(config: TransitConfig) -> KeyRing {
    let kek = KekConfig {
        transit: Some(config),
        ..KekConfig::default()
    };
    key_ring(
        &one("bao", kek),
        Environment::Production,
        &Deps::system("test"),
    )
    .unwrap()
}

/// What an operator reads.
fn said(error: &KeyError) -> String {
    common::problem::Chain(error).to_string()
}

async fn wrap(ring: &KeyRing) -> Vec<u8> {
    ring.wrap(TENANT, &data_key()).await.unwrap()
}

async fn unwrap(ring: &KeyRing, wrapped: &[u8]) -> Result<DataKey, KeyError> {
    ring.unwrap(TENANT, 3, wrapped).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrapped_key_is_its_tenants_and_its_versions() {
    let setup = Setup::new().await;
    setup.bao.inside().add_key("transit/derived", true);
    let derived = TransitConfig {
        key: "derived".into(),
        ..setup.config()
    };
    for ring in [setup.ring(), ring(derived)] {
        let wrapped = wrap(&ring).await;
        assert_eq!(kek_id(&wrapped).unwrap().as_str(), "bao");
        assert_eq!(
            unwrap(&ring, &wrapped).await.unwrap().expose(),
            data_key().expose()
        );
        for (tenant, version) in [(Uuid::nil(), 3), (TENANT, 4)] {
            let refused = ring.unwrap(tenant, version, &wrapped).await;
            assert!(matches!(refused, Err(KeyError::Refused)), "{refused:?}");
        }
        let check = envelope::check_value(&ring).await.unwrap();
        envelope::verify_check_value(&ring, &check).await.unwrap();
        envelope::verify_binding(&ring, &check).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_bit_and_cut_is_refused() {
    let setup = Setup::new().await;
    let ring = setup.ring();
    refused_when_altered(&ring, &wrap(&ring).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_associated_data_is_found() {
    let setup = Setup::new().await;
    setup.bao.inside().is_old = true;
    let ring = setup.ring();
    let check = envelope::check_value(&ring).await.unwrap();
    let found = envelope::verify_binding(&ring, &check).await;
    assert!(matches!(found, Err(KeyError::NotBound { .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_of_the_key_unwrap_until_the_server_is_told_otherwise() {
    let setup = Setup::new().await;
    let ring = setup.ring();
    let first = wrap(&ring).await;
    setup.bao.inside().rotate("transit/hawser");
    let second = wrap(&ring).await;
    for wrapped in [&first, &second] {
        unwrap(&ring, wrapped).await.unwrap();
    }
    let pinned = self::ring(TransitConfig {
        key_version: Some(1),
        ..setup.config()
    });
    let version_of = |wrapped: &[u8]| wrapped["HWK??bao".len()..][..4].to_vec();
    assert_eq!(version_of(&first), [0, 0, 0, 1]);
    assert_eq!(version_of(&second), [0, 0, 0, 2]);
    assert_eq!(version_of(&wrap(&pinned).await), [0, 0, 0, 1]);

    let set = |version| {
        let mut inside = setup.bao.inside();
        let key = inside.keys.get_mut("transit/hawser").unwrap();
        key.min_decryption_version = version;
    };
    set(2);
    unwrap(&ring, &second).await.unwrap();
    let error = unwrap(&ring, &first).await.unwrap_err();
    assert!(said(&error).contains("min_decryption_version"), "{error:?}");
    set(1);
    unwrap(&ring, &first).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_replaced_in_its_file_is_used() {
    let setup = Setup::new().await;
    let ring = setup.ring();
    let wrapped = wrap(&ring).await;
    {
        let mut inside = setup.bao.inside();
        inside.tokens.clear();
        inside.tokens.insert("another".into());
    }
    let error = unwrap(&ring, &wrapped).await.unwrap_err();
    assert!(matches!(error, KeyError::Forbidden { .. }));
    assert!(said(&error).contains("renew the token"), "{}", said(&error));
    assert!(!said(&error).contains("root"), "{}", said(&error));
    write_secret(&setup.file("token"), "another\n");
    unwrap(&ring, &wrapped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_logs_in_once_and_again_when_its_token_is_refused() {
    let setup = Setup::new().await;
    write_secret(&setup.file("pod"), "jwt");
    let ring = ring(TransitConfig {
        token_file: None,
        kubernetes: Some(KubernetesLoginConfig {
            role: "vault".into(),
            token_file: setup.file("pod"),
            ..KubernetesLoginConfig::default()
        }),
        ..setup.config()
    });
    let error = ring.wrap(TENANT, &data_key()).await.unwrap_err();
    assert!(matches!(error, KeyError::Forbidden { .. }), "{error:?}");

    setup.bao.inside().pods.insert("jwt".into());
    let wrapped = wrap(&ring).await;
    unwrap(&ring, &wrapped).await.unwrap();
    assert_eq!(setup.bao.inside().logins, 1);

    // Revoked, or lost with a restart of the server.
    setup.bao.inside().tokens.clear();
    unwrap(&ring, &wrapped).await.unwrap();
    assert_eq!(setup.bao.inside().logins, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_and_namespaces_are_named() {
    let setup = Setup::new().await;
    {
        let mut inside = setup.bao.inside();
        inside.namespace = Some("team".into());
        inside.add_key("secrets/transit/hawser", false);
    }
    let error = setup.ring().wrap(TENANT, &data_key()).await.unwrap_err();
    assert!(said(&error).contains("namespace"), "{}", said(&error));
    let named = ring(TransitConfig {
        mount: "secrets/transit".into(),
        namespace: Some("team".into()),
        ..setup.config()
    });
    let wrapped = wrap(&named).await;
    unwrap(&named, &wrapped).await.unwrap();
    let absent = ring(TransitConfig {
        key: "absent".into(),
        namespace: Some("team".into()),
        ..setup.config()
    });
    let error = absent.wrap(TENANT, &data_key()).await.unwrap_err();
    assert!(said(&error).contains("make the key"), "{}", said(&error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again_and_what_lasts_is_not() {
    let setup = Setup::new().await;
    let ring = setup.ring();
    setup.bao.inside().failures = vec![(503, "Vault is sealed"), (429, "rate limit")];
    let wrapped = wrap(&ring).await;
    assert_eq!(setup.bao.inside().requests, 3);

    setup.bao.inside().is_sealed = true;
    let error = unwrap(&ring, &wrapped).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(said(&error).contains("unseal"), "{}", said(&error));

    setup.bao.inside().is_sealed = false;
    let before = setup.bao.inside().requests;
    setup.bao.inside().failures = vec![(
        400,
        "'[0].associated_data' provided for non-AEAD cipher suite",
    )];
    let error = unwrap(&ring, &wrapped).await.unwrap_err();
    assert!(said(&error).contains("AEAD"), "{}", said(&error));
    assert_eq!(setup.bao.inside().requests, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_listen_is_unavailable() {
    let setup = Setup::new().await;
    let config = TransitConfig {
        timeout: Setting::from_millis(500),
        ..setup.config()
    };
    drop(setup.bao);
    let error = ring(config).wrap(TENANT, &data_key()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
}

#[test]
fn a_key_without_a_login_is_refused() {
    let kek = KekConfig {
        transit: Some(TransitConfig::default()),
        ..KekConfig::default()
    };
    let config: KeysConfig = one("bao", kek);
    let refused = key_ring(&config, Environment::Production, &Deps::system("test"));
    let error = refused.expect_err("it has no address").to_string();
    assert!(error.contains("keys.keks.bao"), "{error}");
}
