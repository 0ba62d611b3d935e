//! How clients identify themselves (RFC 6749, section 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use url::form_urlencoded;

use super::assertion;
use super::error::OAuthError;
use super::parameters::Parameters;
use crate::config::{ClientAuth, ClientConfig, ProviderConfig};
use crate::world::Site;

/// The `Authorization: Basic` header could not be read.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Id and secret from `Authorization: Basic`, form-decoded as section 2.3.1 demands; nothing if there is no such header.
pub(crate) fn basic(headers: &HeaderMap) -> Option<Result<(String, String), Unreadable>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let read = || {
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((form_decode(id), form_decode(secret)))
    };
    Some(read().ok_or(Unreadable))
}

/// The client that sent a token or revocation request.
pub(crate) fn authenticate<'a>(
    site: &Site,
    provider: &'a ProviderConfig,
    headers: &HeaderMap,
    form: &Parameters,
) -> Result<&'a ClientConfig, OAuthError> {
    let basic = basic(headers);
    let challenge_basic = basic.is_some();
    let refuse = |description: &str| OAuthError {
        challenge_basic,
        ..OAuthError::new("invalid_client", description)
    };
    if let Some(assertion) = form.get("client_assertion") {
        if basic.is_some() || form.get("client_secret").is_some() {
            return Err(OAuthError::invalid_request(
                "The client used more than one authentication method.",
            ));
        }
        return by_assertion(site, provider, form, assertion);
    }
    let (method, id, secret) = match (basic, form.get("client_secret")) {
        (Some(_), Some(_)) => {
            return Err(OAuthError::invalid_request(
                "The client used more than one authentication method.",
            ));
        }
        (Some(Err(Unreadable)), None) => {
            return Err(refuse("The Authorization header could not be read."));
        }
        (Some(Ok((id, secret))), None) => {
            if form.get("client_id").is_some_and(|other| other != id) {
                return Err(OAuthError::invalid_request(
                    "client_id is not the client of the Authorization header.",
                ));
            }
            (ClientAuth::ClientSecretBasic, id, Some(secret))
        }
        (None, Some(secret)) => (
            ClientAuth::ClientSecretPost,
            form.require("client_id")?.to_owned(),
            Some(secret.to_owned()),
        ),
        (None, None) => {
            let id = form
                .get("client_id")
                .ok_or_else(|| refuse("The client did not identify itself."))?;
            (ClientAuth::None, id.to_owned(), None)
        }
    };
    let client = provider
        .client(&id)
        .ok_or_else(|| refuse("There is no such client."))?;
    if !client.auth_methods.contains(&method) {
        return Err(refuse("The client may not use this authentication method."));
    }
    if let Some(secret) = secret
        && !client.client_secrets.contains(&secret)
    {
        return Err(refuse("The client secret is wrong."));
    }
    Ok(client)
}

/// RFC 7523, sections 2.2 and 3.
fn by_assertion<'a>(
    site: &Site,
    provider: &'a ProviderConfig,
    form: &Parameters,
    assertion: &str,
) -> Result<&'a ClientConfig, OAuthError> {
    let refuse = |description: &str| OAuthError::new("invalid_client", description);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    if form.get("client_assertion_type") != Some(kind) {
        return Err(OAuthError::invalid_request(
            "The client_assertion_type is not known.",
        ));
    }
    let (client, claims) = assertion::verify(site, provider, assertion).map_err(refuse)?;
    if !client.auth_methods.contains(&ClientAuth::PrivateKeyJwt) {
        return Err(refuse("The client may not use this authentication method."));
    }
    let is_its_own = claims.sub.as_deref() == Some(claims.iss.as_str())
        && form.get("client_id").is_none_or(|id| id == claims.iss);
    if !is_its_own || !claims.is_for(site) {
        return Err(refuse("The assertion is not this client's, or not for us."));
    }
    Ok(client)
}

fn form_decode(encoded: &str) -> String {
    // A form of one name without a value decodes '+' and '%xx' as the RFC's encoding needs; '&' and '=' are escaped in it.
    let escaped = encoded.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_decoded() {
        let header = |pair: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(pair));
            headers.insert(header::AUTHORIZATION, value.parse().expect("ASCII"));
            headers
        };
        let read = basic(&header("my%20id:s%3Acr%2Bet%25"))
            .expect("there is a header")
            .expect("it can be read");
        assert_eq!(read, ("my id".to_owned(), "s:cr+et%".to_owned()));
        assert!(
            basic(&header("no-colon"))
                .expect("there is a header")
                .is_err()
        );
        assert!(basic(&HeaderMap::new()).is_none());
    }
}
