//! Key-encryption keys: several at once, the wrong one, the development key.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    error::Error as _,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use envelope::{
    DataKey, KeyEncryptionKey, KeyEncryptionKeys, KeyError, KeyPlace, KeyRing, Random, check_value,
    development_key, kek_id, verify_binding, verify_check_value,
};
use uuid::Uuid;

const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f";
const TENANT: Uuid = Uuid::from_u128(0x0190_a0b1_c2d3_7405_8806_0708_090a_002a);

/// Never the same bytes twice.
fn counting() -> Random {
    let next = AtomicU8::new(1);
    Arc::new(move |out| out.fill(next.fetch_add(1, Ordering::Relaxed)))
}

fn kek(hex: &str, id: &str) -> KeyEncryptionKey {
    KeyEncryptionKey::from_hex(hex)
        .unwrap()
        .named(id.parse().unwrap())
}

fn only(key: KeyEncryptionKey) -> KeyRing {
    KeyRing::local(key, [], &counting()).unwrap()
}

fn data_key() -> DataKey {
    DataKey::generate(3, |bytes| bytes.fill(0x5a))
}

#[tokio::test]
async fn an_older_key_still_unwraps_and_the_current_one_wraps() {
    let before = only(kek(OLD, "2025"));
    let wrapped = before.wrap(TENANT, &data_key()).await.unwrap();
    assert_eq!(kek_id(&wrapped).unwrap().as_str(), "2025");

    let after = KeyRing::local(kek(NEW, "2026"), [kek(OLD, "2025")], &counting()).unwrap();
    let unwrapped = after.unwrap(TENANT, 3, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), data_key().expose());
    assert_eq!(after.current().as_str(), "2026");
    assert_eq!(after.ids().len(), 2);

    let rewrapped = after.wrap(TENANT, &unwrapped).await.unwrap();
    assert_eq!(kek_id(&rewrapped).unwrap().as_str(), "2026");
    let error = before.unwrap(TENANT, 3, &rewrapped).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no key-encryption key with the id `2026` is configured; add it to the older keys"
    );
}

#[tokio::test]
async fn a_wrapped_key_is_its_tenants_and_its_versions() {
    let keys = only(kek(OLD, "2025"));
    let wrapped = keys.wrap(TENANT, &data_key()).await.unwrap();
    assert!(matches!(
        keys.unwrap(Uuid::nil(), 3, &wrapped).await,
        Err(KeyError::Refused)
    ));
    assert!(matches!(
        keys.unwrap(TENANT, 2, &wrapped).await,
        Err(KeyError::Refused)
    ));
}

#[tokio::test]
async fn every_flipped_bit_and_cut_of_a_wrapped_key_is_refused() {
    let keys = only(kek(OLD, "2025"));
    let wrapped = keys.wrap(TENANT, &data_key()).await.unwrap();
    for bit in 0..wrapped.len() * 8 {
        let mut flipped = wrapped.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.unwrap(TENANT, 3, &flipped).await.is_err(), "bit {bit}");
    }
    for len in 0..wrapped.len() {
        assert!(
            keys.unwrap(TENANT, 3, &wrapped[..len]).await.is_err(),
            "{len} bytes"
        );
    }
}

#[tokio::test]
async fn a_wrong_key_is_found_by_the_check_value() {
    let stored = check_value(&only(kek(OLD, "2025"))).await.unwrap();
    verify_check_value(&only(kek(OLD, "2025")), &stored)
        .await
        .unwrap();

    let rotated = KeyRing::local(kek(NEW, "2026"), [kek(OLD, "2025")], &counting()).unwrap();
    verify_check_value(&rotated, &stored).await.unwrap();

    let error = verify_check_value(&only(kek(NEW, "2025")), &stored)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key-encryption key `2025` is not the one that was used before under this id"
    );
    assert!(matches!(
        verify_check_value(&only(kek(NEW, "2026")), &stored).await,
        Err(KeyError::UnknownId { .. })
    ));

    let no_check = only(kek(OLD, "2025"))
        .wrap(TENANT, &data_key())
        .await
        .unwrap();
    assert!(
        verify_check_value(&only(kek(OLD, "2025")), &no_check)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_key_that_got_a_name_opens_what_was_wrapped_under_its_fingerprint() {
    let nameless = KeyEncryptionKey::from_hex(OLD).unwrap();
    let fingerprint = nameless.id().clone();
    let wrapped = only(nameless).wrap(TENANT, &data_key()).await.unwrap();
    assert_eq!(kek_id(&wrapped).unwrap(), fingerprint);

    let named = only(kek(OLD, "2025"));
    assert!(named.contains(&fingerprint));
    let unwrapped = named.unwrap(TENANT, 3, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), data_key().expose());
    let twice = KeyRing::local(
        kek(OLD, "2025"),
        [KeyEncryptionKey::from_hex(OLD).unwrap()],
        &counting(),
    );
    assert!(matches!(twice, Err(KeyError::DuplicateId { .. })));
}

