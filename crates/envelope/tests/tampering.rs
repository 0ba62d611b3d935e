//! What a writer in the database may try with sealed values, and what becomes of it.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use envelope::{AssociatedData, DataKey, OVERHEAD, OpenError, data_key_version, open, seal};
use proptest::prelude::*;
use uuid::Uuid;
use zeroize::Zeroizing;

const SALT_AT: usize = 8;
const COMMITMENT_AT: usize = 40;
const CIPHERTEXT_AT: usize = 72;

#[derive(Clone, Debug, PartialEq)]
struct Place {
    service: String,
    table: String,
    column: String,
    tenant: u128,
    row: Vec<u8>,
    row_version: i64,
}

impl Place {
    fn with<T>(&self, f: impl FnOnce(&AssociatedData<'_>) -> T) -> T {
        f(&AssociatedData {
            service: &self.service,
            table: &self.table,
            column: &self.column,
            tenant: Uuid::from_u128(self.tenant),
            row: &self.row,
            row_version: self.row_version,
        })
    }

    fn seal(&self, key: &DataKey, plaintext: &[u8], salt: [u8; 32]) -> Vec<u8> {
        self.with(|place| seal(key, place, plaintext, |out| out.copy_from_slice(&salt)))
    }

    fn open(&self, key: &DataKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.with(|place| open(key, place, sealed))
    }
}

prop_compose! {
    /// From few letters, so that fields of two places are often the same, or the same together.
    fn places()(
        service in "[ab]{0,2}",
        table in "[ab]{0,2}",
        column in "[ab]{0,2}",
        tenant in 0..3_u128,
        row in prop::collection::vec(0..2_u8, 0..3),
        row_version in -1..3_i64,
    ) -> Place {
        Place { service, table, column, tenant, row, row_version }
    }
}

fn key(version: u32, byte: u8) -> DataKey {
    DataKey::generate(version, |bytes| bytes.fill(byte))
}

fn grant() -> Place {
    Place {
        service: "vault".into(),
        table: "grants".into(),
        column: "refresh_token".into(),
        tenant: 1,
        row: vec![1, 2, 3],
        row_version: 4,
    }
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        place in places(),
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
        salt: [u8; 32],
        version: u32,
        bytes: [u8; 32],
    ) {
        let key = DataKey::new(version, Zeroizing::new(bytes));
        let sealed = place.seal(&key, &plaintext, salt);
        prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
        prop_assert_eq!(data_key_version(&sealed), Ok(version));
        prop_assert_eq!(&*place.open(&key, &sealed).unwrap(), &plaintext);
    }

    #[test]
    fn a_value_opens_in_its_own_place_alone(here in places(), there in places(), salt: [u8; 32]) {
        let sealed = here.seal(&key(1, 1), b"secret", salt);
        let opened = there.open(&key(1, 1), &sealed).map(|_| ());
        prop_assert_eq!(opened, if here == there { Ok(()) } else { Err(OpenError::Refused) });
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(grant().open(&key(1, 1), &bytes).is_err());
        let with_header = [b"HSV\x01\x00\x00\x00\x01".as_slice(), &bytes].concat();
        prop_assert!(grant().open(&key(1, 1), &with_header).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let sealed = grant().seal(
        &key(1, 1),
        b"a secret of two blocks and a bit more",
        [9; 32],
    );
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);

        let error = grant().open(&key(1, 1), &flipped).unwrap_err();
        let expected = match bit / 8 {
            0..3 => OpenError::NotSealed,
            3 => OpenError::UnknownFormat(flipped[3]),
            4..SALT_AT => OpenError::KeyVersion {
                sealed: data_key_version(&flipped).unwrap(),
                given: 1,
            },
            SALT_AT..CIPHERTEXT_AT => OpenError::WrongKey,
            _ => OpenError::Refused,
        };
        assert_eq!(error, expected, "bit {bit}");
    }
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    let sealed = grant().seal(&key(1, 1), b"secret", [9; 32]);
    for len in 0..sealed.len() {
        let expected = if len < OVERHEAD {
            OpenError::NotSealed
        } else {
            OpenError::Refused
        };
        assert_eq!(
            grant().open(&key(1, 1), &sealed[..len]).unwrap_err(),
            expected,
            "{len} bytes"
        );
    }
    let longer = [sealed.as_slice(), &[0]].concat();
    assert_eq!(
        grant().open(&key(1, 1), &longer).unwrap_err(),
        OpenError::Refused
    );
}

