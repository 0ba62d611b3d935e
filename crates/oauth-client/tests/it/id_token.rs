use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Deps;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use oauth_client::{Documents, IdToken, IdTokenError, IdTokenExpectations};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::world::{NOW, Provider, TestClock, deps, egress, public_jwk, secret};

const ISSUER: &str = "https://as.example";

struct Key {
    pair: KeyPair,
    private: EncodingKey,
    algorithm: Algorithm,
    id: String,
}

impl Key {
    fn new(algorithm: Algorithm, id: &str) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::EdDSA => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).expect("a key");
        let pem = pair.serialize_pem();
        let private = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self {
            pair,
            private: private.expect("a key that signs"),
            algorithm,
            id: id.to_owned(),
        }
    }

    fn public(&self) -> Value {
        let mut key = public_jwk(&self.pair, self.algorithm);
        key["kid"] = self.id.as_str().into();
        key["use"] = "sig".into();
        key
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.private).expect("signed")
    }
}

/// An issuer whose key set can change.
struct World {
    provider: Provider,
    keys: Arc<Mutex<Vec<Value>>>,
    documents: Documents,
    deps: Deps,
    clock: Arc<TestClock>,
}

impl World {
    async fn with(keys: Vec<Value>) -> Self {
        let keys = Arc::new(Mutex::new(keys));
        let served = Arc::clone(&keys);
        let provider = Provider::start(move |_| {
            let keys = served.lock().expect("one test").clone();
            (
                200,
                vec![("cache-control", "max-age=3600".to_owned())],
                json!({"keys": keys}).to_string(),
            )
        })
        .await;
        let (deps, clock) = deps();
        Self {
            provider,
            keys,
            documents: Documents::new(egress(), &deps),
            deps,
            clock,
        }
    }

    async fn verify(&self, token: &str) -> Result<IdToken, IdTokenError> {
        self.verify_for(token, ISSUER, Some("n")).await
    }

    async fn verify_for(
        &self,
        token: &str,
        issuer: &str,
        nonce: Option<&str>,
    ) -> Result<IdToken, IdTokenError> {
        let access_token = secret("the access token");
        let expected = IdTokenExpectations {
            issuer,
            client_id: "our client",
            nonce,
            access_token: Some(&access_token),
        };
        IdToken::verify(
            &secret(token),
            &expected,
            &self.provider.url("/jwks"),
            &self.documents,
            &self.deps,
        )
        .await
    }
}

fn claims() -> Value {
    let now = NOW.unix_timestamp();
    json!({"iss": ISSUER, "sub": "u1", "aud": "our client", "exp": now + 300, "iat": now, "nonce": "n", "email": "a@example.com"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[tokio::test]
async fn checklist_25_a_good_token_is_believed_whatever_asymmetric_key_signs_it() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::PS384,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let key = Key::new(algorithm, "k");
        let unknown = json!({"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "other"});
        let world = World::with(vec![unknown, json!({"kty": "new"}), key.public()]).await;
        let token = world.verify(&key.sign(&claims())).await.expect("good");
        assert_eq!(
            (token.issuer.as_str(), token.subject.as_str()),
            (ISSUER, "u1"),
            "{algorithm:?}"
        );
        assert_eq!(token.claims["email"], "a@example.com");
    }
}

#[tokio::test]
async fn checklist_25_and_26_every_claim_is_checked() {
    let key = Key::new(Algorithm::ES256, "k");
    let world = World::with(vec![key.public()]).await;
    let now = NOW.unix_timestamp();
    let bad = [
        ("iss", json!("https://as.example/")),
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("aud", json!("another client")),
        ("aud", json!([])),
        ("aud", json!({"our client": 1})),
        ("aud", Value::Null),
        ("azp", json!("another client")),
        ("azp", json!(["our client"])),
        ("exp", json!(now - 60)),
        ("exp", json!("tomorrow")),
        ("exp", Value::Null),
        ("nbf", json!(now + 61)),
        ("nbf", json!("now")),
        ("iat", json!(now + 61)),
        ("iat", json!(now - 90_000)),
        ("iat", Value::Null),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("at_hash", json!("wrong")),
    ];
    for (name, value) in bad {
        let error = world
            .verify(&key.sign(&with(name, value.clone())))
            .await
            .expect_err("not believed");
        assert!(
            matches!(error, IdTokenError::Claim { claim } if claim == name),
            "{name} {value}: {error}"
        );
    }
    let several = world
        .verify(&key.sign(&with("aud", json!(["our client", "another"]))))
        .await
        .expect_err("no azp");
    assert!(matches!(several, IdTokenError::Claim { claim: "azp" }));

    let good = [
        with("exp", json!(now - 59)),
        with("nbf", json!(now + 60)),
        with("iat", json!(now + 60)),
        with("iat", json!(now as f64 - 0.5)),
        with("azp", json!("our client")),
        with("aud", json!(["our client"])),
        // SHA-256 of "the access token", its left half.
        with("at_hash", json!("8kJybPby-BwHrrSnx_oS4A")),
    ];
    for claims in good {
        let outcome = world.verify(&key.sign(&claims)).await;
        assert!(outcome.is_ok(), "{claims}: {outcome:?}");
    }
}

#[tokio::test]
async fn checklist_25_forged_signatures_are_refused() {
    let key = Key::new(Algorithm::RS256, "k");
    let stranger = Key::new(Algorithm::RS256, "k");
    let world = World::with(vec![key.public()]).await;
    let good = key.sign(&claims());
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = encode(&claims());

    let other_payload = format!(
        "{}.{}.{signature}",
        good.split('.').next().expect("a header"),
        encode(&with("sub", json!("u2")))
    );
    let cases = [
        stranger.sign(&claims()),
        other_payload,
        format!("{message}."),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 256])),
    ];
    for token in &cases {
        assert!(
            matches!(world.verify(token).await, Err(IdTokenError::Signature)),
            "{token}"
        );
    }

    // No signature; and one by the public key as if it were a shared secret.
    let public = key.public().to_string();
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims(),
        &EncodingKey::from_secret(public.as_bytes()),
    );
    let unsigned = ["none", "None", "NONE", "HS256", "nonsense"]
        .map(|alg| format!("{}.{payload}.", encode(&json!({"alg": alg, "kid": "k"}))));
    for token in unsigned.into_iter().chain([hmac.expect("signed")]) {
        assert!(
            matches!(world.verify(&token).await, Err(IdTokenError::Algorithm)),
            "{token}"
        );
    }

    let critical = format!(
        "{}.{payload}.{signature}",
        encode(&json!({"alg": "RS256", "kid": "k", "crit": ["x"], "x": 1}))
    );
    for token in [
        critical.as_str(),
        "",
        "a.b",
        "a.b.c",
        "....",
        &"a".repeat(70_000),
    ] {
        assert!(
            matches!(world.verify(token).await, Err(IdTokenError::Malformed)),
            "{token}"
        );
    }
}

