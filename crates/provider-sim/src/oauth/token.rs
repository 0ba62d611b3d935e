//! `POST /oauth/token`: the code, refresh and client credentials grants (RFC 6749, sections 4.1.3, 6 and 4.4).

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::client_auth::authenticate;
use super::error::OAuthError;
use super::grants::{CodeRequest, Exchanged, GrantError, Issued, RefreshRequest, Refreshed};
use super::parameters::{Parameters, list};
use super::{device, trades};
use crate::clock::iso_seconds;
use crate::config::{ClientConfig, ExpiresIn, ProviderConfig, TokenShape};
use crate::world::Site;

/// Issues tokens. What it answers is kept before it is sent.
pub(crate) async fn token(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let provider = site.provider();
    let answer = answer(&site, &provider, &headers, &body);
    // A refusal may have ended a grant, so it is kept as well.
    let answer = kept(&site).await.and(answer);
    match answer {
        Ok(body) => (
            [
                (header::CACHE_CONTROL, "no-store"),
                (header::PRAGMA, "no-cache"),
            ],
            Json(body),
        )
            .into_response(),
        Err(error) => error.into_response(provider.token_shape),
    }
}

/// Keeps what has changed, or says that it cannot.
pub(super) async fn kept(site: &Site) -> Result<(), OAuthError> {
    site.world.keep().await.map_err(|error| {
        tracing::error!(
            event = "state_not_kept",
            error = &error as &dyn std::error::Error,
            "the simulator could not write its state file"
        );
        OAuthError::new(
            "server_error",
            "The simulator could not write its state file.",
        )
    })
}

