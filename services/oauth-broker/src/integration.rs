//! How a tenant, or the platform for all of them, uses a provider.

use std::collections::BTreeSet;

use common::TenantKey;
use contracts::broker::v1::{self as contract, AuthMode, Cardinality};
use provider_catalog::{Catalog, Endpoints, Provider, ResolvedProvider, UrlTemplate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, invalid};

/// An integration as it is kept. Its secrets are the vault's.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_field_names,
    reason = "ids are named as in the contract"
)]
pub(crate) struct Integration {
    pub(crate) tenant: TenantKey,
    pub(crate) integration_id: String,
    pub(crate) provider: String,
    pub(crate) display_name: String,
    pub(crate) auth_mode: AuthMode,
    pub(crate) oauth_client_id: Option<Uuid>,
    pub(crate) client_id: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) cardinality: Cardinality,
    pub(crate) exclusive_accounts: bool,
    pub(crate) overrides: Value,
    pub(crate) discovered: Option<Discovered>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) accept_unverified: bool,
    pub(crate) configuration_error: String,
    pub(crate) revision: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// What an issuer says of itself, as far as we use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Discovered {
    pub(crate) issuer: String,
    pub(crate) endpoints: Endpoints,
    /// Every authorization response names its issuer (RFC 9207).
    pub(crate) iss_announced: bool,
    pub(crate) scopes_supported: Option<Vec<String>>,
    pub(crate) client_auth: Option<Vec<String>>,
    /// Requests have to be pushed (RFC 9126).
    pub(crate) push_required: bool,
}

impl Integration {
    /// The catalogue's entry with the integration's own values, and its issuer's, in it.
    pub(crate) fn resolve(&self) -> Result<ResolvedProvider, Error> {
        let entry = Catalog::builtin().get(&self.provider).ok_or_else(|| {
            Error::Misconfigured(format!("there is no provider `{}` any more", self.provider))
        })?;
        let resolved = entry
            .with_overrides_for(catalog_mode(self.auth_mode), &self.overrides)
            .map_err(|problems| Error::Misconfigured(invalid(problems, "").message))?;
        Ok(match &self.discovered {
            Some(discovered) => resolved.with_discovered(discovered.endpoints.clone()),
            None => resolved,
        })
    }

    /// What is asked for: the integration's scopes, else the catalogue's as far as the issuer offers them, and `more`.
    pub(crate) fn requested_scopes(&self, provider: &Provider, more: &[String]) -> Vec<String> {
        let offered = self
            .discovered
            .as_ref()
            .and_then(|discovered| discovered.scopes_supported.as_ref());
        let is_offered = |scope: &&String| {
            offered.is_none_or(|offered| offered.is_empty() || offered.contains(scope))
        };
        let base: Vec<_> = if self.scopes.is_empty() {
            provider
                .scopes
                .default
                .iter()
                .filter(is_offered)
                .cloned()
                .collect()
        } else {
            self.scopes.clone()
        };
        let mut seen = BTreeSet::new();
        base.into_iter()
            .chain(more.iter().cloned())
            .filter(|scope| seen.insert(scope.clone()))
            .collect()
    }

    /// The issuer that an authorization response has to come from, where it is known.
    pub(crate) fn issuer(&self, provider: &Provider) -> Option<String> {
        let own = || {
            provider
                .issuer
                .as_ref()
                .filter(|issuer| issuer.places().is_empty())
                .map(UrlTemplate::as_str)
        };
        self.discovered
            .as_ref()
            .map(|discovered| discovered.issuer.clone())
            .or_else(|| own().map(str::to_owned))
    }

    /// The redirect URI that is registered with the provider.
    pub(crate) fn redirect_uri(&self, public_url: &str) -> String {
        format!("{public_url}/oauth/callback/{}", self.integration_id)
    }

    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.revision)
    }
}

/// Whether the text can stand for an integration: in a path, as it is.
pub(crate) fn is_integration_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() <= 63
        && text.bytes().all(allowed)
        && text
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
}

/// The origin as browsers write it, where the text is nothing but an origin that pages may return to.
pub(crate) fn origin_of(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let origin = web_origin(&url)?;
    (is_bare && text.trim_end_matches('/') == origin).then_some(origin)
}

/// The origin of an https URL, or of an http one to this machine.
pub(crate) fn web_origin(url: &Url) -> Option<String> {
    let secure =
        url.scheme() == "https" || (url.scheme() == "http" && crate::config::is_loopback(url));
    let plain = url.username().is_empty() && url.password().is_none();
    (secure && plain).then(|| url.origin().ascii_serialization())
}

