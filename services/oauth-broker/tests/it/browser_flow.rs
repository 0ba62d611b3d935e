//! From the link to the connection, in a browser.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::broker::v1::*;
use provider_sim::browser::Browser;

use crate::world::{APP, World, parameter};

#[tokio::test]
async fn req_procore_04_a_callback_ends_at_the_front_end_with_user_and_company() {
    let world = World::new().await;
    let integration = world.procore().await;
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;

    assert!(
        end.as_str().starts_with(&format!("{APP}/done?keep=1&")),
        "{end}"
    );
    assert_eq!(parameter(&end, "user_id"), "u1");
    assert_eq!(parameter(&end, "external_user_id"), "562949953421001");
    assert_eq!(parameter(&end, "external_account_id"), "562949953500001");
    let connection = world.connection(&parameter(&end, "connection_id")).await;
    assert_eq!(connection.state(), ConnectionState::Connected);
    assert_eq!(
        connection
            .active_account
            .as_ref()
            .unwrap()
            .external_account_id,
        "562949953500001"
    );
    assert_eq!(
        connection.active_account.unwrap().name,
        "Harbour & Vale Construction"
    );
    let session = world
        .session_in(&connection.tenant_id, &parameter(&end, "session_id"))
        .await;
    assert_eq!(session.state(), ConnectSessionState::Succeeded);
    assert_eq!(session.connection_id, connection.connection_id);

    let accounts = ListAccountsRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        ..Default::default()
    };
    let accounts = world
        .connections()
        .list_accounts(accounts)
        .await
        .unwrap()
        .into_inner()
        .accounts;
    let listed: Vec<_> = accounts
        .iter()
        .map(|account| (account.external_account_id.as_str(), account.active))
        .collect();
    assert_eq!(
        listed,
        [("562949953500001", true), ("562949953500002", false)]
    );
    let (confirmed, exchange) = world.vault.with(|state| {
        (
            state.grants[&connection.grant_id].confirmed,
            state.exchanges[0].clone(),
        )
    });
    assert!(
        confirmed,
        "the grant is confirmed once the connection is saved"
    );
    assert_eq!(exchange.grant_id, connection.grant_id);
}

#[tokio::test]
async fn an_openid_provider_needs_its_issuer_alone() {
    let world = World::new().await;
    let integration = world.oidc().await;
    let request = world.session_request(&integration.integration_id, "u1");
    let made = world.session(request).await;
    let mut browser = Browser::new();
    let sent = world.to_provider(&mut browser, &made.connect_url).await;
    for (name, expected) in [
        ("response_type", "code"),
        ("code_challenge_method", "S256"),
        ("client_id", "client"),
    ] {
        assert_eq!(sent.redirect_parameter(name).as_deref(), Some(expected));
    }
    assert_eq!(sent.redirect_parameter("code_challenge").unwrap().len(), 43);
    assert!(sent.redirect_parameter("nonce").unwrap().len() >= 43);
    assert!(sent.redirect_parameter("state").unwrap().len() >= 43);
    assert_eq!(
        sent.redirect_parameter("redirect_uri"),
        Some(integration.redirect_uri)
    );

    let consented = browser
        .consent(sent.redirect().unwrap().as_str(), "bob")
        .await
        .unwrap();
    let end = browser
        .get(consented.redirect().unwrap().as_str())
        .await
        .unwrap()
        .redirect()
        .unwrap();
    let connection = world.connection(&parameter(&end, "connection_id")).await;
    assert!(!connection.external_user_id.is_empty());
    assert!(connection.scopes.contains(&"openid".to_owned()));
    let nonce = world.vault.with(|state| match state.exchanges[0].authorization.clone().unwrap() {
        contracts::vault::v1::exchange_authorization_request::Authorization::AuthorizationCode(code) => code.nonce,
        other => panic!("{other:?}"),
    });
    assert_eq!(Some(nonce), sent.redirect_parameter("nonce"));
}

