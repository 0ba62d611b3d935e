//! The tokens in an answer.

use common::Secret;
use serde_json::{Map, Value};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use crate::dialect::Dialect;
use crate::json;

/// Seconds since 1970 above this are milliseconds: it is the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// What the token endpoint gave.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// The access token.
    pub access_token: Secret<String>,
    /// A new refresh token; `None` keeps the old one (RFC 6749, 6).
    pub refresh_token: Option<Secret<String>>,
    /// As it goes before the token in a header: "Bearer".
    pub token_type: String,
    /// When the access token ends; `None` where nobody knows, or never.
    pub expires_at: Option<OffsetDateTime>,
    /// When the refresh token ends, where the answer tells.
    pub refresh_token_expires_at: Option<OffsetDateTime>,
    /// What was granted; `None` means what was asked for (RFC 6749, 5.1).
    pub scopes: Option<Vec<String>>,
    /// The scopes as the provider wrote them.
    pub scope_raw: Option<String>,
    /// Who signed in; not yet verified.
    pub id_token: Option<Secret<String>>,
    /// The rest of the answer, without anything secret.
    pub raw: Map<String, Value>,
}

impl TokenSet {
    /// Whether the body is a success: a token, and no error beside it.
    pub(crate) fn is_in(body: &Map<String, Value>) -> bool {
        let failed = matches!(body.get("error"), Some(Value::String(text)) if !text.is_empty())
            || matches!(body.get("error"), Some(Value::Object(_)))
            || body.get("ok") == Some(&Value::Bool(false));
        !failed && text(body, "access_token").is_some()
    }

    /// `None` where the token is of a type that cannot be used.
    pub(crate) fn read(
        body: &Map<String, Value>,
        sent_at: OffsetDateTime,
        dialect: &Dialect,
    ) -> Option<Self> {
        let access_token = text(body, "access_token")?;
        let refresh_token = text(body, "refresh_token");
        let id_token = text(body, "id_token");
        let known: Vec<_> = [Some(access_token), refresh_token, id_token]
            .into_iter()
            .flatten()
            .collect();
        let refresh_lifetimes = [
            "refresh_token_expires_in",
            "x_refresh_token_expires_in",
            "refresh_expires_in",
        ];
        Some(Self {
            token_type: token_type(body)?,
            expires_at: expires_at(body, sent_at, dialect),
            refresh_token_expires_at: refresh_lifetimes.iter().find_map(|name| {
                sent_at.checked_add(Duration::seconds(positive(body.get(*name)?)?))
            }),
            scopes: body
                .get("scope")
                .and_then(|scope| scopes(scope, &dialect.scope_separator)),
            scope_raw: body.get("scope").and_then(scope_raw),
            raw: json::without_secrets(body.clone(), &known),
            access_token: Secret::from(access_token),
            refresh_token: refresh_token.map(Secret::from),
            id_token: id_token.map(Secret::from),
        })
    }
}

/// A member that is a non-empty string.
fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Bearer in any case, or nothing; Slack calls its bearer tokens "bot" and "user".
fn token_type(body: &Map<String, Value>) -> Option<String> {
    match text(body, "token_type")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("bearer" | "bot" | "user") => Some("Bearer".to_owned()),
        Some(_) => None,
    }
}

fn expires_at(
    body: &Map<String, Value>,
    sent_at: OffsetDateTime,
    dialect: &Dialect,
) -> Option<OffsetDateTime> {
    let after = |seconds: i64| sent_at.checked_add(Duration::seconds(seconds));
    match body.get("expires_in").and_then(number) {
        Some(seconds) if seconds > 0 => return after(seconds),
        // Never, says Mailchimp.
        Some(0) => return None,
        // Nonsense, which is as good as nothing.
        _ => {}
    }
    if let Some(at) = body.get("expires_at").and_then(moment) {
        return Some(at);
    }
    let lifetime = dialect.access_token_lifetime?;
    after(i64::try_from(lifetime.as_secs()).ok()?)
}

/// A whole number, as a number or as text.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|float| float as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn positive(value: &Value) -> Option<i64> {
    number(value).filter(|number| *number > 0)
}

/// A point in time: seconds or milliseconds since 1970, or ISO 8601, in UTC where it names no zone.
fn moment(value: &Value) -> Option<OffsetDateTime> {
    if let Some(number) = number(value) {
        let seconds = if number >= MILLISECONDS_FROM {
            number / 1000
        } else {
            number
        };
        return (seconds > 0).then(|| OffsetDateTime::from_unix_timestamp(seconds).ok())?;
    }
    let text = value.as_str()?.trim();
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, &Iso8601::DEFAULT))
        .or_else(|_| {
            PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc)
        })
        .ok()
}

/// A list, or text: divided by the provider's separator, by blanks, or, where there are none of these, by commas.
fn scopes(scope: &Value, separator: &str) -> Option<Vec<String>> {
    let split = |text: &str| -> Vec<String> {
        let by_blank = text.contains(char::is_whitespace) && separator.trim().is_empty();
        let divides = |c: char| {
            c.is_whitespace()
                || (!by_blank && c == ',')
                || (!separator.is_empty() && separator.contains(c))
        };
        text.split(divides)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    match scope {
        Value::String(text) => Some(split(text)),
        Value::Array(items) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        ),
        _ => None,
    }
}

fn scope_raw(scope: &Value) -> Option<String> {
    match scope {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) => Some(scope.to_string()),
        _ => None,
    }
}
