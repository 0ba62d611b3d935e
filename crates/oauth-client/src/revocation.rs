//! The end of a token (RFC 7009), and the ways in which providers end them otherwise.

use common::{Deps, Secret};
use egress::{Egress, EgressError, Method, Request, Response};
use provider_catalog::{CallMethod, Revocation, TokenCarrier};
use time::OffsetDateTime;
use url::Url;

use crate::classify;
use crate::client::{BadKey, Client, Field};
use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
use crate::form_call::FormCall;
use crate::json;

/// Where tokens are revoked, and by whom.
#[derive(Clone, Debug)]
pub struct RevocationEndpoint<'a> {
    /// The endpoint.
    pub url: &'a Url,
    /// Our client there.
    pub client: &'a Client,
    /// The provider's habits.
    pub dialect: &'a Dialect,
    /// How the provider wants to be told.
    pub habits: &'a Revocation,
}

/// What kind of token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTypeHint {
    /// A refresh token.
    RefreshToken,
    /// An access token.
    AccessToken,
}

/// A revocation, ready to be sent. The same one may be sent again until it succeeds.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing before it is sent"]
pub struct RevocationCall(FormCall);

impl RevocationEndpoint<'_> {
    /// Builds the request. A token that ends itself goes without the client.
    ///
    /// # Errors
    ///
    /// Where the client's key cannot sign.
    pub fn call(
        &self,
        token: &Secret<String>,
        hint: Option<TokenTypeHint>,
        deps: &Deps,
    ) -> Result<RevocationCall, BadKey> {
        let request = match (self.habits.carried, self.habits.method) {
            (TokenCarrier::BearerToken, method) => {
                let method = match method {
                    CallMethod::Post => Method::POST,
                    CallMethod::Get => Method::GET,
                    CallMethod::Delete => Method::DELETE,
                };
                Request::new(method, self.url.clone())
                    .accept_json()
                    .bearer(token)
            }
            (TokenCarrier::Body, CallMethod::Post) => {
                self.client.request(self.url, fields(token, hint), deps)?
            }
            (TokenCarrier::Body, method) => {
                let mut url = self.url.clone();
                url.query_pairs_mut().extend_pairs(
                    fields(token, hint)
                        .iter()
                        .map(|(name, value)| (*name, value.expose())),
                );
                let method = match method {
                    CallMethod::Delete => Method::DELETE,
                    CallMethod::Get | CallMethod::Post => Method::GET,
                };
                Request::new(method, url).accept_json()
            }
        };
        let traded = vec![token.clone()];
        Ok(RevocationCall(FormCall::of(
            request,
            self.client,
            self.dialect,
            traded,
        )))
    }
}

fn fields(token: &Secret<String>, hint: Option<TokenTypeHint>) -> Vec<Field<'static>> {
    let mut fields = vec![("token", token.clone())];
    fields.extend(hint.map(|hint| ("token_type_hint", Secret::from(hint.as_str()))));
    fields
}

impl RevocationCall {
    /// Sends it. `Ok` means that the token is of no use any more, whether this call or another one ended it.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`]; to be tried again on [`Class::Transient`], [`Class::Ambiguous`] and [`Class::RateLimited`].
    pub async fn send(&self, egress: &Egress, deps: &Deps) -> Result<(), Failure> {
        let outcome = self.0.send(egress).await;
        self.read(outcome, deps.now())
    }

    /// What an outcome means.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn read(
        &self,
        outcome: Result<Response, EgressError>,
        now: OffsetDateTime,
    ) -> Result<(), Failure> {
        let response = outcome.map_err(classify::undelivered)?;
        if response.status.is_success() {
            return Ok(());
        }
        let body = json::object_or_form(&response.body);
        let failure = self.0.refused(&response, body.as_ref(), now);
        let is_done = match failure.class {
            // The token is not known there any more.
            Class::Reauthorization(_) => true,
            // This kind cannot be revoked, or no such token (RFC 7009, 2.2.1).
            _ => {
                matches!(
                    failure.code.as_deref(),
                    Some("unsupported_token_type" | "invalid_token")
                ) && response.status.is_client_error()
            }
        };
        if is_done { Ok(()) } else { Err(failure) }
    }
}

impl TokenTypeHint {
    fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }
}
