use oauth_client::{Class, Dialect, Failure, TokenSet};
use provider_catalog::Catalog;
use serde_json::{Value, json};
use time::Duration;
use time::macros::datetime;

use crate::world::{NOW, answer, read, refresh_call};

fn ok(body: &serde_json::Value) -> oauth_client::TokenSet {
    read(200, &[], &body.to_string()).expect("a token")
}

#[test]
fn checklist_20_form_encoded_answers_are_read() {
    let form = "access_token=gho_x%2By&token_type=bearer&scope=repo%2Cgist&expires_in=60";
    for content_type in [
        "application/x-www-form-urlencoded; charset=utf-8",
        "text/plain",
        "application/json",
    ] {
        let tokens = read(200, &[("content-type", content_type)], form).expect("a token");
        assert_eq!(tokens.access_token.expose(), "gho_x+y");
        assert_eq!(
            tokens.scopes.as_deref(),
            Some(&["repo".to_owned(), "gist".to_owned()][..])
        );
        assert_eq!(tokens.expires_at, Some(NOW + Duration::seconds(60)));
    }
    let failure = read(
        200,
        &[],
        "error=bad_verification_code&error_description=Expired",
    )
    .expect_err("an error");
    assert_eq!(failure.code.as_deref(), Some("bad_verification_code"));
}

