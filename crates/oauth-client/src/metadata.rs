//! What an issuer says about itself (RFC 8414, 2; OpenID Connect Discovery, 3).

use provider_catalog::{Endpoints, UrlTemplate};
use serde::Deserialize;
use serde_json::Value;

/// The part of an issuer's metadata that we use.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// The issuer's identifier.
    pub issuer: String,
    /// Where the browser goes.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Where codes and refresh tokens are traded.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// The issuer's signing keys.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// The user's claims.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// Revocation.
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    /// Pushed authorization requests.
    #[serde(default)]
    pub pushed_authorization_request_endpoint: Option<String>,
    /// Device authorization.
    #[serde(default)]
    pub device_authorization_endpoint: Option<String>,
    /// Scopes that may be asked for.
    #[serde(default)]
    pub scopes_supported: Option<Vec<String>>,
    /// Ways of PKCE.
    #[serde(default)]
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// Ways of client authentication.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Every authorization response names its issuer (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// Authorization requests have to be pushed (RFC 9126).
    #[serde(default)]
    pub require_pushed_authorization_requests: bool,
}

impl Metadata {
    /// Reads a document.
    pub(crate) fn read(document: &Value) -> Option<Self> {
        Self::deserialize(document).ok()
    }

    /// The endpoints as the catalogue has them; one that is not an https URL is left out.
    pub fn endpoints(&self) -> Endpoints {
        let template = |url: &Option<String>| {
            let url = url.clone()?;
            // Braces would be taken as places to fill in.
            (!url.contains(['{', '}'])).then(|| UrlTemplate::try_from(url).ok())?
        };
        Endpoints {
            authorization: template(&self.authorization_endpoint),
            token: template(&self.token_endpoint),
            refresh: None,
            revocation: template(&self.revocation_endpoint),
            userinfo: template(&self.userinfo_endpoint),
            jwks: template(&self.jwks_uri),
            pushed_authorization_request: template(&self.pushed_authorization_request_endpoint),
            device_authorization: template(&self.device_authorization_endpoint),
        }
    }

    /// Those of `wanted` that the issuer offers; all of them where it does not say.
    pub fn offered_scopes(&self, wanted: &[String]) -> Vec<String> {
        match &self.scopes_supported {
            Some(offered) if !offered.is_empty() => wanted
                .iter()
                .filter(|scope| offered.contains(scope))
                .cloned()
                .collect(),
            _ => wanted.to_vec(),
        }
    }

    /// Whether the issuer says that it does PKCE, and not with S256 (RFC 9700, 4.8): worth a warning.
    pub fn lacks_s256(&self) -> bool {
        self.code_challenge_methods_supported
            .as_ref()
            .is_some_and(|methods| !methods.iter().any(|method| method == "S256"))
    }
}