#[tokio::test]
async fn a_mac_key_is_wrapped_for_its_key_and_purpose() {
    let keys = only(kek(OLD, "2025"));
    let [this, other] = ["2025", "2026"].map(|id| id.parse().unwrap());
    let place = |kek, purpose| KeyPlace::MacKey { kek, purpose };
    let wrapped = keys
        .wrap_key(place(&this, "access records"), &[7; 32])
        .await
        .unwrap();
    let opened = keys
        .unwrap_key(place(&this, "access records"), &wrapped)
        .await
        .unwrap();
    assert_eq!(*opened, [7; 32]);
    for elsewhere in [
        place(&other, "access records"),
        place(&this, "access record"),
        KeyPlace::DataKey {
            tenant: TENANT,
            version: 1,
        },
    ] {
        let refused = keys.unwrap_key(elsewhere, &wrapped).await;
        assert!(matches!(refused, Err(KeyError::Refused)), "{elsewhere:?}");
    }
}

#[tokio::test]
async fn the_binding_of_a_local_key_holds() {
    let keys = only(kek(OLD, "2025"));
    let check = check_value(&keys).await.unwrap();
    verify_binding(&keys, &check).await.unwrap();
}

#[tokio::test]
async fn mac_keys_differ_by_purpose_and_by_key() {
    let keys = KeyRing::local(kek(NEW, "2026"), [kek(OLD, "2025")], &counting()).unwrap();
    let [new, old] = [keys.ids()[0].clone(), keys.ids()[1].clone()];
    let records = keys.derive_mac_key(&new, "access records").await.unwrap();
    let mac = records.sign(&[b"record"]);

    assert!(
        keys.derive_mac_key(&new, "access records")
            .await
            .unwrap()
            .verify(&[b"record"], &mac)
    );
    assert!(
        !keys
            .derive_mac_key(&new, "another")
            .await
            .unwrap()
            .verify(&[b"record"], &mac)
    );
    assert!(
        !keys
            .derive_mac_key(&old, "access records")
            .await
            .unwrap()
            .verify(&[b"record"], &mac)
    );
    assert!(!records.verify(&[b"record"], &mac[..31]));
    assert_eq!(format!("{records:?}"), "MacKey");
}

#[test]
fn a_key_is_64_hexadecimal_characters() {
    assert!(KeyEncryptionKey::from_hex(&format!(" {}\n", OLD.to_uppercase())).is_ok());
    for text in [
        "",
        &OLD[..63],
        &OLD[..62],
        &format!("{OLD}00"),
        &OLD.replace('a', "g"),
    ] {
        assert!(
            matches!(KeyEncryptionKey::from_hex(text), Err(KeyError::NotHex)),
            "{text:?}"
        );
    }
    assert!(matches!(
        KeyEncryptionKey::from_hex(&"00".repeat(32)),
        Err(KeyError::Placeholder)
    ));
    assert!(matches!(
        "".parse::<envelope::KekId>(),
        Err(KeyError::InvalidId)
    ));
    assert!(matches!(
        "two words".parse::<envelope::KekId>(),
        Err(KeyError::InvalidId)
    ));
    assert!(matches!(
        "x".repeat(256).parse::<envelope::KekId>(),
        Err(KeyError::InvalidId)
    ));
}

#[test]
fn the_fingerprint_is_the_id_of_a_key_without_a_name() {
    let one = KeyEncryptionKey::from_hex(OLD).unwrap();
    let two = KeyEncryptionKey::from_hex(NEW).unwrap();
    assert_eq!(one.id().as_str().len(), 16);
    assert_ne!(one.id(), two.id());
    assert!(!format!("{one:?}").contains(&OLD[..16]));
    assert!(matches!(
        KeyRing::local(one.clone(), [one], &counting()),
        Err(KeyError::DuplicateId { .. })
    ));
}

#[test]
fn a_key_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek");
    let error = KeyEncryptionKey::from_file(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read the key-encryption key in {}", path.display())
    );

    fs::write(&path, "canary").unwrap();
    let error = KeyEncryptionKey::from_file(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the file {} holds no key-encryption key", path.display())
    );
    let source = error.source().unwrap().to_string();
    assert!(source.starts_with("a key-encryption key is 64 hexadecimal characters"));
    assert!(!format!("{error:?}").contains("canary"));
}

#[test]
fn a_development_key_is_made_once_and_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek.hex");

    let first = development_key(&path, random_bytes(1)).unwrap();
    let again = development_key(&path, random_bytes(100)).unwrap();
    assert!(first.created);
    assert!(!again.created);
    assert_eq!(first.key.id(), again.key.id());

    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no draft is left behind"
    );
}

#[test]
fn processes_that_begin_together_end_with_one_development_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek.hex");
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let path = &path;
                scope.spawn(move || development_key(path, random_bytes(20 * n)).unwrap())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(made.iter().filter(|key| key.created).count(), 1);
    assert!(made.iter().all(|key| key.key.id() == made[0].key.id()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_development_key_that_cannot_be_written_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("kek.hex");
    let error = development_key(&path, random_bytes(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot write a development key to {}", path.display())
    );
}

/// Different bytes in each place and at each call.
fn random_bytes(start: u8) -> impl FnMut(&mut [u8]) {
    let mut next = start;
    move |out| {
        for byte in out {
            *byte = next;
            next = next.wrapping_add(1);
        }
    }
}
