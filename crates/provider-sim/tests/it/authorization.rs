//! The authorization endpoint and the consent page.

use provider_sim::browser::Browser;
use provider_sim::config::Pkce;

use crate::support::{CLIENT, REDIRECT, Sim, VERIFIER, get, text};

#[tokio::test]
async fn the_consent_page_leads_back_with_code_state_and_issuer() {
    let sim = Sim::start("oidc", |_| {}).await;
    let page = sim
        .consent("oidc", "bob", &[("scope", "openid email")])
        .await;
    assert_eq!(page.answer.status, 303);
    let target = page.redirect().unwrap();
    assert!(
        target
            .as_str()
            .starts_with("http://127.0.0.1:9/callback?kept=1&code="),
        "{target}"
    );
    assert_eq!(
        page.redirect_parameter("state").as_deref(),
        Some("s t/a&te")
    );
    assert_eq!(page.redirect_parameter("iss"), Some(sim.issuer("oidc")));
    assert_eq!(page.answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_page_offers_every_user_and_loads_nothing_from_elsewhere() {
    let sim = Sim::start("oidc", |_| {}).await;
    let page = Browser::new()
        .get(&sim.authorize_url("oidc", &[("login_hint", "bob@example.com")]))
        .await
        .unwrap();
    let html = page.answer.text();
    for user in ["alice", "bob", "carol"] {
        assert!(html.contains(&format!("value=\"{user}\"")), "{html}");
    }
    assert!(
        page.form()
            .unwrap()
            .fields
            .contains(&("user".to_owned(), "bob".to_owned())),
        "the hint chooses"
    );
    assert!(
        page.answer
            .header("content-security-policy")
            .unwrap()
            .contains("frame-ancestors 'none'")
    );
    assert!(!html.contains("<script"));
}

#[tokio::test]
async fn saying_no_is_access_denied() {
    let sim = Sim::start("oidc", |_| {}).await;
    let mut browser = Browser::new();
    let form = browser
        .get(&sim.authorize_url("oidc", &[]))
        .await
        .unwrap()
        .form()
        .unwrap();
    let page = browser
        .submit(&form, &[("decision", "deny")])
        .await
        .unwrap();
    assert_eq!(
        page.redirect_parameter("error").as_deref(),
        Some("access_denied")
    );
    assert_eq!(
        page.redirect_parameter("state").as_deref(),
        Some("s t/a&te")
    );
    assert_eq!(page.redirect_parameter("code"), None);
}

#[tokio::test]
async fn a_page_is_answered_once_and_only_by_the_browser_that_opened_it() {
    let sim = Sim::start("oidc", |_| {}).await;
    let mut browser = Browser::new();
    let form = browser
        .get(&sim.authorize_url("oidc", &[]))
        .await
        .unwrap()
        .form()
        .unwrap();
    let answer = [("user", "alice"), ("decision", "allow")];
    let forged = Browser::new().submit(&form, &answer).await.unwrap();
    assert_eq!(forged.answer.status, 400, "another browser has no cookie");
    let tampered = browser
        .submit(
            &form,
            &[("user", "alice"), ("decision", "allow"), ("csrf", "guess")],
        )
        .await
        .unwrap();
    assert_eq!(tampered.answer.status, 400);
    assert!(
        browser
            .submit(&form, &answer)
            .await
            .unwrap()
            .redirect_parameter("code")
            .is_some()
    );
    assert_eq!(
        browser.submit(&form, &answer).await.unwrap().answer.status,
        400,
        "it was answered before"
    );
}

#[tokio::test]
async fn pages_in_two_tabs_are_answered_one_after_the_other() {
    let sim = Sim::start("oidc", |_| {}).await;
    let mut browser = Browser::new();
    let first = browser
        .get(&sim.authorize_url("oidc", &[("state", "1")]))
        .await
        .unwrap();
    let second = browser
        .get(&sim.authorize_url("oidc", &[("state", "2")]))
        .await
        .unwrap();
    for (page, state) in [(first, "1"), (second, "2")] {
        let answer = [("user", "alice"), ("decision", "allow")];
        let back = browser
            .submit(&page.form().unwrap(), &answer)
            .await
            .unwrap();
        assert_eq!(back.redirect_parameter("state").as_deref(), Some(state));
        assert!(back.redirect_parameter("code").is_some());
    }
}

#[tokio::test]
async fn a_page_expires() {
    let sim = Sim::start("oidc", |_| {}).await;
    let mut browser = Browser::new();
    let form = browser
        .get(&sim.authorize_url("oidc", &[]))
        .await
        .unwrap()
        .form()
        .unwrap();
    sim.advance(601).await;
    assert_eq!(
        browser
            .submit(&form, &[("user", "alice"), ("decision", "allow")])
            .await
            .unwrap()
            .answer
            .status,
        400
    );
}

#[tokio::test]
async fn an_unknown_client_or_redirect_uri_gets_a_page_and_never_a_redirect() {
    let sim = Sim::start("oidc", |_| {}).await;
    let longer = format!("{REDIRECT}&more=1");
    for change in [
        ("client_id", "nobody"),
        ("client_id", ""),
        ("redirect_uri", ""),
        ("redirect_uri", "http://127.0.0.1:9/callback"),
        ("redirect_uri", &longer),
        ("redirect_uri", "http://evil.example/callback?kept=1"),
    ] {
        let page = Browser::new()
            .get(&sim.authorize_url("oidc", &[change]))
            .await
            .unwrap();
        assert_eq!(
            (page.answer.status.as_u16(), page.redirect()),
            (400, None),
            "{change:?}"
        );
    }
    let twice = format!("{}&client_id={CLIENT}", sim.authorize_url("oidc", &[]));
    assert_eq!(
        get(&twice).await.status,
        400,
        "a parameter that comes twice"
    );
}

#[tokio::test]
async fn other_errors_are_sent_back_to_the_client() {
    let sim = Sim::start("oidc", |_| {}).await;
    for (change, error) in [
        (
            vec![("response_type", "token")],
            "unsupported_response_type",
        ),
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_mode", "fragment")], "invalid_request"),
        (vec![("scope", "openid nonsense")], "invalid_scope"),
        (vec![("code_challenge", "")], "invalid_request"),
        (vec![("code_challenge_method", "plain")], "invalid_request"),
        (vec![("code_challenge_method", "")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
        (vec![("request", "x.y.z")], "request_not_supported"),
        (vec![("prompt", "none")], "login_required"),
    ] {
        let page = Browser::new()
            .get(&sim.authorize_url("oidc", &change))
            .await
            .unwrap();
        assert_eq!(
            page.redirect_parameter("error").as_deref(),
            Some(error),
            "{change:?}"
        );
        assert_eq!(page.redirect_parameter("iss"), Some(sim.issuer("oidc")));
        assert_eq!(
            page.redirect_parameter("state").as_deref(),
            Some("s t/a&te")
        );
    }
}

#[tokio::test]
async fn automatic_consent_comes_from_the_configuration_or_the_request() {
    let sim = Sim::start("procore", |provider| provider.auto_consent = true).await;
    let consents = [
        ("procore", vec![], "alice"),
        (
            "procore",
            vec![("login_hint", "carol@example.com")],
            "carol",
        ),
        ("procore", vec![("auto_consent", "bob")], "bob"),
        ("oidc", vec![("auto_consent", "true")], "alice"),
        (
            "oidc",
            vec![("auto_consent", "true"), ("prompt", "none")],
            "alice",
        ),
    ];
    for (slug, change, user) in consents {
        let page = Browser::new()
            .get(&sim.authorize_url(slug, &change))
            .await
            .unwrap();
        let code = page.redirect_parameter("code").unwrap();
        let tokens = sim.exchange(slug, &code, VERIFIER).await.json().unwrap();
        let me = sim
            .api(slug, "/me", &text(&tokens, "access_token"), &[])
            .await
            .json()
            .unwrap();
        assert_eq!(me["email"], format!("{user}@example.com"));
    }
    let denied = Browser::new()
        .get(&sim.authorize_url("oidc", &[("auto_consent", "deny")]))
        .await
        .unwrap();
    assert_eq!(
        denied.redirect_parameter("error").as_deref(),
        Some("access_denied")
    );
    let asked = Browser::new()
        .get(&sim.authorize_url("oidc", &[]))
        .await
        .unwrap();
    assert_eq!(
        (asked.answer.status.as_u16(), asked.redirect()),
        (200, None)
    );
}

#[tokio::test]
async fn a_form_post_carries_the_answer_in_a_form() {
    let sim = Sim::start("oidc", |_| {}).await;
    let change = [("response_mode", "form_post"), ("auto_consent", "alice")];
    let page = Browser::new()
        .get(&sim.authorize_url("oidc", &change))
        .await
        .unwrap();
    let form = page.form().unwrap();
    assert_eq!((form.action.as_str(), form.post), (REDIRECT, true));
    let names: Vec<&str> = form.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["code", "state", "iss"]);
}

#[tokio::test]
async fn granular_consent_may_grant_less_than_was_asked_for() {
    let sim = Sim::start("oidc", |provider| provider.granular_consent = true).await;
    let mut browser = Browser::new();
    let url = sim.authorize_url("oidc", &[("scope", "openid email records.read")]);
    let form = browser.get(&url).await.unwrap().form().unwrap();
    let ticked = [
        ("scope", "openid"),
        ("scope", "offline_access"),
        ("user", "alice"),
        ("decision", "allow"),
    ];
    let page = browser.submit(&form, &ticked).await.unwrap();
    let code = page.redirect_parameter("code").unwrap();
    let tokens = sim.exchange("oidc", &code, VERIFIER).await.json().unwrap();
    assert_eq!(
        tokens["scope"], "openid",
        "what was not asked for is not granted either"
    );
}

#[tokio::test]
async fn without_iss_there_is_none() {
    let sim = Sim::start("oidc", |provider| provider.iss_in_response = false).await;
    assert_eq!(
        sim.consent("oidc", "alice", &[])
            .await
            .redirect_parameter("iss"),
        None
    );
}

#[tokio::test]
async fn pkce_may_be_optional_but_is_verified_when_it_is_used() {
    let sim = Sim::start("oidc", |provider| provider.pkce = Pkce::Optional).await;
    let without = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = sim.code("oidc", "alice", &without).await;
    assert_eq!(
        sim.exchange("oidc", &code, VERIFIER).await.status,
        400,
        "a verifier without a challenge"
    );
    let code = sim.code("oidc", "alice", &[]).await;
    assert_eq!(
        sim.exchange("oidc", &code, "").await.status,
        400,
        "a challenge without a verifier"
    );
    let code = sim.code("oidc", "alice", &without).await;
    assert_eq!(sim.exchange("oidc", &code, "").await.status, 200);
}

#[tokio::test]
async fn metadata_says_what_the_server_does() {
    let sim = Sim::start("oidc", |_| {}).await;
    let base = sim.simulator.base_url();
    for (slug, path) in [("oidc", ""), ("microsoft", "/microsoft")] {
        let appended = get(&format!("{base}{path}/.well-known/openid-configuration"))
            .await
            .json()
            .unwrap();
        let inserted = get(&format!(
            "{base}/.well-known/oauth-authorization-server{path}"
        ))
        .await
        .json()
        .unwrap();
        assert_eq!(appended, inserted);
        assert_eq!(appended["issuer"], sim.issuer(slug));
        assert_eq!(
            appended["token_endpoint"],
            format!("{base}{path}/oauth/token")
        );
        assert_eq!(
            appended["code_challenge_methods_supported"],
            serde_json::json!(["S256"])
        );
    }
    let microsoft = get(&format!(
        "{base}/.well-known/oauth-authorization-server/microsoft"
    ))
    .await
    .json()
    .unwrap();
    assert!(microsoft.get("revocation_endpoint").is_none());
    assert_eq!(
        get(&format!("{base}/procore/.well-known/openid-configuration"))
            .await
            .status,
        404,
        "Procore is no OpenID provider"
    );
}
