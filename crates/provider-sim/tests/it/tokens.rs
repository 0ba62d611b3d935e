//! The token and revocation endpoints: codes, clients, id_tokens, shapes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use provider_sim::RevokeCause;
use provider_sim::config::{ClientConfig, ExpiresIn, IdTokenAlg};
use serde_json::{Value, json};

use crate::support::{CLIENT, REDIRECT, SECRET, Sim, VERIFIER, get, oauth_error, text};

#[tokio::test]
async fn a_code_is_exchanged_for_tokens_that_open_the_api() {
    let sim = Sim::start("oidc", |_| {}).await;
    let code = sim
        .code("oidc", "alice", &[("scope", "records.read")])
        .await;
    let answer = sim.exchange("oidc", &code, VERIFIER).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let tokens = answer.json().unwrap();
    assert_eq!(
        (
            &tokens["token_type"],
            &tokens["expires_in"],
            &tokens["scope"]
        ),
        (&json!("Bearer"), &json!(3600), &json!("records.read"))
    );
    assert!(tokens.get("id_token").is_none(), "openid was not asked for");
    let access = text(&tokens, "access_token");
    assert_eq!(sim.api("oidc", "/me", &access, &[]).await.status, 200);
    assert_eq!(
        sim.api("procore", "/me", &access, &[]).await.status,
        401,
        "another provider's token"
    );
    sim.advance(3600).await;
    let expired = sim.api("oidc", "/me", &access, &[]).await;
    assert_eq!(expired.status, 401);
    assert!(
        expired
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
}

#[tokio::test]
async fn a_wrong_verifier_spends_the_code() {
    let sim = Sim::start("oidc", |_| {}).await;
    let code = sim.code("oidc", "alice", &[]).await;
    let wrong = VERIFIER.replace('d', "e");
    assert_eq!(
        oauth_error(&sim.exchange("oidc", &code, &wrong).await),
        "invalid_grant"
    );
    assert_eq!(
        oauth_error(&sim.exchange("oidc", &code, VERIFIER).await),
        "invalid_grant"
    );
}

#[tokio::test]
async fn exchanging_a_code_again_revokes_what_it_gave() {
    let sim = Sim::start("oidc", |_| {}).await;
    let code = sim.code("oidc", "alice", &[]).await;
    let tokens = sim.exchange("oidc", &code, VERIFIER).await.json().unwrap();
    assert_eq!(
        oauth_error(&sim.exchange("oidc", &code, VERIFIER).await),
        "invalid_grant"
    );
    assert_eq!(
        sim.api("oidc", "/me", &text(&tokens, "access_token"), &[])
            .await
            .status,
        401
    );
    assert_eq!(
        oauth_error(&sim.refresh("oidc", &text(&tokens, "refresh_token")).await),
        "invalid_grant"
    );
    assert_eq!(
        sim.control().grants()[0].revoked,
        Some(RevokeCause::CodeReuse)
    );
    assert_eq!(sim.control().counters().reuse_refused(), 1);
}

#[tokio::test]
async fn a_code_expires_and_is_bound_to_its_client_and_redirect_uri() {
    let sim = Sim::start("oidc", |provider| {
        provider.clients.push(ClientConfig::confidential(
            "other",
            "other-secret",
            &[REDIRECT, "http://127.0.0.1:9/other"],
        ));
    })
    .await;
    let code = sim.code("oidc", "alice", &[]).await;
    let stolen = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
        ("client_id", "other"),
        ("client_secret", "other-secret"),
    ];
    let url = format!("{}/oauth/token", sim.issuer("oidc"));
    assert_eq!(
        oauth_error(&sim.post_form(&url, &[], &stolen).await.unwrap()),
        "invalid_grant"
    );
    let elsewhere = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", "http://127.0.0.1:9/other"),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(
        oauth_error(&sim.token("oidc", &elsewhere).await.unwrap()),
        "invalid_grant"
    );
    let late = sim.code("oidc", "alice", &[]).await;
    sim.advance(60).await;
    assert_eq!(
        oauth_error(&sim.exchange("oidc", &late, VERIFIER).await),
        "invalid_grant"
    );
}

