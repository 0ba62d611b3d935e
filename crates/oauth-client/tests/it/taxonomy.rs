//! The table of the checklist's section 8, a test for each of its lines. The bodies are shaped like the providers' own.

#![expect(
    clippy::unreadable_literal,
    reason = "codes stand as people look for them"
)]

use std::time::Duration;

use oauth_client::{Class, Dialect, Failure, ReauthorizationCause as Cause};
use provider_catalog::Catalog;
use serde_json::{Value, json};

use crate::world::{NOW, answer, refresh_call};

const REVOKED: Class = Class::Reauthorization(Cause::Revoked);
const EXPIRED: Class = Class::Reauthorization(Cause::Expired);
const DISABLED: Class = Class::Reauthorization(Cause::AccountDisabled);
const ADMIN: Class = Class::Reauthorization(Cause::AdminAction);
const INTERACTION: Class = Class::Reauthorization(Cause::InteractionRequired);

fn limited(seconds: u64) -> Class {
    Class::RateLimited {
        until: NOW + Duration::from_secs(seconds),
    }
}

fn failure(provider: &str, status: u16, body: &str) -> Failure {
    let entry = Catalog::builtin().get(provider).expect("an entry");
    refresh_call(&Dialect::from(entry))
        .read(Ok(answer(status, &[], body)), NOW, NOW)
        .expect_err("a failure")
}

/// Each answer means what stands beside it.
fn table(provider: &str, rows: &[(u16, Value, Class)]) {
    for (status, body, expected) in rows {
        let text = match body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        assert_eq!(
            failure(provider, *status, &text).class,
            *expected,
            "{provider}: {status} {text}"
        );
    }
}

fn error(code: &str, description: &str) -> Value {
    json!({"error": code, "error_description": description})
}

#[test]
fn google_a_token_that_expired_or_was_revoked() {
    table(
        "google",
        &[(
            400,
            error("invalid_grant", "Token has been expired or revoked."),
            REVOKED,
        )],
    );
}

#[test]
fn google_session_control_of_a_workspace() {
    let rapt = |subtype: &str| {
        json!({"error": "invalid_grant", "error_description": "reauth related error (invalid_rapt)",
               "error_uri": "https://support.google.com/a/answer/9368756", "error_subtype": subtype})
    };
    table(
        "google",
        &[
            (400, rapt("invalid_rapt"), ADMIN),
            (400, rapt("rapt_required"), ADMIN),
            (400, rapt("other"), REVOKED),
        ],
    );
}

#[test]
fn google_the_app_the_administrator_the_clock() {
    let skewed = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.";
    table(
        "google",
        &[
            (
                401,
                error("invalid_client", "The OAuth client was not found."),
                Class::Configuration,
            ),
            (
                401,
                error("deleted_client", "The OAuth client was deleted."),
                Class::Configuration,
            ),
            (
                401,
                error("unauthorized_client", "Unauthorized"),
                Class::Configuration,
            ),
            (400, error("admin_policy_enforced", "no"), ADMIN),
            (403, error("org_internal", "no"), ADMIN),
        ],
    );
    table(
        "google-service-account",
        &[
            (
                400,
                error("invalid_grant", "Invalid JWT Signature."),
                Class::Configuration,
            ),
            (400, error("invalid_grant", skewed), Class::Configuration),
            (
                400,
                error("invalid_grant", "Invalid grant: account not found"),
                REVOKED,
            ),
        ],
    );
}

#[test]
fn google_outages_and_limits() {
    table(
        "google",
        &[
            (500, json!({"error": "internal_failure"}), Class::Transient),
            (400, json!({"error": "internal_failure"}), Class::Transient),
            (502, json!("<html>"), Class::Transient),
            (503, error("invalid_grant", "whatever"), Class::Transient),
            (
                403,
                error("rate_limit_exceeded", "Rate Limit Exceeded"),
                limited(60),
            ),
        ],
    );
}

