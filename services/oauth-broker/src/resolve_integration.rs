//! From an integration's values to what is needed to use it: its issuer's metadata, and the vault's OAuth client.

use std::time::Duration;

use common::problem::FieldViolation;
use common::{Code, Problem, Reason, Secret};
use contracts::vault::v1::{ClientAuthMethod, OAuthClient};
use oauth_client::{DiscoveryError, discover};
use provider_catalog::{
    Catalog, ClientAuthMethod as Theirs, Provider, ResolvedProvider, UrlTemplate,
};
use time::OffsetDateTime;
use url::Url;

use crate::api::encode::timestamp;
use crate::broker::Broker;
use crate::clients::{map, reveal};
use crate::error::Error;
use crate::integration::{Discovered, Integration, catalog_mode};

/// How long the provider may still want the old secret while the new one is rolled out.
const PREVIOUS_SECRET_KEPT: time::Duration = time::Duration::days(7);

/// The secrets that come with a change; empty where they stay as they are.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) client_secret: Secret<String>,
    pub(crate) previous_client_secret: Secret<String>,
}

impl Broker {
    /// Asks the issuer for what the integration does not say itself. `None` where nothing is missing.
    pub(crate) async fn discovered(
        &self,
        integration: &Integration,
    ) -> Result<Option<Discovered>, Error> {
        let bare = Integration {
            discovered: None,
            ..integration.clone()
        };
        let resolved = bare.resolve()?;
        let mode = catalog_mode(integration.auth_mode);
        if !resolved.needs_discovery(mode) {
            return Ok(None);
        }
        let provider = resolved.provider();
        let issuer = provider
            .issuer
            .as_ref()
            .map(UrlTemplate::as_str)
            .unwrap_or_default();
        let explicit = provider
            .discovery_url
            .as_ref()
            .and_then(|url| Url::parse(url.as_str()).ok());
        let metadata = discover(&self.documents, issuer, explicit.as_ref())
            .await
            .map_err(|error| refused(&error))?;
        if metadata.lacks_s256() {
            tracing::warn!(
                event = "issuer_without_s256", tenant.id = %integration.tenant, issuer,
                "an issuer does not offer PKCE with S256; the challenge is sent all the same"
            );
        }
        let discovered = Discovered {
            issuer: metadata.issuer.clone(),
            endpoints: metadata.endpoints(),
            iss_announced: metadata.authorization_response_iss_parameter_supported,
            scopes_supported: metadata.scopes_supported.clone(),
            client_auth: metadata.token_endpoint_auth_methods_supported.clone(),
            push_required: metadata.require_pushed_authorization_requests,
        };
        let complete = resolved.with_discovered(discovered.endpoints.clone());
        let endpoints = &complete.provider().endpoints;
        let missing = |name: &str| FieldViolation {
            field: "integration.overrides.issuer".to_owned(),
            description: format!(
                "its metadata names no usable {name}; give it as overrides.endpoints"
            ),
        };
        let mut violations = Vec::new();
        if endpoints.token.is_none() {
            violations.push(missing("token_endpoint"));
        }
        if mode == provider_catalog::AuthMode::OAuth2Code && endpoints.authorization.is_none() {
            violations.push(missing("authorization_endpoint"));
        }
        if violations.is_empty() {
            Ok(Some(discovered))
        } else {
            Err(Problem::invalid(violations).into())
        }
    }
}

fn refused(error: &DiscoveryError) -> Error {
    if error.is_transient() {
        let problem = Problem::new(
            Code::Unavailable,
            Reason::ProviderUnavailable,
            error.to_string(),
        );
        return Error::Request(problem.with_retry_after(Duration::from_secs(5)));
    }
    Problem::invalid_field("integration.overrides.issuer", error.to_string()).into()
}