#[tokio::test]
async fn the_page_names_everybody_and_waits() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let first = browser.get(&made.connect_url).await.unwrap();
    assert_eq!(first.answer.status, 303);
    let clean = first.redirect().unwrap();
    let token = made.connect_url.rsplit('/').next().unwrap();
    assert!(
        !clean.as_str().contains(token),
        "the token has left the address bar"
    );
    let page = browser.follow(first).await.unwrap();
    let text = page.answer.text();
    for words in [
        "Plumbline &lt;&amp;&gt; Co",
        "Acme &lt;b&gt;Ltd&lt;/b&gt;",
        "u1@acme.example",
        "Procore",
        "help@example.com",
    ] {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    assert!(!text.contains("<b>Ltd") && !text.contains("<script") && !text.contains(token));
    for (name, expected) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.answer.header(name), Some(expected));
    }
    let policy = page.answer.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let style = browser
        .get(&format!("{}/assets/connect.css", world.base))
        .await
        .unwrap();
    assert_eq!(
        style.answer.header("content-type"),
        Some("text/css; charset=utf-8")
    );
}

#[tokio::test]
async fn a_link_fetched_by_a_scanner_changes_nothing() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    for _ in 0..3 {
        Browser::new().open(&made.connect_url).await.unwrap();
    }
    let session = world.session_state(made.session.as_ref().unwrap()).await;
    assert_eq!(session.state(), ConnectSessionState::Pending);
    let end = Browser::new();
    let mut person = end;
    let callback = world
        .to_callback(&mut person, &made.connect_url, "alice")
        .await;
    assert!(
        person
            .get(callback.as_str())
            .await
            .unwrap()
            .redirect()
            .is_some()
    );
}

#[tokio::test]
async fn a_second_callback_shows_the_first_ones_result() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let mut second = browser.clone();
    let (one, two) = tokio::join!(
        browser.get(callback.as_str()),
        second.get(callback.as_str())
    );
    let (one, two) = (
        one.unwrap().redirect().unwrap(),
        two.unwrap().redirect().unwrap(),
    );
    assert_eq!(one, two);
    let later = browser
        .get(callback.as_str())
        .await
        .unwrap()
        .redirect()
        .unwrap();
    assert_eq!(later, one);
    assert_eq!(
        world.vault.with(|state| state.exchanges.len()),
        1,
        "the code is traded once"
    );
}

#[tokio::test]
async fn declining_ends_the_session_and_says_so() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let sent = world.to_provider(&mut browser, &made.connect_url).await;
    let page = browser
        .get(sent.redirect().unwrap().as_str())
        .await
        .unwrap();
    let declined = browser
        .submit(
            &page.form().unwrap(),
            &[("user", "alice"), ("decision", "deny")],
        )
        .await
        .unwrap();
    let end = browser
        .get(declined.redirect().unwrap().as_str())
        .await
        .unwrap()
        .redirect()
        .unwrap();
    assert_eq!(parameter(&end, "error"), "access_denied");
    assert_eq!(parameter(&end, "connection_id"), "");
    let session = world.session_state(made.session.as_ref().unwrap()).await;
    assert_eq!(
        (session.state(), session.error.as_str()),
        (ConnectSessionState::Failed, "access_denied")
    );
    let again = browser.open(&made.connect_url).await;
    assert!(
        again.is_err() || again.unwrap().answer.status != 200,
        "the link does not begin anew"
    );
}

#[tokio::test]
async fn what_the_provider_says_is_never_shown() {
    let world = World::new().await;
    let integration = world.procore().await;
    let mut request = world.session_request(&integration.integration_id, "u1");
    request.return_url = String::new();
    let made = world.session(request).await;
    let mut browser = Browser::new();
    let sent = world.to_provider(&mut browser, &made.connect_url).await;
    let state = sent.redirect_parameter("state").unwrap();
    let callback = format!(
        "{}?state={state}&error=server_error&error_description=%3Cscript%3Ealert(1)%3C/script%3E",
        integration.redirect_uri
    );
    let page = browser.get(&callback).await.unwrap();
    let text = page.answer.text();
    assert_eq!(page.answer.status, 400);
    assert!(
        !text.contains("script") && !text.contains("alert"),
        "{text}"
    );
    assert!(text.contains("Go back to the application"), "{text}");
    let session = world.session_state(made.session.as_ref().unwrap()).await;
    assert_eq!(session.error_reason, "server_error");
}

