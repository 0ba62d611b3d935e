//! An API shaped like Microsoft Graph's: the user, the organization, the mailbox's messages and the inbox's delta.
//!
//! Lists are paged by `@odata.nextLink`: <https://learn.microsoft.com/graph/paging>; `$filter`, `$orderby`, `$top` (10, at most 1000) and `$select` of messages:
//! <https://learn.microsoft.com/graph/api/user-list-messages>. That a `nextLink` pages by `$skip` is what that page shows.

mod delta;
mod odata;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

pub(crate) use delta::delta;

use self::odata::{Messages, Property};
use super::ApiCaller;
use crate::clock::iso_seconds;
use crate::config::{CollectionKind, UserConfig};
use crate::data::{Collection, CollectionName, Record, words};
use crate::fixtures;
use crate::world::Site;

const UNAUTHORIZED: Refusal = (StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken");
const MAIL_SCOPES: &[&str] = &["Mail.Read", "Mail.ReadBasic", "Mail.ReadWrite", ".default"];

/// `GET /v1.0/me`.
pub(crate) async fn me(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(ApiCaller { user, .. }) = ApiCaller::of(&site, &headers) else {
        return error(UNAUTHORIZED.0, UNAUTHORIZED.1);
    };
    let (given, sur) = user.name.split_once(' ').unwrap_or((&user.name, ""));
    let fields = json!({
        "displayName": user.name,
        "givenName": given,
        "surname": sur,
        "mail": user.email,
        "userPrincipalName": user.email,
        "id": user.guid,
    });
    Json(fixtures::filled(&fixtures::GRAPH_ME, fields)).into_response()
}

/// `GET /v1.0/organization`.
pub(crate) async fn organization(State(site): State<Site>, headers: HeaderMap) -> Response {
    match ApiCaller::of(&site, &headers) {
        Some(_) => Json(&*fixtures::GRAPH_ORGANIZATION).into_response(),
        None => error(UNAUTHORIZED.0, UNAUTHORIZED.1),
    }
}

/// `GET /v1.0/me/messages`: newest first unless `$orderby` says otherwise.
pub(crate) async fn messages(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let caller = match mail_reader(&site, &headers) {
        Ok(caller) => caller,
        Err((status, code)) => return error(status, code),
    };
    let list = match Messages::parse(&query.unwrap_or_default()) {
        Ok(list) => list,
        Err(code) => return error(StatusCode::BAD_REQUEST, code),
    };
    let mut records = site.world.records();
    let collection = records.collection(&inbox(&site, &caller.user));
    let mut found: Vec<(u64, &Record)> = collection
        .live()
        .filter(|(_, record)| list.filter.admits(record))
        .collect();
    // Records are in the order of creation already, which is the order of receipt.
    if list.order.property == Property::Modified {
        found.sort_by_key(|(ordinal, record)| (record.updated_ms, *ordinal));
    }
    if list.order.descending {
        found.reverse();
    }
    let total = found.len();
    let value: Vec<Value> = found
        .into_iter()
        .skip(list.skip)
        .take(list.top)
        .map(|(ordinal, record)| {
            Value::Object(message(
                collection,
                ordinal,
                record,
                &caller.user,
                &list.select,
            ))
        })
        .collect();
    let mut body = json!({
        "@odata.context": format!("{}/v1.0/$metadata#users('{}')/messages", site.issuer(), caller.user.guid),
        "value": value,
    });
    if list.count {
        body["@odata.count"] = json!(total);
    }
    if list.skip + list.top < total {
        body["@odata.nextLink"] = json!(format!(
            "{}/v1.0/me/messages?{}",
            site.issuer(),
            list.next_query()
        ));
    }
    Json(body).into_response()
}

/// A status and an error's code.
type Refusal = (StatusCode, &'static str);

/// The caller, if it may read mail.
fn mail_reader(site: &Site, headers: &HeaderMap) -> Result<ApiCaller, Refusal> {
    let caller = ApiCaller::of(site, headers).ok_or(UNAUTHORIZED)?;
    if caller.may(MAIL_SCOPES) {
        Ok(caller)
    } else {
        Err((StatusCode::FORBIDDEN, "ErrorAccessDenied"))
    }
}

fn inbox(site: &Site, user: &UserConfig) -> CollectionName {
    CollectionName {
        provider: site.slug.to_string(),
        collection: CollectionKind::Messages,
        owner: user.key.clone(),
    }
}

/// One message; with `select`, its id and these properties only.
fn message(
    collection: &Collection,
    ordinal: u64,
    record: &Record,
    user: &UserConfig,
    select: &[String],
) -> Map<String, Value> {
    let mut dice = collection.dice(ordinal);
    let id = collection.external_id(ordinal);
    let (name, address) = dice.pick(words::PEOPLE);
    let from = json!({"emailAddress": {"name": name, "address": address}});
    let topic = dice.pick(words::TOPICS);
    let subject = format!("{topic} {}", 100 + ordinal);
    let content = format!(
        "{topic}, number {}. Please have a look and let me know.",
        100 + ordinal
    );
    let change_key = format!("CQAAABYAAAB{:08}", record.change);
    let received = iso_seconds(record.created_ms);
    let fields = json!({
        "@odata.etag": format!("W/\"{change_key}\""),
        "id": id,
        "createdDateTime": received,
        "lastModifiedDateTime": iso_seconds(record.updated_ms),
        "changeKey": change_key,
        "receivedDateTime": received,
        "sentDateTime": iso_seconds(record.created_ms - 2000),
        "hasAttachments": dice.below(5) == 0,
        "internetMessageId": format!("<{}@example.net>", &id[6..20]),
        "subject": subject,
        "bodyPreview": content,
        "conversationId": format!("AAQkAG{}", &id[6..]),
        "isRead": dice.below(3) > 0,
        "webLink": format!("https://outlook.office365.com/owa/?ItemID={id}&exvsurl=1&viewmodel=ReadMessageItem"),
        "body": {"contentType": "text", "content": content},
        "sender": from,
        "from": from,
        "toRecipients": [{"emailAddress": {"name": user.name, "address": user.email}}],
    });
    let mut message = fixtures::filled(&fixtures::GRAPH_MESSAGE, fields);
    message.extend(record.fields.clone());
    if !select.is_empty() {
        message.retain(|name, _| name == "id" || name == "@odata.etag" || select.contains(name));
    }
    message
}

/// <https://learn.microsoft.com/graph/errors>.
pub(crate) fn error(status: StatusCode, code: &'static str) -> Response {
    let message = fixtures::text(&fixtures::GRAPH_ERROR, code);
    let body = json!({"error": {"code": code, "message": message, "innerError": {"request-id": "00000000-0000-0000-0000-000000000000"}}});
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"\", error=\"invalid_token\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