#[tokio::test]
async fn clients_identify_themselves_in_one_way_that_is_theirs() {
    let sim = Sim::start("oidc", |provider| {
        provider
            .clients
            .push(ClientConfig::confidential("odd id", "s:cr+t%", &[REDIRECT]));
        provider
            .clients
            .push(ClientConfig::public("native", &[REDIRECT]));
    })
    .await;
    let url = format!("{}/oauth/token", sim.issuer("oidc"));
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "unknown"),
    ];
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let send = async |authorization: &str, extra: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = if authorization.is_empty() {
            vec![]
        } else {
            vec![("authorization", authorization)]
        };
        let form: Vec<_> = refresh.iter().chain(extra).copied().collect();
        sim.post_form(&url, &headers, &form).await.unwrap()
    };
    let good = basic("odd%20id:s%3Acr%2Bt%25");
    assert_eq!(
        oauth_error(&send(&good, &[]).await),
        "invalid_grant",
        "the client is known, the token is not"
    );
    assert_eq!(
        oauth_error(&send("", &[("client_id", "native")]).await),
        "invalid_grant"
    );
    let refused = send(&basic("odd%20id:wrong"), &[]).await;
    assert_eq!(
        (refused.status.as_u16(), oauth_error(&refused)),
        (401, "invalid_client".to_owned())
    );
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic")
    );
    assert_eq!(oauth_error(&send("", &[]).await), "invalid_client");
    assert_eq!(
        oauth_error(&send("", &[("client_id", CLIENT)]).await),
        "invalid_client",
        "its secret is missing"
    );
    assert_eq!(
        oauth_error(&send("", &[("client_id", CLIENT), ("client_secret", "wrong")]).await),
        "invalid_client"
    );
    let both = send(
        &basic("app:app-secret"),
        &[("client_id", CLIENT), ("client_secret", SECRET)],
    )
    .await;
    assert_eq!(oauth_error(&both), "invalid_request", "two methods at once");
}

#[tokio::test]
async fn a_request_that_is_no_token_request_is_told_so() {
    let sim = Sim::start("oidc", |_| {}).await;
    let error = async |form: &[(&str, &str)]| oauth_error(&sim.token("oidc", form).await.unwrap());
    assert_eq!(error(&[]).await, "invalid_request");
    assert_eq!(
        error(&[("grant_type", "password")]).await,
        "unsupported_grant_type"
    );
    assert_eq!(
        error(&[("grant_type", "refresh_token")]).await,
        "invalid_request"
    );
    assert_eq!(
        error(&[
            ("grant_type", "refresh_token"),
            ("grant_type", "refresh_token")
        ])
        .await,
        "invalid_request"
    );
    assert_eq!(
        error(&[("grant_type", "client_credentials")]).await,
        "unauthorized_client"
    );
    let url = format!("{}/oauth/token", sim.issuer("oidc"));
    let json = provider_sim::http_client::send(
        http::Method::POST,
        &url,
        &[("content-type", "application/json")],
        "{}".into(),
        crate::support::TIMEOUT,
    );
    assert_eq!(oauth_error(&json.await.unwrap()), "invalid_request");
}

#[tokio::test]
async fn a_service_account_gets_a_token_without_a_refresh_token() {
    let sim = Sim::start("procore", |provider| {
        provider.clients.push(ClientConfig {
            service_user: Some("carol".to_owned()),
            ..ClientConfig::confidential("service", "service-secret", &[])
        });
    })
    .await;
    let url = format!("{}/oauth/token", sim.issuer("procore"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "service"),
        ("client_secret", "service-secret"),
    ];
    let tokens = sim
        .post_form(&url, &[], &form)
        .await
        .unwrap()
        .json()
        .unwrap();
    assert!(tokens.get("refresh_token").is_none());
    let me = sim
        .api(
            "procore",
            "/rest/v1.0/me",
            &text(&tokens, "access_token"),
            &[],
        )
        .await
        .json()
        .unwrap();
    assert_eq!(me["login"], "carol@example.com");
}

