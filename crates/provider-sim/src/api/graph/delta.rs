//! `GET /v1.0/me/mailFolders/{folder}/messages/delta`: what has changed since a token
//! (<https://learn.microsoft.com/graph/delta-query-messages>).
//!
//! A round without a token lists everything; each later one lists what was changed or removed since, by `@odata.nextLink` page by page, and ends with an
//! `@odata.deltaLink`. `Prefer: odata.maxpagesize` sets the page size; 50 without it is assumed. A token that is too old is answered with 410 and
//! `syncStateNotFound` (<https://learn.microsoft.com/graph/delta-query-overview>).

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::odata::Filter;
use super::{error, inbox, mail_reader, message};
use crate::config::UserConfig;
use crate::data::{Collection, Record};
use crate::fixtures;
use crate::world::Site;

const DEFAULT_PAGE: usize = 50;

/// Where a client stands: opaque to it, and all there is to it, as the options of the first request are carried along.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    epoch: u64,
    /// Changes up to this one are known already; nothing is, in a first round.
    since: Option<u64>,
    /// Changes up to this one belong to the round.
    up_to: u64,
    /// How far the round has come: an ordinal in a first round, a change's number in later ones.
    at: u64,
    filter: Option<String>,
    select: Vec<String>,
    change: Option<ChangeType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChangeType {
    Created,
    Updated,
    Deleted,
}

/// One page of a round.
pub(crate) async fn delta(
    State(site): State<Site>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let caller = match mail_reader(&site, &headers) {
        Ok(caller) => caller,
        Err((status, code)) => return error(status, code),
    };
    if !folder.eq_ignore_ascii_case("inbox") {
        return error(StatusCode::BAD_REQUEST, "BadRequest");
    }
    let mut records = site.world.records();
    let epoch = records.delta_epoch();
    let collection = records.collection(&inbox(&site, &caller.user));
    let token = match Token::parse(&query.unwrap_or_default(), epoch, collection.last_change()) {
        Ok(token) if token.epoch == epoch => token,
        Ok(_) => return error(StatusCode::GONE, "syncStateNotFound"),
        Err(code) => return error(StatusCode::BAD_REQUEST, code),
    };
    let filter = match token.filter.as_deref().map(Filter::parse).transpose() {
        Ok(filter) => filter.unwrap_or_default(),
        Err(code) => return error(StatusCode::BAD_REQUEST, code),
    };
    let limit = page_size(&headers);
    let base = format!(
        "{}/v1.0/me/mailFolders/{folder}/messages/delta",
        site.issuer()
    );
    let (value, next) = token.page(collection, &filter, &caller.user, limit);
    let mut body = json!({
        "@odata.context": format!("{}/v1.0/$metadata#Collection(message)", site.issuer()),
        "value": value,
    });
    match next {
        Some(next) => {
            body["@odata.nextLink"] = json!(format!("{base}?$skiptoken={}", next.encode()));
        }
        None => {
            body["@odata.deltaLink"] =
                json!(format!("{base}?$deltatoken={}", token.done().encode()));
        }
    }
    let mut response = Json(body).into_response();
    if headers.contains_key("prefer") {
        let applied = format!("odata.maxpagesize={limit}");
        response.headers_mut().insert(
            "preference-applied",
            HeaderValue::try_from(applied).expect("ASCII"),
        );
    }
    response
}

fn page_size(headers: &HeaderMap) -> usize {
    let preferences = headers
        .get_all("prefer")
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.trim().strip_prefix("odata.maxpagesize="))
        .find_map(|size| size.parse().ok())
        .unwrap_or(DEFAULT_PAGE)
        .clamp(1, 1000)
}

impl Token {
    /// A client's token, or the beginning of a first round.
    fn parse(query: &str, epoch: u64, last_change: u64) -> Result<Self, &'static str> {
        let mut token = Self {
            epoch,
            since: None,
            up_to: last_change,
            at: 0,
            filter: None,
            select: Vec::new(),
            change: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "$skiptoken" => return Self::decode(&value).ok_or("BadRequest"),
                "$deltatoken" => {
                    let mut token = Self::decode(&value).ok_or("BadRequest")?;
                    token.up_to = last_change;
                    return Ok(token);
                }
                "$filter" if Filter::parse(&value)?.fits_delta() => {
                    token.filter = Some(value.into_owned());
                }
                "$select" => {
                    token.select = value
                        .split(',')
                        .map(|name| name.trim().to_owned())
                        .collect();
                }
                "changeType" => {
                    token.change = Some(match &*value {
                        "created" => ChangeType::Created,
                        "updated" => ChangeType::Updated,
                        "deleted" => ChangeType::Deleted,
                        _ => return Err("BadRequest"),
                    });
                }
                "$orderby" if value == "receivedDateTime desc" => {}
                name if name.starts_with('$') && name != "$top" => return Err("BadRequest"),
                _ => {}
            }
        }
        Ok(token)
    }

    /// A page's entries, and the token of the next page if there is one.
    fn page(
        &self,
        collection: &Collection,
        filter: &Filter,
        user: &UserConfig,
        size: usize,
    ) -> (Vec<Value>, Option<Self>) {
        let entries: Vec<(u64, u64, &Record)> = match self.since {
            // Newest first. Whatever is changed while the round runs comes once more in the next one.
            None => collection
                .live()
                .rev()
                .filter(|(ordinal, _)| self.at == 0 || *ordinal < self.at - 1)
                .filter(|(_, record)| filter.admits(record))
                .map(|(ordinal, record)| (ordinal + 1, ordinal, record))
                .take(size + 1)
                .collect(),
            Some(since) => collection
                .changed_between(since.max(self.at), self.up_to)
                .into_iter()
                .filter(|(_, record)| filter.admits(record) && self.wants(record))
                .map(|(ordinal, record)| (record.change, ordinal, record))
                .take(size + 1)
                .collect(),
        };
        let next = (entries.len() > size).then(|| Self {
            at: entries[size - 1].0,
            ..self.clone()
        });
        let value = entries
            .into_iter()
            .take(size)
            .map(|(_, ordinal, record)| {
                let entry = if record.deleted {
                    fixtures::filled(
                        &fixtures::GRAPH_DELTA_REMOVED,
                        json!({"id": collection.external_id(ordinal)}),
                    )
                } else {
                    message(collection, ordinal, record, user, &self.select)
                };
                Value::Object(entry)
            })
            .collect();
        (value, next)
    }

    fn wants(&self, record: &Record) -> bool {
        let is = if record.deleted {
            ChangeType::Deleted
        } else if record.updated_ms == record.created_ms {
            ChangeType::Created
        } else {
            ChangeType::Updated
        };
        self.change.is_none_or(|wanted| wanted == is)
    }

    /// Where the round ends and the next one begins.
    fn done(&self) -> Self {
        Self {
            since: Some(self.up_to),
            at: 0,
            ..self.clone()
        }
    }

    fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("numbers and strings can be written");
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}
