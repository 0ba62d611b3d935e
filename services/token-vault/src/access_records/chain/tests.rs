use std::time::Duration;

use time::macros::datetime;

use super::*;

const AT: OffsetDateTime = datetime!(2026-01-15 12:00 UTC);
const CHAIN: Uuid = Uuid::from_u128(7);
const WHOLE: Anchor = Anchor {
    sequence: 0,
    mac: Vec::new(),
    seal: Vec::new(),
};

fn key() -> MacKey {
    MacKey::new(&[7; 32])
}

fn record(purpose: &str) -> Record<'_> {
    Record {
        tenant_id: Uuid::from_u128(1),
        grant_id: Some(Uuid::from_u128(2)),
        resource: "",
        caller: "spiffe://hawser/oauth-broker",
        user_id: "ada",
        action: "GetCredential",
        purpose,
        trace_id: "t",
    }
}

fn linked<'a>(sequence: i64, record: Record<'a>, mac: Option<&'a [u8]>) -> Linked<'a> {
    Linked {
        slot: Day::of(AT).slot(),
        sequence,
        occurred_at: AT,
        record,
        mac,
    }
}

/// The MAC of records that come after `before` and share it.
fn mac(before: &[u8], first: i64, records: &[Record<'_>]) -> Mac {
    let mut message = Message::default();
    message.begin(CHAIN, before);
    for (record, sequence) in records.iter().zip(first..) {
        message.record(sequence, AT, record);
    }
    message.mac(&key())
}

#[test]
fn a_chain_that_nobody_touched_fits() {
    let (one, two) = (record("a"), record("b"));
    let first = mac(&[], 1, &[one]);
    let second = mac(&first, 2, &[two]);
    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    assert_eq!(check.anchor(), None);
    check.take(&linked(1, one, Some(&first))).expect("it fits");
    check.take(&linked(2, two, Some(&second))).expect("it fits");
    assert_eq!(
        (check.head().sequence, check.head().mac),
        (2, second.to_vec())
    );

    let anchored = Check::new(CHAIN, Some(key()), &check.anchor().expect("it has a key"));
    assert_eq!(anchored.head(), check.head());
}

#[test]
fn records_that_share_a_mac_are_checked_together() {
    let (one, two) = (record("a"), record("b"));
    let shared = mac(&[], 1, &[one, two]);
    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    check.take(&linked(1, one, None)).expect("it waits");
    assert!(check.is_open());
    check.take(&linked(2, two, Some(&shared))).expect("it fits");
    assert!(!check.is_open());

    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    check.take(&linked(1, record("c"), None)).expect("it waits");
    assert_eq!(
        check.take(&linked(2, two, Some(&shared))),
        Err(Misfit::Altered { first: 1 })
    );
    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    for sequence in 1..256 {
        check.take(&linked(sequence, one, None)).expect("it waits");
    }
    assert_eq!(
        check.take(&linked(256, one, None)),
        Err(Misfit::Altered { first: 1 })
    );
}

#[test]
fn every_change_of_a_record_is_found() {
    let (one, two) = (record("a"), record("b"));
    let first = mac(&[], 1, &[one]);
    let second = mac(&first, 2, &[two]);
    let right = linked(2, two, Some(&second));
    let tomorrow = AT + Duration::from_hours(24);
    let slot = Day::of(tomorrow).slot();
    let with = |record: Record<'static>| Linked { record, ..right };
    let edited = [
        Linked {
            occurred_at: AT + Duration::from_micros(1),
            ..right
        },
        Linked {
            occurred_at: tomorrow,
            ..right
        },
        Linked { slot, ..right },
        Linked {
            slot,
            occurred_at: tomorrow,
            ..right
        },
        Linked {
            mac: Some(&[0; 32]),
            ..right
        },
        Linked {
            mac: Some(&second[..31]),
            ..right
        },
        with(Record {
            tenant_id: Uuid::from_u128(9),
            ..record("b")
        }),
        with(Record {
            grant_id: None,
            ..record("b")
        }),
        with(Record {
            resource: "r",
            ..record("b")
        }),
        with(Record {
            caller: "spiffe://hawser/oauth-broke",
            ..record("b")
        }),
        with(Record {
            user_id: "",
            ..record("b")
        }),
        with(Record {
            action: "GetCredentials",
            ..record("b")
        }),
        with(record("c")),
        with(Record {
            trace_id: "tt",
            ..record("b")
        }),
    ];
    for edited in edited {
        let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
        check.take(&linked(1, one, Some(&first))).expect("it fits");
        assert!(!check.would_take(&edited));
        assert_eq!(
            check.take(&edited),
            Err(Misfit::Altered { first: 2 }),
            "{edited:?}"
        );
    }
    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    assert_eq!(check.take(&right), Err(Misfit::Order));
}

#[test]
fn a_letter_that_moves_to_the_next_field_changes_the_mac() {
    let one = Record {
        resource: "ab",
        caller: "c",
        ..record("")
    };
    let other = Record {
        resource: "a",
        caller: "bc",
        ..record("")
    };
    assert_ne!(mac(&[], 1, &[one]), mac(&[], 1, &[other]));
}

#[test]
fn an_anchor_that_somebody_moved_holds_nothing() {
    let (one, two) = (record("a"), record("b"));
    let first = mac(&[], 1, &[one]);
    let second = mac(&first, 2, &[two]);
    let mut check = Check::new(CHAIN, Some(key()), &WHOLE);
    check.take(&linked(1, one, Some(&first))).expect("it fits");
    let right = check.anchor().expect("it has a key");
    let last = linked(2, two, Some(&second));
    let wrong = [
        Anchor {
            sequence: 0,
            ..right.clone()
        },
        Anchor {
            sequence: 5,
            ..right.clone()
        },
        Anchor {
            mac: second.to_vec(),
            ..right.clone()
        },
        Anchor {
            seal: Vec::new(),
            ..right.clone()
        },
    ];
    for anchor in wrong {
        let mut check = Check::new(CHAIN, Some(key()), &anchor);
        assert!(check.anchor_was_moved());
        assert_eq!(
            check.take(&last),
            Err(Misfit::Altered { first: 2 }),
            "{anchor:?}"
        );
        assert_eq!(check.anchor(), None);
    }
    assert!(!right.is_ours(Uuid::from_u128(8), &key()));
    assert!(!right.is_ours(CHAIN, &MacKey::new(&[8; 32])));
    assert_eq!(Check::new(CHAIN, Some(key()), &right).take(&last), Ok(()));
}
