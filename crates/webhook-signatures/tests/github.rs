//! The scheme `github`: the published vector, what must be refused, and what a delivery says.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use http::{HeaderMap, HeaderValue, Method};
use time::OffsetDateTime;
use webhook_signatures::{
    InvalidSecret, Refused, RequestParts, RoutingKey, Scheme, SchemeOptions, Unread, Verified,
    github::sign, verify,
};

// From GitHub's page on validating deliveries.
const SECRET: &[u8] = b"It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

const DELIVERY: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";

fn scheme() -> &'static Scheme {
    Scheme::find("github").unwrap()
}

fn headers(signature: &str) -> HeaderMap {
    let pairs = [
        ("x-hub-signature-256", signature),
        ("x-github-delivery", DELIVERY),
        ("x-github-event", "issues"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn ask(secrets: &[&[u8]], headers: &HeaderMap, body: &[u8]) -> Result<Verified, Refused> {
    let request = RequestParts {
        method: &Method::POST,
        url: "https://hooks.example/hooks/1",
        headers,
        body,
    };
    verify(
        scheme(),
        &SchemeOptions::default(),
        secrets,
        &request,
        OffsetDateTime::UNIX_EPOCH,
    )
}

fn deliver(headers: &HeaderMap, body: &[u8]) -> Verified {
    let mut headers = headers.clone();
    headers.insert(
        "x-hub-signature-256",
        HeaderValue::from_str(&sign(SECRET, body)).unwrap(),
    );
    ask(&[SECRET], &headers, body).unwrap()
}

fn key(name: &str, value: &str) -> RoutingKey {
    RoutingKey {
        name: name.into(),
        value: value.into(),
    }
}

#[test]
fn the_published_vector_is_signed_and_verified() {
    assert_eq!(sign(SECRET, BODY), SIGNATURE);
    let verified = ask(&[SECRET], &headers(SIGNATURE), BODY).unwrap();
    assert_eq!(verified.external_event_id.as_deref(), Some(DELIVERY));
    assert_eq!(verified.event_type.as_deref(), Some("issues"));
    assert_eq!(verified.unread, Some(Unread::NotJson));
    assert_eq!(verified.routing_keys, []);
    assert_eq!(verified.occurred_at, None);

    ask(&[b"the next secret", SECRET], &headers(SIGNATURE), BODY).unwrap();
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let refusal = |signature: &str| {
        ask(&[SECRET], &headers(signature), BODY)
            .unwrap_err()
            .name()
    };
    for (signature, reason) in [
        (SIGNATURE.replace('7', "8").as_str(), "signature_mismatch"),
        (&SIGNATURE[..SIGNATURE.len() - 2], "signature_mismatch"),
        (&SIGNATURE[..SIGNATURE.len() - 1], "malformed_header"),
        ("sha256=", "malformed_header"),
        (&SIGNATURE[7..], "malformed_header"),
        (&SIGNATURE.replace("sha256", "sha1"), "malformed_header"),
        (&SIGNATURE.replace("sha256", "SHA256"), "malformed_header"),
        (&format!("{SIGNATURE} {SIGNATURE}"), "malformed_header"),
        (&format!("{SIGNATURE},"), "malformed_header"),
        ("", "malformed_header"),
    ] {
        assert_eq!(refusal(signature), reason, "{signature:?}");
    }
    assert_eq!(
        ask(&[SECRET], &headers(SIGNATURE), b"Hello, World?"),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        ask(&[b"another secret"], &headers(SIGNATURE), BODY),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        ask(&[b""], &headers(SIGNATURE), BODY),
        Err(Refused::UnusableSecret)
    );

    // The older header is not looked at.
    let mut older = headers(SIGNATURE);
    let value = older.remove("x-hub-signature-256").unwrap();
    older.insert("x-hub-signature", value);
    let missing = Refused::MissingHeader {
        header: "x-hub-signature-256".parse().unwrap(),
    };
    assert_eq!(ask(&[SECRET], &older, BODY), Err(missing));
}

#[test]
fn each_header_that_is_read_may_be_there_once() {
    for name in ["x-hub-signature-256", "x-github-delivery", "x-github-event"] {
        let mut doubled = headers(SIGNATURE);
        doubled.append(name, HeaderValue::from_static("another"));
        assert_eq!(
            ask(&[SECRET], &doubled, BODY),
            Err(Refused::DoubledHeader {
                header: name.parse().unwrap()
            })
        );
    }
}

#[test]
fn a_delivery_names_installation_account_and_repositories() {
    let body = br#"{
        "action": "opened",
        "installation": {"id": 7},
        "repository": {"id": 1296269, "owner": {"id": 1}},
        "organization": {"id": 2}
    }"#;
    let keys = [
        key("account", "2"),
        key("installation", "7"),
        key("repository", "1296269"),
    ];
    let verified = deliver(&headers(""), body);
    assert_eq!(verified.routing_keys, keys);
    assert_eq!(verified.unread, None);

    let personal = deliver(
        &headers(""),
        br#"{"repository": {"id": 3, "owner": {"id": 1}}}"#,
    );
    assert_eq!(
        personal.routing_keys,
        [key("account", "1"), key("repository", "3")]
    );

    let installed = br#"{"installation": {"id": 7, "account": {"id": 9}}, "repositories": [{"id": 4}, {"id": 3}]}"#;
    let keys = [
        key("account", "9"),
        key("installation", "7"),
        key("repository", "3"),
        key("repository", "4"),
    ];
    assert_eq!(deliver(&headers(""), installed).routing_keys, keys);
}

#[test]
fn a_form_is_verified_raw_and_read_from_its_field() {
    let mut form = headers("");
    let content_type = HeaderValue::from_static("Application/X-WWW-Form-Urlencoded; charset=utf-8");
    form.insert("content-type", content_type);
    let verified = deliver(
        &form,
        b"payload=%7B%22installation%22%3A%7B%22id%22%3A7%7D%7D",
    );
    assert_eq!(verified.routing_keys, [key("installation", "7")]);
    assert_eq!(deliver(&form, b"other=1").unread, Some(Unread::NotJson));
}

#[test]
fn a_ping_is_told_from_an_event() {
    let mut ping = headers("");
    assert!(!deliver(&ping, b"{}").is_ping);
    ping.insert("x-github-event", HeaderValue::from_static("ping"));
    assert!(deliver(&ping, b"{}").is_ping);
}

#[test]
fn without_a_delivery_id_there_is_none() {
    let mut anonymous = headers("");
    anonymous.remove("x-github-delivery");
    assert_eq!(deliver(&anonymous, b"{}").external_event_id, None);
    anonymous.insert(
        "x-github-delivery",
        HeaderValue::from_str(&"x".repeat(256)).unwrap(),
    );
    assert_eq!(deliver(&anonymous, b"{}").external_event_id, None);
}

#[test]
fn a_body_may_have_25_mebibytes() {
    let largest = vec![b' '; 25 * 1024 * 1024];
    deliver(&headers(""), &largest);
    let larger = vec![b' '; largest.len() + 1];
    assert_eq!(
        ask(&[SECRET], &headers(SIGNATURE), &larger),
        Err(Refused::BodyTooLarge)
    );
}

#[test]
fn a_secret_is_checked_when_it_is_given() {
    assert_eq!(scheme().check_secret(SECRET), Ok(()));
    assert_eq!(
        scheme().check_secret(b"short"),
        Err(InvalidSecret::TooShort { min_bytes: 8 })
    );
    assert_eq!(
        scheme().check_secret(b" It's a Secret "),
        Err(InvalidSecret::Space)
    );
    assert_eq!(scheme().check_secret(b""), Err(InvalidSecret::Form));
}
