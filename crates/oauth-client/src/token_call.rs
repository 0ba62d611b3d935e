//! One call of the token endpoint.

use std::collections::BTreeMap;

use common::{Deps, Secret};
use egress::{Connection, Egress, EgressError, Method, Request, Response};
use provider_catalog::{AssertionCarrier, CallMethod, ExchangeCall, JwtBearer, TokenBody};
use time::OffsetDateTime;
use url::Url;

use crate::classify::{self, Refused};
use crate::client::{self, BadKey, Client, Field};
use crate::device;
use crate::dialect::Dialect;
use crate::failure::{Class, Failure};
use crate::json;
use crate::jwt_bearer::{self, Assertion};
use crate::pkce::Verifier;
use crate::token_exchange;
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
    /// A device code (RFC 8628, 3.4).
    DeviceCode {
        /// The code.
        device_code: &'a Secret<String>,
    },
    /// An assertion that the client signs (RFC 7523, 2.1). It is what authenticates the client, too.
    JwtBearer {
        /// How the provider wants it.
        rules: &'a JwtBearer,
        /// Who it is for.
        audience: &'a str,
        /// On whose behalf; may be empty.
        subject: &'a str,
        /// What is asked for.
        scopes: &'a [String],
    },
    /// An access token, traded for one that lives longer.
    AccessToken {
        /// How the provider wants it.
        call: &'a ExchangeCall,
        /// The token.
        token: &'a Secret<String>,
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

impl<'a> TokenGrant<'a> {
    /// The protocol's own fields.
    fn fields(&self, separator: &str) -> Vec<Field<'a>> {
        let text = |value: &str| Secret::from(value);
        let scope = |scopes: &[String]| {
            (!scopes.is_empty()).then(|| ("scope", text(&scopes.join(separator))))
        };
        let mut fields: Vec<Field<'a>> = Vec::new();
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
                fields.extend(scope(scopes));
            }
            Self::ClientCredentials { scopes } => {
                fields.push(("grant_type", text("client_credentials")));
                fields.extend(scope(scopes));
            }
            Self::DeviceCode { device_code } => {
                fields.push(("grant_type", text(device::GRANT_TYPE)));
                fields.push(("device_code", (*device_code).clone()));
            }
            // Both are written together with what they prove.
            Self::JwtBearer { .. } | Self::AccessToken { .. } => {}
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
            Self::RefreshToken {
                refresh_token: token,
                ..
            }
            | Self::DeviceCode { device_code: token }
            | Self::AccessToken { token, .. } => vec![(*token).clone()],
            Self::ClientCredentials { .. } | Self::JwtBearer { .. } => Vec::new(),
        }
    }

    /// Whether the provider may take it once only.
    fn is_single_use(&self, dialect: &Dialect) -> bool {
        match self {
            Self::AuthorizationCode { .. } => true,
            Self::RefreshToken { .. } => dialect.rotates,
            // A device code is good once too, but a poll that was lost is followed by another one in any case.
            Self::DeviceCode { .. }
            | Self::ClientCredentials { .. }
            | Self::JwtBearer { .. }
            | Self::AccessToken { .. } => false,
        }
    }

    /// The dialect's own parameters.
    fn extra<'d>(&self, dialect: &'d Dialect) -> BTreeMap<&'d str, &'d str> {
        let pairs = |map: &'d BTreeMap<String, String>| {
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
        let mut secrets = grant.secrets();
        secrets.extend(self.client.secrets());
        let request = match grant {
            TokenGrant::JwtBearer {
                rules,
                audience,
                subject,
                scopes,
            } => {
                let assertion = Assertion {
                    rules,
                    audience,
                    subject,
                    scopes,
                    separator: &self.dialect.scope_separator,
                };
                let signed = assertion.signed(self.client, deps)?;
                secrets.push(signed.clone());
                self.with_assertion(grant, &assertion, signed)
            }
            TokenGrant::AccessToken { call, token } => {
                let fields = token_exchange::fields(call, token, self.client);
                self.request(call.method, &self.with_extra(grant, fields))
            }
            _ => {
                let authentication = self.client.authenticate(deps)?;
                let mut fields = grant.fields(&self.dialect.scope_separator);
                fields.extend(authentication.fields);
                let request = self.request(CallMethod::Post, &self.with_extra(grant, fields));
                match &authentication.basic {
                    Some((username, password)) => request.basic(username, password),
                    None => request,
                }
            }
        };
        Ok(TokenCall {
            request,
            url: self.url.clone(),
            secrets,
            dialect: self.dialect.clone(),
            single_use: grant.is_single_use(self.dialect),
        })
    }

    /// The assertion proves the client, so nothing else does (RFC 7521, 4.1).
    fn with_assertion(
        &self,
        grant: &TokenGrant<'_>,
        assertion: &Assertion<'_>,
        signed: Secret<String>,
    ) -> Request {
        if assertion.rules.carried == AssertionCarrier::BearerToken {
            return Request::post(self.url.clone())
                .accept_json()
                .bearer(&signed)
                .json(&grant.extra(self.dialect));
        }
        let mut fields: Vec<Field<'_>> = vec![
            ("grant_type", Secret::from(jwt_bearer::GRANT_TYPE)),
            ("assertion", signed),
        ];
        fields.extend(
            assertion
                .scope_parameter()
                .map(|scope| ("scope", Secret::new(scope))),
        );
        self.request(CallMethod::Post, &self.with_extra(grant, fields))
    }

    fn with_extra<'f>(
        &'f self,
        grant: &TokenGrant<'_>,
        mut fields: Vec<Field<'f>>,
    ) -> Vec<Field<'f>> {
        for (name, value) in grant.extra(self.dialect) {
            let is_own = fields.iter().any(|(own, _)| *own == name)
                || client::AUTHENTICATION.contains(&name);
            if !is_own {
                fields.push((name, Secret::from(value)));
            }
        }
        fields
    }

    fn request(&self, method: CallMethod, fields: &[Field<'_>]) -> Request {
        let pairs = fields
            .iter()
            .map(|(name, value)| (*name, value.expose().as_str()));
        let method = match method {
            CallMethod::Post => {
                let request = Request::post(self.url.clone()).accept_json();
                return match self.dialect.token_body {
                    TokenBody::Form => request.form(pairs),
                    TokenBody::Json => request.json(&pairs.collect::<BTreeMap<_, _>>()),
                };
            }
            CallMethod::Get => Method::GET,
            CallMethod::Delete => Method::DELETE,
        };
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        Request::new(method, url).accept_json()
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
            .filter(|body| response.status.is_success() && TokenSet::is_in(body, &self.dialect))
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