#[tokio::test]
async fn id_tokens_verify_against_the_published_keys() {
    for (alg, algorithm) in [
        (IdTokenAlg::Rs256, Algorithm::RS256),
        (IdTokenAlg::Es256, Algorithm::ES256),
    ] {
        let sim = Sim::start_with(provider_sim::SimConfig {
            // The verifier below has no clock to replace.
            clock: provider_sim::Clock::system(),
            ..crate::support::config()
        })
        .await;
        sim.control()
            .configure("oidc", |provider| provider.id_token_alg = alg)
            .await
            .unwrap();
        let code = sim
            .code(
                "oidc",
                "alice",
                &[("scope", "openid email"), ("nonce", "n-1")],
            )
            .await;
        let tokens = sim.exchange("oidc", &code, VERIFIER).await.json().unwrap();
        let claims = verify(&sim, algorithm, &text(&tokens, "id_token")).await;
        assert_eq!(
            (&claims["nonce"], &claims["sub"]),
            (&json!("n-1"), &json!("562949953421001"))
        );
        assert_eq!(
            (&claims["email"], claims.get("name")),
            (&json!("alice@example.com"), None)
        );
        let again = sim
            .refresh("oidc", &text(&tokens, "refresh_token"))
            .await
            .json()
            .unwrap();
        let claims = verify(&sim, algorithm, &text(&again, "id_token")).await;
        assert_eq!(
            claims.get("nonce"),
            None,
            "OpenID Connect Core, section 12.2"
        );
    }
}

async fn verify(sim: &Sim, algorithm: Algorithm, id_token: &str) -> Value {
    let keys: JwkSet =
        serde_json::from_slice(&get(&format!("{}/jwks", sim.issuer("oidc"))).await.body).unwrap();
    let kid = jsonwebtoken::decode_header(id_token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[CLIENT]);
    validation.set_issuer(&[sim.issuer("oidc")]);
    jsonwebtoken::decode::<Value>(id_token, &key, &validation)
        .unwrap()
        .claims
}