#[test]
fn checklist_20_an_error_inside_200_is_an_error() {
    let bodies = [
        json!({"error": "invalid_grant"}),
        json!({"error": "invalid_grant", "access_token": "t"}),
        json!({"ok": false, "error": "invalid_refresh_token", "access_token": "t"}),
        json!({"error": {"code": "invalid_grant", "message": "gone"}, "access_token": "t"}),
    ];
    for body in bodies {
        let failure = read(200, &[], &body.to_string()).expect_err("an error");
        assert!(
            matches!(failure.class, Class::Reauthorization(_)),
            "{body}: {failure:?}"
        );
    }
    for body in [
        "{}",
        "[]",
        "null",
        "\"access_token\"",
        r#"{"access_token":""}"#,
        r#"{"access_token":7}"#,
        "<html>",
        "",
    ] {
        let failure = read(200, &[], body).expect_err("no token");
        assert_eq!(failure.class, Class::ProviderBug, "{body}");
    }
    // A token is a token also with an empty error beside it.
    assert!(read(200, &[], r#"{"access_token":"t","error":"","ok":true}"#).is_ok());
    assert!(read(201, &[], r#"{"access_token":"t","error":null}"#).is_ok());
}

#[test]
fn checklist_21_the_token_type_is_compared_without_case() {
    for kind in [
        json!("bearer"),
        json!("Bearer"),
        json!("BEARER"),
        json!(""),
        json!(null),
    ] {
        let tokens = ok(&json!({"access_token": "t", "token_type": kind}));
        assert_eq!(tokens.token_type, "Bearer", "{kind}");
    }
    for kind in ["mac", "DPoP", "N_A", "bot"] {
        let failure = read(
            200,
            &[],
            &json!({"access_token": "t", "token_type": kind}).to_string(),
        )
        .expect_err("unusable");
        assert_eq!(
            (failure.class, failure.code.as_deref()),
            (Class::Configuration, Some("unsupported_token_type")),
            "{kind}"
        );
    }
}

#[test]
fn checklist_22_expiry_is_read_in_every_shape_and_counts_from_the_request() {
    let in_seconds = |seconds| Some(NOW + Duration::seconds(seconds));
    let at = Some(datetime!(2026-06-01 10:00:00 UTC));
    let cases = [
        (json!({}), None),
        (json!({"expires_in": 3600}), in_seconds(3600)),
        (json!({"expires_in": "3600"}), in_seconds(3600)),
        (json!({"expires_in": " 60 "}), in_seconds(60)),
        (json!({"expires_in": 3599.7}), in_seconds(3599)),
        (json!({"expires_in": 0}), None),
        (json!({"expires_in": "0"}), None),
        (json!({"expires_in": -1}), None),
        (json!({"expires_in": null}), None),
        (json!({"expires_in": "soon"}), None),
        (json!({"expires_in": [1]}), None),
        (json!({"expires_in": i64::MAX}), None),
        (json!({"expires_in": 1e300}), None),
        (json!({"expires_at": 1_780_308_000}), at),
        (json!({"expires_at": "1780308000"}), at),
        (json!({"expires_at": 1_780_308_000_000_i64}), at),
        (json!({"expires_at": "2026-06-01T10:00:00Z"}), at),
        (json!({"expires_at": "2026-06-01T12:00:00+02:00"}), at),
        (json!({"expires_at": "2026-06-01T10:00:00.000Z"}), at),
        (json!({"expires_at": "2026-06-01T10:00:00"}), at),
        (json!({"expires_at": "tomorrow"}), None),
        (json!({"expires_at": 0}), None),
        (json!({"expires_at": -5}), None),
        (json!({"expires_at": i64::MAX}), None),
        (
            json!({"expires_in": 60, "expires_at": 1_780_308_000}),
            in_seconds(60),
        ),
        (json!({"expires_in": -1, "expires_at": 1_780_308_000}), at),
    ];
    for (mut body, expected) in cases {
        body["access_token"] = "t".into();
        assert_eq!(ok(&body).expires_at, expected, "{body}");
    }

    let later = NOW + Duration::seconds(30);
    let body = r#"{"access_token":"t","expires_in":60,"refresh_token_expires_in":"600"}"#;
    let tokens = refresh_call(&Dialect::default())
        .read(Ok(answer(200, &[], body)), NOW, later)
        .expect("a token");
    assert_eq!(tokens.expires_at, in_seconds(60));
    assert_eq!(tokens.refresh_token_expires_at, in_seconds(600));

    let dialect = Dialect {
        access_token_lifetime: Some(std::time::Duration::from_mins(90)),
        ..Dialect::default()
    };
    let silent = refresh_call(&dialect)
        .read(Ok(answer(200, &[], r#"{"access_token":"t"}"#)), NOW, later)
        .expect("a token");
    assert_eq!(silent.expires_at, in_seconds(5400));
    let zero = || answer(200, &[], r#"{"access_token":"t","expires_in":0}"#);
    let end = |dialect: &Dialect| {
        let tokens = refresh_call(dialect).read(Ok(zero()), NOW, later);
        tokens.expect("a token").expires_at
    };
    assert_eq!(end(&dialect), in_seconds(5400));
    let never = Dialect {
        token_response: catalogued("mailchimp").token_response,
        ..dialect
    };
    assert_eq!(end(&never), None);
}

fn catalogued(key: &str) -> Dialect {
    Dialect::from(Catalog::builtin().get(key).expect("an entry"))
}

fn of(key: &str, body: &Value) -> Result<TokenSet, Failure> {
    refresh_call(&catalogued(key)).read(Ok(answer(200, &[], &body.to_string())), NOW, NOW)
}

#[test]
fn slacks_answer_holds_the_bots_token_and_the_users() {
    let body = json!({
        "ok": true, "access_token": "xoxb-canary", "token_type": "bot", "scope": "chat:write,channels:read",
        "expires_in": 43_200, "refresh_token": "xoxe-canary", "bot_user_id": "U0", "app_id": "A1",
        "team": {"id": "T1", "name": "Acme"}, "enterprise": null,
        "authed_user": {"id": "U1", "scope": "search:read", "access_token": "xoxp-canary", "token_type": "user",
                        "expires_in": "21600", "refresh_token": "xoxe-user-canary"},
    });
    let tokens = of("slack", &body).expect("tokens");
    assert_eq!(tokens.access_token.expose(), "xoxb-canary");
    assert_eq!(tokens.token_type, "Bearer");
    assert_eq!(
        tokens.scopes.expect("scopes"),
        ["chat:write", "channels:read"]
    );
    let [user] = &tokens.others[..] else {
        panic!("one more token");
    };
    assert_eq!(
        (user.name.as_str(), user.access_token.expose().as_str()),
        ("user", "xoxp-canary")
    );
    assert_eq!(
        user.refresh_token
            .as_ref()
            .expect("one of its own")
            .expose(),
        "xoxe-user-canary"
    );
    assert_eq!(user.expires_at, Some(NOW + Duration::hours(6)));
    assert_eq!(
        user.scopes.as_deref(),
        Some(&["search:read".to_owned()][..])
    );
    assert_eq!(tokens.raw["authed_user"]["id"], "U1");
    let text = serde_json::to_string(&tokens.raw).expect("JSON");
    assert!(!text.contains("canary"), "{text}");

    // Only a user's scopes were asked for.
    let body = json!({"ok": true, "app_id": "A1", "team": {"id": "T1"},
        "authed_user": {"id": "U1", "access_token": "xoxp-canary", "token_type": "user", "scope": "search:read"}});
    let tokens = of("slack", &body).expect("tokens");
    assert_eq!(tokens.access_token.expose(), "xoxp-canary");
    assert_eq!(tokens.scopes.expect("scopes"), ["search:read"]);
    assert_eq!(tokens.others.len(), 1);
    // Only a bot's.
    let body = json!({"ok": true, "access_token": "xoxb", "token_type": "bot", "authed_user": {"id": "U1"}});
    assert!(of("slack", &body).expect("a token").others.is_empty());
}

#[test]
fn checklist_20_the_provider_says_what_a_success_looks_like() {
    for body in [
        json!({"access_token": "t"}),
        json!({"access_token": "t", "ok": "true?"}),
        json!({"access_token": "t", "ok": false}),
        json!({"access_token": "t", "ok": null}),
    ] {
        let failure = of("slack", &body).expect_err("not ok");
        assert_eq!(failure.class, Class::ProviderBug, "{body}");
    }
    let numbered: provider_catalog::TokenResponse = serde_json::from_value(
        json!({"success": {"at": "/code", "any_of": [0]}, "main": ["/data"]}),
    )
    .expect("a shape");
    let dialect = Dialect {
        token_response: numbered,
        ..Dialect::default()
    };
    let read = |body: Value| {
        refresh_call(&dialect).read(Ok(answer(200, &[], &body.to_string())), NOW, NOW)
    };
    let tokens =
        read(json!({"code": 0, "message": "OK", "data": {"access_token": "t", "expires_in": 60}}));
    assert_eq!(
        tokens.expect("a token").expires_at,
        Some(NOW + Duration::minutes(1))
    );
    for body in [
        json!({"code": 40_105, "message": "Access token is invalid", "data": {}}),
        json!({"code": 40_105, "message": "no", "data": {"access_token": "t"}}),
        json!({"data": {"access_token": "t"}}),
        json!({"code": 0, "access_token": "t"}),
    ] {
        assert!(read(body.clone()).is_err(), "{body}");
    }
    // An error beside a token, in another shape.
    assert!(of("google", &json!({"access_token": "t", "error": true})).is_err());
}

#[test]
fn an_installations_token_has_another_name() {
    let body = json!({"token": "ghs_canary", "expires_at": "2026-01-01T13:00:00Z",
        "permissions": {"issues": "write"}, "repository_selection": "selected"});
    let response = answer(201, &[], &body.to_string());
    let tokens = refresh_call(&catalogued("github-app"))
        .read(Ok(response), NOW, NOW)
        .expect("a token");
    assert_eq!(tokens.access_token.expose(), "ghs_canary");
    assert_eq!(tokens.expires_at, Some(NOW + Duration::hours(1)));
    assert_eq!(tokens.raw["permissions"]["issues"], "write");
    assert!(!tokens.raw.contains_key("token"));
}

#[test]
fn instagrams_first_answer_is_a_list() {
    let inner = json!({"access_token": "IG", "user_id": "17841", "permissions": "instagram_business_basic"});
    for body in [json!({"data": [inner]}), inner] {
        assert_eq!(
            of("instagram", &body)
                .expect("a token")
                .access_token
                .expose(),
            "IG",
            "{body}"
        );
    }
}

#[test]
fn checklist_42_the_refresh_tokens_own_end_is_read_under_each_of_its_names() {
    for (key, name) in [
        ("google", "refresh_token_expires_in"),
        ("linkedin", "refresh_token_expires_in"),
        ("microsoft", "refresh_token_expires_in"),
        ("quickbooks", "x_refresh_token_expires_in"),
        ("keycloak", "refresh_expires_in"),
    ] {
        for value in [json!(8_726_400), json!("8726400")] {
            let mut body = json!({"access_token": "t", "refresh_token": "r", "expires_in": 3600});
            body[name] = value;
            let tokens = of(key, &body).expect("tokens");
            assert_eq!(
                tokens.refresh_token_expires_at,
                Some(NOW + Duration::days(101)),
                "{key}"
            );
        }
        // Keycloak's offline tokens do not end.
        let mut body = json!({"access_token": "t"});
        body[name] = json!(0);
        assert_eq!(
            of(key, &body).expect("a token").refresh_token_expires_at,
            None
        );
    }
}

#[test]
fn checklist_24_scopes_are_read_in_every_shape() {
    let comma = Dialect {
        scope_separator: ",".to_owned(),
        ..Dialect::default()
    };
    let standard = Dialect::default();
    let cases = [
        (&standard, json!("a b  c"), Some(vec!["a", "b", "c"])),
        (&standard, json!("a,b,c"), Some(vec!["a", "b", "c"])),
        (
            &standard,
            json!("read:a,b write"),
            Some(vec!["read:a,b", "write"]),
        ),
        (&standard, json!(["a", "b"]), Some(vec!["a", "b"])),
        (&standard, json!(""), Some(vec![])),
        (&standard, json!(null), None),
        (&standard, json!(7), None),
        (&comma, json!("a, b,c"), Some(vec!["a", "b", "c"])),
    ];
    for (dialect, scope, expected) in cases {
        let body = json!({"access_token": "t", "scope": scope}).to_string();
        let tokens = refresh_call(dialect)
            .read(Ok(answer(200, &[], &body)), NOW, NOW)
            .expect("a token");
        let expected =
            expected.map(|scopes| scopes.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(tokens.scopes, expected, "{scope}");
    }
    assert_eq!(
        ok(&json!({"access_token": "t", "scope": "b a"}))
            .scope_raw
            .as_deref(),
        Some("b a")
    );
    assert_eq!(ok(&json!({"access_token": "t"})).scope_raw, None);
}

#[test]
fn checklist_39_an_omitted_or_empty_refresh_token_is_none() {
    for body in [
        json!({}),
        json!({"refresh_token": ""}),
        json!({"refresh_token": null}),
    ] {
        let mut body = body;
        body["access_token"] = "t".into();
        assert!(ok(&body).refresh_token.is_none(), "{body}");
    }
    let tokens = ok(&json!({"access_token": "t", "refresh_token": "r"}));
    assert_eq!(tokens.refresh_token.expect("a refresh token").expose(), "r");
}

#[test]
fn checklist_50_the_rest_of_the_answer_holds_no_secret() {
    let tokens = ok(&json!({
        "access_token": "canary-access", "refresh_token": "canary-refresh", "id_token": "canary-id",
        "instance_url": "https://eu1.example", "realmId": 562_949_953_425_262_i64,
        "team": {"id": "T1", "bot": {"bot_access_token": "canary-bot", "name": "b"}},
        "authed_user": {"id": "U1", "access_token": "canary-user"},
        "list": [{"clientSecret": "x", "client_secret": "canary-client", "ok": 1}],
        "echo": "Bearer canary-access", "code": "canary-code", "API-Key": "canary-key", "refreshToken": "canary-camel",
    }));
    assert_eq!(tokens.raw["instance_url"], "https://eu1.example");
    assert_eq!(tokens.raw["realmId"], 562_949_953_425_262_i64);
    assert_eq!(
        tokens.raw["team"],
        json!({"id": "T1", "bot": {"name": "b"}})
    );
    assert_eq!(tokens.raw["authed_user"], json!({"id": "U1"}));
    let text = serde_json::to_string(&tokens.raw).expect("JSON");
    assert!(!text.contains("canary"), "{text}");
    assert!(!format!("{tokens:?}").contains("canary"));
}

#[test]
fn checklist_55_deep_documents_are_refused() {
    let nested = |depth: usize| {
        format!(
            r#"{{"access_token":"t","x":{}1{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert!(read(200, &[], &nested(31)).is_ok());
    assert_eq!(
        read(200, &[], &nested(32)).expect_err("too deep").class,
        Class::ProviderBug
    );
    assert_eq!(
        read(200, &[], &nested(400_000))
            .expect_err("too deep")
            .class,
        Class::ProviderBug
    );
    let brackets_in_text = format!(
        r#"{{"access_token":"t","x":"{}\"{}"}}"#,
        "[".repeat(99),
        "{".repeat(99)
    );
    assert!(read(200, &[], &brackets_in_text).is_ok());
}
