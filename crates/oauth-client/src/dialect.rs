//! In what a provider differs from the standard.

use std::collections::BTreeMap;

use provider_catalog::{Errors, Provider, RefreshStrategy, TokenBody, TokenResponse};

/// A provider's habits at the token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialect {
    /// Between two scopes.
    pub scope_separator: String,
    /// How the body of a token request is written.
    pub token_body: TokenBody,
    /// Sent with every token request.
    pub token_params: BTreeMap<String, String>,
    /// Sent with every refresh besides.
    pub refresh_params: BTreeMap<String, String>,
    /// How a token response is written.
    pub token_response: TokenResponse,
    /// Errors that mean something of their own.
    pub errors: Errors,
    /// A refresh may use up the refresh token.
    pub rotates: bool,
    /// Life of an access token whose answer does not tell.
    pub access_token_lifetime: Option<std::time::Duration>,
}

impl Default for Dialect {
    /// The standard's own; whether refresh tokens rotate is not known then, and taken as yes.
    fn default() -> Self {
        Self {
            scope_separator: " ".to_owned(),
            token_body: TokenBody::Form,
            token_params: BTreeMap::new(),
            refresh_params: BTreeMap::new(),
            token_response: TokenResponse::default(),
            errors: Errors::default(),
            rotates: true,
            access_token_lifetime: None,
        }
    }
}

impl From<&Provider> for Dialect {
    fn from(provider: &Provider) -> Self {
        let refresh = &provider.refresh;
        Self {
            scope_separator: provider.scopes.separator.clone(),
            token_body: provider.token_body,
            token_params: provider.token_params.clone(),
            refresh_params: provider.refresh_params.clone(),
            token_response: provider.token_response.clone(),
            errors: provider.errors.clone(),
            rotates: refresh.strategy == RefreshStrategy::RefreshToken
                && refresh.rotates != Some(false),
            access_token_lifetime: refresh.access_token_lifetime,
        }
    }
}
