//! The scheme `standard-webhooks`: the published vectors, and what must be refused.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use webhook_signatures::{
    InvalidOptions, InvalidSecret, Refused, RequestParts, RoutingKey, Scheme, SchemeOptions,
    Unread, Verified,
    standard_webhooks::{SignError, generate_secret, headers, sign},
    verify,
};

// From the tests of the specification's own libraries.
const SECRET: &[u8] = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const SEED: &[u8] = b"whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";
const ASYMMETRIC_SIGNATURE: &str =
    "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
/// The public key of `SEED`, as Python's `cryptography` derives it.
const PUBLIC: &[u8] = b"whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=";

const OTHER: &[u8] = b"whsec_bm90IHRoZSBzZWNyZXQgb2YgdGhlIHNvdXJjZQ==";

fn signed_at() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_614_265_330).unwrap()
}

fn scheme() -> &'static Scheme {
    Scheme::find("standard-webhooks").unwrap()
}

fn published() -> HeaderMap {
    of(&[
        ("webhook-id", ID),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", SIGNATURE),
    ])
}

fn of(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
    pairs.collect()
}

fn with(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = published();
    headers.insert(name, HeaderValue::from_str(value).unwrap());
    headers
}

fn ask_at(
    now: OffsetDateTime,
    secrets: &[&[u8]],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Verified, Refused> {
    let request = RequestParts {
        method: &Method::POST,
        url: "https://hooks.example/hooks/1",
        headers,
        body,
    };
    verify(scheme(), &SchemeOptions::default(), secrets, &request, now)
}

fn ask(secrets: &[&[u8]], headers: &HeaderMap, body: &[u8]) -> Result<Verified, Refused> {
    ask_at(signed_at(), secrets, headers, body)
}

fn refusal(headers: &HeaderMap) -> &'static str {
    ask(&[SECRET], headers, BODY).unwrap_err().name()
}

#[test]
fn the_published_vectors_are_signed_and_verified() {
    assert_eq!(sign(SECRET, ID, signed_at(), BODY).unwrap(), SIGNATURE);
    assert_eq!(
        sign(&SECRET[6..], ID, signed_at(), BODY).unwrap(),
        SIGNATURE
    );
    assert_eq!(
        sign(SEED, ID, signed_at(), BODY).unwrap(),
        ASYMMETRIC_SIGNATURE
    );

    let verified = ask(&[SECRET], &published(), BODY).unwrap();
    assert_eq!(verified.external_event_id.as_deref(), Some(ID));
    assert_eq!(verified.occurred_at, Some(signed_at()));
    assert_eq!(verified.event_type, None);
    assert_eq!(verified.routing_keys, []);
    assert_eq!(verified.unread, None);
    assert!(!verified.is_ping);

    ask(&[&SECRET[6..]], &published(), BODY).unwrap();
    ask(
        &[PUBLIC],
        &with("webhook-signature", ASYMMETRIC_SIGNATURE),
        BODY,
    )
    .unwrap();
}

#[test]
fn one_good_signature_in_the_list_is_enough() {
    let wrong = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    let list = format!("{wrong} v2,Ceo5 v1,short! {SIGNATURE} {wrong}");
    ask(&[SECRET], &with("webhook-signature", &list), BODY).unwrap();

    let both = format!("{SIGNATURE} {ASYMMETRIC_SIGNATURE}");
    ask(&[SECRET], &with("webhook-signature", &both), BODY).unwrap();
    ask(&[PUBLIC], &with("webhook-signature", &both), BODY).unwrap();

    let many = vec![wrong; 32].join(" ");
    assert_eq!(
        refusal(&with("webhook-signature", &many)),
        "signature_mismatch"
    );
    assert_eq!(
        refusal(&with("webhook-signature", &format!("{many} {SIGNATURE}"))),
        "malformed_header"
    );
}

