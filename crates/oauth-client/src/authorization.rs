//! The URL at which a person allows us in.

use std::collections::BTreeMap;

use common::Secret;
use url::Url;

use crate::dialect::Dialect;
use crate::pkce::Verifier;

/// Parameters that are ours alone: an extra one with such a name is left out.
const OWN: [&str; 10] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_type",
    "state",
];

/// An authorization request (RFC 6749, 4.1.1). `code` is the only response type there is here.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest<'a> {
    /// The provider's authorization endpoint.
    pub endpoint: &'a Url,
    /// Our client's id.
    pub client_id: &'a str,
    /// Exactly what is registered, and exactly what the token request repeats.
    pub redirect_uri: &'a str,
    /// What is asked for; nothing is sent where it is empty.
    pub scopes: &'a [String],
    /// Returns to us, and is good once.
    pub state: &'a Secret<String>,
    /// For PKCE, where the provider bears it.
    pub verifier: Option<&'a Verifier>,
    /// Returns in the id_token, where there will be one.
    pub nonce: Option<&'a str>,
    /// The catalogue's, the integration's and the session's own parameters.
    pub extra: &'a BTreeMap<String, String>,
}

impl AuthorizationRequest<'_> {
    /// The request's parameters, which are the URL's query or the body of a pushed request.
    pub fn parameters(&self, dialect: &Dialect) -> Vec<(String, String)> {
        let mut parameters = vec![
            ("response_type", "code".to_owned()),
            ("client_id", self.client_id.to_owned()),
            ("redirect_uri", self.redirect_uri.to_owned()),
            ("state", self.state.expose().clone()),
        ];
        if !self.scopes.is_empty() {
            parameters.push(("scope", self.scopes.join(&dialect.scope_separator)));
        }
        if let Some(verifier) = self.verifier {
            parameters.push(("code_challenge", verifier.challenge()));
            parameters.push(("code_challenge_method", "S256".to_owned()));
        }
        if let Some(nonce) = self.nonce {
            parameters.push(("nonce", nonce.to_owned()));
        }
        let own = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let extra = self.extra.iter().filter(|(name, _)| {
            let is_own = OWN.contains(&name.as_str());
            !is_own && (self.scopes.is_empty() || *name != "scope")
        });
        own.chain(extra.map(|(name, value)| (name.clone(), value.clone())))
            .collect()
    }

    /// Where to send the browser. What the endpoint has in its query already stays (RFC 6749, 3.1).
    pub fn url(&self, dialect: &Dialect) -> Url {
        let mut url = self.endpoint.clone();
        url.query_pairs_mut().extend_pairs(self.parameters(dialect));
        url
    }
}
