//! What the vault refuses to start with.

use token_vault::{Config, Environment, KeysConfig, SCHEMA};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_starts_with_a_key_alone() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    let config = world.config("a", world.database.config(SCHEMA.name));
    let config = Config {
        environment: Environment::Production,
        ..config
    };
    let error = world
        .try_start(config.clone(), world.deps.clone())
        .await
        .err()
        .expect("there is no key");
    assert!(error.contains("keys.file"), "{error}");
    let file = world.folder().join("production-kek");
    std::fs::write(&file, "8f3b".repeat(16)).unwrap();
    let keys = KeysConfig {
        file: Some(file),
        ..KeysConfig::default()
    };
    world
        .try_start(Config { keys, ..config }, world.deps.clone())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_encryption_key_is_found_at_start() {
    let _logs = testkit::logs::capture();
    let world = World::without_vault().await;
    drop(world.start("a").await);
    let file = world.folder().join("another-kek");
    std::fs::write(&file, "8f3b".repeat(16)).unwrap();
    let keys = KeysConfig {
        file: Some(file),
        ..KeysConfig::default()
    };
    let config = Config {
        keys,
        ..world.config("b", world.database.config(SCHEMA.name))
    };
    let error = world
        .try_start(config, world.deps.clone())
        .await
        .err()
        .expect("the key is another");
    assert!(
        error.contains("none of the configured key-encryption keys is this database's"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_development_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::without_vault().await;
    let _vault = world.start("a").await;
    let mode = std::fs::metadata(world.folder().join("kek"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_vaults_never_share_a_spool() {
    let world = World::without_vault().await;
    let _one = world.start("a").await;
    let config = world.config("a", world.database.config(SCHEMA.name));
    let error = world
        .try_start(config, world.deps.clone())
        .await
        .err()
        .expect("it is in use");
    assert!(error.contains("another vault uses the spool"), "{error}");
}