/// As the token endpoint writes it.
fn entra(error: &str, code: u64) -> Value {
    json!({
        "error": error,
        "error_description": format!("AADSTS{code}: What happened. Trace ID: 0 Correlation ID: 0 Timestamp: 2026-01-01 12:00:00Z"),
        "error_codes": [code], "timestamp": "2026-01-01 12:00:00Z", "trace_id": "0", "correlation_id": "0",
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    })
}

/// The same for each code, in both entries that have Microsoft's table.
fn entra_table(status: u16, errors: &[&str], codes: &[u64], expected: Class) {
    for provider in ["microsoft", "outlook"] {
        for error in errors {
            let rows: Vec<_> = codes
                .iter()
                .map(|code| (status, entra(error, *code), expected))
                .collect();
            table(provider, &rows);
        }
    }
}

#[test]
fn microsoft_a_dead_refresh_token() {
    entra_table(
        400,
        &["invalid_grant"],
        &[70000, 50173, 50132, 50133],
        REVOKED,
    );
    entra_table(
        400,
        &["invalid_grant"],
        &[70008, 700082, 700084, 50089, 70043],
        EXPIRED,
    );
    entra_table(400, &["invalid_grant"], &[50085], INTERACTION);
}

#[test]
fn microsoft_policies() {
    entra_table(
        400,
        &["interaction_required", "invalid_grant"],
        &[50076, 50079, 50074, 50078, 50158],
        INTERACTION,
    );
    entra_table(
        400,
        &["interaction_required", "invalid_grant"],
        &[53000, 53001, 53002, 53003, 53004, 530003],
        ADMIN,
    );
}

#[test]
fn microsoft_consent() {
    entra_table(
        400,
        &["invalid_grant", "consent_required", "interaction_required"],
        &[65001, 65004, 90094, 650052],
        ADMIN,
    );
    entra_table(
        400,
        &["invalid_scope", "invalid_request"],
        &[70011],
        Class::Configuration,
    );
}

#[test]
fn microsoft_an_account_or_a_directory_that_is_gone() {
    entra_table(
        400,
        &["invalid_grant"],
        &[50034, 50057, 50020, 50055, 51004],
        DISABLED,
    );
    entra_table(
        400,
        &["invalid_request", "invalid_grant"],
        &[90002],
        DISABLED,
    );
}

#[test]
fn microsoft_the_client_and_with_it_the_whole_integration() {
    entra_table(
        401,
        &["invalid_client"],
        &[7000215, 7000222, 700027],
        Class::Configuration,
    );
    entra_table(
        400,
        &["unauthorized_client"],
        &[700016, 7000112],
        Class::Configuration,
    );
    entra_table(
        400,
        &["invalid_client", "invalid_request"],
        &[50011],
        Class::Configuration,
    );
    entra_table(401, &["invalid_client"], &[1], Class::Configuration);
}

#[test]
fn microsoft_load_and_loops() {
    let codes = [
        50033, 50087, 70012, 90006, 90012, 90024, 90033, 90090, 40010,
    ];
    entra_table(
        400,
        &["temporarily_unavailable", "invalid_grant", "server_error"],
        &codes,
        Class::Transient,
    );
    entra_table(503, &["temporarily_unavailable"], &[1], Class::Transient);
    entra_table(
        400,
        &["temporarily_unavailable", "invalid_grant"],
        &[90055],
        limited(60),
    );
    entra_table(400, &["invalid_grant"], &[50196], limited(15 * 60));
}

#[test]
fn microsoft_the_error_counts_and_codes_only_refine_it_and_the_text_says_nothing() {
    // No code ends a grant whose error does not.
    let dead = [70008, 700082, 50173, 50057, 50076, 53003, 65001];
    for code in dead {
        for error in [
            "invalid_resource",
            "unsupported_grant_type",
            "invalid_scope",
        ] {
            let class = failure("microsoft", 400, &entra(error, code).to_string()).class;
            assert!(
                !matches!(class, Class::Reauthorization(_)),
                "{error} {code}: {class:?}"
            );
        }
        // Nor one that comes with a breakdown.
        let class = failure("microsoft", 500, &entra("invalid_grant", code).to_string()).class;
        assert_eq!(class, Class::Ambiguous);
    }
    // A code that nobody knows yet leaves the error its meaning, and so does any text.
    table(
        "microsoft",
        &[
            (400, entra("invalid_grant", 99_999_999), REVOKED),
            (
                400,
                error(
                    "invalid_grant",
                    "AADSTS7000215: Invalid client secret provided.",
                ),
                REVOKED,
            ),
            (
                400,
                entra("temporarily_unavailable", 99_999_999),
                Class::Transient,
            ),
        ],
    );
}

