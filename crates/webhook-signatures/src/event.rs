//! What a request says of itself, once it is known to be the provider's.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, header::CONTENT_TYPE};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::form_urlencoded;

use crate::{
    Refused, RequestParts, Scheme, SchemeOptions,
    json::{self, Path, Unreadable},
    scheme::{Handshake, Source},
};

/// Providers' ids are short; this also bounds what a dedup key can hold.
const MAX_EVENT_ID: usize = 255;

/// A genuine request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The provider's own id of the event, the same when it is sent again. Without one repeats cannot be told.
    pub external_event_id: Option<String>,
    /// The provider's name for what happened.
    pub event_type: Option<String>,
    /// Whom the event is about, each once. A request that bears several events can name many.
    pub routing_keys: Vec<RoutingKey>,
    /// When it happened, or was signed, by the provider's clock.
    pub occurred_at: Option<OffsetDateTime>,
    /// It only says that the webhook was set up: to be answered, and to lead to nothing.
    pub is_ping: bool,
    /// Why the body could not be asked, if that is so. The event is genuine all the same.
    pub unread: Option<Unread>,
}

/// What a connection may be found by: `account` → `123`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingKey {
    /// Which kind of key.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not JSON.
    NotJson,
    /// It is nested deeper than 32 levels.
    TooDeep,
}

impl Unread {
    /// A stable name, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
        }
    }
}

/// What the verifier took from the signed content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signed {
    pub(crate) id: Option<String>,
    pub(crate) timestamp: Option<OffsetDateTime>,
}

/// Reads what the scheme and the source's options ask for.
pub(crate) fn read(
    scheme: &Scheme,
    options: &SchemeOptions,
    signed: Signed,
    request: &RequestParts<'_>,
) -> Result<Verified, Refused> {
    let event_type = if options.event_type.is_empty() {
        &scheme.event_type
    } else {
        &options.event_type
    };
    let mut routing: BTreeMap<&str, &[Source]> = BTreeMap::new();
    for (name, sources) in scheme.routing_keys.iter().chain(&options.routing_keys) {
        routing.insert(name, sources);
    }

    let wanted = [&scheme.event_id, event_type, &scheme.occurred_at].map(Vec::as_slice);
    let wanted: Vec<&Source> = wanted
        .into_iter()
        .chain(routing.values().copied())
        .flatten()
        .collect();
    let (values, unread) = Values::read(&wanted, signed.id, scheme.form_field.as_deref(), request);

    let external_event_id = values
        .first(&scheme.event_id)?
        .filter(|id| id.len() <= MAX_EVENT_ID);
    let event_type = values.first(event_type)?;
    let occurred_at = values
        .first(&scheme.occurred_at)?
        .and_then(|text| instant(&text))
        .or(signed.timestamp);
    let mut routing_keys = Vec::new();
    for (name, sources) in routing {
        for value in values.all(sources)? {
            routing_keys.push(RoutingKey {
                name: name.to_owned(),
                value,
            });
        }
    }
    routing_keys.sort_unstable();
    routing_keys.dedup();

    let is_ping = match &scheme.handshake {
        Handshake::None => false,
        Handshake::Ping { event_type: ping } => event_type.as_ref() == Some(ping),
    };
    Ok(Verified {
        external_event_id,
        event_type,
        routing_keys,
        occurred_at,
        is_ping,
        unread,
    })
}

/// The header's text. Twice the same header is refused, also where it is not signed: which one would others read?
pub(crate) fn header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refused::DoubledHeader {
            header: name.clone(),
        });
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Refused::MalformedHeader {
            header: name.clone(),
        }),
    }
}

/// Every value that any source names.
struct Values<'a> {
    id: Option<String>,
    headers: &'a HeaderMap,
    json: Vec<(&'a Path, Vec<String>)>,
}

impl<'a> Values<'a> {
    fn read(
        wanted: &[&'a Source],
        id: Option<String>,
        form_field: Option<&str>,
        request: &RequestParts<'a>,
    ) -> (Self, Option<Unread>) {
        let mut paths: Vec<&Path> = Vec::new();
        for source in wanted {
            if let Source::Json(path) = source {
                paths.push(path);
            }
        }
        let found = if paths.is_empty() {
            Ok(Vec::new())
        } else {
            read_body(form_field, request, &paths)
        };
        let (found, unread) = match found {
            Ok(found) => (found, None),
            Err(Unreadable::NotJson) => (Vec::new(), Some(Unread::NotJson)),
            Err(Unreadable::TooDeep) => (Vec::new(), Some(Unread::TooDeep)),
        };
        (
            Self {
                id,
                headers: request.headers,
                json: paths.into_iter().zip(found).collect(),
            },
            unread,
        )
    }

    /// All values of the first source that has any.
    fn all(&self, sources: &[Source]) -> Result<Vec<String>, Refused> {
        for source in sources {
            let values = match source {
                Source::Id => self.id.iter().cloned().collect(),
                Source::Header(name) => header(self.headers, name)?
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
                    .into_iter()
                    .collect(),
                Source::Json(path) => self
                    .json
                    .iter()
                    .find(|(other, _)| *other == path)
                    .map(|(_, found)| found.clone())
                    .unwrap_or_default(),
            };
            if !values.is_empty() {
                return Ok(values);
            }
        }
        Ok(Vec::new())
    }

    fn first(&self, sources: &[Source]) -> Result<Option<String>, Refused> {
        Ok(self.all(sources)?.into_iter().next())
    }
}

fn read_body(
    form_field: Option<&str>,
    request: &RequestParts<'_>,
    paths: &[&Path],
) -> Result<Vec<Vec<String>>, Unreadable> {
    let Some(field) = form_field.filter(|_| is_form(request.headers)) else {
        return json::find(request.body, paths);
    };
    let (_, json) = form_urlencoded::parse(request.body)
        .find(|(name, _)| name == field)
        .ok_or(Unreadable::NotJson)?;
    json::find(json.as_bytes(), paths)
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// RFC 3339, or digits: seconds since the epoch, milliseconds where there are more than eleven.
fn instant(text: &str) -> Option<OffsetDateTime> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return OffsetDateTime::parse(text, &Rfc3339).ok();
    }
    let number: i64 = text.parse().ok()?;
    if text.len() > 11 {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(number) * 1_000_000).ok()
    } else {
        OffsetDateTime::from_unix_timestamp(number).ok()
    }
}
