//! What must not work.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::*;
use provider_sim::browser::Browser;

use crate::world::{World, parameter};

#[tokio::test]
async fn a_state_works_in_the_browser_that_began_and_nowhere_else() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let mut other = Browser::new();
    let page = other.get(callback.as_str()).await.unwrap();
    assert_eq!(page.answer.status, 403);
    // One that came by the same link is another browser too: the first has said yes.
    let page = other.open(&made.connect_url).await.unwrap();
    assert_eq!(page.answer.status, 403);
    assert!(page.answer.text().contains("another browser"));
    assert_eq!(
        other.get(callback.as_str()).await.unwrap().answer.status,
        403
    );
    assert!(world.vault.with(|state| state.exchanges.is_empty()));
    assert!(
        browser
            .get(callback.as_str())
            .await
            .unwrap()
            .redirect()
            .is_some(),
        "the right one goes on"
    );
}

#[tokio::test]
async fn unknown_old_and_repeated_states_are_refused() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let state = parameter(&callback, "state");
    let mut forged = state.clone().into_bytes();
    forged[0] = if forged[0] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for query in [
        format!("state={forged}&code=x"),
        "state=nonsense&code=x".to_owned(),
        "code=x".to_owned(),
        format!("state={state}&state={state}&code=x"),
        String::new(),
    ] {
        let page = browser
            .get(&format!("{}?{query}", integration.redirect_uri))
            .await
            .unwrap();
        assert_eq!(page.answer.status, 400, "{query}");
    }
    let admin = world.database.admin().await;
    admin
        .execute(
            "UPDATE broker.authorizations SET expires_at = now() - '1 s'::interval",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        browser.get(callback.as_str()).await.unwrap().answer.status,
        400
    );
    assert!(world.vault.with(|state| state.exchanges.is_empty()));
}

