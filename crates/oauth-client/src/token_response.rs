//! The tokens in an answer.

use common::Secret;
use provider_catalog::{TokenResponse, ZeroLifetime};
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
    /// Further tokens of the same answer, by name.
    pub others: Vec<NamedToken>,
    /// The rest of the answer, without anything secret.
    pub raw: Map<String, Value>,
}

/// A token beside the main one: the user's, beside that of Slack's bot.
#[derive(Clone, Debug)]
pub struct NamedToken {
    /// Its name in the catalogue.
    pub name: String,
    /// The access token.
    pub access_token: Secret<String>,
    /// What renews it.
    pub refresh_token: Option<Secret<String>>,
    /// When it ends; `None` where nobody knows, or never.
    pub expires_at: Option<OffsetDateTime>,
    /// What was granted to it.
    pub scopes: Option<Vec<String>>,
}

impl TokenSet {
    /// Whether the body is a success: a token, no error beside it, and what the provider's success looks like.
    pub(crate) fn is_in(body: &Map<String, Value>, dialect: &Dialect) -> bool {
        let failed = match body.get("error") {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(_) | Value::Bool(true)) => true,
            _ => body.get("ok") == Some(&Value::Bool(false)),
        };
        let document = Value::Object(body.clone());
        let response = &dialect.token_response;
        !failed
            && response
                .success
                .as_ref()
                .is_none_or(|success| success.holds(&document))
            && main(&document, response).is_some()
    }

    /// `None` where the token is of a type that cannot be used.
    pub(crate) fn read(
        body: &Map<String, Value>,
        sent_at: OffsetDateTime,
        dialect: &Dialect,
    ) -> Option<Self> {
        let document = Value::Object(body.clone());
        let response = &dialect.token_response;
        let own = main(&document, response)?;
        let access_token = text(own, &response.access_token)?;
        let refresh_token = text(own, "refresh_token");
        let id_token = text(own, "id_token").or_else(|| text(body, "id_token"));
        let others = others(&document, sent_at, dialect);
        let mut known: Vec<_> = [Some(access_token), refresh_token, id_token]
            .into_iter()
            .flatten()
            .collect();
        for other in &others {
            known.push(other.access_token.expose());
            known.extend(
                other
                    .refresh_token
                    .as_ref()
                    .map(|token| token.expose().as_str()),
            );
        }
        let scope = own.get("scope").or_else(|| body.get("scope"));
        Some(Self {
            token_type: token_type(own, response)?,
            expires_at: expires_at(own, sent_at, dialect),
            refresh_token_expires_at: response
                .refresh_token_expires_in
                .iter()
                .find_map(|name| sent_at.checked_add(Duration::seconds(positive(own.get(name)?)?))),
            scopes: scope.and_then(|scope| scopes(scope, &dialect.scope_separator)),
            scope_raw: scope.and_then(scope_raw),
            raw: json::without_secrets(body.clone(), &known),
            access_token: Secret::from(access_token),
            refresh_token: refresh_token.map(Secret::from),
            id_token: id_token.map(Secret::from),
            others,
        })
    }
}

/// The object that holds the main token.
fn main<'a>(document: &'a Value, response: &TokenResponse) -> Option<&'a Map<String, Value>> {
    response
        .main
        .iter()
        .filter_map(|place| place.find(document)?.as_object())
        .find(|object| text(object, &response.access_token).is_some())
}

fn others(document: &Value, sent_at: OffsetDateTime, dialect: &Dialect) -> Vec<NamedToken> {
    let response = &dialect.token_response;
    let named = response.others.iter().filter_map(|(name, place)| {
        let object = place.find(document)?.as_object()?;
        Some(NamedToken {
            name: name.clone(),
            access_token: Secret::from(text(object, &response.access_token)?),
            refresh_token: text(object, "refresh_token").map(Secret::from),
            expires_at: expires_at(object, sent_at, dialect),
            scopes: object
                .get("scope")
                .and_then(|scope| scopes(scope, &dialect.scope_separator)),
        })
    });
    named.collect()
}

/// A member that is a non-empty string.
fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Bearer in any case, or nothing, or the provider's own word for it.
fn token_type(body: &Map<String, Value>, response: &TokenResponse) -> Option<String> {
    let Some(kind) = text(body, "token_type") else {
        return Some("Bearer".to_owned());
    };
    let is_bearer = kind.eq_ignore_ascii_case("bearer")
        || response
            .bearer_types
            .iter()
            .any(|word| kind.eq_ignore_ascii_case(word));
    is_bearer.then(|| "Bearer".to_owned())
}

fn expires_at(
    body: &Map<String, Value>,
    sent_at: OffsetDateTime,
    dialect: &Dialect,
) -> Option<OffsetDateTime> {
    let after = |seconds: i64| sent_at.checked_add(Duration::seconds(seconds));
    match body.get("expires_in").and_then(number) {
        Some(seconds) if seconds > 0 => return after(seconds),
        Some(0) if dialect.token_response.zero_lifetime == ZeroLifetime::Never => return None,
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
