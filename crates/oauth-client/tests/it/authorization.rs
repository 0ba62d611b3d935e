use std::collections::BTreeMap;

use oauth_client::{AuthorizationRequest, Dialect, Verifier};
use url::Url;

use crate::world::{deps, secret, url};

fn query(url: &Url, name: &str) -> Option<String> {
    let mut values = url.query_pairs().filter(|(field, _)| field == name);
    let value = values.next();
    assert!(values.next().is_none(), "{name} occurs once");
    value.map(|(_, value)| value.into_owned())
}

#[test]
fn checklist_01_the_response_type_is_code_whatever_is_asked_besides() {
    let endpoint = url("https://as.example/authorize?tenant=1");
    let extra: BTreeMap<_, _> = [
        ("response_type", "token"),
        ("client_id", "theirs"),
        ("redirect_uri", "https://evil.example"),
        ("state", "theirs"),
        ("code_challenge", "theirs"),
        ("code_challenge_method", "plain"),
        ("nonce", "theirs"),
        ("request_uri", "https://evil.example"),
        ("scope", "everything"),
        ("prompt", "consent"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let scopes = ["a b".to_owned(), "c&d".to_owned()];
    let verifier = Verifier::from_kept(secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    let request = AuthorizationRequest {
        endpoint: &endpoint,
        client_id: "our client",
        redirect_uri: "https://hawser.example/oauth/callback/1?x=y",
        scopes: &scopes,
        state: &secret("st&te"),
        verifier: Some(&verifier),
        nonce: Some("nonce"),
        extra: &extra,
    };
    let url = request.url(&Dialect {
        scope_separator: ",".to_owned(),
        ..Dialect::default()
    });
    let expected = [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "our client"),
        (
            "redirect_uri",
            "https://hawser.example/oauth/callback/1?x=y",
        ),
        ("state", "st&te"),
        ("scope", "a b,c&d"),
        ("code_challenge_method", "S256"),
        ("nonce", "nonce"),
        ("prompt", "consent"),
    ];
    for (name, value) in expected {
        assert_eq!(query(&url, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(query(&url, "request_uri"), None);
    assert!(
        url.as_str()
            .starts_with("https://as.example/authorize?tenant=1&response_type=code")
    );
}

#[test]
fn checklist_04_pkce_is_s256_over_a_fresh_verifier_of_43_characters() {
    // RFC 7636, appendix B.
    let verifier = Verifier::from_kept(secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    assert_eq!(
        verifier.challenge(),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );

    let (deps, _) = deps();
    let (one, other) = (Verifier::new(&deps), Verifier::new(&deps));
    assert_eq!(one.secret().expose().len(), 43);
    assert!(
        one.secret()
            .expose()
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    );
    assert_ne!(one.secret().expose(), other.secret().expose());
    assert!(!format!("{one:?}").contains(one.secret().expose().as_str()));
}

#[test]
fn checklist_09_and_10_nonce_and_audience_go_only_where_they_are_asked_for() {
    let endpoint = url("https://as.example/authorize");
    let extra = BTreeMap::from([("audience".to_owned(), "api.example".to_owned())]);
    let request = AuthorizationRequest {
        endpoint: &endpoint,
        client_id: "c",
        redirect_uri: "https://hawser.example/cb",
        scopes: &[],
        state: &secret("s"),
        verifier: None,
        nonce: None,
        extra: &extra,
    };
    let url = request.url(&Dialect::default());
    assert_eq!(query(&url, "audience").as_deref(), Some("api.example"));
    for absent in ["nonce", "scope", "code_challenge", "code_challenge_method"] {
        assert_eq!(query(&url, absent), None, "{absent}");
    }
}
