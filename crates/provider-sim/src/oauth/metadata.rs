//! Discovery: RFC 8414 and OpenID Connect Discovery 1.0, and the JWK set.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::config::{ClientAuth, IdTokenAlg, Revocation};
use crate::world::Site;

/// `/.well-known/oauth-authorization-server`, before the issuer's path (RFC 8414, section 3.1).
pub(crate) async fn oauth(State(site): State<Site>) -> Response {
    cached(document(&site))
}

/// `/.well-known/openid-configuration`, after the issuer's path (OpenID Connect Discovery 1.0, section 4).
pub(crate) async fn openid(State(site): State<Site>) -> Response {
    if !site.provider().openid {
        return StatusCode::NOT_FOUND.into_response();
    }
    cached(document(&site))
}

/// `/jwks`.
pub(crate) async fn jwks(State(site): State<Site>) -> Response {
    cached(site.world.keys.jwks())
}

fn cached(document: Value) -> Response {
    (
        [(header::CACHE_CONTROL, "public, max-age=300")],
        Json(document),
    )
        .into_response()
}

fn document(site: &Site) -> Value {
    let provider = site.provider();
    let issuer = site.issuer();
    let methods: BTreeSet<ClientAuth> = provider
        .clients
        .iter()
        .flat_map(|client| client.auth_methods.iter().copied())
        .collect();
    let mut grant_types = vec![
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ];
    if provider
        .clients
        .iter()
        .any(|client| client.service_user.is_some())
    {
        grant_types.push("client_credentials");
    }
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "token_endpoint_auth_methods_supported": methods,
        "jwks_uri": format!("{issuer}/jwks"),
        "scopes_supported": provider.scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": grant_types,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": provider.iss_in_response,
        "pushed_authorization_request_endpoint": format!("{issuer}/oauth/par"),
        "require_pushed_authorization_requests": provider.require_pushed_requests,
        "device_authorization_endpoint": format!("{issuer}/oauth/device_authorization"),
    });
    if provider.revocation != Revocation::Unsupported {
        document["revocation_endpoint"] = json!(format!("{issuer}/oauth/revoke"));
        document["revocation_endpoint_auth_methods_supported"] = json!(methods);
    }
    if provider.openid {
        document["userinfo_endpoint"] = json!(format!("{issuer}/userinfo"));
        document["subject_types_supported"] = json!(["public"]);
        document["id_token_signing_alg_values_supported"] = match provider.id_token_alg {
            IdTokenAlg::Rs256 => json!(["RS256"]),
            IdTokenAlg::Es256 => json!(["RS256", "ES256"]),
        };
        document["claims_supported"] = json!([
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "at_hash",
            "email",
            "email_verified",
            "name"
        ]);
    }
    document
}
