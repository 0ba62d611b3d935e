//! From an answer without a token to a [`Failure`].

use std::time::Duration;

use common::Secret;
use egress::{Delivery, EgressError, HeaderMap, Refusal, StatusCode};
use provider_catalog::{Errors, ReauthorizationCause as Cause, TokenErrorClass, TokenErrorRule};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
use crate::text;

/// Waited where a provider limits us and does not say for how long.
const DEFAULT_WAIT: Duration = Duration::from_mins(1);
/// No provider makes us wait longer than this at a time.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An answer that is not a success.
pub(crate) struct Refused<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// The body, where it could be read.
    pub(crate) body: Option<&'a Map<String, Value>>,
    /// What was sent and must not come back in a log.
    pub(crate) secrets: &'a [Secret<String>],
    /// Whether what was sent can be used once only.
    pub(crate) single_use: bool,
    pub(crate) now: OffsetDateTime,
}

/// The network's failures.
pub(crate) fn undelivered(error: EgressError) -> Failure {
    let class = match (&error, error.delivery()) {
        (EgressError::Refused(Refusal::Origin), _) => Class::Transient,
        (EgressError::Refused(_), _) => Class::Configuration,
        (_, Delivery::NotSent) => Class::Transient,
        (_, Delivery::Ambiguous) => Class::Ambiguous,
        (_, Delivery::Answered) => Class::ProviderBug,
    };
    Failure {
        status: error.status().map(|status| status.as_u16()),
        source: Some(Box::new(error)),
        ..Failure::new(class)
    }
}

/// The provider's refusals.
pub(crate) fn refused(refused: &Refused<'_>, dialect: &Dialect) -> Failure {
    let body = refused.body.map(|body| Value::Object(body.clone()));
    let code = body
        .as_ref()
        .and_then(|body| find_code(body, &dialect.errors, refused.secrets));
    let description = body
        .as_ref()
        .and_then(|body| find_description(body, &dialect.errors));
    let retry_after =
        egress::retry_after(refused.headers, refused.now).map(|wait| wait.min(LONGEST_WAIT));
    let until = refused.now + retry_after.unwrap_or(DEFAULT_WAIT);

    let said = Said {
        status: refused.status,
        code: code.as_deref(),
        description: description.map(str::to_lowercase).unwrap_or_default(),
        body: body.as_ref(),
    };
    let rule = dialect.errors.rules.iter().find(|rule| said.fits(rule));
    let class = match rule {
        Some(rule) => match rule.means {
            TokenErrorClass::Transient => Class::Transient,
            TokenErrorClass::RateLimited => Class::RateLimited {
                until: refused.now + retry_after.or(rule.wait).unwrap_or(DEFAULT_WAIT),
            },
            TokenErrorClass::Reauthorization => {
                Class::Reauthorization(rule.cause.unwrap_or(Cause::Revoked))
            }
            TokenErrorClass::Configuration => Class::Configuration,
            TokenErrorClass::ProviderBug => Class::ProviderBug,
        },
        None => class_of(refused, code.as_deref(), &said.description, until),
    };
    Failure {
        class,
        status: Some(refused.status.as_u16()),
        description: description.and_then(|text| text::description(text, refused.secrets)),
        code,
        retry_after,
        source: None,
    }
}

/// What an answer says of itself.
struct Said<'a> {
    status: StatusCode,
    code: Option<&'a str>,
    /// In lower case.
    description: String,
    body: Option<&'a Value>,
}

impl Said<'_> {
    /// The status and the code come first, then what refines the code, then the text.
    fn fits(&self, rule: &TokenErrorRule) -> bool {
        let has_status = if rule.status.is_empty() {
            // A server that breaks down says nothing about the grant, but that it has broken down.
            !self.status.is_server_error()
                || matches!(
                    rule.means,
                    TokenErrorClass::Transient | TokenErrorClass::RateLimited
                )
        } else {
            rule.status.contains(&self.status.as_u16())
        };
        let has_code = || {
            let is_same = |error: &String| {
                self.code
                    .is_some_and(|code| code.eq_ignore_ascii_case(error))
            };
            rule.error.is_empty() || rule.error.iter().any(is_same)
        };
        let is_refined = || rule.at.is_none() || self.body.is_some_and(|body| rule.refines(body));
        let has_text = || {
            rule.description_contains
                .as_deref()
                .is_none_or(|part| self.description.contains(part))
        };
        has_status && has_code() && is_refined() && has_text()
    }
}