#[tokio::test]
async fn an_old_link_says_what_to_do() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let admin = world.database.admin().await;
    admin
        .execute(
            "UPDATE broker.connect_sessions SET expires_at = now() - '1 h'::interval",
            &[],
        )
        .await
        .unwrap();
    let page = Browser::new().open(&made.connect_url).await.unwrap();
    assert_eq!(page.answer.status, 410);
    assert!(
        page.answer.text().contains("too old"),
        "{}",
        page.answer.text()
    );
    let session = made.session.unwrap();
    assert_eq!(
        world.session_state(&session).await.state(),
        ConnectSessionState::Expired
    );
    let unknown = Browser::new()
        .open(&format!("{}/connect/nonsense", world.base))
        .await
        .unwrap();
    assert_eq!(unknown.answer.status, 404);
    // The reaper ends it for good, and tells.
    testkit::eventually(std::time::Duration::from_secs(40), async || {
        world.session_state(&session).await.error == "session_expired"
    })
    .await;
}

#[tokio::test]
async fn a_form_post_callback_comes_back_as_a_get() {
    let world = World::new().await;
    let integration = world.procore().await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let mut bare = callback.clone();
    bare.set_query(None);
    let form = provider_sim::browser::Form {
        action: bare,
        post: true,
        fields: callback.query_pairs().into_owned().collect(),
    };
    let posted = browser.submit(&form, &[]).await.unwrap();
    assert_eq!(posted.answer.status, 303);
    let end = browser
        .get(posted.redirect().unwrap().as_str())
        .await
        .unwrap()
        .redirect()
        .unwrap();
    assert!(!parameter(&end, "connection_id").is_empty(), "{end}");
}

#[tokio::test]
async fn the_user_chooses_among_integrations() {
    let world = World::new().await;
    let procore = world.procore().await;
    let oidc = world.oidc().await;
    let mut request = world.session_request("", "u1");
    request.allowed_integration_ids =
        vec![procore.integration_id.clone(), oidc.integration_id.clone()];
    let made = world.session(request).await;
    assert_eq!(made.session.as_ref().unwrap().integration_id, "");
    let mut browser = Browser::new();
    let page = browser.open(&made.connect_url).await.unwrap();
    assert!(
        page.answer.text().contains("Continue to Procore")
            && page.answer.text().contains("OpenID Connect")
    );
    let form = page.form().unwrap();
    let nothing = browser
        .submit(&form, &[("integration", "another")])
        .await
        .unwrap();
    assert_eq!(
        nothing.answer.status, 200,
        "what is not offered is not begun"
    );
    let sent = browser
        .submit(&form, &[("integration", &oidc.integration_id)])
        .await
        .unwrap();
    assert_eq!(
        sent.redirect_parameter("redirect_uri"),
        Some(oidc.redirect_uri)
    );
    assert_eq!(
        world
            .session_state(made.session.as_ref().unwrap())
            .await
            .integration_id,
        oidc.integration_id
    );
}

