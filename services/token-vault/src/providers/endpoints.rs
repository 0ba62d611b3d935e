//! Where a client's requests go: its own endpoints, then the catalogue's, then what the issuer says.

use std::collections::BTreeMap;

use egress::Url;
use oauth_client::discover;
use provider_catalog::{Endpoints, ExchangeCall, FillError, Provider, UrlTemplate};

use super::{Providers, ResolveError};
use crate::oauth_client::Settings;

/// What a call needs besides the token endpoint, and has discovered where nobody says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Tokens,
    /// The issuer's keys.
    Keys,
    /// The endpoint for pushed authorization requests.
    PushedRequests,
    /// The endpoint for device authorizations.
    DeviceAuthorizations,
}

/// How an access token is traded for one that lives longer, and where.
#[derive(Clone, Debug)]
pub(crate) struct Trades {
    /// The first token's, where that is another one.
    pub(crate) first: Option<Trade>,
    pub(crate) renew: Trade,
}

/// One trade.
#[derive(Clone, Debug)]
pub(crate) struct Trade {
    pub(crate) url: Url,
    pub(crate) call: ExchangeCall,
}

impl Wanted {
    fn is_missing(self, endpoints: &Endpoints) -> bool {
        match self {
            Self::Tokens => false,
            Self::Keys => endpoints.jwks.is_none(),
            Self::PushedRequests => endpoints.pushed_authorization_request.is_none(),
            Self::DeviceAuthorizations => endpoints.device_authorization.is_none(),
        }
    }
}

impl Providers {
    pub(super) async fn endpoints(
        &self,
        settings: &Settings,
        provider: &'static Provider,
        issuer: Option<&str>,
        wanted: Wanted,
    ) -> Result<Endpoints, ResolveError> {
        let (own, known) = (&settings.endpoints, &provider.endpoints);
        // A token endpoint of its own has no business with somebody else's endpoints: they would get tokens and secrets.
        let beside =
            |known: &'static Option<UrlTemplate>| known.as_ref().filter(|_| own.token.is_none());
        let mut endpoints = Endpoints {
            token: template("token_endpoint", own.token.as_ref(), known.token.as_ref())?,
            refresh: template(
                "refresh_endpoint",
                own.refresh.as_ref(),
                beside(&known.refresh),
            )?,
            revocation: template(
                "revocation_endpoint",
                own.revocation.as_ref(),
                beside(&known.revocation),
            )?,
            jwks: template("jwks_uri", own.jwks.as_ref(), known.jwks.as_ref())?,
            pushed_authorization_request: template(
                "pushed_authorization_request_endpoint",
                own.pushed_authorization_request.as_ref(),
                beside(&known.pushed_authorization_request),
            )?,
            device_authorization: template(
                "device_authorization_endpoint",
                own.device_authorization.as_ref(),
                beside(&known.device_authorization),
            )?,
            ..Endpoints::default()
        };
        let is_missing = endpoints.token.is_none() || wanted.is_missing(&endpoints);
        if let (true, Some(issuer)) = (is_missing, issuer) {
            let explicit = provider
                .discovery_url
                .as_ref()
                .map(|url| url.fill(&BTreeMap::new()))
                .transpose()?;
            let found = discover(&self.documents, issuer, explicit.as_ref())
                .await?
                .endpoints();
            if endpoints.token.is_none() || settings.issuer.is_some() {
                endpoints.pushed_authorization_request = endpoints
                    .pushed_authorization_request
                    .or(found.pushed_authorization_request);
                endpoints.device_authorization = endpoints
                    .device_authorization
                    .or(found.device_authorization);
            }
            if endpoints.token.is_none() {
                endpoints.revocation = endpoints.revocation.or(found.revocation);
            }
            endpoints.token = endpoints.token.or(found.token);
            endpoints.jwks = endpoints.jwks.or(found.jwks);
        }
        Ok(endpoints)
    }
}

fn template(
    name: &'static str,
    own: Option<&String>,
    known: Option<&UrlTemplate>,
) -> Result<Option<UrlTemplate>, ResolveError> {
    match own {
        Some(text) => UrlTemplate::try_from(text.clone())
            .map(Some)
            .map_err(|_| ResolveError::BadEndpoint(name)),
        None => Ok(known.cloned()),
    }
}

/// The provider's trades. A client with endpoints of its own makes them there.
pub(super) fn trades(
    provider: &Provider,
    settings: &Settings,
    refresh_url: &Url,
    parameters: &BTreeMap<String, String>,
) -> Result<Option<Trades>, FillError> {
    let Some(exchange) = &provider.refresh.token_exchange else {
        return Ok(None);
    };
    let is_own = settings.endpoints.token.is_some() || settings.endpoints.refresh.is_some();
    let trade = |call: &ExchangeCall| {
        let url = match &call.endpoint {
            Some(endpoint) if !is_own => endpoint.fill(parameters)?,
            _ => refresh_url.clone(),
        };
        Ok(Trade {
            url,
            call: call.clone(),
        })
    };
    Ok(Some(Trades {
        first: exchange.first.as_ref().map(&trade).transpose()?,
        renew: trade(&exchange.renew)?,
    }))
}
