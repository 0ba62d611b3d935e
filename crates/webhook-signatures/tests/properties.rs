//! What holds for any request, and for any scheme's file.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};
use webhook_signatures::{
    Refused, RequestParts, Scheme, SchemeOptions, Verified, fuzz, github, scheme::InvalidScheme,
    schemes, standard_webhooks, verify,
};

const HEADERS: [&str; 12] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "x-hub-signature-256",
    "x-github-delivery",
    "x-github-event",
    "content-type",
    "x-other",
    "not a name",
];

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

/// Values that come near to what is expected, and any others.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "(v1a?,[A-Za-z0-9+/]{0,90}={0,2} ?){0,4}".prop_map(String::into_bytes),
        "sha256=[0-9a-f]{0,70}".prop_map(String::into_bytes),
        "16142653[0-9]{0,4}".prop_map(String::into_bytes),
        "[a-z_.]{0,20}".prop_map(String::into_bytes),
        Just(b"application/x-www-form-urlencoded".to_vec()),
        bytes(60),
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        r#"[\[\]{}":,0-9a-z\\]{0,80}"#.prop_map(String::into_bytes),
        "(payload=)?(%7B|%22|%[0-9a-f]?|[a-z&=]){0,40}".prop_map(String::into_bytes),
        r#"\{"(type|data|installation)": (\{"(id|account_id)": [0-9]{1,30}\}|-?[0-9.e]{1,9}|"[a-z\\]{0,9}")\}"#
            .prop_map(String::into_bytes),
        bytes(200),
    ]
}