pub(crate) fn catalog_mode(mode: AuthMode) -> provider_catalog::AuthMode {
    use provider_catalog::AuthMode as Theirs;
    match mode {
        AuthMode::Unspecified | AuthMode::Oauth2Code => Theirs::OAuth2Code,
        AuthMode::Oauth2ClientCredentials => Theirs::OAuth2ClientCredentials,
        AuthMode::Oauth2Device => Theirs::OAuth2Device,
        AuthMode::Oauth2JwtBearer => Theirs::OAuth2JwtBearer,
        AuthMode::ApiKey => Theirs::ApiKey,
        AuthMode::Basic => Theirs::Basic,
    }
}

pub(crate) fn contract_mode(mode: provider_catalog::AuthMode) -> AuthMode {
    use provider_catalog::AuthMode as Theirs;
    match mode {
        Theirs::OAuth2Code => AuthMode::Oauth2Code,
        Theirs::OAuth2ClientCredentials => AuthMode::Oauth2ClientCredentials,
        Theirs::OAuth2Device => AuthMode::Oauth2Device,
        Theirs::OAuth2JwtBearer => AuthMode::Oauth2JwtBearer,
        Theirs::ApiKey => AuthMode::ApiKey,
        Theirs::Basic => AuthMode::Basic,
    }
}

pub(crate) fn contract_cardinality(cardinality: provider_catalog::Cardinality) -> Cardinality {
    use provider_catalog::Cardinality as Theirs;
    match cardinality {
        Theirs::PerUser => Cardinality::PerUser,
        Theirs::PerAccount => Cardinality::PerAccount,
        Theirs::PerUserAndAccount => Cardinality::PerUserAndAccount,
        Theirs::PerTenant => Cardinality::PerTenant,
    }
}

/// What can be synced from the provider.
pub(crate) fn streams(provider: &str) -> Vec<contract::StreamInfo> {
    let stream = |stream: connectors::StreamInfo| contract::StreamInfo {
        stream: stream.stream.to_owned(),
        display_name: stream.display_name.to_owned(),
        required_scopes: stream.required_scopes.to_vec(),
        incremental: stream.incremental,
        backfill: stream.backfill,
        default_cadence: stream.default_cadence.try_into().ok(),
    };
    connectors::streams(provider)
        .into_iter()
        .map(stream)
        .collect()
}

/// A catalogue entry as the contract has it.
pub(crate) fn encode_provider(
    provider: &Provider,
    streams: Vec<contract::StreamInfo>,
) -> contract::Provider {
    use provider_catalog::Confidence as Theirs;
    let confidence = match provider.confidence {
        Theirs::Verified => contract::Confidence::Verified,
        Theirs::Documented => contract::Confidence::Documented,
        Theirs::CrossChecked => contract::Confidence::CrossChecked,
        Theirs::Unverified => contract::Confidence::Unverified,
    };
    contract::Provider {
        provider: provider.key.as_str().to_owned(),
        display_name: provider.display_name.clone(),
        auth_modes: provider
            .auth_modes
            .iter()
            .map(|mode| contract_mode(*mode).into())
            .collect(),
        categories: provider.categories.clone(),
        docs_url: provider.docs_url.as_str().to_owned(),
        multiple_accounts: provider.multiple_accounts,
        supports_pkce: provider.pkce.is_sent(),
        supports_revocation: provider.endpoints.revocation.is_some(),
        refresh_token_rotates: provider.refresh.rotates != Some(false),
        default_cardinality: contract_cardinality(provider.cardinality).into(),
        connection_parameters: provider.parameters.keys().cloned().collect(),
        streams,
        confidence: confidence.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_id_is_one_segment_of_a_path() {
        for good in ["procore", "Acme_2", "0190a000-0000-7000-8000-000000000001"] {
            assert!(is_integration_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "-a",
            "a%2f",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(!is_integration_id(bad), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_https_or_this_machine_and_nothing_more() {
        assert_eq!(
            origin_of("https://app.example.com").as_deref(),
            Some("https://app.example.com")
        );
        assert_eq!(
            origin_of("http://127.0.0.1:3000/").as_deref(),
            Some("http://127.0.0.1:3000")
        );
        for bad in [
            "http://app.example.com",
            "https://app.example.com/path",
            "https://u@app.example.com",
            "https://app.example.com:443",
            "*",
            "javascript:alert(1)",
            "null",
        ] {
            assert_eq!(origin_of(bad), None, "{bad}");
        }
    }
}
