//! Where key-encryption keys come from, and how one follows another.

mod kms;
mod openbao;
mod python;
mod transit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::config::Duration as Setting;
use contracts::vault::v1::{GetKeyStatusRequest, RewrapDataKeysRequest};
use envelope::{DataKey, KeyEncryptionKeys as _, KeyRing, kek_id};
use token_vault::{Config, Environment, KekConfig, KeysConfig, SCHEMA, TransitConfig};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::world::{World, get_at, token_of};
use openbao::OpenBao;

const TENANT: Uuid = Uuid::from_u128(0x0190_a0b1_c2d3_7405_8806_0708_090a_002a);
const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const TWO: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f";

fn data_key() -> DataKey {
    DataKey::new(3, Zeroizing::new([0x5a; 32]))
}

/// One key, which wraps.
fn one(id: &str, kek: KekConfig) -> KeysConfig {
    KeysConfig {
        keks: BTreeMap::from([(id.to_owned(), kek)]),
        ..KeysConfig::default()
    }
}

fn in_file(path: &Path, hex: &str) -> KekConfig {
    std::fs::write(path, hex).unwrap();
    KekConfig {
        file: Some(path.to_owned()),
        ..KekConfig::default()
    }
}

fn transit(bao: &OpenBao, token_file: PathBuf) -> TransitConfig {
    TransitConfig {
        address: Some(bao.address()),
        key: "hawser".into(),
        token_file: Some(token_file),
        ..TransitConfig::default()
    }
}

fn write_credentials(path: &Path, id: &str, secret: &str) {
    let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    write_secret(path, &text);
}

/// Beside it and over it, so that nobody reads a half of it.
fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

async fn refused_when_altered(ring: &KeyRing, wrapped: &[u8]) {
    for bit in 0..wrapped.len() * 8 {
        let mut flipped = wrapped.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.unwrap(TENANT, 3, &flipped).await.is_err(), "bit {bit}");
    }
    for len in 0..wrapped.len() {
        let cut = ring.unwrap(TENANT, 3, &wrapped[..len]).await;
        assert!(cut.is_err(), "{len} bytes");
    }
    ring.unwrap(TENANT, 3, wrapped).await.unwrap();
}

/// A world whose vaults have these keys.
struct Keyed {
    world: World,
}

