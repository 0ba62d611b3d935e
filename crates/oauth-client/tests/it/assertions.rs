use std::collections::BTreeMap;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use oauth_client::{Client, ClientAuth, Dialect, SigningKey, TokenEndpoint, TokenGrant};
use provider_catalog::{
    AssertionCarrier, AssertionScopes, AssertionSubject, CallMethod, ClientParams, ExchangeCall,
    JwtBearer,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::Value;

use crate::world::{NOW, Provider, Seen, client, deps, egress, secret};

const GOOGLE: JwtBearer = JwtBearer {
    carried: AssertionCarrier::GrantType,
    audience: None,
    subject: AssertionSubject::Optional,
    scopes: AssertionScopes::Claim,
    lifetime: Duration::from_hours(1),
};

fn signer(pair: &KeyPair) -> Client {
    let key = SigningKey::from_pem(&secret(&pair.serialize_pem())).expect("a key that signs");
    client(ClientAuth::PrivateKeyJwt {
        key,
        key_id: Some("key 1".to_owned()),
        audience: "https://as.example".to_owned(),
    })
}

async fn sent(client: &Client, dialect: &Dialect, grant: &TokenGrant<'_>) -> Seen {
    let provider = Provider::start(|_| (200, vec![], r#"{"access_token":"t"}"#.to_owned())).await;
    let (deps, _) = deps();
    let url = provider.url("/token");
    let endpoint = TokenEndpoint {
        url: &url,
        client,
        dialect,
    };
    let call = endpoint.call(grant, &deps).expect("a call");
    call.send(&egress(), &deps).await.expect("a token");
    provider.only()
}

fn claims(pair: &KeyPair, token: &str) -> Value {
    let public = DecodingKey::from_rsa_pem(pair.public_key_pem().as_bytes()).expect("a key");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode::<Value>(token, &public, &validation).expect("signed");
    assert_eq!(decoded.header.kid.as_deref(), Some("key 1"));
    let (issued, ends) = (
        decoded.claims["iat"].as_i64().expect("iat"),
        decoded.claims["exp"].as_i64().expect("exp"),
    );
    let now = NOW.unix_timestamp();
    assert!(issued <= now - 60 && now < ends && ends - issued <= 300);
    decoded.claims
}

fn grant<'a>(rules: &'a JwtBearer, subject: &'a str, scopes: &'a [String]) -> TokenGrant<'a> {
    TokenGrant::JwtBearer {
        rules,
        audience: "https://as.example/token",
        subject,
        scopes,
    }
}

#[tokio::test]
async fn checklist_48_an_assertion_is_all_the_proof_there_is() {
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
    let client = signer(&pair);
    let scopes = ["a".to_owned(), "b".to_owned()];
    let first = sent(
        &client,
        &Dialect::default(),
        &grant(&GOOGLE, "kim@acme.example", &scopes),
    )
    .await;
    let names: Vec<_> = first.form().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["grant_type", "assertion"]);
    assert!(!first.headers.contains_key("authorization"));
    let assertion = first.field("assertion").expect("an assertion");
    let said = claims(&pair, &assertion);
    assert_eq!(said["iss"], "our client");
    assert_eq!(said["sub"], "kim@acme.example");
    assert_eq!(said["aud"], "https://as.example/token");
    assert_eq!(said["scope"], "a b");

    let second = sent(&client, &Dialect::default(), &grant(&GOOGLE, "", &[])).await;
    let said = claims(&pair, &second.field("assertion").expect("an assertion"));
    assert!(said.get("sub").is_none() && said.get("scope").is_none());

    let as_parameter = JwtBearer {
        scopes: AssertionScopes::Parameter,
        ..GOOGLE
    };
    let third = sent(
        &client,
        &Dialect::default(),
        &grant(&as_parameter, "kim", &scopes),
    )
    .await;
    assert_eq!(third.field("scope").as_deref(), Some("a b"));
    let other = claims(&pair, &third.field("assertion").expect("an assertion"));
    assert!(other.get("scope").is_none());
    assert_ne!(other["jti"], said["jti"]);
}

#[tokio::test]
async fn checklist_60_a_github_app_shows_its_assertion_as_a_bearer_token() {
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
    let rules = JwtBearer {
        carried: AssertionCarrier::BearerToken,
        subject: AssertionSubject::None,
        scopes: AssertionScopes::None,
        lifetime: Duration::from_mins(10),
        ..GOOGLE
    };
    let seen = sent(
        &signer(&pair),
        &Dialect::default(),
        &grant(&rules, "ignored", &["ignored".to_owned()]),
    )
    .await;
    let header = seen.headers["authorization"].to_str().expect("text");
    let said = claims(
        &pair,
        header.strip_prefix("Bearer ").expect("a bearer token"),
    );
    assert!(said.get("sub").is_none() && said.get("scope").is_none());
    assert_eq!(seen.body, "{}");
}

#[test]
fn a_client_without_a_key_signs_nothing() {
    let (deps, _) = deps();
    let endpoint = TokenEndpoint {
        url: &"https://as.example/token".parse().expect("a URL"),
        client: &client(ClientAuth::SecretPost(secret("s"))),
        dialect: &Dialect::default(),
    };
    assert!(endpoint.call(&grant(&GOOGLE, "", &[]), &deps).is_err());
}

#[tokio::test]
async fn checklist_48_an_access_token_is_traded_as_the_provider_wants_it() {
    let token = secret("the token");
    let call = |method, client| ExchangeCall {
        endpoint: None,
        method,
        grant_type: "fb_exchange_token".to_owned(),
        token_param: "fb_exchange_token".to_owned(),
        client,
    };
    let dialect = Dialect {
        token_params: BTreeMap::from([("client_secret".to_owned(), "never".to_owned())]),
        ..Dialect::default()
    };
    let ours = client(ClientAuth::SecretBasic(secret("s&s")));
    let cases = [
        (ClientParams::IdAndSecret, Some("our client"), Some("s&s")),
        (ClientParams::Secret, None, Some("s&s")),
        (ClientParams::None, None, None),
    ];
    for (params, id, client_secret) in cases {
        let call = call(CallMethod::Post, params);
        let grant = TokenGrant::AccessToken {
            call: &call,
            token: &token,
        };
        let seen = sent(&ours, &dialect, &grant).await;
        assert_eq!(
            seen.field("grant_type").as_deref(),
            Some("fb_exchange_token")
        );
        assert_eq!(
            seen.field("fb_exchange_token").as_deref(),
            Some("the token")
        );
        assert_eq!(seen.field("client_id").as_deref(), id);
        assert_eq!(seen.field("client_secret").as_deref(), client_secret);
        assert!(!seen.headers.contains_key("authorization"));
    }
    let call = call(CallMethod::Get, ClientParams::IdAndSecret);
    let grant = TokenGrant::AccessToken {
        call: &call,
        token: &token,
    };
    let seen = sent(&ours, &dialect, &grant).await;
    assert!(seen.body.is_empty());
    let query: BTreeMap<_, _> = url::form_urlencoded::parse(seen.query.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(query["fb_exchange_token"], "the token");
    assert_eq!(query["client_secret"], "s&s");
}
