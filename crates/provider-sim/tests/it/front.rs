//! Pushed requests, other devices, assertions, and traded tokens.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use provider_sim::config::{ClientAuth, ClientConfig};
use serde_json::{Value, json};

use crate::support::{CLIENT, SECRET, Sim, get, oauth_error, text};

const APP: &str = "signing-app";

async fn post(sim: &Sim, path: &str, form: &[(&str, &str)]) -> provider_sim::http_client::Answer {
    let url = format!("{}{path}", sim.issuer("oidc"));
    sim.post_form(&url, &[], form).await.unwrap()
}

async fn pushed(sim: &Sim) -> String {
    let url = url::Url::parse(&sim.authorize_url("oidc", &[("client_id", "")])).unwrap();
    let mut form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    form.push(("client_id".into(), CLIENT.into()));
    form.push(("client_secret".into(), SECRET.into()));
    let form: Vec<_> = form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let answer = post(sim, "/oauth/par", &form).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    text(&answer.json().unwrap(), "request_uri")
}

#[tokio::test]
async fn a_pushed_request_is_good_once_and_for_its_client() {
    let sim = Sim::start("oidc", |provider| {
        provider.require_pushed_requests = true;
        provider.auto_consent = true;
    })
    .await;
    let direct = get(&sim.authorize_url("oidc", &[])).await;
    assert_eq!(direct.status, 400, "it was not pushed");

    let request_uri = pushed(&sim).await;
    let authorize = |client: &str| {
        let query = crate::support::encode(&[("client_id", client), ("request_uri", &request_uri)]);
        format!("{}/oauth/authorize?{query}", sim.issuer("oidc"))
    };
    assert_eq!(get(&authorize("sim-oidc")).await.status, 400);
    assert_eq!(get(&authorize(CLIENT)).await.status, 303);
    assert_eq!(get(&authorize(CLIENT)).await.status, 400);

    let late = pushed(&sim).await;
    sim.advance(90).await;
    let query = crate::support::encode(&[("client_id", CLIENT), ("request_uri", &late)]);
    let answer = get(&format!("{}/oauth/authorize?{query}", sim.issuer("oidc"))).await;
    assert_eq!(answer.status, 400);
}

async fn start_device(sim: &Sim) -> Value {
    let form = [("client_id", CLIENT), ("client_secret", SECRET)];
    let answer = post(sim, "/oauth/device_authorization", &form).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().unwrap()
}

async fn poll(sim: &Sim, started: &Value) -> provider_sim::http_client::Answer {
    let device_code = text(started, "device_code");
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", &device_code),
    ];
    sim.token("oidc", &form).await.unwrap()
}

#[tokio::test]
async fn a_device_waits_for_its_person() {
    let sim = Sim::start("oidc", |_| {}).await;
    let started = start_device(&sim).await;
    assert_eq!(
        oauth_error(&poll(&sim, &started).await),
        "authorization_pending"
    );
    assert_eq!(oauth_error(&poll(&sim, &started).await), "slow_down");
    sim.advance(5).await;

    let page = get(&text(&started, "verification_uri_complete")).await;
    assert!(page.text().contains(&text(&started, "user_code")));
    let user_code = text(&started, "user_code");
    let form = [
        ("user_code", user_code.as_str()),
        ("user", "bob"),
        ("decision", "allow"),
    ];
    assert_eq!(post(&sim, "/device", &form).await.status, 200);
    assert_eq!(post(&sim, "/device", &form).await.status, 400, "once");

    let answer = poll(&sim, &started).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let token = text(&answer.json().unwrap(), "access_token");
    assert_eq!(sim.api("oidc", "/me", &token, &[]).await.status, 200);
    assert_eq!(oauth_error(&poll(&sim, &started).await), "invalid_grant");

    let denied = start_device(&sim).await;
    sim.control()
        .decide_device("oidc", &text(&denied, "user_code"), None)
        .unwrap();
    assert_eq!(oauth_error(&poll(&sim, &denied).await), "access_denied");
    let late = start_device(&sim).await;
    sim.advance(600).await;
    assert_eq!(oauth_error(&poll(&sim, &late).await), "expired_token");
}

/// A P-256 key pair, in PEM.
fn pair() -> (EncodingKey, String) {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, public.as_ref())
    );
    (EncodingKey::from_ec_der(private.as_ref()), pem)
}