#[test]
fn salesforce_a_token_that_is_gone() {
    table(
        "salesforce",
        &[(
            400,
            error("invalid_grant", "expired access/refresh token"),
            REVOKED,
        )],
    );
}

#[test]
fn salesforce_users_organizations_and_administrators() {
    table(
        "salesforce",
        &[
            (400, error("invalid_grant", "inactive user"), DISABLED),
            (
                400,
                error("invalid_grant", "inactive organization"),
                DISABLED,
            ),
            (400, error("invalid_grant", "ip restricted"), ADMIN),
            (
                400,
                error("invalid_grant", "user hasn't approved this consumer"),
                ADMIN,
            ),
            (
                400,
                error("invalid_grant", "authentication failure"),
                REVOKED,
            ),
        ],
    );
    table(
        "salesforce-jwt",
        &[(
            400,
            error("invalid_grant", "user hasn't approved this consumer"),
            ADMIN,
        )],
    );
}

#[test]
fn salesforce_the_app_and_a_refresh_that_is_being_worked_on() {
    table(
        "salesforce",
        &[
            (
                400,
                error("invalid_client_id", "client identifier invalid"),
                Class::Configuration,
            ),
            (
                400,
                error("invalid_client", "invalid client credentials"),
                Class::Configuration,
            ),
            (
                400,
                error("OAUTH_APP_ACCESS_DENIED", "user is not admin approved"),
                ADMIN,
            ),
            (
                400,
                error("OAUTH_APP_BLOCKED", "this app is blocked by admin"),
                ADMIN,
            ),
            (400, error("invalid_grant", "app blocked"), ADMIN),
            (
                400,
                error("invalid_grant", "token request is already being processed"),
                Class::Transient,
            ),
            (
                400,
                error(
                    "invalid_request",
                    "Token request is already being processed",
                ),
                Class::Transient,
            ),
        ],
    );
}

#[test]
fn quickbooks_a_token_that_is_gone() {
    table(
        "quickbooks",
        &[
            (
                400,
                error("invalid_grant", "Incorrect or invalid refresh token"),
                REVOKED,
            ),
            (400, error("invalid_grant", "Token invalid"), REVOKED),
            (400, json!({"error": "invalid_grant"}), REVOKED),
        ],
    );
}

#[test]
fn quickbooks_the_app_and_limits() {
    table(
        "quickbooks",
        &[
            (
                401,
                json!({"error": "invalid_client"}),
                Class::Configuration,
            ),
            (
                400,
                json!({"error": "invalid_request"}),
                Class::Configuration,
            ),
            (429, json!(""), limited(60)),
            (503, json!(""), Class::Transient),
            (500, json!(""), Class::Ambiguous),
        ],
    );
}

#[test]
fn xero_a_token_that_is_gone() {
    table("xero", &[(400, json!({"error": "invalid_grant"}), REVOKED)]);
}

#[test]
fn xero_the_app() {
    table(
        "xero",
        &[
            (
                400,
                json!({"error": "invalid_client"}),
                Class::Configuration,
            ),
            (
                400,
                json!({"error": "unauthorized_client"}),
                Class::Configuration,
            ),
        ],
    );
}

