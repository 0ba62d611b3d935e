//! Configuration: which layer wins, and that every problem is told, once, with what to do.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use common::config::{
    self, ConfigError, Duration, Problems, SecretFile, SecretFileError, Validate,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    listen: SocketAddr,
    name: Option<String>,
    hosts: Vec<String>,
    labels: BTreeMap<String, String>,
    database: Database,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Database {
    url: String,
    pool_size: u16,
    timeout: Duration,
    mode: Mode,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Direct,
    Pooled,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 7000).into(),
            name: None,
            hosts: vec!["a".to_owned()],
            labels: BTreeMap::new(),
            // Differs from Database::default(), and must survive a file that sets another of its fields.
            database: Database {
                pool_size: 20,
                ..Database::default()
            },
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "postgres://localhost/vault".to_owned(),
            pool_size: 10,
            timeout: Duration::from_secs(5),
            mode: Mode::Direct,
        }
    }
}

impl Validate for Sample {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            !self.hosts.is_empty(),
            "hosts",
            "must name one host at least",
        );
        problems.nested("database", &self.database);
    }
}

impl Validate for Database {
    fn validate(&self, problems: &mut Problems) {
        problems.check(
            self.url.starts_with("postgres://"),
            "url",
            "must begin with postgres://",
        );
        problems.check(self.pool_size > 0, "pool_size", "must be 1 or more");
    }
}

struct Layers {
    dir: TempDir,
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    overrides: Vec<(String, String)>,
}

impl Layers {
    fn new() -> Self {
        Self {
            dir: TempDir::new().expect("a temporary directory"),
            file: None,
            environment: Vec::new(),
            overrides: Vec::new(),
        }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.dir.path().join("vault.toml");
        fs::write(&path, text).expect("writes the file");
        self.file = Some(path);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, text: &str) -> Self {
        self.overrides
            .push(config::parse_override(text).expect("a well-formed override"));
        self
    }

    fn load(&self) -> Result<Sample, ConfigError> {
        config::load(
            "vault",
            self.file.as_deref(),
            self.environment.clone(),
            &self.overrides,
        )
    }

    /// Each problem as `path: message`.
    fn problems(&self) -> Vec<String> {
        let error = self.load().expect_err("the configuration has problems");
        error
            .problems()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect()
    }
}

#[test]
fn the_defaults_work() {
    let config = Layers::new().load().expect("the defaults are valid");
    assert_eq!(config.database.pool_size, 20);
    assert_eq!(config.database.timeout, Duration::from_secs(5));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let config = Layers::new()
        .file(
            "listen = '127.0.0.1:1'\nhosts = ['x', 'y']\n[labels]\nteam = 'sales'\n[database]\nurl = 'postgres://file/vault'\ntimeout = '1m 30s'\n",
        )
        .env("HAWSER_VAULT__DATABASE__URL", "postgres://env/vault")
        .env("HAWSER_VAULT__LISTEN", "127.0.0.1:2")
        .flag("listen=127.0.0.1:3")
        .load()
        .expect("a valid configuration");
    assert_eq!(config.listen.port(), 3, "the flag wins");
    assert_eq!(
        config.database.url, "postgres://env/vault",
        "the environment wins over the file"
    );
    assert_eq!(
        config.database.timeout,
        Duration::from_secs(90),
        "the file wins over the default"
    );
    assert_eq!(
        config.database.pool_size, 20,
        "the default of the whole stays where nothing is said"
    );
    assert_eq!(
        config.hosts,
        ["x", "y"],
        "a list is replaced, not appended to"
    );
    assert_eq!(config.labels["team"], "sales");
}

#[test]
fn the_environment_holds_text_numbers_and_lists() {
    let config = Layers::new()
        .env("HAWSER_VAULT__NAME", "0042")
        .env("HAWSER_VAULT__DATABASE__POOL_SIZE", "7")
        .env("HAWSER_VAULT__DATABASE__MODE", "pooled")
        .env("HAWSER_VAULT__HOSTS", "[one, two]")
        .env("HAWSER_VAULT__LABELS__YEAR", "2026")
        .load()
        .expect("a valid configuration");
    assert_eq!(
        config.name.as_deref(),
        Some("0042"),
        "what looks like a number stays text where text is wanted"
    );
    assert_eq!(config.database.pool_size, 7);
    assert_eq!(config.database.mode, Mode::Pooled);
    assert_eq!(config.hosts, ["one", "two"]);
    assert_eq!(config.labels["year"], "2026");
}

