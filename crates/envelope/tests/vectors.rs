//! `vectors.json` holds for this implementation, and for another one in Python.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use envelope::{
    AssociatedData, DataKey, KeyEncryptionKey, KeyEncryptionKeys, KeyPlace, KeyRing, OpenError,
    Random, data_key_version, derive_service_key, kek_id, open, seal,
};
use serde::Deserialize;
use uuid::Uuid;
use zeroize::Zeroizing;

const VECTORS: &str = include_str!("../vectors.json");

#[derive(Deserialize)]
struct Vectors {
    sealed: Vec<SealedVector>,
    refused: Vec<RefusedVector>,
    wrapped: Vec<WrappedVector>,
    service_keys: Vec<ServiceKeyVector>,
    mac_keys: Vec<MacVector>,
    wrapped_mac_keys: Vec<WrappedMacVector>,
    key_places: Vec<KeyPlaceVector>,
}

#[derive(Deserialize)]
struct Place {
    service: String,
    table: String,
    column: String,
    tenant: Uuid,
    row: String,
    row_version: i64,
}

#[derive(Deserialize)]
struct SealedVector {
    name: String,
    data_key_version: u32,
    data_key: String,
    place: Place,
    plaintext: String,
    salt: String,
    sealed: String,
}

#[derive(Deserialize)]
struct RefusedVector {
    name: String,
    reason: String,
    data_key_version: u32,
    data_key: String,
    place: Place,
    sealed: String,
}

#[derive(Deserialize)]
struct WrappedVector {
    name: String,
    kek_id: String,
    kek: String,
    tenant: Uuid,
    data_key_version: u32,
    data_key: String,
    salt: String,
    wrapped: String,
}

#[derive(Deserialize)]
struct ServiceKeyVector {
    data_key: String,
    service: String,
    service_key: String,
}

#[derive(Deserialize)]
struct MacVector {
    kek: String,
    purpose: String,
    message: String,
    fingerprint: String,
    mac: String,
}

#[derive(Deserialize)]
struct WrappedMacVector {
    kek_id: String,
    kek: String,
    of: String,
    purpose: String,
    mac_key: String,
    salt: String,
    wrapped: String,
}

#[derive(Deserialize)]
struct KeyPlaceVector {
    tenant: Option<Uuid>,
    data_key_version: Option<u32>,
    of: Option<String>,
    purpose: Option<String>,
    associated_data: String,
    names: BTreeMap<String, String>,
}

