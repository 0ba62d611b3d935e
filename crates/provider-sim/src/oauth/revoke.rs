//! `POST /oauth/revoke` (RFC 7009).

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};

use super::client_auth::authenticate;
use super::error::OAuthError;
use super::grants::RevokeCause;
use super::parameters::Parameters;
use super::token::kept;
use crate::config::Revocation;
use crate::world::Site;

/// Revokes a token. One that is not known is as good as revoked (section 2.2).
pub(crate) async fn revoke(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let shape = site.provider().token_shape;
    let answer = match apply(&site, &headers, &body) {
        Ok(true) => kept(&site).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(shape),
    }
}

/// Says whether anything changed.
fn apply(site: &Site, headers: &HeaderMap, body: &[u8]) -> Result<bool, OAuthError> {
    let provider = site.provider();
    let form = Parameters::form(headers, body)?;
    let client = authenticate(site, &provider, headers, &form)?;
    let token = form.require("token")?;
    let mut grants = site.world.grants();
    let Some((id, grant)) = grants
        .grant_of(token)
        .filter(|(_, grant)| grant.provider == provider.slug)
    else {
        return Ok(false);
    };
    if grant.client_id != client.client_id {
        // Section 2.1: the request is refused, in the words of RFC 6749, section 5.2, for a token "issued to another client".
        return Err(OAuthError::new(
            "invalid_grant",
            "The token was issued to another client.",
        ));
    }
    if provider.revocation == Revocation::Grant || grants.is_refresh_token(token) {
        grants.revoke(id, RevokeCause::Client);
    } else {
        grants.revoke_access_token(token);
    }
    Ok(true)
}