/// The base map. A server that breaks down (5xx) says nothing about the grant, whatever it writes; else the code counts
/// more than the status, since providers send the same code with 400, 401, 403 and 200.
fn class_of(
    refused: &Refused<'_>,
    code: Option<&str>,
    description: &str,
    until: OffsetDateTime,
) -> Class {
    let status = refused.status.as_u16();
    let known = code.and_then(|code| class_of_code(&code.to_ascii_lowercase(), description, until));
    if refused.status.is_server_error() {
        return match known {
            Some(class @ (Class::Transient | Class::RateLimited { .. })) => class,
            // 501 and 503 are said before anything is done. After the others a rotating token may have been used up.
            _ if refused.single_use && !matches!(status, 501 | 503) => Class::Ambiguous,
            _ => Class::Transient,
        };
    }
    if let Some(class) = known {
        return class;
    }
    match status {
        429 => Class::RateLimited { until },
        408 | 425 => Class::Transient,
        // A moved or missing endpoint, or a client that is not let in.
        300..=399 | 401 | 404 | 405 | 410 => Class::Configuration,
        _ => Class::ProviderBug,
    }
}

fn class_of_code(code: &str, description: &str, until: OffsetDateTime) -> Option<Class> {
    Some(match code {
        "invalid_grant"
        | "bad_refresh_token"
        | "invalid_refresh_token"
        | "token_revoked"
        | "token_expired"
        | "invalid_code" => Class::Reauthorization(cause_of(code, description)),
        "account_inactive" | "user_disabled" | "inactive_user" => {
            Class::Reauthorization(Cause::AccountDisabled)
        }
        "interaction_required" | "login_required" | "account_selection_required" => {
            Class::Reauthorization(Cause::InteractionRequired)
        }
        "consent_required" | "admin_policy_enforced" | "org_internal" => {
            Class::Reauthorization(Cause::AdminAction)
        }
        "invalid_client"
        | "invalid_client_id"
        | "deleted_client"
        | "bad_client_id"
        | "bad_client_secret"
        | "incorrect_client_credentials"
        | "unauthorized_client"
        | "unsupported_grant_type"
        | "unsupported_response_type"
        | "invalid_scope"
        | "invalid_request"
        | "invalid_target"
        | "access_denied"
        | "redirect_uri_mismatch"
        | "unsupported_token_type" => Class::Configuration,
        "temporarily_unavailable"
        | "server_error"
        | "internal_failure"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "authorization_pending" => Class::Transient,
        "slow_down"
        | "ratelimited"
        | "rate_limited"
        | "rate_limit_exceeded"
        | "too_many_requests"
        | "too_many_attempts" => Class::RateLimited { until },
        _ => return None,
    })
}

/// Never more than a hint: what ends the grant is the code.
fn cause_of(code: &str, description: &str) -> Cause {
    let says = |part: &str| description.contains(part);
    if says("inactive user")
        || says("user is disabled")
        || says("user disabled")
        || says("account is disabled")
    {
        return Cause::AccountDisabled;
    }
    if code == "token_expired" || (says("expired") && !says("revoked") && !says("invalid")) {
        return Cause::Expired;
    }
    Cause::Revoked
}

/// The error code, wherever it stands: the provider's own places first, then the standard's, then those that are common.
fn find_code(body: &Value, errors: &Errors, secrets: &[Secret<String>]) -> Option<String> {
    let own = errors
        .code
        .iter()
        .filter_map(|place| place.text(body))
        .find_map(|code| text::code(&code, secrets));
    let inner = ["type", "code", "status", "error"]
        .iter()
        .map(|name| body.get("error").and_then(|error| error.get(*name)));
    let outer = ["errorCode", "error_code", "code", "status"]
        .iter()
        .map(|name| body.get(*name));
    let mut usual = std::iter::once(body.get("error"))
        .chain(inner)
        .chain(outer)
        .flatten();
    own.or_else(|| usual.find_map(|value| text::code(value.as_str()?, secrets)))
}

fn find_description<'a>(body: &'a Value, errors: &Errors) -> Option<&'a str> {
    let own = errors
        .description
        .iter()
        .filter_map(|place| place.find(body));
    let outer = [
        "error_description",
        "errorMessage",
        "errorSummary",
        "message",
    ]
    .iter()
    .filter_map(|name| body.get(*name));
    let inner = body.get("error").and_then(|error| error.get("message"));
    own.chain(outer).chain(inner).find_map(Value::as_str)
}