/// The client as the vault keeps it; `None` where there is no token endpoint. Only what is not the catalogue's is named.
pub(crate) fn oauth_client(
    integration: &Integration,
    resolved: &ResolvedProvider,
    secrets: &Secrets,
    now: OffsetDateTime,
) -> Result<Option<OAuthClient>, Error> {
    let Some(oauth_client_id) = integration.oauth_client_id else {
        return Ok(None);
    };
    let provider = resolved.provider();
    let entry = Catalog::builtin().get(&integration.provider);
    let own = |pick: fn(&Provider) -> Option<&UrlTemplate>| {
        let url = pick(provider)?;
        (entry.and_then(pick) != Some(url)).then(|| url.as_str().to_owned())
    };
    let issuer = integration.issuer(provider);
    let is_entrys = |issuer: &String| {
        entry
            .and_then(|entry| entry.issuer.as_ref())
            .is_some_and(|known| known.as_str() == issuer)
    };
    Ok(Some(OAuthClient {
        tenant_id: integration.tenant.to_string(),
        oauth_client_id: oauth_client_id.to_string(),
        provider: integration.provider.clone(),
        token_endpoint: own(|provider| provider.endpoints.token.as_ref()).unwrap_or_default(),
        refresh_endpoint: own(|provider| provider.endpoints.refresh.as_ref()).unwrap_or_default(),
        revocation_endpoint: own(|provider| provider.endpoints.revocation.as_ref())
            .unwrap_or_default(),
        auth_method: auth_method(integration, provider, &secrets.client_secret)?.into(),
        client_id: integration.client_id.clone(),
        client_secret: reveal(&secrets.client_secret),
        token_params: map(&provider.token_params),
        refresh_margin: None,
        previous_client_secret: reveal(&secrets.previous_client_secret),
        previous_client_secret_expires_at: (!secrets.previous_client_secret.expose().is_empty())
            .then(|| timestamp(now + PREVIOUS_SECRET_KEPT)),
        key_id: String::new(),
        issuer: issuer
            .filter(|issuer| !is_entrys(issuer))
            .unwrap_or_default(),
        jwks_uri: own(|provider| provider.endpoints.jwks.as_ref()).unwrap_or_default(),
        pushed_authorization_request_endpoint: own(|provider| {
            provider.endpoints.pushed_authorization_request.as_ref()
        })
        .unwrap_or_default(),
        device_authorization_endpoint: own(|provider| {
            provider.endpoints.device_authorization.as_ref()
        })
        .unwrap_or_default(),
    }))
}

/// How the client proves itself: by what it was given, as the catalogue and the issuer allow.
fn auth_method(
    integration: &Integration,
    provider: &Provider,
    secret: &Secret<String>,
) -> Result<ClientAuthMethod, Error> {
    let allowed = &provider.client_auth;
    let offered = integration
        .discovered
        .as_ref()
        .and_then(|discovered| discovered.client_auth.as_ref());
    let is_offered = |method: Theirs| {
        let name = match method {
            Theirs::ClientSecretBasic => "client_secret_basic",
            Theirs::ClientSecretPost => "client_secret_post",
            Theirs::PrivateKeyJwt => "private_key_jwt",
            Theirs::None => "none",
        };
        offered.is_none_or(|offered| offered.iter().any(|method| method == name))
    };
    let fits = |method: &&Theirs| match method {
        Theirs::None => secret.expose().is_empty(),
        Theirs::PrivateKeyJwt => secret.expose().trim_start().starts_with("-----BEGIN"),
        Theirs::ClientSecretBasic | Theirs::ClientSecretPost => {
            let text = secret.expose();
            !text.is_empty() && !text.trim_start().starts_with("-----BEGIN")
        }
    };
    let fitting = || allowed.iter().filter(fits);
    let chosen = fitting()
        .find(|method| is_offered(**method))
        .or_else(|| fitting().next());
    match chosen {
        Some(Theirs::ClientSecretBasic) => Ok(ClientAuthMethod::SecretBasic),
        Some(Theirs::ClientSecretPost) => Ok(ClientAuthMethod::SecretPost),
        Some(Theirs::PrivateKeyJwt) => Ok(ClientAuthMethod::PrivateKeyJwt),
        Some(Theirs::None) => Ok(ClientAuthMethod::None),
        None if secret.expose().is_empty() => Err(Problem::invalid_field(
            "integration.client_secret",
            "is required for this provider",
        )
        .into()),
        None => {
            let what = "must be a client secret: this provider does not take a private key";
            Err(Problem::invalid_field("integration.client_secret", what).into())
        }
    }
}