impl Place {
    fn with<T>(&self, f: impl FnOnce(&AssociatedData<'_>) -> T) -> T {
        f(&AssociatedData {
            service: &self.service,
            table: &self.table,
            column: &self.column,
            tenant: self.tenant,
            row: &hex::decode(&self.row).unwrap(),
            row_version: self.row_version,
        })
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn data_key(version: u32, hex: &str) -> DataKey {
    DataKey::new(
        version,
        Zeroizing::new(hex::decode(hex).unwrap().try_into().unwrap()),
    )
}

fn local_keys(kek: KeyEncryptionKey, salt: &str) -> KeyRing {
    let salt = hex::decode(salt).unwrap();
    let random: Random = Arc::new(move |out| out.copy_from_slice(&salt));
    KeyRing::local(kek, [], &random).unwrap()
}

#[test]
fn values_are_sealed_and_opened_as_the_vectors_say() {
    for vector in vectors().sealed {
        let key = data_key(vector.data_key_version, &vector.data_key);
        let plaintext = hex::decode(&vector.plaintext).unwrap();
        let salt = hex::decode(&vector.salt).unwrap();
        vector.place.with(|place| {
            let sealed = seal(&key, place, &plaintext, |out| out.copy_from_slice(&salt));
            assert_eq!(hex::encode(&sealed), vector.sealed, "{}", vector.name);
            assert_eq!(
                data_key_version(&sealed),
                Ok(vector.data_key_version),
                "{}",
                vector.name
            );
            assert_eq!(
                *open(&key, place, &sealed).unwrap(),
                plaintext,
                "{}",
                vector.name
            );
        });
    }
}

#[test]
fn values_are_refused_as_the_vectors_say() {
    for vector in vectors().refused {
        let key = data_key(vector.data_key_version, &vector.data_key);
        let sealed = hex::decode(&vector.sealed).unwrap();
        let reason = match vector
            .place
            .with(|place| open(&key, place, &sealed))
            .unwrap_err()
        {
            OpenError::NotSealed => "not sealed",
            OpenError::UnknownFormat(_) => "unknown format",
            OpenError::KeyVersion { .. } => "key version",
            OpenError::WrongKey => "wrong key",
            OpenError::Refused => "refused",
        };
        assert_eq!(reason, vector.reason, "{}", vector.name);
    }
}

#[tokio::test]
async fn keys_are_wrapped_and_unwrapped_as_the_vectors_say() {
    for vector in vectors().wrapped {
        let kek = KeyEncryptionKey::from_hex(&vector.kek)
            .unwrap()
            .named(vector.kek_id.parse().unwrap());
        let keys = local_keys(kek, &vector.salt);
        let key = data_key(vector.data_key_version, &vector.data_key);

        let wrapped = keys.wrap(vector.tenant, &key).await.unwrap();
        assert_eq!(hex::encode(&wrapped), vector.wrapped, "{}", vector.name);
        assert_eq!(kek_id(&wrapped).unwrap().as_str(), vector.kek_id);

        let unwrapped = keys
            .unwrap(vector.tenant, key.version(), &wrapped)
            .await
            .unwrap();
        assert_eq!(unwrapped.expose(), key.expose(), "{}", vector.name);
        assert_eq!(unwrapped.version(), key.version());
    }
}

#[test]
fn service_keys_are_derived_as_the_vectors_say() {
    for vector in vectors().service_keys {
        let key = derive_service_key(&data_key(1, &vector.data_key), &vector.service);
        assert_eq!(
            hex::encode(key.expose()),
            vector.service_key,
            "{}",
            vector.service
        );
    }
}

#[tokio::test]
async fn mac_keys_are_derived_as_the_vectors_say() {
    for vector in vectors().mac_keys {
        let kek = KeyEncryptionKey::from_hex(&vector.kek).unwrap();
        assert_eq!(kek.id().as_str(), vector.fingerprint);
        let keys = local_keys(kek, "");
        let key = keys
            .derive_mac_key(keys.current(), &vector.purpose)
            .await
            .unwrap();
        let message = hex::decode(&vector.message).unwrap();

        assert_eq!(
            hex::encode(key.sign(&[&message])),
            vector.mac,
            "{}",
            vector.purpose
        );
        assert!(key.verify(
            &[&message[..2], &message[2..]],
            &hex::decode(&vector.mac).unwrap()
        ));
        assert!(!key.verify(&[&message[1..]], &hex::decode(&vector.mac).unwrap()));
    }
}

#[tokio::test]
async fn mac_keys_are_wrapped_as_the_vectors_say() {
    for vector in vectors().wrapped_mac_keys {
        let kek = KeyEncryptionKey::from_hex(&vector.kek)
            .unwrap()
            .named(vector.kek_id.parse().unwrap());
        let keys = local_keys(kek, &vector.salt);
        let of = vector.of.parse().unwrap();
        let place = KeyPlace::MacKey {
            kek: &of,
            purpose: &vector.purpose,
        };
        let key: [u8; 32] = hex::decode(&vector.mac_key).unwrap().try_into().unwrap();
        let wrapped = keys.wrap_key(place, &key).await.unwrap();
        assert_eq!(hex::encode(&wrapped), vector.wrapped, "{}", vector.of);
        assert_eq!(*keys.unwrap_key(place, &wrapped).await.unwrap(), key);
    }
}

#[test]
fn places_of_keys_are_written_as_the_vectors_say() {
    for vector in vectors().key_places {
        let of = vector.of.as_ref().map(|of| of.parse().unwrap());
        let place = match (vector.tenant, vector.data_key_version, &of, &vector.purpose) {
            (Some(tenant), Some(version), None, None) => KeyPlace::DataKey { tenant, version },
            (None, None, Some(kek), Some(purpose)) => KeyPlace::MacKey { kek, purpose },
            _ => panic!("a place of one kind"),
        };
        assert_eq!(hex::encode(place.encode()), vector.associated_data);
        let names = place.names().into_iter();
        let names: BTreeMap<_, _> = names.map(|(name, value)| (name.into(), value)).collect();
        assert_eq!(names, vector.names);
    }
}

/// `just test` leaves out what is in here where there is no Python.
mod python {
    use std::{env, ffi::OsString, fs::OpenOptions, io::Write, process::Command};

    /// Where `HAWSER_TEST_PYTHON` names an interpreter, it has to have `cryptography`; the system's own may lack it.
    #[test]
    fn the_vectors_hold_for_another_implementation() {
        let chosen = setting("HAWSER_TEST_PYTHON");
        let python = chosen.clone().unwrap_or_else(|| "python3".into());
        let importable = Command::new(&python)
            .args(["-c", "import cryptography"])
            .output();
        if !importable.is_ok_and(|output| output.status.success()) {
            assert!(
                chosen.is_none(),
                "the interpreter in HAWSER_TEST_PYTHON cannot import cryptography"
            );
            say_skipped(
                "envelope python::the_vectors_hold_for_another_implementation: python3 has no cryptography",
            );
            return;
        }

        let here = env!("CARGO_MANIFEST_DIR");
        let output = Command::new(&python)
            .arg(format!("{here}/tests/vectors.py"))
            .arg(format!("{here}/vectors.json"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "24 vectors hold"
        );
    }

    /// To where `./run` collects what was skipped, else to the test's own output.
    fn say_skipped(what: &str) {
        match setting("RUN_SKIPPED") {
            Some(path) => writeln!(
                OpenOptions::new().append(true).open(path).unwrap(),
                "{what}"
            )
            .unwrap(),
            None => eprintln!("skipped: {what}"),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test run says which Python has the package"
    )]
    fn setting(name: &str) -> Option<OsString> {
        env::var_os(name)
    }
}
