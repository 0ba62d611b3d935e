use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use oauth_client::{Client, ClientAuth, Dialect, SigningKey, TokenEndpoint, TokenGrant, Verifier};
use provider_catalog::TokenBody;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde::Deserialize as _;
use serde_json::Value;

use crate::world::{NOW, Provider, Seen, client, deps, egress, public_jwk, secret};

const CLIENT_CREDENTIALS: TokenGrant<'static> = TokenGrant::ClientCredentials { scopes: &[] };

/// Sends one request, and returns what the provider saw.
async fn sent(client: &Client, dialect: &Dialect, grant: &TokenGrant<'_>) -> Seen {
    let provider = Provider::start(|_| (200, vec![], r#"{"access_token":"t"}"#.to_owned())).await;
    let (deps, _) = deps();
    let url = provider.url("/token");
    let call = TokenEndpoint {
        url: &url,
        client,
        dialect,
    }
    .call(grant, &deps)
    .expect("a call");
    assert_eq!(*call.url(), url);
    call.send(&egress(), &deps).await.expect("a token");
    provider.only()
}

fn no_other_method_than(seen: &Seen, used: &[&str]) {
    let all = ["authorization", "client_secret", "client_assertion"];
    let present: Vec<_> = all
        .into_iter()
        .filter(|name| seen.headers.contains_key(*name) || seen.field(name).is_some())
        .collect();
    assert_eq!(present, used);
}

#[tokio::test]
async fn checklist_19_basic_form_encodes_before_base64() {
    let client = client(ClientAuth::SecretBasic(secret("pass:w%rd +ü/=")));
    let seen = sent(&client, &Dialect::default(), &CLIENT_CREDENTIALS).await;
    let header = seen.headers["authorization"].to_str().expect("text");
    let decoded = STANDARD
        .decode(header.strip_prefix("Basic ").expect("basic"))
        .expect("base64");
    assert_eq!(
        String::from_utf8(decoded).expect("text"),
        "our+client:pass%3Aw%25rd+%2B%C3%BC%2F%3D"
    );
    assert_eq!(seen.field("client_id"), None);
    no_other_method_than(&seen, &["authorization"]);
}

#[tokio::test]
async fn checklist_19_post_sends_id_and_secret_in_the_body() {
    let client = client(ClientAuth::SecretPost(secret("pass word")));
    let seen = sent(&client, &Dialect::default(), &CLIENT_CREDENTIALS).await;
    assert_eq!(seen.field("client_id").as_deref(), Some("our client"));
    assert_eq!(seen.field("client_secret").as_deref(), Some("pass word"));
    no_other_method_than(&seen, &["client_secret"]);
}

#[tokio::test]
async fn checklist_19_a_public_client_sends_its_id_alone() {
    let seen = sent(
        &client(ClientAuth::None),
        &Dialect::default(),
        &CLIENT_CREDENTIALS,
    )
    .await;
    assert_eq!(seen.field("client_id").as_deref(), Some("our client"));
    no_other_method_than(&seen, &[]);
}

#[tokio::test]
async fn checklist_19_private_key_jwt_signs_a_short_assertion_for_the_issuer() {
    let kinds = [
        (&PKCS_RSA_SHA256, Algorithm::RS256),
        (&PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        (&PKCS_ED25519, Algorithm::EdDSA),
    ];
    for (kind, algorithm) in kinds {
        let pair = KeyPair::generate_for(kind).expect("a key");
        let key = SigningKey::from_pem(&secret(&pair.serialize_pem())).expect("a key that signs");
        assert_eq!(format!("{key:?}"), format!("SigningKey({algorithm:?})"));
        let client = client(ClientAuth::PrivateKeyJwt {
            key,
            key_id: Some("key 1".to_owned()),
            audience: "https://as.example".to_owned(),
        });
        let dialect = Dialect::default();
        let first = sent(&client, &dialect, &CLIENT_CREDENTIALS).await;
        let second = sent(&client, &dialect, &CLIENT_CREDENTIALS).await;
        no_other_method_than(&first, &["client_assertion"]);
        assert_eq!(
            first.field("client_assertion_type").as_deref(),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        );

        let public = Jwk::deserialize(public_jwk(&pair, algorithm)).expect("a public key");
        let public = DecodingKey::from_jwk(&public).expect("a public key");
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.set_audience(&["https://as.example"]);
        let claims = |seen: &Seen| {
            let token = seen.field("client_assertion").expect("an assertion");
            jsonwebtoken::decode::<Value>(token, &public, &validation).expect("a good signature")
        };
        let (first, second) = (claims(&first), claims(&second));
        assert_eq!(first.header.kid.as_deref(), Some("key 1"));
        assert_eq!(
            (&first.claims["iss"], &first.claims["sub"]),
            (&"our client".into(), &"our client".into())
        );
        assert_ne!(first.claims["jti"], second.claims["jti"]);
        let (issued, ends) = (
            first.claims["iat"].as_i64().expect("iat"),
            first.claims["exp"].as_i64().expect("exp"),
        );
        let now = NOW.unix_timestamp();
        assert!(
            issued < now && now < ends && ends - issued <= 300,
            "{issued} {now} {ends}"
        );
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused() {
    for pem in [
        "",
        "secret",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        assert!(SigningKey::from_pem(&secret(pem)).is_err(), "{pem:?}");
    }
    let pair = KeyPair::generate().expect("a key");
    assert!(SigningKey::from_pem(&secret(&pair.public_key_pem())).is_err());
}

#[tokio::test]
async fn checklist_05_and_06_code_verifier_and_redirect_uri_go_with_the_code() {
    let verifier = Verifier::from_kept(secret("verifier"));
    let code = secret("c&de");
    let grant = TokenGrant::AuthorizationCode {
        code: &code,
        redirect_uri: "https://hawser.example/oauth/callback/1?x=y",
        verifier: Some(&verifier),
    };
    let seen = sent(&client(ClientAuth::None), &Dialect::default(), &grant).await;
    let expected = [
        ("grant_type", "authorization_code"),
        ("code", "c&de"),
        (
            "redirect_uri",
            "https://hawser.example/oauth/callback/1?x=y",
        ),
        ("code_verifier", "verifier"),
        ("client_id", "our client"),
    ];
    assert_eq!(
        seen.form(),
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(seen.path, "/token");
}

#[tokio::test]
async fn checklist_20_json_is_asked_for_and_compression_is_not() {
    let seen = sent(
        &client(ClientAuth::None),
        &Dialect::default(),
        &CLIENT_CREDENTIALS,
    )
    .await;
    assert_eq!(seen.headers["accept"], "application/json");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert_eq!(
        seen.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
}

#[tokio::test]
async fn checklist_40_a_refresh_names_no_scope_unless_it_has_to() {
    let token = secret("refresh");
    let scopes = ["a".to_owned(), "b".to_owned()];
    let without = TokenGrant::RefreshToken {
        refresh_token: &token,
        scopes: &[],
    };
    let seen = sent(&client(ClientAuth::None), &Dialect::default(), &without).await;
    assert_eq!(seen.field("scope"), None);
    assert_eq!(seen.field("refresh_token").as_deref(), Some("refresh"));
    let with = TokenGrant::RefreshToken {
        refresh_token: &token,
        scopes: &scopes,
    };
    let seen = sent(&client(ClientAuth::None), &Dialect::default(), &with).await;
    assert_eq!(seen.field("scope").as_deref(), Some("a b"));
}

#[tokio::test]
async fn a_dialect_adds_parameters_and_replaces_none() {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let dialect = Dialect {
        token_params: map(&[
            ("resource", "r"),
            ("grant_type", "password"),
            ("client_secret", "x"),
            ("refresh_token", "x"),
        ]),
        refresh_params: map(&[("redirect_uri", "https://hawser.example/cb")]),
        ..Dialect::default()
    };
    let token = secret("refresh");
    let refresh = TokenGrant::RefreshToken {
        refresh_token: &token,
        scopes: &[],
    };
    let seen = sent(&client(ClientAuth::None), &dialect, &refresh).await;
    assert_eq!(seen.field("resource").as_deref(), Some("r"));
    assert_eq!(seen.field("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(seen.field("refresh_token").as_deref(), Some("refresh"));
    assert_eq!(seen.field("client_secret"), None);
    assert_eq!(
        seen.field("redirect_uri").as_deref(),
        Some("https://hawser.example/cb")
    );
    let seen = sent(&client(ClientAuth::None), &dialect, &CLIENT_CREDENTIALS).await;
    assert_eq!(seen.field("redirect_uri"), None);
}

#[tokio::test]
async fn a_body_can_be_json() {
    let dialect = Dialect {
        token_body: TokenBody::Json,
        ..Dialect::default()
    };
    let seen = sent(
        &client(ClientAuth::SecretPost(secret("s\"q"))),
        &dialect,
        &CLIENT_CREDENTIALS,
    )
    .await;
    assert_eq!(seen.headers["content-type"], "application/json");
    let body: Value = serde_json::from_str(&seen.body).expect("JSON");
    let expected = serde_json::json!({"grant_type": "client_credentials", "client_id": "our client", "client_secret": "s\"q"});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_call_goes_out_on_a_connection_that_was_opened_before() {
    let provider = Provider::start(|_| {
        (
            200,
            vec![],
            r#"{"access_token":"t","expires_in":60}"#.to_owned(),
        )
    })
    .await;
    let (deps, _) = deps();
    let (url, client, dialect) = (
        provider.url("/token"),
        client(ClientAuth::None),
        Dialect::default(),
    );
    let call = TokenEndpoint {
        url: &url,
        client: &client,
        dialect: &dialect,
    }
    .call(&CLIENT_CREDENTIALS, &deps);
    let call = call.expect("a call");
    let connection = egress().connect(call.url()).await.expect("a connection");
    assert!(provider.seen().is_empty());
    let tokens = call.send_on(connection, &deps).await.expect("a token");
    assert_eq!(tokens.expires_at, Some(NOW + time::Duration::seconds(60)));
    provider.only();
}