async fn with_key(sim: &Sim) -> EncodingKey {
    let (key, public_key) = pair();
    let client = ClientConfig {
        public_key: Some(public_key),
        auth_methods: BTreeSet::from([ClientAuth::PrivateKeyJwt]),
        client_secrets: Vec::new(),
        service_user: Some("bob".into()),
        installations: BTreeMap::from([("7".into(), "carol".into())]),
        ..ClientConfig::confidential(APP, "", &[])
    };
    sim.control().register_client("oidc", client).await.unwrap();
    key
}

fn assertion(sim: &Sim, key: &EncodingKey, change: &Value) -> String {
    let now = 1_780_315_200; // The simulator's clock stands at 2026-06-01 12:00.
    let mut claims = json!({
        "iss": APP, "sub": APP, "aud": sim.issuer("oidc"), "jti": "1", "iat": now - 60, "exp": now + 120,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).unwrap()
}

#[tokio::test]
async fn an_assertion_has_to_be_the_clients_for_us_and_of_this_time() {
    let sim = Sim::start("oidc", |_| {}).await;
    let key = with_key(&sim).await;
    let (other_key, _) = pair();
    let grant = async |assertion: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
        ];
        post(&sim, "/oauth/token", &form).await
    };
    let alice = json!({"sub": "alice@example.com"});
    let answer = grant(&assertion(&sim, &key, &alice)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for bad in [
        assertion(&sim, &other_key, &alice),
        assertion(&sim, &key, &json!({"sub": "nobody"})),
        assertion(
            &sim,
            &key,
            &json!({"sub": "alice", "aud": "https://as.example"}),
        ),
        assertion(&sim, &key, &json!({"sub": "alice", "exp": 1_780_315_200})),
        assertion(&sim, &key, &json!({"sub": "alice", "iat": 1_780_315_201})),
        assertion(&sim, &key, &json!({"sub": "alice", "jti": ""})),
        "nonsense".to_owned(),
    ] {
        assert_eq!(oauth_error(&grant(&bad).await), "invalid_grant");
    }

    let prove = async |assertion: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion),
        ];
        post(&sim, "/oauth/token", &form).await
    };
    assert_eq!(prove(&assertion(&sim, &key, &json!({}))).await.status, 200);
    let foreign = prove(&assertion(&sim, &key, &json!({"sub": "alice"}))).await;
    assert_eq!(oauth_error(&foreign), "invalid_client");
}

#[tokio::test]
async fn an_app_gets_tokens_for_its_installations_alone() {
    let sim = Sim::start("oidc", |_| {}).await;
    let key = with_key(&sim).await;
    let bearer = format!("Bearer {}", assertion(&sim, &key, &json!({})));
    let ask = async |installation: &str, headers: &[(&str, &str)]| {
        let path = format!("/app/installations/{installation}/access_tokens");
        let url = format!("{}{path}", sim.issuer("oidc"));
        sim.post_form(&url, headers, &[]).await.unwrap()
    };
    let answer = ask("7", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let token = text(&answer.json().unwrap(), "token");
    assert_eq!(sim.api("oidc", "/me", &token, &[]).await.status, 200);
    assert_eq!(ask("8", &[("authorization", &bearer)]).await.status, 404);
    assert_eq!(ask("7", &[]).await.status, 401);
}

#[tokio::test]
async fn a_living_token_is_traded_and_a_dead_one_is_not() {
    let sim = Sim::start("oidc", |_| {}).await;
    let body = sim.connect("oidc", "alice", "records.read").await;
    let trade = async |token: &str| {
        let query = crate::support::encode(&[
            ("grant_type", "fb_exchange_token"),
            ("client_id", CLIENT),
            ("client_secret", SECRET),
            ("fb_exchange_token", token),
        ]);
        let url = format!("{}/oauth/access_token?{query}", sim.issuer("oidc"));
        get(&url).await
    };
    let first = text(&body, "access_token");
    let answer = trade(&first).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = text(&answer.json().unwrap(), "access_token");
    assert_ne!(first, second);
    sim.advance(3600).await;
    let answer = trade(&second).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json().unwrap()["error"]["code"], 190);
    let counters = sim.sim(Method::GET, "/counters", &Value::Null).await;
    assert!(counters.text().contains("fb_exchange_token"));
}