#[tokio::test]
async fn req_basecamp_05_a_person_with_several_accounts_chooses_one() {
    let world = World::new().await;
    let integration = world
        .integration("procore", "procore", |wanted| {
            wanted.exclusive_accounts = true;
        })
        .await;
    let made = world
        .session(world.session_request(&integration.integration_id, "u1"))
        .await;
    let mut browser = Browser::new();
    let callback = world
        .to_callback(&mut browser, &made.connect_url, "alice")
        .await;
    let back = browser.get(callback.as_str()).await.unwrap();
    assert_eq!(
        world
            .session_state(made.session.as_ref().unwrap())
            .await
            .state(),
        ConnectSessionState::ChoosingAccount
    );
    let page = browser.follow(back).await.unwrap();
    let text = page.answer.text();
    assert!(
        text.contains("Harbour &amp; Vale Construction") && text.contains("<fieldset>"),
        "{text}"
    );
    let form = page.form().unwrap();
    let refused = browser.submit(&form, &[("account", "1")]).await.unwrap();
    assert_eq!(
        refused.answer.status, 200,
        "an account that is not listed is not taken"
    );
    let stranger = Browser::new()
        .submit(&form, &[("account", "562949953500002")])
        .await
        .unwrap();
    assert_eq!(stranger.answer.status, 403);
    let end = browser
        .submit(&form, &[("account", "562949953500002")])
        .await
        .unwrap()
        .redirect()
        .unwrap();
    assert_eq!(parameter(&end, "external_account_id"), "562949953500002");
    let connection = world.connection(&parameter(&end, "connection_id")).await;
    assert_eq!(
        connection.active_account.unwrap().external_account_id,
        "562949953500002"
    );
}

#[tokio::test]
async fn a_connection_is_kept_back_until_the_host_confirms() {
    let world = World::new().await;
    let integration = world.procore().await;
    let mut request = world.session_request(&integration.integration_id, "u1");
    request.require_confirmation = true;
    let end = world.walk(request, "alice").await;
    let (session_id, code) = (
        parameter(&end, "session_id"),
        parameter(&end, "confirmation_code"),
    );
    assert!(
        !code.is_empty() && parameter(&end, "connection_id").is_empty(),
        "{end}"
    );
    let session = world
        .session_in(&world.tenant.to_string(), &session_id)
        .await;
    assert_eq!(session.state(), ConnectSessionState::AwaitingConfirmation);
    assert!(
        !world
            .status("u1", &integration.integration_id)
            .await
            .connected
    );

    let complete = |user: &str, code: &str| CompleteConnectSessionRequest {
        tenant_id: world.tenant.to_string(),
        session_id: session_id.clone(),
        user_id: user.into(),
        confirmation_code: code.into(),
    };
    let other = world
        .connect()
        .complete_connect_session(complete("u2", &code))
        .await
        .unwrap_err();
    assert_eq!(CallError::from(other).code, Code::NotFound);
    let wrong = world
        .connect()
        .complete_connect_session(complete("u1", "x"))
        .await
        .unwrap_err();
    assert_eq!(
        CallError::from(wrong).reason,
        Some(Reason::AuthorizationExpired)
    );
    let saved = world
        .connect()
        .complete_connect_session(complete("u1", &code))
        .await
        .unwrap()
        .into_inner();
    let again = world
        .connect()
        .complete_connect_session(complete("u1", &code))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        saved.connection.as_ref().unwrap().connection_id,
        again.connection.unwrap().connection_id
    );
    assert!(
        world
            .status("u1", &integration.integration_id)
            .await
            .connected
    );
}

#[tokio::test]
async fn a_provider_in_trouble_leaves_nothing_behind() {
    let world = World::new().await;
    let integration = world.procore().await;
    let fault: provider_sim::FaultRule = serde_json::from_value(serde_json::json!({
        "endpoint": "api.procore.companies", "fault": {"kind": "status", "status": 503}
    }))
    .unwrap();
    world.sim.control().inject(fault);
    let end = world
        .connect_as(&integration.integration_id, "u1", "alice")
        .await;
    assert_eq!(parameter(&end, "error"), "temporarily_unavailable");
    assert_eq!(parameter(&end, "error_reason"), "PROVIDER_UNAVAILABLE");
    assert!(
        !world
            .status("u1", &integration.integration_id)
            .await
            .connected
    );
    let (made, revoked) = world
        .vault
        .with(|state| (state.grants.len(), state.revocations.len()));
    assert_eq!(
        (made, revoked),
        (1, 1),
        "the grant that came of it is revoked"
    );
}