fn answer(
    site: &Site,
    provider: &ProviderConfig,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, OAuthError> {
    let form = Parameters::form(headers, body)?;
    let grant_type = form.require("grant_type")?;
    if grant_type == trades::JWT_BEARER {
        let now = site.world.clock.now_ms();
        let issued = trades::jwt_bearer(site, provider, &form, now)?;
        return response(site, provider, &issued, None, now);
    }
    let client = authenticate(site, provider, headers, &form)?;
    match grant_type {
        "authorization_code" => exchange(site, provider, client, &form),
        "refresh_token" => refresh(site, provider, client, &form),
        "client_credentials" => client_credentials(site, provider, client, &form),
        device::GRANT_TYPE => {
            let issued = device::poll(site, provider, &client.client_id, &form)?;
            response(site, provider, &issued, None, site.world.clock.now_ms())
        }
        trades::FB_EXCHANGE => {
            let now = site.world.clock.now_ms();
            let issued = trades::exchange(site, provider, &client.client_id, &form, now)?;
            response(site, provider, &issued, None, now)
        }
        _ => Err(OAuthError::new(
            "unsupported_grant_type",
            "The grant type is not supported.",
        )),
    }
}

fn exchange(
    site: &Site,
    provider: &ProviderConfig,
    client: &ClientConfig,
    form: &Parameters,
) -> Result<Value, OAuthError> {
    let request = CodeRequest {
        code: form.require("code")?,
        client_id: &client.client_id,
        redirect_uri: form.get("redirect_uri"),
        verifier: form.get("code_verifier"),
    };
    let now = site.world.clock.now_ms();
    let exchanged = site.world.grants().exchange(provider, &request, now);
    let Exchanged { issued, nonce } = exchanged.inspect_err(|error| count_reuse(site, *error))?;
    response(site, provider, &issued, nonce.as_deref(), now)
}

fn refresh(
    site: &Site,
    provider: &ProviderConfig,
    client: &ClientConfig,
    form: &Parameters,
) -> Result<Value, OAuthError> {
    let request = RefreshRequest {
        refresh_token: form.require("refresh_token")?,
        client_id: &client.client_id,
        scope: form.list("scope").filter(|_| !provider.scopes.is_empty()),
    };
    let now = site.world.clock.now_ms();
    let refreshed = site.world.grants().refresh(provider, &request, now);
    let issued = match refreshed.inspect_err(|error| count_reuse(site, *error))? {
        Refreshed::Fresh(issued) => {
            let mut counters = site.world.counters();
            let counters = counters.grant(issued.grant);
            counters.refreshes += 1;
            counters.refreshed_ms = now;
            issued
        }
        Refreshed::Replayed(issued) => {
            site.world.counters().grant(issued.grant).replays += 1;
            issued
        }
    };
    response(site, provider, &issued, None, now)
}

fn client_credentials(
    site: &Site,
    provider: &ProviderConfig,
    client: &ClientConfig,
    form: &Parameters,
) -> Result<Value, OAuthError> {
    let user = client.service_user.as_deref().ok_or_else(|| {
        OAuthError::new(
            "unauthorized_client",
            "The client may not use this grant type.",
        )
    })?;
    let scope = requested_scope(provider, form)?;
    let now = site.world.clock.now_ms();
    let issued =
        site.world
            .grants()
            .client_credentials(provider, &client.client_id, user, scope, now);
    response(site, provider, &issued, None, now)
}

fn count_reuse(site: &Site, error: GrantError) {
    if let GrantError::Reused(grant) = error {
        site.world.counters().grant(grant).reuse_refused += 1;
    }
}

/// The scope that was asked for, or the default one; unknown ones are refused, and a provider without scopes ignores them.
pub(super) fn requested_scope(
    provider: &ProviderConfig,
    form: &Parameters,
) -> Result<Vec<String>, OAuthError> {
    scopes_of(provider, form.get("scope"))
}

/// The same for a scope that stands elsewhere.
pub(super) fn scopes_of(
    provider: &ProviderConfig,
    scope: Option<&str>,
) -> Result<Vec<String>, OAuthError> {
    if provider.scopes.is_empty() {
        return Ok(Vec::new());
    }
    let scope = scope.map_or_else(|| provider.default_scopes.clone(), list);
    match scope.iter().find(|scope| !knows(provider, scope)) {
        Some(unknown) => Err(OAuthError::new(
            "invalid_scope",
            format!("The scope {unknown:?} is not known."),
        )),
        None => Ok(scope),
    }
}

/// Microsoft's scopes may be written with the resource before them: `https://graph.microsoft.com/Mail.Read`.
fn knows(provider: &ProviderConfig, scope: &str) -> bool {
    provider.scopes.iter().any(|known| known == scope)
        || provider.token_shape == TokenShape::Microsoft
            && scope
                .strip_prefix("https://graph.microsoft.com/")
                .is_some_and(|name| provider.scopes.iter().any(|known| known == name))
}

/// RFC 6749, section 5.1, in the provider's shape. Procore's: <https://developers.procore.com/documentation/oauth-endpoints>;
/// Microsoft's: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow>.
pub(super) fn response(
    site: &Site,
    provider: &ProviderConfig,
    issued: &Issued,
    nonce: Option<&str>,
    now: i64,
) -> Result<Value, OAuthError> {
    let lifetime = (issued.expires_ms - now) / 1000;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("access_token", json!(issued.access_token));
    put("token_type", json!("Bearer"));
    match provider.expires_in {
        ExpiresIn::Number => put("expires_in", json!(lifetime)),
        ExpiresIn::Text => put("expires_in", json!(lifetime.to_string())),
        ExpiresIn::Absent => None,
        ExpiresIn::Zero => put("expires_in", json!(0)),
        ExpiresIn::AtSeconds => put("expires_at", json!(issued.expires_ms / 1000)),
        ExpiresIn::AtMillis => put("expires_at", json!(issued.expires_ms)),
        ExpiresIn::AtIso => put("expires_at", json!(iso_seconds(issued.expires_ms))),
    };
    if let Some(refresh_token) = &issued.refresh_token {
        put("refresh_token", json!(refresh_token));
    }
    match provider.token_shape {
        TokenShape::Standard if provider.scopes.is_empty() => {}
        TokenShape::Standard => {
            put("scope", json!(issued.scope.join(" ")));
        }
        TokenShape::Procore => {
            put("created_at", json!(now / 1000));
        }
        TokenShape::Microsoft => {
            put("scope", json!(issued.scope.join(" ")));
            put("ext_expires_in", json!(lifetime));
        }
    }
    if provider.openid && issued.scope.iter().any(|scope| scope == "openid") {
        put(
            "id_token",
            json!(id_token(site, provider, issued, nonce, now)?),
        );
    }
    Ok(Value::Object(body))
}

/// OpenID Connect Core, sections 2 and 3.1.3.6; at a refresh without `nonce` (section 12.2).
fn id_token(
    site: &Site,
    provider: &ProviderConfig,
    issued: &Issued,
    nonce: Option<&str>,
    now: i64,
) -> Result<String, OAuthError> {
    let grant = site.world.grants().grant(issued.grant).cloned();
    let gone = || OAuthError::new("invalid_grant", "The grant is gone.");
    let grant = grant.ok_or_else(gone)?;
    let user = site.world.user(&grant.user).ok_or_else(gone)?;
    let hash = digest(&SHA256, issued.access_token.as_bytes());
    let mut claims = json!({
        "iss": site.world.issuer(provider),
        "sub": user.id.to_string(),
        "aud": grant.client_id,
        "iat": now / 1000,
        "exp": now / 1000 + 600,
        "auth_time": grant.created_ms / 1000,
        "at_hash": URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]),
    });
    let has = |scope: &str| issued.scope.iter().any(|granted| granted == scope);
    if has("email") {
        claims["email"] = json!(user.email);
        claims["email_verified"] = json!(true);
    }
    if has("profile") {
        claims["name"] = json!(user.name);
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    if provider.token_shape == TokenShape::Microsoft {
        claims["oid"] = json!(user.guid);
        claims["tid"] = json!(MICROSOFT_TENANT);
        claims["preferred_username"] = json!(user.email);
        claims["ver"] = json!("2.0");
    }
    site.world
        .keys
        .sign(provider.id_token_alg, &claims)
        .map_err(|error| {
            tracing::error!(
                event = "id_token_not_signed",
                error = &error as &dyn std::error::Error,
                "an id_token could not be signed"
            );
            OAuthError::new("server_error", "The id_token could not be signed.")
        })
}

/// The directory that everybody at the simulated Microsoft belongs to; the id in `fixtures/graph/organization.json`.
const MICROSOFT_TENANT: &str = "84841066-274d-4ec0-a5c1-276be684bdd3";