prop_compose! {
    fn requests()(
        headers in prop::collection::vec((prop::sample::select(HEADERS.to_vec()), values()), 0..10),
        body in bodies(),
    ) -> Vec<u8> {
        let mut wire = Vec::new();
        for (name, value) in headers {
            wire.extend_from_slice(name.as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend(value.into_iter().filter(|byte| *byte != b'\n'));
            wire.push(b'\n');
        }
        wire.push(b'\n');
        wire.extend_from_slice(&body);
        wire
    }
}

fn ask(scheme: &str, secret: &[u8], headers: &HeaderMap, body: &[u8]) -> Result<Verified, Refused> {
    let request = RequestParts {
        method: &Method::POST,
        url: "https://hooks.example/",
        headers,
        body,
    };
    verify(
        Scheme::find(scheme).unwrap(),
        &SchemeOptions::default(),
        &[secret],
        &request,
        now(),
    )
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_request_passes_without_the_secret_and_none_panics(wire in requests()) {
        prop_assert!(!fuzz::request(&wire));
        fuzz::event(&wire);
    }

    #[test]
    fn any_bytes_do_no_harm(data in bytes(400)) {
        prop_assert!(!fuzz::request(&data));
        fuzz::event(&data);
        prop_assert!(fuzz::scheme(&data).is_none());
    }
}

proptest! {
    #[test]
    fn what_we_sign_as_standard_webhooks_verifies(
        key: [u8; 32],
        id in "[!-~&&[^.]]{1,60}",
        age in -300..=300_i64,
        body in bytes(500),
        flip: prop::sample::Index,
    ) {
        let secret = standard_webhooks::generate_secret(|out| out.copy_from_slice(&key));
        let signed_at = now() - Duration::seconds(age);
        let headers = standard_webhooks::headers(&[secret.as_bytes()], &id, signed_at, &body).unwrap();

        let verified = ask("standard-webhooks", secret.as_bytes(), &headers, &body).unwrap();
        prop_assert_eq!(verified.external_event_id, Some(id));

        let mut other = body.clone();
        other.push(0);
        let at = flip.index(other.len());
        other[at] ^= 1;
        let refused = ask("standard-webhooks", secret.as_bytes(), &headers, &other);
        prop_assert_eq!(refused, Err(Refused::SignatureMismatch));
    }

    #[test]
    fn what_we_sign_asymmetrically_verifies_with_the_public_key_alone(seed: [u8; 32], body in bytes(200)) {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
        use base64::{Engine, engine::general_purpose::STANDARD};

        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = format!("whpk_{}", STANDARD.encode(pair.public_key()));
        let both = [seed.as_slice(), pair.public_key().as_ref()].concat();
        for secret in [seed.as_slice(), &both] {
            let secret = format!("whsk_{}", STANDARD.encode(secret));
            let headers = standard_webhooks::headers(&[secret.as_bytes()], "msg_1", now(), &body).unwrap();
            prop_assert!(ask("standard-webhooks", public.as_bytes(), &headers, &body).is_ok());
            let altered = [body.as_slice(), b"x"].concat();
            prop_assert!(ask("standard-webhooks", public.as_bytes(), &headers, &altered).is_err());
        }
    }

    #[test]
    fn what_we_sign_as_github_verifies(secret in prop::collection::vec(any::<u8>(), 1..80), body in bytes(500)) {
        let mut headers = HeaderMap::new();
        headers.insert(github::SIGNATURE, HeaderValue::from_str(&github::sign(&secret, &body)).unwrap());
        prop_assert!(ask("github", &secret, &headers, &body).is_ok());
        let altered = [body.as_slice(), b"x"].concat();
        prop_assert_eq!(ask("github", &secret, &headers, &altered), Err(Refused::SignatureMismatch));
    }
}

#[test]
fn every_scheme_can_be_told_to_people() {
    assert_eq!(
        schemes()
            .iter()
            .map(|scheme| scheme.key.as_str())
            .collect::<Vec<_>>(),
        ["github", "standard-webhooks"]
    );
    for scheme in schemes() {
        assert_eq!(scheme.confidence.as_str(), "documented");
        assert!(scheme.setup.contains("secret"), "{}", scheme.key);
        assert!(
            scheme
                .kept_headers()
                .all(|name| !name.as_str().contains("signature")),
            "{}",
            scheme.key
        );
        assert!(
            scheme.retry_span >= std::time::Duration::from_hours(72),
            "{}",
            scheme.key
        );
    }
    assert!(Scheme::find("none such").is_none());
}

/// A file with one line changed, and what is said of it.
#[test]
fn a_scheme_that_makes_no_sense_is_refused_with_the_reason() {
    let good = include_str!("../schemes/standard-webhooks.yaml");
    for (line, instead, problem) in [
        (
            "key: standard-webhooks",
            "key: Standard Webhooks",
            "key is lower-case letters, digits and hyphens",
        ),
        (
            "max_body: 1048576",
            "max_body: 0",
            "max_body is 1 byte to 32 MiB",
        ),
        (
            "max_body: 1048576",
            "max_body: 33554433",
            "max_body is 1 byte to 32 MiB",
        ),
        (
            "{ status: 200 }",
            "{ status: 302 }",
            "response.status is no 2xx",
        ),
        (
            "\"{id}.{timestamp}.{body}\"",
            "\"{id}.{timestamp}\"",
            "content does not have {body} once",
        ),
        (
            "\"{id}.{timestamp}.{body}\"",
            "\"{body}{body}\"",
            "content does not have {body} once",
        ),
        (
            "\"{id}.{timestamp}.{body}\"",
            "\"{id}{id}{body}\"",
            "content has {id} twice",
        ),
        (
            ", id: svix-id",
            "",
            "content has {id}, and a set of headers has none",
        ),
        (
            ", timestamp: svix-timestamp",
            "",
            "a timestamp needs its format and its header in each set",
        ),
        (
            "tolerance: 5m",
            "tolerance: 5h",
            "timestamp.tolerance is 10 s to 1 h",
        ),
        (
            "min_bytes: 32",
            "min_bytes: 31",
            "secret.min_bytes does not fit the algorithm",
        ),
        (
            "prefix: whpk_, ",
            "",
            "secret.prefix_required needs a prefix",
        ),
        (
            "  account: [",
            "  Account: [",
            "a routing key is named badly",
        ),
    ] {
        let file = good.replacen(line, instead, 1);
        assert_ne!(file, good, "{line}");
        match Scheme::parse(&file) {
            Err(InvalidScheme::Content { problems, .. }) => {
                assert!(problems.contains(&problem), "{problem}: {problems:?}");
            }
            other => panic!("{instead}: {other:?}"),
        }
    }
    for (line, instead) in [
        ("display_name:", "name:"),
        ("  separator: \" \"", "  seperator: \" \""),
        ("algorithm: ed25519", "algorithm: md5"),
        ("kind: signature", "kind: trust"),
        ("\"json:/type\"", "\"/type\""),
        ("retry_span: 5days", "retry_span: 5"),
        ("{id}.{timestamp}", "{nonce}.{timestamp}"),
    ] {
        let file = good.replacen(line, instead, 1);
        assert_ne!(file, good, "{line}");
        assert!(
            matches!(Scheme::parse(&file), Err(InvalidScheme::Form(_))),
            "{instead}"
        );
    }
}