#[tokio::test]
async fn userinfo_tells_what_the_scope_allows() {
    let sim = Sim::start("oidc", |_| {}).await;
    let tokens = sim.connect("oidc", "bob", "openid profile").await;
    let info = sim
        .api("oidc", "/userinfo", &text(&tokens, "access_token"), &[])
        .await
        .json()
        .unwrap();
    assert_eq!(
        info,
        json!({"sub": "562949953421002", "name": "Bob Okafor"})
    );
    let tokens = sim.connect("oidc", "bob", "records.read").await;
    assert_eq!(
        sim.api("oidc", "/userinfo", &text(&tokens, "access_token"), &[])
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn lifetimes_are_told_in_every_shape() {
    let sim = Sim::start("oidc", |provider| provider.access_lifetime_seconds = 90).await;
    for (shape, expires_in, expires_at) in [
        (ExpiresIn::Number, json!(90), Value::Null),
        (ExpiresIn::Text, json!("90"), Value::Null),
        (ExpiresIn::Absent, Value::Null, Value::Null),
        (ExpiresIn::Zero, json!(0), Value::Null),
        (ExpiresIn::AtSeconds, Value::Null, json!(1_780_315_290)),
        (
            ExpiresIn::AtMillis,
            Value::Null,
            json!(1_780_315_290_000_i64),
        ),
        (ExpiresIn::AtIso, Value::Null, json!("2026-06-01T12:01:30Z")),
    ] {
        sim.control()
            .configure("oidc", |provider| provider.expires_in = shape)
            .await
            .unwrap();
        let tokens = sim.connect("oidc", "alice", "records.read").await;
        assert_eq!(
            (&tokens["expires_in"], &tokens["expires_at"]),
            (&expires_in, &expires_at),
            "{shape:?}"
        );
    }
}

#[tokio::test]
async fn procore_and_microsoft_have_their_own_shapes() {
    let sim = Sim::start("procore", |_| {}).await;
    let procore = sim.connect("procore", "alice", "").await;
    let names: Vec<&str> = procore
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        [
            "access_token",
            "created_at",
            "expires_in",
            "refresh_token",
            "token_type"
        ]
    );
    let microsoft = sim
        .connect("microsoft", "alice", "Mail.Read offline_access openid")
        .await;
    assert_eq!(microsoft["ext_expires_in"], 3600);
    assert_eq!(microsoft["scope"], "Mail.Read offline_access openid");
    assert!(microsoft["id_token"].is_string());
    assert!(
        sim.connect("microsoft", "alice", "Mail.Read")
            .await
            .get("refresh_token")
            .is_none(),
        "offline_access was not asked for"
    );
    let error = sim.refresh("microsoft", "unknown").await.json().unwrap();
    assert_eq!(
        (&error["error"], &error["error_codes"]),
        (&json!("invalid_grant"), &json!([70000]))
    );
    assert!(text(&error, "error_description").starts_with("AADSTS70000: "));
}

#[tokio::test]
async fn revoking_ends_the_token_or_the_grant() {
    let sim = Sim::start("oidc", |_| {}).await;
    let revoke = async |slug: &str, token: &str| {
        let form = [
            ("token", token),
            ("client_id", CLIENT),
            ("client_secret", SECRET),
        ];
        sim.post_form(&format!("{}/oauth/revoke", sim.issuer(slug)), &[], &form)
            .await
            .unwrap()
            .status
            .as_u16()
    };
    let tokens = sim.connect("oidc", "alice", "records.read").await;
    let (access, refresh) = (
        text(&tokens, "access_token"),
        text(&tokens, "refresh_token"),
    );
    assert_eq!(revoke("oidc", &access).await, 200);
    assert_eq!(sim.api("oidc", "/me", &access, &[]).await.status, 401);
    let again = sim.refresh("oidc", &refresh).await;
    assert_eq!(again.status, 200, "the grant is alive");
    let next = again.json().unwrap();
    assert_eq!(revoke("oidc", &text(&next, "refresh_token")).await, 200);
    assert_eq!(
        sim.api("oidc", "/me", &text(&next, "access_token"), &[])
            .await
            .status,
        401
    );
    assert_eq!(
        revoke("oidc", "never issued").await,
        200,
        "RFC 7009, section 2.2"
    );

    let procore = sim.connect("procore", "alice", "").await;
    assert_eq!(
        revoke("procore", &text(&procore, "access_token")).await,
        200
    );
    assert_eq!(
        oauth_error(
            &sim.refresh("procore", &text(&procore, "refresh_token"))
                .await
        ),
        "invalid_grant"
    );
    assert_eq!(
        revoke("microsoft", "x").await,
        404,
        "there is no such endpoint"
    );
}

#[tokio::test]
async fn a_token_of_another_client_is_not_revoked() {
    let sim = Sim::start("oidc", |provider| {
        provider
            .clients
            .push(ClientConfig::confidential("other", "o", &[]));
    })
    .await;
    let tokens = sim.connect("oidc", "alice", "records.read").await;
    let access = text(&tokens, "access_token");
    let form = [
        ("token", access.as_str()),
        ("client_id", "other"),
        ("client_secret", "o"),
    ];
    let answer = sim
        .post_form(&format!("{}/oauth/revoke", sim.issuer("oidc")), &[], &form)
        .await
        .unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(sim.api("oidc", "/me", &access, &[]).await.status, 200);
}