impl Keyed {
    async fn new() -> Self {
        Self {
            world: World::without_vault().await,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    fn transit(&self, bao: &OpenBao) -> KekConfig {
        let token = self.file("token");
        write_secret(&token, "root");
        KekConfig {
            transit: Some(transit(bao, token)),
            ..KekConfig::default()
        }
    }

    fn config(&self, keys: KeysConfig) -> Config {
        let world = &self.world;
        Config {
            environment: Environment::Production,
            keys,
            ..world.config("a", world.database.config(SCHEMA.name))
        }
    }

    async fn start(&self, keys: KeysConfig) -> crate::world::Instance {
        self.world
            .start_with(self.config(keys), self.world.deps.clone())
            .await
    }

    async fn refusal(&self, keys: KeysConfig) -> String {
        let started = self
            .world
            .try_start(self.config(keys), self.world.deps.clone());
        started.await.err().expect("it must not start")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_follows_another_of_another_kind() {
    let _logs = testkit::logs::capture();
    let keyed = Keyed::new().await;
    let world = &keyed.world;
    let bao = OpenBao::start().await;
    let old = in_file(&keyed.file("old"), ONE);
    let both = KeysConfig {
        current: Some("bao".into()),
        keks: BTreeMap::from([
            ("old".to_owned(), old.clone()),
            ("bao".to_owned(), keyed.transit(&bao)),
        ]),
        ..KeysConfig::default()
    };

    let vault = keyed.start(one("old", old)).await;
    world.put_right_client(&vault).await;
    let grant = world.connect(&vault).await;
    let token = token_of(&world.get(&vault, grant).await.unwrap());
    drop(vault);

    // A new key comes in beside one that is known, never in its place.
    let error = keyed.refusal(one("bao", keyed.transit(&bao))).await;
    assert!(error.contains("written with: old"), "{error}");

    let vault = keyed.start(both.clone()).await;
    assert_eq!(token_of(&world.get(&vault, grant).await.unwrap()), token);
    drop(vault);
    // Nor does the old one go before its time.
    let error = keyed.refusal(one("bao", keyed.transit(&bao))).await;
    assert!(error.contains("RewrapDataKeys"), "{error}");

    let vault = keyed.start(both).await;
    let mut admin = world.admin(&vault);
    admin
        .rewrap_data_keys(RewrapDataKeysRequest {})
        .await
        .unwrap();
    testkit::eventually(Duration::from_secs(30), async || {
        let status = admin.get_key_status(GetKeyStatusRequest {}).await;
        let status = status.unwrap().into_inner();
        assert_eq!(status.current_kek_id, "bao");
        status.data_keys_under_older_keks == 0
    })
    .await;
    drop(vault);
    let vault = keyed.start(one("bao", keyed.transit(&bao))).await;
    assert_eq!(token_of(&world.get(&vault, grant).await.unwrap()), token);

    // What the records of the old key's time are verified with has come along.
    let rows = world.database.admin().await;
    let rows = rows
        .query(
            "SELECT kek_id, wrapped FROM vault.mac_keys ORDER BY kek_id",
            &[],
        )
        .await
        .unwrap();
    let under: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            let wrapped: Vec<u8> = row.get("wrapped");
            (row.get("kek_id"), kek_id(&wrapped).unwrap().to_string())
        })
        .collect();
    let expected = [("bao", "bao"), ("old", "bao")];
    assert_eq!(under, expected.map(|(of, under)| (of.into(), under.into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_under_a_known_id_is_found_at_start() {
    let keyed = Keyed::new().await;
    let known = in_file(&keyed.file("known"), ONE);
    drop(keyed.start(one("a", known.clone())).await);
    let error = keyed
        .refusal(one("a", in_file(&keyed.file("wrong"), TWO)))
        .await;
    assert!(
        error.contains("`a` is not the one that was used before"),
        "{error}"
    );

    // Of an older one too, before anything is read.
    let next = in_file(&keyed.file("next"), TWO);
    let keks = |a: &KekConfig| KeysConfig {
        current: Some("b".into()),
        keks: BTreeMap::from([("a".to_owned(), a.clone()), ("b".to_owned(), next.clone())]),
        ..KeysConfig::default()
    };
    drop(keyed.start(keks(&known)).await);
    let wrong = in_file(&keyed.file("wrong"), &"3c5a".repeat(16));
    let error = keyed.refusal(keks(&wrong)).await;
    assert!(
        error.contains("`a` is not the one that was used before"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_service_that_is_away_at_the_start_is_waited_for_and_not_for_ever() {
    let logs = testkit::logs::capture();
    logs.expect("the key service cannot be had");
    let keyed = Keyed::new().await;
    let bao = OpenBao::start().await;
    bao.inside().is_sealed = true;
    let impatient = KeysConfig {
        start_timeout: Setting::from_millis(1),
        ..one("bao", keyed.transit(&bao))
    };
    let error = keyed.refusal(impatient).await;
    assert!(
        error
            .starts_with("the key service for `bao` could not be had within 1ms: see that it runs"),
        "{error}"
    );
    assert!(error.contains("unseal the server"), "{error}");

    let before = bao.inside().requests;
    let patient = one("bao", keyed.transit(&bao));
    let unsealed = async {
        testkit::eventually(Duration::from_secs(10), async || {
            bao.inside().requests > before
        })
        .await;
        bao.inside().is_sealed = false;
    };
    let (vault, ()) = tokio::join!(keyed.start(patient), unsealed);
    keyed.world.put_right_client(&vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_service_that_goes_away_is_unavailable_and_not_an_error() {
    let _logs = testkit::logs::capture();
    let keyed = Keyed::new().await;
    let world = &keyed.world;
    let bao = OpenBao::start().await;
    let vault = keyed.start(one("bao", keyed.transit(&bao))).await;
    world.put_right_client(&vault).await;
    let grant = world.connect(&vault).await;
    drop(vault);
    // Another process, which has no data key in its memory.
    let vault = keyed.start(one("bao", keyed.transit(&bao))).await;
    bao.inside().is_sealed = true;
    let error = world.get(&vault, grant).await.expect_err("it is sealed");
    assert!(error.is_transient(), "{error:?}");
    bao.inside().is_sealed = false;
    world.get(&vault, grant).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_binding_is_refused_at_start() {
    let keyed = Keyed::new().await;
    let bao = OpenBao::start().await;
    bao.inside().is_old = true;
    let error = keyed.refusal(one("bao", keyed.transit(&bao))).await;
    assert!(error.contains("associated data"), "{error}");
}

/// `ENCRYPTION_KEY`, as many a product has it, in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn req_salesboard_04_an_existing_encryption_key_is_brought_along_in_the_environment() {
    let keyed = Keyed::new().await;
    let world = &keyed.world;
    let mut config = keyed.config(KeysConfig::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.grpc.listen = listener.local_addr().unwrap();
    drop(listener);
    let path = keyed.file("vault.toml");
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_token-vault"))
        .args(["serve", "--config"])
        .arg(&path)
        .env("HAWSER_VAULT__KEYS__KEKS__BROUGHT__ENV", "ENCRYPTION_KEY")
        .env("ENCRYPTION_KEY", ONE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut vault = world.vault_at(config.grpc.listen);
    testkit::eventually(Duration::from_mins(1), async || {
        let absent = world.get_request(world.tenant.new_id(&world.deps));
        get_at(&mut vault, absent)
            .await
            .is_err_and(|error| !error.is_transient())
    })
    .await;
    let row = world.database.admin().await;
    let row = row
        .query_one("SELECT kek_id FROM vault.kek_checks", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "brought");
    drop(child);
}
