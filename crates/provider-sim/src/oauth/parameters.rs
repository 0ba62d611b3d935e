//! Parameters of a query or a form, none of which may come twice (RFC 6749, sections 3.1 and 3.2).

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use url::form_urlencoded;

use super::error::OAuthError;

/// Parameters by name; empty ones are as good as absent.
#[derive(Debug, Default)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads them; `Err` names one that came twice.
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if parameters
                .insert(name.clone().into_owned(), value.into_owned())
                .is_some()
            {
                return Err(name.into_owned());
            }
        }
        Ok(Self(parameters))
    }

    /// Reads a form sent to the token or revocation endpoint.
    pub(crate) fn form(headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthError::invalid_request(
                "The body has to be application/x-www-form-urlencoded.",
            ));
        }
        Self::parse(body).map_err(|name| {
            OAuthError::invalid_request(format!("The parameter {name} came twice."))
        })
    }

    /// What is left for the authorization endpoint of what a client has pushed.
    pub(crate) fn without_client_authentication(mut self) -> Self {
        for name in ["client_secret", "client_assertion", "client_assertion_type"] {
            self.0.remove(name);
        }
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn require(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name)
            .ok_or_else(|| OAuthError::invalid_request(format!("The parameter {name} is missing.")))
    }

    /// A space-separated list, each entry once.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        self.get(name).map(list)
    }
}

/// A space-separated list, each entry once.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for entry in text.split(' ').filter(|entry| !entry.is_empty()) {
        if !list.iter().any(|known| known == entry) {
            list.push(entry.to_owned());
        }
    }
    list
}
