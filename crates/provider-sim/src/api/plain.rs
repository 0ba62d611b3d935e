//! `GET /me` of a provider without a shape of its own, and OpenID Connect's `/userinfo`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::ApiCaller;
use crate::world::Site;

/// Who the token belongs to.
pub(crate) async fn me(State(site): State<Site>, headers: HeaderMap) -> Response {
    match ApiCaller::of(&site, &headers) {
        Some(ApiCaller { user, .. }) => Json(json!({
            "id": user.id,
            "login": user.email,
            "email": user.email,
            "name": user.name,
        }))
        .into_response(),
        None => unauthorized(&headers),
    }
}

/// Claims about the user, by scope (OpenID Connect Core, sections 5.3 and 5.4).
pub(crate) async fn userinfo(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(caller) = ApiCaller::of(&site, &headers) else {
        return unauthorized(&headers);
    };
    if !caller.may(&["openid"]) {
        let challenge =
            HeaderValue::from_static("Bearer error=\"insufficient_scope\", scope=\"openid\"");
        return (
            StatusCode::FORBIDDEN,
            [(header::WWW_AUTHENTICATE, challenge)],
        )
            .into_response();
    }
    let mut claims = json!({"sub": caller.user.id.to_string()});
    if caller.may(&["email"]) {
        claims["email"] = json!(caller.user.email);
        claims["email_verified"] = json!(true);
    }
    if caller.may(&["profile"]) {
        claims["name"] = json!(caller.user.name);
    }
    Json(claims).into_response()
}

/// RFC 6750, section 3: no error code for a request that brought no token.
fn unauthorized(headers: &HeaderMap) -> Response {
    let challenge = if headers.contains_key(header::AUTHORIZATION) {
        HeaderValue::from_static(
            "Bearer error=\"invalid_token\", error_description=\"The access token is not valid\"",
        )
    } else {
        HeaderValue::from_static("Bearer")
    };
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, challenge)],
        Json(json!({"error": "invalid_token"})),
    )
        .into_response()
}
