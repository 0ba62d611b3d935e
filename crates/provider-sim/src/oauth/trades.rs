//! Tokens for other things than codes and refresh tokens: assertions, access tokens, a GitHub App's key.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::assertion;
use super::client_auth::authenticate;
use super::error::OAuthError;
use super::grants::{GrantError, Issued};
use super::parameters::Parameters;
use super::token::{kept, requested_scope, response, scopes_of};
use crate::clock::iso_seconds;
use crate::config::ProviderConfig;
use crate::observe::{Outcome, bearer_token};
use crate::world::Site;

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Meta's name, which is the parameter's as well
/// (<https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived>).
pub(super) const FB_EXCHANGE: &str = "fb_exchange_token";

/// RFC 7523, section 2.1: the assertion authenticates the client. Without a subject, the client acts as its service user.
pub(super) fn jwt_bearer(
    site: &Site,
    provider: &ProviderConfig,
    form: &Parameters,
    now: i64,
) -> Result<Issued, OAuthError> {
    let invalid = |description: &str| OAuthError::new("invalid_grant", description);
    let (client, claims) =
        assertion::verify(site, provider, form.require("assertion")?).map_err(invalid)?;
    if !claims.is_for(site) {
        return Err(invalid("The assertion is for somebody else."));
    }
    let user = match claims.sub.as_deref() {
        Some(subject) => site
            .world
            .users
            .iter()
            .find(|user| user.key == subject || user.email == subject)
            .map(|user| user.key.clone()),
        None => client.service_user.clone(),
    };
    let user = user.ok_or_else(|| invalid("There is no such user."))?;
    let scope = match &claims.scope {
        Some(scope) => scopes_of(provider, Some(scope))?,
        None => requested_scope(provider, form)?,
    };
    let mut grants = site.world.grants();
    Ok(grants.client_credentials(provider, &client.client_id, &user, scope, now))
}

/// A token that is still good for one that lives as long as if it were new.
pub(super) fn exchange(
    site: &Site,
    provider: &ProviderConfig,
    client_id: &str,
    form: &Parameters,
    now: i64,
) -> Result<Issued, GrantError> {
    let token = form.get(FB_EXCHANGE).unwrap_or_default();
    let issued = site
        .world
        .grants()
        .traded(provider, client_id, token, now)?;
    site.world.counters().grant(issued.grant).refreshes += 1;
    Ok(issued)
}

/// `GET /oauth/access_token`: Meta's form of it, with everything in the query.
pub(crate) async fn by_query(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let provider = site.provider();
    let answer = answer_query(&site, &provider, &headers, &query.unwrap_or_default());
    match kept(&site).await.and(answer) {
        Ok(Ok(body)) => Json(body).into_response(),
        Ok(Err(error)) => meta_error(error),
        Err(error) => error.into_response(provider.token_shape),
    }
}

fn answer_query(
    site: &Site,
    provider: &ProviderConfig,
    headers: &HeaderMap,
    query: &str,
) -> Result<Result<Value, GrantError>, OAuthError> {
    let query = Parameters::parse(query.as_bytes())
        .map_err(|name| OAuthError::invalid_request(format!("The parameter {name} came twice.")))?;
    let client = authenticate(site, provider, headers, &query)?;
    if query.require("grant_type")? != FB_EXCHANGE {
        return Err(OAuthError::new(
            "unsupported_grant_type",
            "The grant type is not supported.",
        ));
    }
    let now = site.world.clock.now_ms();
    match exchange(site, provider, &client.client_id, &query, now) {
        Ok(issued) => response(site, provider, &issued, None, now).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// <https://developers.facebook.com/docs/graph-api/guides/error-handling>
fn meta_error(error: GrantError) -> Response {
    let body = json!({"error": {
        "message": format!("Error validating access token: {error}."),
        "type": "OAuthException",
        "code": 190,
        "fbtrace_id": "AbCdEfGhIjK",
    }});
    let mut response = (StatusCode::BAD_REQUEST, Json(body)).into_response();
    response
        .extensions_mut()
        .insert(Outcome("OAuthException 190".to_owned()));
    response
}

/// `POST /app/installations/{installation_id}/access_tokens`
/// (<https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app>).
pub(crate) async fn installation_token(
    State(site): State<Site>,
    Path(installation): Path<u64>,
    headers: HeaderMap,
) -> Response {
    let refuse = |status: StatusCode, message: &str| {
        (
            status,
            Json(json!({"message": message, "status": status.as_str()})),
        )
            .into_response()
    };
    let provider = site.provider();
    let verified = bearer_token(&headers)
        .ok_or("A JSON web token is missing.")
        .and_then(|token| assertion::verify(&site, &provider, token));
    let client = match verified {
        Ok((client, _)) => client,
        Err(message) => return refuse(StatusCode::UNAUTHORIZED, message),
    };
    let Some(user) = client.installations.get(&installation.to_string()) else {
        return refuse(StatusCode::NOT_FOUND, "Not Found");
    };
    let now = site.world.clock.now_ms();
    let issued = site.world.grants().client_credentials(
        &provider,
        &client.client_id,
        user,
        provider.default_scopes.clone(),
        now,
    );
    if let Err(error) = kept(&site).await {
        return error.into_response(provider.token_shape);
    }
    let body = json!({
        "token": issued.access_token,
        "expires_at": iso_seconds(issued.expires_ms),
        "permissions": {"contents": "read", "metadata": "read"},
        "repository_selection": "all",
    });
    (StatusCode::CREATED, Json(body)).into_response()
}
