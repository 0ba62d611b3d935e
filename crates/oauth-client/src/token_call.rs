//! One call of the token endpoint.

use std::collections::BTreeMap;

use common::{Deps, Secret};
use egress::{Connection, Egress, EgressError, Request, Response};
use provider_catalog::TokenBody;
use time::OffsetDateTime;
use url::Url;

use crate::classify::{self, Refused};
use crate::client::{BadKey, Client};
use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
use crate::json;
use crate::pkce::Verifier;
use crate::token_response::TokenSet;

/// Where codes and refresh tokens are traded, and by whom.
#[derive(Clone, Debug)]
pub struct TokenEndpoint<'a> {
    /// The endpoint. For a refresh: the refresh endpoint, where the provider has one.
    pub url: &'a Url,
    /// Our client there.
    pub client: &'a Client,
    /// The provider's habits.
    pub dialect: &'a Dialect,
}

/// What is traded for a token.
#[derive(Clone, Debug)]
pub enum TokenGrant<'a> {
    /// A code (RFC 6749, 4.1.3).
    AuthorizationCode {
        /// The code.
        code: &'a Secret<String>,
        /// The same as in the authorization request, to the letter.
        redirect_uri: &'a str,
        /// Where a challenge was sent.
        verifier: Option<&'a Verifier>,
    },
    /// A refresh token (RFC 6749, 6).
    RefreshToken {
        /// The refresh token.
        refresh_token: &'a Secret<String>,
        /// Empty but for providers that want them again.
        scopes: &'a [String],
    },
    /// The client's own credentials (RFC 6749, 4.4).
    ClientCredentials {
        /// What is asked for.
        scopes: &'a [String],
    },
}

/// A token request, ready to be sent: everything that can fail before the network has been done.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing before it is sent"]
pub struct TokenCall {
    request: Request,
    url: Url,
    secrets: Vec<Secret<String>>,
    dialect: Dialect,
    single_use: bool,
}

impl TokenGrant<'_> {
    fn fields(&self, separator: &str) -> Vec<(&'static str, Secret<String>)> {
        let text = |value: &str| Secret::from(value);
        let mut fields = Vec::new();
        match self {
            Self::AuthorizationCode {
                code,
                redirect_uri,
                verifier,
            } => {
                fields.push(("grant_type", text("authorization_code")));
                fields.push(("code", (*code).clone()));
                fields.push(("redirect_uri", text(redirect_uri)));
                fields
                    .extend(verifier.map(|verifier| ("code_verifier", verifier.secret().clone())));
            }
            Self::RefreshToken {
                refresh_token,
                scopes,
            } => {
                fields.push(("grant_type", text("refresh_token")));
                fields.push(("refresh_token", (*refresh_token).clone()));
                fields
                    .extend((!scopes.is_empty()).then(|| ("scope", text(&scopes.join(separator)))));
            }
            Self::ClientCredentials { scopes } => {
                fields.push(("grant_type", text("client_credentials")));
                fields
                    .extend((!scopes.is_empty()).then(|| ("scope", text(&scopes.join(separator)))));
            }
        }
        fields
    }

    /// The secrets that are traded, which must not come back in a log.
    fn secrets(&self) -> Vec<Secret<String>> {
        match self {
            Self::AuthorizationCode { code, verifier, .. } => {
                let verifier = verifier.map(|verifier| verifier.secret().clone());
                std::iter::once((*code).clone()).chain(verifier).collect()
            }
            Self::RefreshToken { refresh_token, .. } => vec![(*refresh_token).clone()],
            Self::ClientCredentials { .. } => Vec::new(),
        }
    }

    /// Whether the provider may take it once only.
    fn is_single_use(&self, dialect: &Dialect) -> bool {
        match self {
            Self::AuthorizationCode { .. } => true,
            Self::RefreshToken { .. } => dialect.rotates,
            Self::ClientCredentials { .. } => false,
        }
    }

    fn extra<'a>(&self, dialect: &'a Dialect) -> BTreeMap<&'a str, &'a str> {
        let pairs = |map: &'a BTreeMap<String, String>| {
            map.iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
        };
        let mut extra: BTreeMap<_, _> = pairs(&dialect.token_params).collect();
        if matches!(self, Self::RefreshToken { .. }) {
            extra.extend(pairs(&dialect.refresh_params));
        }
        extra
    }
}

impl TokenEndpoint<'_> {
    /// Builds the request. A parameter of the dialect never replaces one of the protocol.
    ///
    /// # Errors
    ///
    /// Where the client's key cannot sign.
    pub fn call(&self, grant: &TokenGrant<'_>, deps: &Deps) -> Result<TokenCall, BadKey> {
        let authentication = self.client.authenticate(deps)?;
        let mut fields = grant.fields(&self.dialect.scope_separator);
        fields.extend(authentication.fields);
        for (name, value) in grant.extra(self.dialect) {
            let is_own = fields.iter().any(|(own, _)| *own == name) || name == "client_secret";
            if !is_own {
                fields.push((name, Secret::from(value)));
            }
        }
        let mut request = Request::post(self.url.clone()).accept_json();
        if let Some((username, password)) = &authentication.basic {
            request = request.basic(username, password);
        }
        let pairs = fields
            .iter()
            .map(|(name, value)| (*name, value.expose().as_str()));
        request = match self.dialect.token_body {
            TokenBody::Form => request.form(pairs),
            TokenBody::Json => request.json(&pairs.collect::<BTreeMap<_, _>>()),
        };
        let mut secrets = grant.secrets();
        secrets.extend(self.client.secrets());
        Ok(TokenCall {
            request,
            url: self.url.clone(),
            secrets,
            dialect: self.dialect.clone(),
            single_use: grant.is_single_use(self.dialect),
        })
    }
}

impl TokenCall {
    /// Where it goes: what to open a connection to beforehand.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Replaces the configured time for the whole call.
    pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
        self.request = self.request.timeout(timeout);
        self
    }

    /// Connects, sends, and reads the answer.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`].
    pub async fn send(self, egress: &Egress, deps: &Deps) -> Result<TokenSet, Failure> {
        let sent_at = deps.now();
        let outcome = egress.send(self.request.clone()).await;
        self.read(outcome, sent_at, deps.now())
    }

    /// Sends on a connection that is open already, and reads the answer.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`].
    pub async fn send_on(self, connection: Connection, deps: &Deps) -> Result<TokenSet, Failure> {
        let sent_at = deps.now();
        let outcome = connection.send(self.request.clone()).await;
        self.read(outcome, sent_at, deps.now())
    }

    /// What an outcome means. Success is a 2xx with an access token and without an error beside it (checklist 20); lifetimes count from
    /// `sent_at`, so that they never end later than the provider thinks.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`].
    pub fn read(
        &self,
        outcome: Result<Response, EgressError>,
        sent_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<TokenSet, Failure> {
        let response = outcome.map_err(classify::undelivered)?;
        let body = json::object_or_form(&response.body);
        if let Some(body) = body
            .as_ref()
            .filter(|body| response.status.is_success() && TokenSet::is_in(body))
        {
            return TokenSet::read(body, sent_at, &self.dialect).ok_or_else(|| Failure {
                status: Some(response.status.as_u16()),
                code: Some("unsupported_token_type".to_owned()),
                ..Failure::new(Class::Configuration)
            });
        }
        let refused = Refused {
            status: response.status,
            headers: &response.headers,
            body: body.as_ref(),
            secrets: &self.secrets,
            single_use: self.single_use,
            now,
        };
        Err(classify::refused(&refused, &self.dialect))
    }
}
