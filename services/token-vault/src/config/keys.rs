//! Where the key-encryption keys are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::config::{Duration, Problems, Validate};
use envelope::KekId;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// The key-encryption keys: one wraps, the others unwrap what was wrapped before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// The id in `keks` of the key that wraps. Needed where there are several.
    pub current: Option<String>,
    /// Keys by their ids. An id stands in everything that was wrapped under the key: it stays the key's for ever.
    pub keks: BTreeMap<String, KekConfig>,
    /// A file with one key, whose id is its fingerprint. It wraps unless `current` names another.
    pub file: Option<PathBuf>,
    /// Files with keys that still unwrap what was wrapped before.
    pub older_files: Vec<PathBuf>,
    /// In development, where a key is made if there is none.
    pub development_file: PathBuf,
    /// How long a key service may be away when the vault starts.
    pub start_timeout: Duration,
}

/// Where one key is: exactly one of these.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KekConfig {
    /// A file with 64 hexadecimal characters.
    pub file: Option<PathBuf>,
    /// An environment variable with 64 hexadecimal characters.
    pub env: Option<String>,
    /// A symmetric key in AWS KMS.
    pub aws_kms: Option<AwsKmsConfig>,
    /// A key of a transit secrets engine, of OpenBao or HashiCorp Vault.
    pub transit: Option<TransitConfig>,
}

/// A key in AWS KMS. Needs `kms:Encrypt` and `kms:Decrypt`.
///
/// Credentials are those of `credentials_file`, else of `web_identity_token_file` and `role_arn`, else of the
/// environment, under the names that AWS gives them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsKmsConfig {
    /// The key's ARN, or its id, or an alias.
    pub key: String,
    /// Its region; else that of the ARN, else `AWS_REGION` or `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// Where KMS is, if not at the region's own address.
    pub endpoint: Option<Url>,
    /// Where STS is, if not at the region's own address.
    pub sts_endpoint: Option<Url>,
    /// A file with credentials as the AWS CLI has it, read again when it changes.
    pub credentials_file: Option<PathBuf>,
    /// The profile in that file.
    pub profile: Option<String>,
    /// A file with the token that a role is assumed with, as Kubernetes projects it.
    pub web_identity_token_file: Option<PathBuf>,
    /// That role.
    pub role_arn: Option<String>,
    /// A PEM file with certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time of one attempt.
    pub timeout: Duration,
}

/// A key of a transit secrets engine, of an AEAD type. Needs `update` on `<mount>/encrypt/<key>` and
/// `<mount>/decrypt/<key>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransitConfig {
    /// The server, as `https://openbao.example:8200`. Plain http is spoken with this machine alone.
    pub address: Option<Url>,
    /// Where the engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// The version of the key that wraps; else the newest.
    pub key_version: Option<u32>,
    /// The namespace.
    pub namespace: Option<String>,
    /// A file with a token, read again when it changes.
    pub token_file: Option<PathBuf>,
    /// A login with the pod's own token, instead.
    pub kubernetes: Option<KubernetesLoginConfig>,
    /// A PEM file with certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time of one attempt.
    pub timeout: Duration,
}

/// A login by Kubernetes' service account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesLoginConfig {
    /// The role to log in as.
    pub role: String,
    /// Where the login is mounted, below `auth/`.
    pub mount: String,
    /// The pod's token.
    pub token_file: PathBuf,
}