#[test]
fn every_problem_is_told_at_once() {
    let layers = Layers::new()
        .file("hosts = []\n[database]\npoolsize = 3\npool_size = 0\n")
        .env("HAWSER_VAULT__LISTEN", "everywhere")
        .env("HAWSER_VAULT__NONSENSE", "1")
        .env("HAWSER_VAULT__DATABASE__MODE", "sideways")
        .env("HAWSER_VAULT____X", "1")
        .flag("database.timeout=30");
    let mut problems = layers.problems();
    problems.sort();
    let expected = [
        ": HAWSER_VAULT____X names no setting; write HAWSER_VAULT__DATABASE__URL for database.url",
        "database.mode: must be `direct` or `pooled`",
        "database.pool_size: must be 1 or more",
        "database.poolsize: there is no such setting; did you mean `pool_size`?",
        "database.timeout: must be ",
        "hosts: must name one host at least",
        "listen: ",
        "nonsense: there is no such setting; remove it, or use ",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(
            problem.starts_with(expected),
            "{problem} does not begin with {expected}"
        );
    }

    let shown = layers.load().expect_err("still wrong").to_string();
    assert_eq!(
        shown.lines().count(),
        1 + expected.len(),
        "one line a problem:\n{shown}"
    );
    assert!(shown.contains("(HAWSER_VAULT__DATABASE__MODE)"), "{shown}");
    assert!(shown.contains("vault.toml)"), "{shown}");
    assert!(shown.contains("(the flag database.timeout=…)"), "{shown}");
}

#[test]
fn a_problem_does_not_repeat_text_that_may_be_a_secret() {
    let layers = Layers::new().env("HAWSER_VAULT__DATABASE__POOL_SIZE", "canary-9f31");
    let shown = layers.load().expect_err("no number").to_string();
    assert!(shown.contains("database.pool_size: must be u16"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_not_ours() {
    let config = Layers::new()
        .env("HAWSER_VAULT_SERVICE_HOST", "10.0.0.1")
        .env("HAWSER_VAULT_PORT_7000_TCP", "tcp://10.0.0.1:7000")
        .env("HAWSER_BROKER__NONSENSE", "1")
        .load();
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_the_only_problem() {
    let mut missing = Layers::new();
    missing.file = Some(missing.dir.path().join("nowhere.toml"));
    let problems = missing.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("nowhere.toml cannot be read"),
        "{problems:?}"
    );

    let problems = Layers::new().file("name = 'x'\n[database\n").problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with(": correct line 2 of "),
        "{problems:?}"
    );
}

#[test]
fn check_config_says_ok_or_what_is_wrong() {
    let check = |overrides: &[(String, String)]| {
        let mut out = Vec::new();
        let ok = config::check_config::<Sample>("vault", None, Vec::new(), overrides, &mut out)
            .expect("writes");
        (ok, String::from_utf8(out).expect("text"))
    };
    assert_eq!(check(&[]), (true, "ok\n".to_owned()));
    let (ok, said) = check(&[("database.pool_size".to_owned(), "0".to_owned())]);
    assert!(!ok);
    assert!(
        said.contains("database.pool_size: must be 1 or more (the flag database.pool_size=…)"),
        "{said}"
    );
}

#[test]
fn an_override_needs_a_setting_and_a_value() {
    assert_eq!(
        config::parse_override("a.b=c=d").expect("well-formed"),
        ("a.b".to_owned(), "c=d".to_owned())
    );
    assert!(config::parse_override("a.b").is_err());
    assert!(config::parse_override("=c").is_err());
}

#[test]
fn a_secret_is_read_from_its_file_without_the_white_space() {
    let dir = TempDir::new().expect("a temporary directory");
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("writes the secret");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("makes it private");
        SecretFile::new(path)
    };
    let secret = write("good", b"  s3cret\n").read().expect("a secret");
    assert_eq!(secret.expose(), "s3cret");
    assert!(matches!(
        write("empty", b"\n").read(),
        Err(SecretFileError::Empty(_))
    ));
    assert!(matches!(
        write("binary", b"\xff\xfe").read(),
        Err(SecretFileError::NotText(_))
    ));
    assert!(matches!(
        SecretFile::new(dir.path().join("nowhere")).read(),
        Err(SecretFileError::Unreadable { .. })
    ));
}