#[test]
fn hubspot_uninstalled_misconfigured_limited() {
    let own = |status: &str| json!({"status": status, "message": "missing or invalid refresh token", "correlationId": "0"});
    table(
        "hubspot",
        &[
            (400, own("BAD_REFRESH_TOKEN"), REVOKED),
            (
                400,
                json!({"error": "invalid_grant", "error_description": "gone"}),
                REVOKED,
            ),
            (
                400,
                json!({"status": "error", "error": "invalid_grant"}),
                REVOKED,
            ),
            (400, own("BAD_CLIENT_ID"), Class::Configuration),
            (400, own("BAD_CLIENT_SECRET"), Class::Configuration),
            (
                429,
                json!({"status": "error", "message": "You have reached your ten_secondly_rolling limit.", "policyName": "TEN_SECONDLY_ROLLING"}),
                limited(60),
            ),
        ],
    );
}

#[test]
fn slack_errors_inside_200() {
    let rows: Vec<_> = [
        ("invalid_refresh_token", REVOKED),
        ("token_revoked", REVOKED),
        ("invalid_auth", REVOKED),
        ("account_inactive", DISABLED),
        ("token_expired", EXPIRED),
        ("bad_client_secret", Class::Configuration),
        ("invalid_client_id", Class::Configuration),
        ("ratelimited", limited(60)),
        ("internal_error", Class::Transient),
        ("fatal_error", Class::Transient),
    ]
    .into_iter()
    .map(|(code, class)| (200, json!({"ok": false, "error": code}), class))
    .collect();
    table("slack", &rows);
}

#[test]
fn github_users_and_installations() {
    let described = |code: &str| json!({"error": code, "error_description": "…", "error_uri": "https://docs.github.com"});
    let rows = [
        (200, described("bad_refresh_token"), REVOKED),
        (
            200,
            json!(
                "error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect+or+expired."
            ),
            REVOKED,
        ),
        (
            200,
            described("incorrect_client_credentials"),
            Class::Configuration,
        ),
    ];
    table("github-app-user", &rows);
    table("github-app", &rows);
    table(
        "github-app",
        &[
            (
                404,
                json!({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}),
                REVOKED,
            ),
            (
                403,
                json!({"message": "This installation has been suspended"}),
                DISABLED,
            ),
            (
                403,
                json!({"message": "You have exceeded a secondary rate limit."}),
                limited(60),
            ),
            (
                401,
                json!({"message": "A JSON web token could not be decoded"}),
                Class::Configuration,
            ),
            (500, json!({"message": "Server Error"}), Class::Transient),
        ],
    );
}

#[test]
fn atlassian_with_403() {
    table(
        "atlassian",
        &[
            (
                403,
                error("invalid_grant", "Unknown or invalid refresh token."),
                REVOKED,
            ),
            (
                403,
                json!({"error_description": "Unknown or invalid refresh token."}),
                REVOKED,
            ),
            (
                401,
                error("access_denied", "Unauthorized"),
                Class::Configuration,
            ),
            (401, json!({"error": "Unauthorized"}), Class::Configuration),
            (
                403,
                error("unauthorized_client", "no"),
                Class::Configuration,
            ),
        ],
    );
}

#[test]
fn zoho_errors_inside_200() {
    let denied = json!({"error": "Access Denied", "status": "failure",
        "error_description": "You have made too many requests continuously. Please try again after some time."});
    table(
        "zoho",
        &[
            (200, json!({"error": "invalid_code"}), REVOKED),
            (
                200,
                json!({"error": "invalid_client"}),
                Class::Configuration,
            ),
            (200, denied.clone(), limited(600)),
            (400, denied, limited(600)),
        ],
    );
}

#[test]
fn zendesk_refreshed_elsewhere_or_misconfigured() {
    table(
        "zendesk",
        &[
            (
                400,
                error(
                    "invalid_grant",
                    "The provided authorization grant is invalid, expired, revoked.",
                ),
                REVOKED,
            ),
            (
                401,
                error("invalid_client", "Client authentication failed"),
                Class::Configuration,
            ),
            (422, json!({"error": "Unprocessable"}), Class::Configuration),
        ],
    );
}

