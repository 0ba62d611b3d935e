//! `/device`: where a person types in the code that another device shows (RFC 8628, section 3.3).

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse, Response};
use http::{StatusCode, header};
use url::form_urlencoded;

use super::consent_page;
use crate::world::Site;

/// `GET`: the form.
pub(crate) async fn show(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let code = field(query.unwrap_or_default().as_bytes(), "user_code").unwrap_or_default();
    let provider = site.provider();
    page(consent_page::device(&provider, &site.world.users, &code))
}

/// `POST`: what the person says.
pub(crate) async fn decide(State(site): State<Site>, body: Bytes) -> Response {
    let user = field(&body, "user").filter(|user| site.world.user(user).is_some());
    let allows = field(&body, "decision").as_deref() == Some("allow");
    let code = field(&body, "user_code").unwrap_or_default();
    let user = user.filter(|_| allows);
    let is_known = (user.is_some() || !allows)
        && site
            .world
            .devices()
            .decide(&site.slug, code.trim(), user.as_deref());
    if is_known {
        page(consent_page::device_done())
    } else {
        let refusal = consent_page::refusal("There is no such code, or nobody was chosen.");
        let mut response = page(refusal);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    }
}

fn page(html: String) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, consent_page::POLICY),
    ];
    (headers, Html(html)).into_response()
}

fn field(encoded: &[u8], wanted: &str) -> Option<String> {
    form_urlencoded::parse(encoded)
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}
