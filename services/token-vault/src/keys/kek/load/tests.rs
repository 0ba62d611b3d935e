//! What the configuration and the environment give together.

use std::collections::BTreeMap;

use envelope::KeyEncryptionKeys as _;

use super::*;
use crate::config::KubernetesLoginConfig;

const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const TWO: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f";

fn in_variable(name: &str) -> KekConfig {
    KekConfig {
        env: Some(name.into()),
        ..KekConfig::default()
    }
}

fn keks(keks: impl IntoIterator<Item = (&'static str, KekConfig)>) -> KeysConfig {
    let keks = keks.into_iter().map(|(id, kek)| (id.to_owned(), kek));
    KeysConfig {
        keks: keks.collect(),
        ..KeysConfig::default()
    }
}

/// In production, with these variables.
fn load_with(config: &KeysConfig, variables: &[(&str, &str)]) -> Result<KeyRing, KekError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(|value| Secret::from(*value));
    load(config, Environment::Production, &variable, &testkit::deps())
}

fn ids(ring: &KeyRing) -> Vec<&str> {
    ring.ids().into_iter().map(KekId::as_str).collect()
}

#[test]
fn an_existing_key_is_brought_along_in_a_variable() {
    let config = keks([("brought", in_variable("ENCRYPTION_KEY"))]);
    let ring = load_with(&config, &[("ENCRYPTION_KEY", ONE)]).expect("it is a key");
    assert_eq!(ids(&ring), ["brought"]);

    let error = load_with(&config, &[]).expect_err("it is not set");
    assert!(error.to_string().contains("ENCRYPTION_KEY"), "{error}");
    let error = load_with(&config, &[("ENCRYPTION_KEY", "canary")]).expect_err("it is no key");
    let said = format!("{} {error:?}", common::problem::Chain(&error));
    assert!(said.contains("64 hexadecimal characters"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn the_current_key_wraps_and_the_others_are_there() {
    let mut config = keks([("a", in_variable("A")), ("b", in_variable("B"))]);
    config.current = Some("b".into());
    let ring = load_with(&config, &[("A", ONE), ("B", TWO)]).expect("two keys");
    assert_eq!(ids(&ring), ["b", "a"]);
}

#[test]
fn a_file_wraps_until_another_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kek");
    std::fs::write(&file, ONE).expect("it is written");
    let mut config = KeysConfig {
        file: Some(file),
        ..keks([("new", in_variable("NEW"))])
    };
    let fingerprint = KeyEncryptionKey::from_hex(ONE).expect("a key");
    let fingerprint = fingerprint.id().as_str();
    let ring = load_with(&config, &[("NEW", TWO)]).expect("two keys");
    assert_eq!(ids(&ring), [fingerprint, "new"]);
    config.current = Some("new".into());
    let ring = load_with(&config, &[("NEW", TWO)]).expect("two keys");
    assert_eq!(ids(&ring), ["new", fingerprint]);
}

#[test]
fn production_makes_no_key() {
    let error = load_with(&KeysConfig::default(), &[]).expect_err("there is none");
    assert!(matches!(error, KekError::None));
}

#[test]
fn a_kms_key_needs_credentials_and_a_region() {
    let kms = |key: &str| KekConfig {
        aws_kms: Some(AwsKmsConfig {
            key: key.into(),
            ..AwsKmsConfig::default()
        }),
        ..KekConfig::default()
    };
    let arn = "arn:aws:kms:eu-central-1:111122223333:key/1";
    let credentials = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let error = load_with(&keks([("k", kms(arn))]), &[]).expect_err("no credentials");
    assert!(error.to_string().contains("AWS credentials"), "{error}");
    let error = load_with(&keks([("k", kms("alias/k"))]), &credentials).expect_err("no region");
    assert!(error.to_string().contains("region"), "{error}");
    load_with(&keks([("k", kms(arn))]), &credentials).expect("the ARN names the region");
    let role = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/vault"),
        ("AWS_REGION", "eu-central-1"),
    ];
    load_with(&keks([("k", kms("alias/k"))]), &role).expect("as a pod in EKS has it");
}

#[test]
fn the_region_stands_in_an_arn() {
    assert_eq!(
        region_of("arn:aws-cn:kms:cn-north-1:1:key/1"),
        Some("cn-north-1")
    );
    for key in ["alias/hawser", "1234", "arn:aws:kms::1:key/1", ""] {
        assert_eq!(region_of(key), None, "{key}");
    }
}

#[test]
fn what_cannot_be_is_said_by_the_configuration() {
    use common::config::{Problems, Validate as _};
    let transit = TransitConfig {
        address: "http://openbao.example:8200".parse().ok(),
        key_version: Some(0),
        kubernetes: Some(KubernetesLoginConfig::default()),
        ..TransitConfig::default()
    };
    let wrong = KeysConfig {
        current: Some("c".into()),
        ..keks([
            ("two words", in_variable("A")),
            (
                "both",
                KekConfig {
                    file: Some("/nowhere".into()),
                    ..in_variable("B")
                },
            ),
            ("none", KekConfig::default()),
            (
                "t",
                KekConfig {
                    transit: Some(transit),
                    ..KekConfig::default()
                },
            ),
        ])
    };
    let mut problems = Problems::default();
    wrong.validate(&mut problems);
    let paths: Vec<_> = problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    for path in [
        "current",
        "keks.two words",
        "keks.both",
        "keks.both.file",
        "keks.none",
        "keks.t.transit.address",
        "keks.t.transit.key",
        "keks.t.transit.key_version",
        "keks.t.transit.kubernetes.role",
    ] {
        assert!(paths.contains(&path), "{path} is not among {paths:?}");
    }
}