#[test]
fn procore_rotation_client_load() {
    table(
        "procore",
        &[
            (
                401,
                error(
                    "invalid_grant",
                    "The provided authorization grant is invalid",
                ),
                REVOKED,
            ),
            (
                400,
                error(
                    "invalid_grant",
                    "The provided authorization grant is invalid",
                ),
                REVOKED,
            ),
            (
                401,
                error("invalid_client", "Client authentication failed"),
                Class::Configuration,
            ),
            (503, json!("Service Unavailable"), Class::Transient),
        ],
    );
}

#[test]
fn facebook_codes_and_subcodes() {
    let body = |code: u64, subcode: Option<u64>| {
        let mut error = json!({"message": "Error validating access token", "type": "OAuthException", "code": code, "fbtrace_id": "A"});
        if let Some(subcode) = subcode {
            error["error_subcode"] = subcode.into();
        }
        json!({"error": error})
    };
    for provider in ["facebook", "instagram"] {
        let mut rows = vec![
            (400, body(190, None), REVOKED),
            (400, body(190, Some(458)), REVOKED),
            (400, body(190, Some(459)), INTERACTION),
            (400, body(190, Some(460)), REVOKED),
            (400, body(190, Some(463)), EXPIRED),
            (400, body(190, Some(464)), INTERACTION),
            (400, body(190, Some(467)), REVOKED),
            (400, body(102, None), REVOKED),
            // A subcode without the code says nothing.
            (400, body(1, Some(458)), Class::Transient),
            (500, body(2, None), Class::Transient),
        ];
        rows.extend([4, 17, 32, 613].map(|code| (400, body(code, None), limited(60))));
        rows.extend([101, 191].map(|code| (400, body(code, None), Class::Configuration)));
        table(provider, &rows);
    }
    assert_eq!(
        failure("facebook", 400, &body(190, Some(463)).to_string())
            .code
            .as_deref(),
        Some("190")
    );
}

#[test]
fn dropbox_box_zoom_linear_invalid_grants() {
    table(
        "dropbox",
        &[(
            400,
            error("invalid_grant", "refresh token is invalid or revoked"),
            REVOKED,
        )],
    );
    table(
        "box",
        &[
            (
                400,
                error("invalid_grant", "Refresh token has expired"),
                EXPIRED,
            ),
            (
                400,
                error("invalid_grant", "Invalid refresh token"),
                REVOKED,
            ),
        ],
    );
    table(
        "zoom",
        &[(
            400,
            json!({"reason": "Invalid Token!", "error": "invalid_grant"}),
            REVOKED,
        )],
    );
    assert_eq!(
        failure(
            "zoom",
            400,
            r#"{"reason":"Invalid Token!","error":"invalid_grant"}"#
        )
        .description
        .as_deref(),
        Some("Invalid Token!")
    );
    table(
        "linear",
        &[(
            400,
            error("invalid_grant", "refresh token is invalid or revoked"),
            REVOKED,
        )],
    );
}

#[test]
fn okta_auth0_keycloak_invalid_grants() {
    table(
        "okta",
        &[(
            400,
            error("invalid_grant", "The refresh token is invalid or expired."),
            REVOKED,
        )],
    );
    table(
        "auth0",
        &[
            (
                403,
                error("invalid_grant", "Unknown or invalid refresh token."),
                REVOKED,
            ),
            (
                403,
                error("too_many_attempts", "Your account has been blocked"),
                limited(60),
            ),
        ],
    );
    table(
        "keycloak",
        &[
            (400, error("invalid_grant", "Token is not active"), EXPIRED),
            (400, error("invalid_grant", "Session not active"), EXPIRED),
            (400, error("invalid_grant", "Stale token"), REVOKED),
        ],
    );
}

#[test]
fn basecamp_after_a_disconnect() {
    table(
        "basecamp",
        &[
            (
                401,
                json!({"error": "Authorization has been revoked"}),
                REVOKED,
            ),
            (403, json!(""), REVOKED),
            // A wrong client is a wrong client.
            (
                401,
                json!({"error": "invalid_client"}),
                Class::Configuration,
            ),
            (
                401,
                json!({"error": "Client secret is not valid"}),
                Class::Configuration,
            ),
        ],
    );
}