#[tokio::test]
async fn an_answer_at_another_integrations_path_is_refused() {
    let world = World::new().await;
    let procore = world.procore().await;
    let oidc = world.oidc().await;
    let made = world
        .session(world.session_request(&procore.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let moved = format!("{}?{}", oidc.redirect_uri, callback.query().unwrap());
    assert_eq!(browser.get(&moved).await.unwrap().answer.status, 400);
    assert!(
        world.vault.with(|state| state.exchanges.is_empty()),
        "a mix-up never sees the code traded"
    );
    assert!(
        browser
            .get(callback.as_str())
            .await
            .unwrap()
            .redirect()
            .is_some()
    );
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused() {
    let world = World::new().await;
    let integration = world.oidc().await;
    for wrong in [Some("https://evil.example"), None] {
        let made = world
            .session(world.session_request(&integration.integration_id, "u1"))
            .await;
        let mut browser = Browser::new();
        let mut callback = world
            .to_callback(&mut browser, &made.connect_url, "alice")
            .await;
        let mut pairs: Vec<(String, String)> = callback.query_pairs().into_owned().collect();
        assert!(
            pairs.iter().any(|(name, _)| name == "iss"),
            "the simulator names itself"
        );
        pairs.retain(|(name, _)| name != "iss");
        pairs.extend(wrong.map(|issuer| ("iss".to_owned(), issuer.to_owned())));
        callback.query_pairs_mut().clear().extend_pairs(pairs);
        let end = browser
            .get(callback.as_str())
            .await
            .unwrap()
            .redirect()
            .unwrap();
        assert_eq!(parameter(&end, "error_reason"), "ISSUER_MISMATCH");
    }
    assert!(world.vault.with(|state| state.exchanges.is_empty()));
}

#[tokio::test]
async fn an_injected_code_is_of_no_use() {
    let world = World::new().await;
    let integration = world.oidc().await;
    let mut victim = Browser::new();
    let made = world
        .session(world.session_request(&integration.integration_id, "victim"))
        .await;
    let victims = world
        .to_callback(&mut victim, &made.connect_url, "alice")
        .await;

    let made = world
        .session(world.session_request(&integration.integration_id, "attacker"))
        .await;
    let mut attacker = Browser::new();
    let mut attackers = world
        .to_callback(&mut attacker, &made.connect_url, "bob")
        .await;
    let stolen = parameter(&victims, "code");
    let pairs: Vec<(String, String)> = attackers.query_pairs().into_owned().collect();
    let pairs = pairs.into_iter().map(|(name, value)| {
        if name == "code" {
            (name, stolen.clone())
        } else {
            (name, value)
        }
    });
    let pairs: Vec<_> = pairs.collect();
    attackers.query_pairs_mut().clear().extend_pairs(pairs);
    let end = attacker
        .get(attackers.as_str())
        .await
        .unwrap()
        .redirect()
        .unwrap();
    assert_eq!(
        parameter(&end, "error"),
        "authorization_failed",
        "PKCE ties the code to its browser's verifier"
    );
    assert!(
        !world
            .status("attacker", &integration.integration_id)
            .await
            .connected
    );
}

#[tokio::test]
async fn a_form_needs_its_page() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let page = browser.open(&made.connect_url).await.unwrap();
    let form = page.form().unwrap();
    assert_eq!(
        browser
            .submit(&form, &[("csrf", "guessed")])
            .await
            .unwrap()
            .answer
            .status,
        403
    );
    assert_eq!(
        Browser::new()
            .submit(&form, &[])
            .await
            .unwrap()
            .answer
            .status,
        403,
        "without the cookie nothing begins"
    );
    let session = world.session_state(made.session.as_ref().unwrap()).await;
    assert_eq!(session.state(), ConnectSessionState::Pending);
}

#[tokio::test]
async fn only_allowed_origins_are_returned_to() {
    let world = World::new().await;
    let integration = world
        .integration("procore", "procore", |wanted| {
            wanted.allowed_origins = vec!["https://other.example".into()];
        })
        .await;
    for allowed in [
        "",
        "https://app.example.com/x",
        "https://other.example/?a=b",
    ] {
        let mut request = world.session_request(&integration.integration_id, "u1");
        request.return_url = allowed.into();
        world.session(request).await;
    }
    for refused in [
        "https://evil.example/",
        "https://app.example.com.evil.example/",
        "https://app.example.com@evil.example/",
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "javascript:alert(1)",
        "//evil.example",
        "not a url",
    ] {
        let mut request = world.session_request(&integration.integration_id, "u1");
        request.return_url = refused.into();
        let error = CallError::from(
            world
                .connect()
                .create_connect_session(request)
                .await
                .unwrap_err(),
        );
        assert_eq!(
            (error.code, error.reason),
            (Code::InvalidArgument, Some(Reason::InvalidField)),
            "{refused}"
        );
        assert_eq!(error.fields[0].field, "return_url");
    }
}

#[tokio::test]
async fn nothing_that_opens_a_session_lies_in_the_database() {
    let world = World::new().await;
    let integration = world.oidc().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let admin = world.database.admin().await;
    let dump = async || {
        let mut dump = String::new();
        for table in [
            "connect_sessions",
            "authorizations",
            "integrations",
            "connections",
            "request_ids",
            "outbox",
            "audit_events",
        ] {
            for row in admin
                .query(&format!("SELECT t::text FROM broker.{table} t"), &[])
                .await
                .unwrap()
            {
                dump.push_str(row.get::<_, &str>(0));
            }
        }
        dump
    };
    let token = made.connect_url.rsplit('/').next().unwrap().to_owned();
    let state = parameter(&callback, "state");
    let code = parameter(&callback, "code");
    let before = dump().await;
    browser.get(callback.as_str()).await.unwrap();
    let verifier = world.vault.with(|state| match state.exchanges[0].authorization.clone().unwrap() {
        contracts::vault::v1::exchange_authorization_request::Authorization::AuthorizationCode(code) => code.code_verifier,
        other => panic!("{other:?}"),
    });
    let after = dump().await;
    for secret in [&token, &state, &code, &verifier, &"s3cret".to_owned()] {
        assert!(
            !secret.is_empty()
                && !before.contains(secret.as_str())
                && !after.contains(secret.as_str())
        );
    }
    let sealed = admin
        .query_one(
            "SELECT count(*) FROM broker.authorizations WHERE sealed IS NOT NULL",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        sealed.get::<_, i64>(0),
        0,
        "what was sealed is destroyed when it is used"
    );
}
