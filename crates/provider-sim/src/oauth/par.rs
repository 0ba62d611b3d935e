//! `POST /oauth/par` (RFC 9126).

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::client_auth::authenticate;
use super::error::OAuthError;
use super::parameters::Parameters;
use crate::random;
use crate::world::Site;

const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";
const LIFETIME_SECONDS: i64 = 90;

/// Requests that wait for their browser.
#[derive(Debug, Default)]
pub(crate) struct Pushed(HashMap<String, PushedRequest>);

#[derive(Debug)]
struct PushedRequest {
    provider: String,
    client_id: String,
    parameters: Parameters,
    expires_ms: i64,
}

impl Pushed {
    /// The request behind a reference, once.
    pub(super) fn take(
        &mut self,
        site: &Site,
        request_uri: &str,
        client_id: Option<&str>,
    ) -> Option<Parameters> {
        let fits = |pushed: &PushedRequest| {
            pushed.provider == *site.slug
                && Some(pushed.client_id.as_str()) == client_id
                && site.world.clock.now_ms() < pushed.expires_ms
        };
        if !self.0.get(request_uri).is_some_and(fits) {
            return None;
        }
        self.0.remove(request_uri).map(|pushed| pushed.parameters)
    }
}

pub(crate) async fn push(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let shape = site.provider().token_shape;
    match keep(&site, &headers, &body) {
        Ok(request_uri) => {
            let answer = json!({"request_uri": request_uri, "expires_in": LIFETIME_SECONDS});
            (StatusCode::CREATED, Json(answer)).into_response()
        }
        Err(error) => error.into_response(shape),
    }
}

fn keep(site: &Site, headers: &HeaderMap, body: &[u8]) -> Result<String, OAuthError> {
    let provider = site.provider();
    let form = Parameters::form(headers, body)?;
    let client = authenticate(site, &provider, headers, &form)?;
    // Section 2.1.
    if form.get("request_uri").is_some() {
        return Err(OAuthError::invalid_request(
            "request_uri must not be pushed.",
        ));
    }
    if form.require("client_id")? != client.client_id {
        return Err(OAuthError::invalid_request("client_id is another client."));
    }
    let request_uri = random::token(PREFIX);
    let pushed = PushedRequest {
        provider: provider.slug.clone(),
        client_id: client.client_id.clone(),
        parameters: form.without_client_authentication(),
        expires_ms: site.world.clock.now_ms() + LIFETIME_SECONDS * 1000,
    };
    site.world.pushed().0.insert(request_uri.clone(), pushed);
    Ok(request_uri)
}