impl KeysConfig {
    /// Whether any key is named.
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.keks.is_empty()
    }

    /// Which of `keks` wraps; `None` where `file` does.
    pub(crate) fn current(&self) -> Option<&str> {
        let only = || match (&self.file, self.keks.keys().next()) {
            (None, Some(id)) if self.keks.len() == 1 => Some(id.as_str()),
            _ => None,
        };
        self.current.as_deref().or_else(only)
    }
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            current: None,
            keks: BTreeMap::new(),
            file: None,
            older_files: Vec::new(),
            development_file: PathBuf::from("vault-development-key"),
            start_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for AwsKmsConfig {
    fn default() -> Self {
        Self {
            key: String::new(),
            region: None,
            endpoint: None,
            sts_endpoint: None,
            credentials_file: None,
            profile: None,
            web_identity_token_file: None,
            role_arn: None,
            ca_file: None,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for TransitConfig {
    fn default() -> Self {
        Self {
            address: None,
            mount: "transit".into(),
            key: String::new(),
            key_version: None,
            namespace: None,
            token_file: None,
            kubernetes: None,
            ca_file: None,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for KubernetesLoginConfig {
    fn default() -> Self {
        Self {
            role: String::new(),
            mount: "kubernetes".into(),
            token_file: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
        }
    }
}

impl Validate for KeysConfig {
    fn validate(&self, problems: &mut Problems) {
        is_file(problems, "file", self.file.as_ref());
        for (index, file) in self.older_files.iter().enumerate() {
            is_file(problems, &format!("older_files.{index}"), Some(file));
        }
        match &self.current {
            Some(current) => problems.check(
                self.keks.contains_key(current),
                "current",
                "name one of `keys.keks`",
            ),
            None => problems.check(
                self.file.is_some() || self.keks.len() < 2,
                "current",
                "say which of `keys.keks` wraps",
            ),
        }
        problems.within("keks", |problems| {
            for (id, kek) in &self.keks {
                problems.check(
                    id.parse::<KekId>().is_ok(),
                    id,
                    "an id is 1 to 255 visible ASCII characters",
                );
                problems.nested(id, kek);
            }
        });
    }
}

impl Validate for KekConfig {
    fn validate(&self, problems: &mut Problems) {
        let kinds = [
            self.file.is_some(),
            self.env.is_some(),
            self.aws_kms.is_some(),
            self.transit.is_some(),
        ];
        let named = kinds.into_iter().filter(|is_named| *is_named).count();
        problems.check(
            named == 1,
            "",
            "set exactly one of `file`, `env`, `aws_kms` and `transit`",
        );
        is_file(problems, "file", self.file.as_ref());
        if let Some(kms) = &self.aws_kms {
            problems.nested("aws_kms", kms);
        }
        if let Some(transit) = &self.transit {
            problems.nested("transit", transit);
        }
    }
}

impl Validate for AwsKmsConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.key.is_empty(),
            "key",
            "name the key by its ARN, its id, or an alias as in `alias/hawser`",
        );
        is_safe(problems, "endpoint", self.endpoint.as_ref());
        is_safe(problems, "sts_endpoint", self.sts_endpoint.as_ref());
        is_file(problems, "credentials_file", self.credentials_file.as_ref());
        is_file(
            problems,
            "web_identity_token_file",
            self.web_identity_token_file.as_ref(),
        );
        problems.check(
            self.web_identity_token_file.is_none() || self.role_arn.is_some(),
            "role_arn",
            "name the role that `web_identity_token_file` is for",
        );
        is_file(problems, "ca_file", self.ca_file.as_ref());
        is_some_time(problems, "timeout", self.timeout);
    }
}

impl Validate for TransitConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            self.address.is_some(),
            "address",
            "name the server, as in `https://openbao.example:8200`",
        );
        is_safe(problems, "address", self.address.as_ref());
        problems.check(!self.mount.is_empty(), "mount", "must not be empty");
        problems.check(!self.key.is_empty(), "key", "name the key");
        problems.check(
            self.key_version != Some(0),
            "key_version",
            "versions count from 1; leave it out for the newest",
        );
        problems.check(
            self.token_file.is_some() != self.kubernetes.is_some(),
            "token_file",
            "set either `token_file` or `kubernetes`",
        );
        is_file(problems, "token_file", self.token_file.as_ref());
        if let Some(login) = &self.kubernetes {
            problems.within("kubernetes", |problems| {
                problems.check(!login.role.is_empty(), "role", "name the role");
                problems.check(!login.mount.is_empty(), "mount", "must not be empty");
                is_file(problems, "token_file", Some(&login.token_file));
            });
        }
        is_file(problems, "ca_file", self.ca_file.as_ref());
        is_some_time(problems, "timeout", self.timeout);
    }
}

fn is_file(problems: &mut Problems, field: &str, file: Option<&PathBuf>) {
    if let Some(file) = file.filter(|file| !file.is_file()) {
        problems.report(field, format!("{} is not a file", file.display()));
    }
}

/// Data keys go over this connection.
fn is_safe(problems: &mut Problems, field: &str, url: Option<&Url>) {
    let is_loopback = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let safe = url.is_none_or(|url| match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    });
    problems.check(
        safe,
        field,
        "must be an https URL; plain http is for this machine's own addresses",
    );
}

fn is_some_time(problems: &mut Problems, field: &str, time: Duration) {
    problems.check(
        !time.get().is_zero(),
        field,
        "must be longer than nothing, as in \"5s\"",
    );
}
