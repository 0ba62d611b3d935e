//! AWS KMS as moto plays it, which judges signatures, credentials and policies as AWS does.
//!
//! `just test` leaves out what is in here where there is no Python.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::Deps;
use envelope::{KeyEncryptionKeys as _, KeyError, KeyRing, kek_id};
use serde::Deserialize;
use tempfile::TempDir;
use token_vault::{AwsKmsConfig, Config, Environment, KekConfig, SCHEMA, key_ring};
use uuid::Uuid;

use super::{TENANT, data_key, one, refused_when_altered};
use crate::world::{World, token_of};

/// A process; it ends with this.
struct Moto {
    there: There,
    folder: TempDir,
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize)]
struct There {
    endpoint: url::Url,
    keys: Vec<String>,
    access_key_id: String,
    secret_access_key: String,
    role: String,
}

impl Moto {
    fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kms.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = answers.next().expect("moto is installed").unwrap();
        Self {
            there: serde_json::from_str(&said).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            child,
            commands,
            answers,
        }
    }

    fn tell(&mut self, command: &str) {
        let mut commands = self.commands.as_ref().unwrap();
        writeln!(commands, "{command}").unwrap();
        self.answers.next().expect("it answers").unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// With the user's keys.
    fn config(&self) -> AwsKmsConfig {
        let file = self.file("credentials");
        super::write_credentials(
            &file,
            &self.there.access_key_id,
            &self.there.secret_access_key,
        );
        AwsKmsConfig {
            key: self.there.keys[0].clone(),
            endpoint: Some(self.there.endpoint.clone()),
            sts_endpoint: Some(self.there.endpoint.clone()),
            credentials_file: Some(file),
            ..AwsKmsConfig::default()
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

fn kek(config: AwsKmsConfig) -> KekConfig {
    KekConfig {
        aws_kms: Some(config),
        ..KekConfig::default()
    }
}

fn ring(config: AwsKmsConfig) -> KeyRing {
    let config = one("kms", kek(config));
    key_ring(&config, Environment::Production, &Deps::system("test")).unwrap()
}

fn said(error: &KeyError) -> String {
    common::problem::Chain(error).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kms_wraps_for_a_tenant_and_a_version() {
    let moto = Moto::start();
    let keys = ring(moto.config());
    let wrapped = keys.wrap(TENANT, &data_key()).await.unwrap();
    assert_eq!(kek_id(&wrapped).unwrap().as_str(), "kms");
    let unwrapped = keys.unwrap(TENANT, 3, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), data_key().expose());
    for (tenant, version) in [(Uuid::nil(), 3), (TENANT, 4)] {
        let refused = keys.unwrap(tenant, version, &wrapped).await;
        assert!(matches!(refused, Err(KeyError::Refused)), "{refused:?}");
    }
    let by_alias = ring(AwsKmsConfig {
        key: "alias/hawser".into(),
        region: Some("eu-central-1".into()),
        ..moto.config()
    });
    by_alias.unwrap(TENANT, 3, &wrapped).await.unwrap();

    let check = envelope::check_value(&keys).await.unwrap();
    envelope::verify_binding(&keys, &check).await.unwrap();
    let another = ring(AwsKmsConfig {
        key: moto.there.keys[1].clone(),
        ..moto.config()
    });
    envelope::verify_check_value(&another, &check)
        .await
        .expect_err("it lies under another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_bit_and_cut_of_what_kms_wrapped_is_refused() {
    let moto = Moto::start();
    let ring = ring(moto.config());
    let wrapped = ring.wrap(TENANT, &data_key()).await.unwrap();
    refused_when_altered(&ring, &wrapped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_or_a_caller_that_kms_refuses_is_said_with_what_to_do() {
    let mut moto = Moto::start();
    let keys = ring(moto.config());
    let wrapped = keys.wrap(TENANT, &data_key()).await.unwrap();
    let key = moto.there.keys[0].clone();
    for (command, back, advice) in [
        (
            format!("disable {key}"),
            format!("enable {key}"),
            "enable the key",
        ),
        (
            "deny kms:Decrypt".into(),
            "allow".into(),
            "allow kms:Encrypt and kms:Decrypt",
        ),
    ] {
        moto.tell(&command);
        let error = keys.unwrap(TENANT, 3, &wrapped).await.unwrap_err();
        assert!(matches!(error, KeyError::Forbidden { .. }), "{error:?}");
        assert!(said(&error).contains(advice), "{}", said(&error));
        moto.tell(&back);
        keys.unwrap(TENANT, 3, &wrapped).await.unwrap();
    }
    // A secret of another key: the signature is wrong.
    let config = moto.config();
    super::write_credentials(
        &moto.file("credentials"),
        &moto.there.access_key_id,
        "canary",
    );
    let error = ring(config).unwrap(TENANT, 3, &wrapped).await.unwrap_err();
    assert!(
        said(&error).contains("secret access key"),
        "{}",
        said(&error)
    );
    assert!(!said(&error).contains("canary"), "{}", said(&error));
    // The running one reads the file again too, and then the right one.
    keys.unwrap(TENANT, 3, &wrapped).await.unwrap_err();
    moto.config();
    keys.unwrap(TENANT, 3, &wrapped).await.unwrap();

    moto.tell(&format!("delete {key}"));
    let error = keys.unwrap(TENANT, 3, &wrapped).await.unwrap_err();
    assert!(
        said(&error).contains("cancel the deletion"),
        "{}",
        said(&error)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_token_is_exchanged_for_a_role() {
    let moto = Moto::start();
    let token = moto.file("token");
    std::fs::write(&token, "a token that Kubernetes has projected").unwrap();
    let keys = ring(AwsKmsConfig {
        credentials_file: None,
        web_identity_token_file: Some(token),
        role_arn: Some(moto.there.role.clone()),
        ..moto.config()
    });
    let wrapped = keys.wrap(TENANT, &data_key()).await.unwrap();
    keys.unwrap(TENANT, 3, &wrapped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_lives_on_a_key_in_kms() {
    let mut moto = Moto::start();
    let logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let config = |name: &str, kms: AwsKmsConfig| Config {
        environment: Environment::Production,
        keys: one("kms", kek(kms)),
        ..world.config(name, world.database.config(SCHEMA.name))
    };
    let vault = world
        .start_with(config("a", moto.config()), world.deps.clone())
        .await;
    world.put_right_client(&vault).await;
    let grant = world.connect(&vault).await;
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    assert!(world.works(&token).await);
    drop(vault);

    // Another key under the same id is found at once, and so is one that is disabled.
    let another = AwsKmsConfig {
        key: moto.there.keys[1].clone(),
        ..moto.config()
    };
    world
        .try_start(config("a", another), world.deps.clone())
        .await
        .err()
        .expect("it is another key");
    let key = moto.there.keys[0].clone();
    moto.tell(&format!("disable {key}"));
    let error = world
        .try_start(config("a", moto.config()), world.deps.clone())
        .await
        .err()
        .expect("the key is disabled");
    assert!(error.contains("enable the key"), "{error}");
    moto.tell(&format!("enable {key}"));

    let again = world
        .start_with(config("a", moto.config()), world.deps.clone())
        .await;
    assert_eq!(token_of(&world.get(&again, grant).await.unwrap()), token);
    drop(again);
    drop(logs);
}