#[test]
fn the_secret_before_is_good_during_a_rotation() {
    ask(&[OTHER, SECRET], &published(), BODY).unwrap();
    ask(&[SECRET, OTHER], &published(), BODY).unwrap();
    assert_eq!(
        ask(&[OTHER], &published(), BODY),
        Err(Refused::SignatureMismatch)
    );

    let rotating = headers(&[OTHER, SECRET], ID, signed_at(), BODY).unwrap();
    ask(&[SECRET], &rotating, BODY).unwrap();
    ask(&[OTHER], &rotating, BODY).unwrap();
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let mut none = published();
    none.remove("webhook-signature");
    assert_eq!(refusal(&none), "missing_header");
    assert_eq!(
        ask(&[SECRET], &published(), br#"{"test": 2432232315}"#),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        ask(&[SECRET], &published(), b""),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        refusal(&with("webhook-id", "msg_another")),
        "signature_mismatch"
    );
    assert_eq!(
        refusal(&with("webhook-timestamp", "1614265331")),
        "signature_mismatch"
    );

    for (value, reason) in [
        // Truncated, to whole bytes and in the middle of one.
        (&SIGNATURE[..SIGNATURE.len() - 8], "signature_mismatch"),
        (&SIGNATURE[..SIGNATURE.len() - 1], "malformed_header"),
        ("v1,", "malformed_header"),
        ("v1", "malformed_header"),
        // Without its version, under another one, as that of the other algorithm.
        (&SIGNATURE[3..], "malformed_header"),
        (
            "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "malformed_header",
        ),
        (
            "V1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "malformed_header",
        ),
        (
            "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "signature_mismatch",
        ),
        ("", "malformed_header"),
    ] {
        assert_eq!(
            refusal(&with("webhook-signature", value)),
            reason,
            "{value:?}"
        );
    }
}

#[test]
fn a_header_that_is_missing_or_there_twice_is_named() {
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut missing = published();
        missing.remove(name);
        assert_eq!(
            ask(&[SECRET], &missing, BODY),
            Err(Refused::MissingHeader {
                header: name.parse().unwrap()
            })
        );

        let mut doubled = published();
        doubled.append(name, published()[name].clone());
        assert_eq!(
            ask(&[SECRET], &doubled, BODY),
            Err(Refused::DoubledHeader {
                header: name.parse().unwrap()
            })
        );

        let mut bytes = published();
        bytes.insert(name, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(
            ask(&[SECRET], &bytes, BODY),
            Err(Refused::MalformedHeader {
                header: name.parse().unwrap()
            })
        );
    }
}

#[test]
fn time_is_judged_within_five_minutes_on_both_sides() {
    let at = |offset| {
        ask_at(
            signed_at() + Duration::seconds(offset),
            &[SECRET],
            &published(),
            BODY,
        )
        .map(|_| ())
    };
    assert_eq!(at(300), Ok(()));
    assert_eq!(at(301), Err(Refused::StaleTimestamp));
    assert_eq!(at(-300), Ok(()));
    assert_eq!(at(-301), Err(Refused::FutureTimestamp));

    for text in [
        "",
        "hello",
        "+1614265330",
        "-1",
        " 1614265330x",
        "1614265330.0",
        "999999999999",
        "1.6e9",
    ] {
        assert_eq!(
            refusal(&with("webhook-timestamp", text)),
            "malformed_header",
            "{text:?}"
        );
    }
    assert_eq!(refusal(&with("webhook-timestamp", "0")), "stale_timestamp");
    assert_eq!(
        refusal(&with("webhook-timestamp", "99999999999")),
        "future_timestamp"
    );
    // The same number in other digits was not signed.
    assert_eq!(
        refusal(&with("webhook-timestamp", "01614265330")),
        "signature_mismatch"
    );
}

/// `a.1.` + `x` and `a` + `1.` + … must not be one message: what stands before a full stop has none.
#[test]
fn an_id_with_a_full_stop_is_refused() {
    assert_eq!(
        refusal(&with("webhook-id", "msg.1614265330")),
        "malformed_header"
    );
    assert_eq!(sign(SECRET, "msg.1", signed_at(), BODY), Err(SignError::Id));
    assert_eq!(sign(SECRET, "", signed_at(), BODY), Err(SignError::Id));
    assert_eq!(
        sign(SECRET, "two words", signed_at(), BODY),
        Err(SignError::Id)
    );
}

#[test]
fn the_older_names_are_good_as_a_set_and_not_mixed() {
    let svix = of(&[
        ("svix-id", ID),
        ("svix-timestamp", "1614265330"),
        ("svix-signature", SIGNATURE),
    ]);
    assert_eq!(
        ask(&[SECRET], &svix, BODY)
            .unwrap()
            .external_event_id
            .as_deref(),
        Some(ID)
    );

    let mixed = of(&[
        ("svix-id", ID),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", SIGNATURE),
    ]);
    assert_eq!(
        ask(&[SECRET], &mixed, BODY),
        Err(Refused::MissingHeader {
            header: "webhook-id".parse().unwrap()
        })
    );

    let mut both = svix;
    both.extend(with("webhook-signature", "v1,AAAA"));
    assert_eq!(refusal(&both), "signature_mismatch");
}

/// A public key is known to everybody: taken for an HMAC key, anybody could sign with it.
#[test]
fn a_public_key_is_never_an_hmac_key() {
    let forged = sign(&PUBLIC[5..], ID, signed_at(), BODY).unwrap();
    assert_eq!(
        ask(&[PUBLIC], &with("webhook-signature", &forged), BODY),
        Err(Refused::SignatureMismatch)
    );
}

#[test]
fn secrets_that_fit_no_method_are_ours_to_mend() {
    for secret in [
        b"".as_slice(),
        b"whsec_",
        b"whsec_!!!",
        b"whpk_AAAA",
        b"whsk_AAAA",
    ] {
        assert_eq!(
            ask(&[secret], &published(), BODY),
            Err(Refused::UnusableSecret),
            "{secret:?}"
        );
    }
    assert_eq!(ask(&[], &published(), BODY), Err(Refused::UnusableSecret));
}

#[test]
fn a_secret_is_checked_when_it_is_given() {
    assert_eq!(scheme().check_secret(SECRET), Ok(()));
    assert_eq!(scheme().check_secret(&SECRET[6..]), Ok(()));
    assert_eq!(scheme().check_secret(PUBLIC), Ok(()));
    assert_eq!(
        scheme().check_secret(&[SECRET, b"\n".as_slice()].concat()),
        Err(InvalidSecret::Space)
    );
    assert_eq!(
        scheme().check_secret(b"whsec_c2hvcnQ="),
        Err(InvalidSecret::TooShort { min_bytes: 16 })
    );
    assert_eq!(
        scheme().check_secret(b"hunter two!"),
        Err(InvalidSecret::Form)
    );
    assert_eq!(scheme().check_secret(b""), Err(InvalidSecret::Form));
}

#[test]
fn a_generated_secret_signs_and_verifies() {
    let secret = generate_secret(|bytes| bytes.fill(0xa5));
    assert_eq!(
        secret.as_str(),
        "whsec_paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU="
    );
    assert_eq!(scheme().check_secret(secret.as_bytes()), Ok(()));
    let headers = headers(&[secret.as_bytes()], "evt_1", signed_at(), b"").unwrap();
    ask(&[secret.as_bytes()], &headers, b"").unwrap();
}

#[test]
fn a_secret_that_cannot_sign_is_refused() {
    for secret in [b"".as_slice(), b"whsec_", b"whsec_!", b"whsk_AAAA", PUBLIC] {
        assert_eq!(
            sign(secret, ID, signed_at(), BODY),
            Err(SignError::Secret),
            "{secret:?}"
        );
    }
    assert_eq!(headers(&[], ID, signed_at(), BODY), Err(SignError::Secret));
}

fn say(options: serde_json::Value, body: &serde_json::Value) -> Verified {
    let body = body.to_string();
    let headers = headers(&[SECRET], ID, signed_at(), body.as_bytes()).unwrap();
    let request = RequestParts {
        method: &Method::POST,
        url: "",
        headers: &headers,
        body: body.as_bytes(),
    };
    let options = SchemeOptions::parse(scheme(), options).unwrap();
    verify(scheme(), &options, &[SECRET], &request, signed_at()).unwrap()
}

fn key(name: &str, value: &str) -> RoutingKey {
    RoutingKey {
        name: name.into(),
        value: value.into(),
    }
}

#[test]
fn the_body_says_what_happened_when_and_to_whom() {
    let body = json!({
        "type": "invoice.paid",
        "timestamp": "2021-02-25T15:00:00Z",
        "data": { "account_id": 42, "shops": [{ "id": "b" }, { "id": "a" }, { "id": "b" }] },
    });
    let verified = say(json!(null), &body);
    assert_eq!(verified.event_type.as_deref(), Some("invoice.paid"));
    assert_eq!(
        verified.occurred_at.unwrap().unix_timestamp(),
        1_614_265_200
    );
    assert_eq!(verified.routing_keys, [key("account", "42")]);

    let options = json!({
        "event_type": ["json:/kind", "json:/type"],
        "routing_keys": { "shop": ["json:/data/shops/*/id"], "account": ["json:/nothing"] },
    });
    let verified = say(options, &body);
    assert_eq!(verified.event_type.as_deref(), Some("invoice.paid"));
    assert_eq!(verified.routing_keys, [key("shop", "a"), key("shop", "b")]);
}

#[test]
fn a_body_that_cannot_be_read_is_genuine_all_the_same() {
    let deep = "[".repeat(40);
    for (body, unread) in [
        ("not json", Unread::NotJson),
        (deep.as_str(), Unread::TooDeep),
    ] {
        let headers = headers(&[SECRET], ID, signed_at(), body.as_bytes()).unwrap();
        let verified = ask(&[SECRET], &headers, body.as_bytes()).unwrap();
        assert_eq!(verified.unread, Some(unread));
        assert_eq!(verified.external_event_id.as_deref(), Some(ID));
        assert_eq!(verified.occurred_at, Some(signed_at()));
        assert_eq!((verified.event_type, verified.routing_keys), (None, vec![]));
    }
}

#[test]
fn options_are_checked_and_the_tolerance_used() {
    let parse = |value| SchemeOptions::parse(scheme(), value);
    let options = parse(json!({ "tolerance": "20m" })).unwrap();
    let headers = published();
    let request = RequestParts {
        method: &Method::POST,
        url: "",
        headers: &headers,
        body: BODY,
    };
    let at = |minutes| {
        verify(
            scheme(),
            &options,
            &[SECRET],
            &request,
            signed_at() + Duration::minutes(minutes),
        )
    };
    assert!(at(20).is_ok());
    assert_eq!(at(21), Err(Refused::StaleTimestamp));

    assert!(matches!(
        parse(json!({ "tolerance": "2h" })),
        Err(InvalidOptions::Tolerance)
    ));
    assert!(matches!(
        parse(json!({ "tolerance": "0s" })),
        Err(InvalidOptions::Tolerance)
    ));
    assert!(matches!(
        parse(json!({ "tolerence": "1m" })),
        Err(InvalidOptions::Form(_))
    ));
    assert!(matches!(
        parse(json!({ "event_type": ["body:/x"] })),
        Err(InvalidOptions::Form(_))
    ));
    assert!(matches!(
        parse(json!({ "routing_keys": { "A b": ["id"] } })),
        Err(InvalidOptions::RoutingKeys)
    ));
    assert!(matches!(
        parse(json!({ "routing_keys": { "a": [] } })),
        Err(InvalidOptions::RoutingKeys)
    ));
    let github = Scheme::find("github").unwrap();
    let refused = SchemeOptions::parse(github, json!({ "tolerance": "1m" }));
    assert!(matches!(refused, Err(InvalidOptions::NoTimestamp)));
}