#[tokio::test]
async fn checklist_25_a_key_of_another_kind_or_use_does_not_count() {
    let key = Key::new(Algorithm::RS256, "k");
    let change = |name: &str, value: &str| {
        let mut public = key.public();
        public[name] = value.into();
        public
    };
    for public in [
        change("use", "enc"),
        change("alg", "RS512"),
        Key::new(Algorithm::ES256, "k").public(),
    ] {
        let world = World::with(vec![public]).await;
        assert!(matches!(
            world.verify(&key.sign(&claims())).await,
            Err(IdTokenError::UnknownKey)
        ));
    }
}

#[tokio::test]
async fn checklist_25_an_unknown_key_is_asked_for_once_and_not_more_than_once_a_minute() {
    let (old, new) = (
        Key::new(Algorithm::ES256, "old"),
        Key::new(Algorithm::ES256, "new"),
    );
    let world = World::with(vec![old.public()]).await;
    world.verify(&old.sign(&claims())).await.expect("good");
    assert_eq!(world.provider.seen().len(), 1);

    // Just fetched: a token with a made-up key id causes no request.
    assert!(matches!(
        world.verify(&new.sign(&claims())).await,
        Err(IdTokenError::UnknownKey)
    ));
    assert_eq!(world.provider.seen().len(), 1);

    world.keys.lock().expect("one test").push(new.public());
    world.clock.advance(Duration::from_secs(61));
    world
        .verify(&new.sign(&claims()))
        .await
        .expect("the issuer rotated its keys");
    assert_eq!(world.provider.seen().len(), 2);

    world.clock.advance(Duration::from_secs(61));
    let made_up = Key::new(Algorithm::ES256, "made up");
    for _ in 0..5 {
        assert!(matches!(
            world.verify(&made_up.sign(&claims())).await,
            Err(IdTokenError::UnknownKey)
        ));
    }
    assert_eq!(world.provider.seen().len(), 3);
}

#[tokio::test]
async fn checklist_25_a_token_without_key_id_is_tried_with_each_key() {
    let (one, other) = (
        Key::new(Algorithm::ES256, "one"),
        Key::new(Algorithm::ES256, "other"),
    );
    let world = World::with(vec![one.public(), other.public()]).await;
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims(), &other.private)
        .expect("signed");
    world.verify(&token).await.expect("good");
}

#[tokio::test]
async fn checklist_25_the_issuer_of_every_directory_is_the_tokens_own() {
    let key = Key::new(Algorithm::ES256, "k");
    let world = World::with(vec![key.public()]).await;
    let template = "https://login.example/{tenantid}/v2.0";
    let mut claims = with("iss", json!("https://login.example/72f988bf-86f1/v2.0"));
    claims["tid"] = "72f988bf-86f1".into();
    world
        .verify_for(&key.sign(&claims), template, Some("n"))
        .await
        .expect("its own directory");
    claims["tid"] = "another".into();
    assert!(
        world
            .verify_for(&key.sign(&claims), template, Some("n"))
            .await
            .is_err()
    );
    claims["iss"] = "https://login.example/../v2.0".into();
    claims["tid"] = "..".into();
    assert!(
        world
            .verify_for(&key.sign(&claims), template, Some("n"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn without_keys_nothing_is_believed() {
    let key = Key::new(Algorithm::ES256, "k");
    let world = World::with(Vec::new()).await;
    assert!(matches!(
        world.verify(&key.sign(&claims())).await,
        Err(IdTokenError::UnknownKey)
    ));
    let gone = Provider::start(|_| (500, vec![], String::new())).await;
    let expected = IdTokenExpectations {
        issuer: ISSUER,
        client_id: "our client",
        nonce: None,
        access_token: None,
    };
    let (token, jwks) = (secret(&key.sign(&claims())), gone.url("/jwks"));
    let outcome = IdToken::verify(&token, &expected, &jwks, &world.documents, &world.deps).await;
    assert!(matches!(outcome, Err(IdTokenError::Keys(_))), "{outcome:?}");
}
