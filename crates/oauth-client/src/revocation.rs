//! The end of a token (RFC 7009).

use common::{Deps, Secret};
use egress::{Egress, EgressError, Request, Response};
use time::OffsetDateTime;
use url::Url;

use crate::classify::{self, Refused};
use crate::client::{BadKey, Client};
use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
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
pub struct RevocationCall {
    request: Request,
    secrets: Vec<Secret<String>>,
    dialect: Dialect,
}

impl RevocationEndpoint<'_> {
    /// Builds the request.
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
        let authentication = self.client.authenticate(deps)?;
        let mut fields = vec![("token", token.clone())];
        fields.extend(hint.map(|hint| ("token_type_hint", Secret::from(hint.as_str()))));
        fields.extend(authentication.fields);
        let mut request = Request::post(self.url.clone()).accept_json();
        if let Some((username, password)) = &authentication.basic {
            request = request.basic(username, password);
        }
        request = request.form(
            fields
                .iter()
                .map(|(name, value)| (*name, value.expose().as_str())),
        );
        let mut secrets = self.client.secrets();
        secrets.push(token.clone());
        Ok(RevocationCall {
            request,
            secrets,
            dialect: self.dialect.clone(),
        })
    }
}

impl RevocationCall {
    /// Sends it. `Ok` means that the token is of no use any more, whether this call or another one ended it.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`]; to be tried again on [`Class::Transient`], [`Class::Ambiguous`] and [`Class::RateLimited`].
    pub async fn send(&self, egress: &Egress, deps: &Deps) -> Result<(), Failure> {
        let outcome = egress.send(self.request.clone()).await;
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
        let refused = Refused {
            status: response.status,
            headers: &response.headers,
            body: body.as_ref(),
            secrets: &self.secrets,
            single_use: false,
            now,
        };
        let failure = classify::refused(&refused, &self.dialect);
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