#[test]
fn each_field_of_the_place_counts() {
    let home = grant();
    let sealed = home.seal(&key(1, 1), b"secret", [9; 32]);
    let elsewhere = [
        Place {
            service: "ingest".into(),
            ..home.clone()
        },
        Place {
            table: "clients".into(),
            ..home.clone()
        },
        Place {
            column: "access_token".into(),
            ..home.clone()
        },
        Place {
            tenant: 2,
            ..home.clone()
        },
        Place {
            row: vec![1, 2, 4],
            ..home.clone()
        },
        Place {
            row_version: 5,
            ..home.clone()
        },
        Place {
            row_version: 3,
            ..home.clone()
        },
        // Letters moved over the border of two fields.
        Place {
            service: "vaultg".into(),
            table: "rants".into(),
            ..home.clone()
        },
        Place {
            table: "grant".into(),
            column: "srefresh_token".into(),
            ..home.clone()
        },
        // Two fields exchanged.
        Place {
            table: home.column.clone(),
            column: home.table.clone(),
            ..home.clone()
        },
    ];
    for place in elsewhere {
        assert_eq!(
            place.open(&key(1, 1), &sealed).unwrap_err(),
            OpenError::Refused,
            "{place:?}"
        );
    }
    assert!(home.open(&key(1, 1), &sealed).is_ok());
}

#[test]
fn another_key_or_version_is_refused_before_decryption() {
    let sealed = grant().seal(&key(1, 1), b"secret", [9; 32]);
    assert_eq!(
        grant().open(&key(1, 2), &sealed).unwrap_err(),
        OpenError::WrongKey
    );
    assert_eq!(
        grant().open(&key(2, 1), &sealed).unwrap_err(),
        OpenError::KeyVersion {
            sealed: 1,
            given: 2
        }
    );
}

/// A ciphertext that is made to open under two keys is GCM's weakness: here a value's own header has to match, too, and
/// it can hold the commitment of one key only.
#[test]
fn a_value_is_committed_to_one_key() {
    let (mine, yours) = (key(1, 1), key(1, 2));
    let salt = [9; 32];
    let under_mine = grant().seal(&mine, b"secret", salt);
    let under_yours = grant().seal(&yours, b"secret", salt);
    assert_ne!(
        under_mine[COMMITMENT_AT..CIPHERTEXT_AT],
        under_yours[COMMITMENT_AT..CIPHERTEXT_AT]
    );

    let mut spliced = under_mine.clone();
    spliced[CIPHERTEXT_AT..].copy_from_slice(&under_yours[CIPHERTEXT_AT..]);
    assert_eq!(
        grant().open(&yours, &spliced).unwrap_err(),
        OpenError::WrongKey
    );
    assert_eq!(
        grant().open(&mine, &spliced).unwrap_err(),
        OpenError::Refused
    );
}

#[test]
fn the_same_secret_never_looks_the_same_twice() {
    let one = grant().seal(&key(1, 1), b"secret", [1; 32]);
    let two = grant().seal(&key(1, 1), b"secret", [2; 32]);
    assert_ne!(one[CIPHERTEXT_AT..], two[CIPHERTEXT_AT..]);
    assert_ne!(
        one[COMMITMENT_AT..CIPHERTEXT_AT],
        two[COMMITMENT_AT..CIPHERTEXT_AT]
    );
}

#[test]
fn no_message_shows_key_or_content() {
    let key = DataKey::new(1, Zeroizing::new(*b"canary-canary-canary-canary-cana"));
    let sealed = grant().seal(&key, b"canary in the content", [9; 32]);
    let mut altered = sealed.clone();
    altered[CIPHERTEXT_AT] ^= 1;
    for bytes in [&altered[..], &sealed[..50], b"canary".as_slice()] {
        let error = grant().open(&key, bytes).unwrap_err();
        assert!(
            !format!("{error} {error:?} {key:?}").contains("canary"),
            "{error:?}"
        );
    }
    assert!(!sealed.windows(6).any(|window| window == b"canary"));
}
