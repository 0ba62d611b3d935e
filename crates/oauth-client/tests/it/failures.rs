use std::time::Duration;

use egress::{EgressConfig, EgressError, Refusal};
use oauth_client::{
    Class, ClientAuth, Dialect, Failure, ReauthorizationCause as Cause, TokenEndpoint, TokenGrant,
};
use provider_catalog::{Catalog, Errors, Pointer, TokenErrorRule};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::world::{NOW, Provider, answer, client, deps, egress, read, refresh_call, secret, url};

fn class(status: u16, headers: &[(&str, &str)], body: &str) -> Class {
    read(status, headers, body).expect_err("a failure").class
}

fn in_seconds(seconds: u64) -> Class {
    Class::RateLimited {
        until: NOW + Duration::from_secs(seconds),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn checklist_section_8_the_taxonomy() {
    let revoked = Class::Reauthorization(Cause::Revoked);
    let cases: &[(u16, &str, Class)] = &[
        // The standard's codes, whatever the status.
        (400, r#"{"error":"invalid_grant"}"#, revoked),
        (401, r#"{"error":"invalid_grant"}"#, revoked),
        (
            403,
            r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#,
            revoked,
        ),
        (200, r#"{"error":"INVALID_GRANT"}"#, revoked),
        (400, r#"{"error":"invalid_client"}"#, Class::Configuration),
        (401, r#"{"error":"invalid_client"}"#, Class::Configuration),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            Class::Configuration,
        ),
        (
            400,
            r#"{"error":"unsupported_grant_type"}"#,
            Class::Configuration,
        ),
        (400, r#"{"error":"invalid_scope"}"#, Class::Configuration),
        (400, r#"{"error":"invalid_request"}"#, Class::Configuration),
        (400, r#"{"error":"invalid_target"}"#, Class::Configuration),
        (
            400,
            r#"{"error":"temporarily_unavailable"}"#,
            Class::Transient,
        ),
        (400, r#"{"error":"server_error"}"#, Class::Transient),
        (
            400,
            r#"{"error":"interaction_required"}"#,
            Class::Reauthorization(Cause::InteractionRequired),
        ),
        (
            400,
            r#"{"error":"login_required"}"#,
            Class::Reauthorization(Cause::InteractionRequired),
        ),
        (
            400,
            r#"{"error":"consent_required"}"#,
            Class::Reauthorization(Cause::AdminAction),
        ),
        // Causes, where the provider tells.
        (
            400,
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
            revoked,
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"Refresh token has expired"}"#,
            Class::Reauthorization(Cause::Expired),
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"inactive user"}"#,
            Class::Reauthorization(Cause::AccountDisabled),
        ),
        // Other places and words.
        (
            200,
            r#"{"ok":false,"error":"invalid_refresh_token"}"#,
            revoked,
        ),
        (
            200,
            r#"{"ok":false,"error":"account_inactive"}"#,
            Class::Reauthorization(Cause::AccountDisabled),
        ),
        (
            200,
            r#"{"ok":false,"error":"bad_client_secret"}"#,
            Class::Configuration,
        ),
        (200, r#"{"ok":false,"error":"ratelimited"}"#, in_seconds(60)),
        (
            200,
            r#"{"ok":false,"error":"internal_error"}"#,
            Class::Transient,
        ),
        (
            400,
            r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#,
            revoked,
        ),
        (
            400,
            r#"{"status":"BAD_CLIENT_ID","message":"no"}"#,
            Class::Configuration,
        ),
        (200, "error=bad_refresh_token", revoked),
        (
            200,
            "error=incorrect_client_credentials",
            Class::Configuration,
        ),
        (403, r#"{"error":"too_many_attempts"}"#, in_seconds(60)),
        (
            401,
            r#"{"error":"access_denied","error_description":"Unauthorized"}"#,
            Class::Configuration,
        ),
        // The status alone.
        (429, "", in_seconds(60)),
        (429, r#"{"error":"something_else"}"#, in_seconds(60)),
        (408, "", Class::Transient),
        (425, "", Class::Transient),
        (503, "<html>", Class::Transient),
        (301, "", Class::Configuration),
        (401, "", Class::Configuration),
        (404, "<html>", Class::Configuration),
        (400, "<html>", Class::ProviderBug),
        (403, "<html>", Class::ProviderBug),
        (418, r#"{"error":"teapot"}"#, Class::ProviderBug),
        (204, "", Class::ProviderBug),
        // An outage says nothing about the grant, whatever it writes.
        (503, r#"{"error":"invalid_grant"}"#, Class::Transient),
        (
            500,
            r#"{"error":"temporarily_unavailable"}"#,
            Class::Transient,
        ),
        (500, r#"{"error":"rate_limit_exceeded"}"#, in_seconds(60)),
    ];
    for (status, body, expected) in cases {
        assert_eq!(class(*status, &[], body), *expected, "{status} {body}");
    }
}

#[test]
fn checklist_37_a_server_error_is_ambiguous_where_a_token_may_be_used_up() {
    let still = Dialect {
        rotates: false,
        ..Dialect::default()
    };
    for status in [500, 502, 504, 520] {
        for body in ["", "<html>", r#"{"error":"invalid_grant"}"#] {
            assert_eq!(
                class(status, &[], body),
                Class::Ambiguous,
                "{status} {body}"
            );
            let failure = refresh_call(&still)
                .read(Ok(answer(status, &[], body)), NOW, NOW)
                .expect_err("a failure");
            assert_eq!(failure.class, Class::Transient, "{status} {body}");
        }
    }
}

#[test]
fn checklist_45_retry_after_is_honoured_in_both_forms() {
    let limited = |value| class(429, &[("retry-after", value)], "");
    assert_eq!(limited("120"), in_seconds(120));
    assert_eq!(limited("Thu, 01 Jan 2026 12:02:00 GMT"), in_seconds(120));
    assert_eq!(limited("0"), in_seconds(0));
    assert_eq!(limited("soon"), in_seconds(60));
    assert_eq!(limited("99999999999999999999"), in_seconds(24 * 60 * 60));
    let busy = read(503, &[("retry-after", "30")], "").expect_err("a failure");
    assert_eq!(
        (busy.class, busy.retry_after),
        (Class::Transient, Some(Duration::from_secs(30)))
    );
}

#[test]
fn checklist_57_what_a_failure_says_is_short_clean_and_without_secrets() {
    let description = format!(
        "token refresh-canary\r\nof \u{1b}[31mclient-secret-canary {}",
        "x".repeat(999)
    );
    let body = json!({"error": "invalid_grant", "error_description": description}).to_string();
    let failure = read(400, &[], &body).expect_err("a failure");
    let text = failure.description.clone().expect("a description");
    assert_eq!(text.chars().count(), 256);
    assert!(
        text.starts_with("token [secret]  of  [31m[secret] x"),
        "{text}"
    );
    assert_eq!(
        failure.to_string(),
        "the provider wants the user to connect again (invalid_grant)"
    );
    assert!(!format!("{failure:?}").contains("canary"));

    let echoed = read(400, &[], r#"{"error":"refresh-canary"}"#).expect_err("a failure");
    assert_eq!(echoed.code, None);
    let prose = read(400, &[], r#"{"error":"A whole sentence."}"#).expect_err("a failure");
    assert_eq!(prose.code, None);
}

#[test]
fn a_dialect_comes_from_the_catalogue() {
    let dialect = |key: &str| Dialect::from(Catalog::builtin().get(key).expect("an entry"));
    assert!(dialect("procore").rotates && dialect("outlook").rotates && dialect("oidc").rotates);
    assert_eq!(
        dialect("procore").access_token_lifetime,
        Some(Duration::from_mins(90))
    );
    assert_eq!(dialect("oauth2"), Dialect::default());
}

#[test]
fn a_dialects_own_rules_come_first() {
    let rule =
        |json: serde_json::Value| serde_json::from_value::<TokenErrorRule>(json).expect("a rule");
    let rules = vec![
        rule(
            json!({"error": "invalid_grant", "at": "/error_codes", "any_of": [50173, "70008"], "means": "reauthorization", "cause": "expired"}),
        ),
        rule(
            json!({"error": "invalid_grant", "description_contains": "clock", "means": "configuration"}),
        ),
        rule(json!({"status": 422, "means": "transient"})),
        rule(json!({"status": [418, 520], "means": "configuration"})),
        rule(json!({"error": "teapot", "means": "rate_limited", "wait": "15m"})),
    ];
    let dialect = Dialect {
        errors: Errors {
            code: vec![Pointer::try_from("/fault/number".to_owned()).expect("a pointer")],
            rules,
            ..Errors::default()
        },
        ..Dialect::default()
    };
    let class = |status, body: serde_json::Value| {
        let outcome =
            refresh_call(&dialect).read(Ok(answer(status, &[], &body.to_string())), NOW, NOW);
        outcome.expect_err("a failure").class
    };
    for codes in [
        json!([50173]),
        json!([1, 50173]),
        json!(50173),
        json!("50173"),
        json!([70008]),
    ] {
        assert_eq!(
            class(400, json!({"error": "invalid_grant", "error_codes": codes})),
            Class::Reauthorization(Cause::Expired),
            "{codes}"
        );
    }
    // The code counts only beside the error, and not at all where the server has broken down.
    assert_eq!(
        class(
            400,
            json!({"error": "invalid_client", "error_codes": [50173]})
        ),
        Class::Configuration
    );
    assert_eq!(
        class(
            503,
            json!({"error": "invalid_grant", "error_codes": [50173]})
        ),
        Class::Transient
    );
    assert_eq!(class(520, json!({})), Class::Configuration);
    assert_eq!(class(400, json!({"error": "teapot"})), in_seconds(15 * 60));
    assert_eq!(
        class(400, json!({"fault": {"number": "teapot"}})),
        in_seconds(15 * 60)
    );
    assert_eq!(
        class(400, json!({"error": "invalid_grant", "error_codes": [1]})),
        Class::Reauthorization(Cause::Revoked)
    );
    assert_eq!(
        class(
            400,
            json!({"error": "invalid_grant", "error_description": "check your Clock"})
        ),
        Class::Configuration
    );
    assert_eq!(class(422, json!({})), Class::Transient);
}

#[test]
fn checklist_37_what_the_network_did_decides_what_may_be_tried_again() {
    let host = || "as.example".to_owned();
    let io = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let status = egress::StatusCode::OK;
    let cases = [
        (
            EgressError::Dns {
                host: host(),
                source: io(),
            },
            Class::Transient,
        ),
        (
            EgressError::Connect {
                host: host(),
                source: io(),
            },
            Class::Transient,
        ),
        (
            EgressError::ConnectTimeout { host: host() },
            Class::Transient,
        ),
        (
            EgressError::Tls {
                host: host(),
                source: io(),
            },
            Class::Transient,
        ),
        (EgressError::Closed { host: host() }, Class::Transient),
        (
            EgressError::Refused(Refusal::Address { host: host() }),
            Class::Configuration,
        ),
        (EgressError::Refused(Refusal::Scheme), Class::Configuration),
        (
            EgressError::AnswerTimeout {
                host: host(),
                status: None,
            },
            Class::Ambiguous,
        ),
        (
            EgressError::AnswerTimeout {
                host: host(),
                status: Some(status),
            },
            Class::Ambiguous,
        ),
        (
            EgressError::Interrupted {
                host: host(),
                status: None,
                source: io().into(),
            },
            Class::Ambiguous,
        ),
        (
            EgressError::Malformed {
                host: host(),
                source: io().into(),
            },
            Class::ProviderBug,
        ),
        (
            EgressError::TooLarge {
                host: host(),
                status,
                limit: 1,
            },
            Class::ProviderBug,
        ),
        (
            EgressError::Encoded {
                host: host(),
                status,
            },
            Class::ProviderBug,
        ),
    ];
    for (error, expected) in cases {
        let text = error.to_string();
        let failure = refresh_call(&Dialect::default())
            .read(Err(error), NOW, NOW)
            .expect_err("a failure");
        assert_eq!(failure.class, expected, "{text}");
        assert!(std::error::Error::source(&failure).is_some(), "{text}");
    }
}

async fn refresh(target: &url::Url) -> Failure {
    let (deps, _) = deps();
    let (client, dialect) = (client(ClientAuth::None), Dialect::default());
    let token = secret("refresh");
    let grant = TokenGrant::RefreshToken {
        refresh_token: &token,
        scopes: &[],
    };
    let call = TokenEndpoint {
        url: target,
        client: &client,
        dialect: &dialect,
    }
    .call(&grant, &deps)
    .expect("a call");
    call.timeout(Duration::from_secs(1))
        .send(&egress(), &deps)
        .await
        .expect_err("no token")
}

#[tokio::test]
async fn real_connections_fail_as_the_table_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = url(&format!(
        "http://{}/",
        listener.local_addr().expect("an address")
    ));
    let cut = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        stream.read_buf(&mut request).await.expect("a request");
    });
    assert_eq!(refresh(&target).await.class, Class::Ambiguous);
    cut.await.expect("it was read");
    assert_eq!(
        refresh(&target).await.class,
        Class::Transient,
        "nobody listens any more"
    );

    let redirecting = Provider::start(|_| {
        (
            307,
            vec![("location", "https://evil.example/".to_owned())],
            String::new(),
        )
    })
    .await;
    assert_eq!(
        refresh(&redirecting.url("/")).await.class,
        Class::Configuration
    );

    let (deps, _) = deps();
    let strict = egress::Egress::new(EgressConfig::default(), &deps).expect("a client");
    let error = strict.connect(&target).await.expect_err("not https");
    assert!(matches!(error, EgressError::Refused(Refusal::Scheme)));
}
