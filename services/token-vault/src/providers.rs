//! What a client's token requests need besides the network: endpoints, habits, secrets.

mod endpoints;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::problem::FieldViolation;
use common::{Clock, Deps, Secret};
use egress::{Connection, Egress, EgressError, Url};
use oauth_client::{
    BadKey, Class, Client, ClientAuth, Dialect, DiscoveryError, Documents, Failure, SigningKey,
    TokenCall, TokenEndpoint, TokenGrant, TokenSet,
};
use provider_catalog::{
    AssertionCarrier, AssertionScopes, AssertionSubject, Catalog, FillError, JwtBearer, Provider,
    Refresh, Revocation, UrlTemplate,
};
use time::OffsetDateTime;

use crate::grant::{DEFAULT_MARGIN, RefreshRules};
use crate::keys::{Keys, KeysError, Place};
use crate::oauth_client::{AuthMethod, BentEndpoints, OAuthClient, SealedSecret, Settings};
use crate::secrets;

#[cfg(test)]
pub(crate) use endpoints::Trade;
pub(crate) use endpoints::{Trades, Wanted};

/// The catalogue, and the way out.
#[derive(Clone, Debug)]
pub(crate) struct Providers {
    pub(crate) egress: Egress,
    pub(crate) documents: Documents,
    keys: Keys,
}

/// A client, ready to ask for tokens.
#[derive(Debug)]
pub(crate) struct Resolved {
    client: Client,
    /// With the secret that is being replaced.
    previous: Option<Client>,
    pub(crate) dialect: Dialect,
    pub(crate) rules: RefreshRules,
    pub(crate) token_url: Url,
    pub(crate) refresh_url: Url,
    pub(crate) revocation_url: Option<Url>,
    pub(crate) revocation: Revocation,
    pub(crate) push_url: Option<Url>,
    pub(crate) device_url: Option<Url>,
    /// What the catalogue says of renewing.
    pub(crate) refresh: Refresh,
    /// How an assertion is written that is traded for a token.
    pub(crate) assertion: JwtBearer,
    /// Who such an assertion is for.
    pub(crate) audience: String,
    pub(crate) trades: Option<Trades>,
    pub(crate) issuer: Option<String>,
    pub(crate) jwks_url: Option<Url>,
}

/// For the request with the secret that is being replaced.
const SECOND_TIMEOUT: Duration = Duration::from_secs(10);

/// A token request with its connection open.
#[derive(Debug)]
pub(crate) struct Prepared {
    connection: Connection,
    call: TokenCall,
    with_previous: Option<TokenCall>,
}

/// Why a client cannot ask for tokens.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The catalogue has no such provider.
    #[error("the provider {0:?} is not in the catalogue")]
    UnknownProvider(String),
    /// No token endpoint: neither the catalogue's nor one of its own.
    #[error("the client has no token endpoint")]
    NoTokenEndpoint,
    /// An endpoint of its own is no URL.
    #[error("the endpoint {0:?} is not a URL")]
    BadEndpoint(&'static str),
    /// A connection's parameters do not fit.
    #[error("the parameters do not fit the provider")]
    Parameters(Vec<FieldViolation>),
    /// An endpoint cannot be filled with the parameters.
    #[error("an endpoint cannot be filled in")]
    Fill(#[from] FillError),
    /// The issuer does not say where its endpoints are.
    #[error("the issuer's metadata cannot be had")]
    Discovery(#[from] DiscoveryError),
    /// Somebody has changed the endpoints without the secret.
    #[error(transparent)]
    Bent(#[from] BentEndpoints),
    /// The private key cannot sign.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// The secret does not open.
    #[error("the client's secret cannot be read")]
    Keys(#[from] KeysError),
}

impl ResolveError {
    /// Whether it will pass by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Discovery(error) => error.is_transient(),
            Self::Keys(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

impl Providers {
    pub(crate) fn new(egress: Egress, keys: Keys, deps: &Deps) -> Self {
        Self {
            documents: Documents::new(egress.clone(), deps),
            egress,
            keys,
        }
    }

    /// The catalogue's entry.
    pub(crate) fn entry(key: &str) -> Option<&'static Provider> {
        Catalog::builtin().get(key)
    }

    /// Puts a client together with its provider's entry.
    pub(crate) async fn resolve(
        &self,
        client: &OAuthClient,
        parameters: &BTreeMap<String, String>,
        wants_keys: bool,
    ) -> Result<Resolved, ResolveError> {
        let wanted = if wants_keys {
            Wanted::Keys
        } else {
            Wanted::Tokens
        };
        self.resolve_for(client, parameters, wanted).await
    }

    /// The same for a certain endpoint.
    pub(crate) async fn resolve_for(
        &self,
        client: &OAuthClient,
        parameters: &BTreeMap<String, String>,
        wanted: Wanted,
    ) -> Result<Resolved, ResolveError> {
        let settings = &client.settings;
        let unknown = || ResolveError::UnknownProvider(settings.provider.clone());
        let provider = Self::entry(&settings.provider).ok_or_else(unknown)?;
        let parameters = check_parameters(provider, parameters)?;
        let issuer = match (&settings.issuer, &provider.issuer) {
            (Some(own), _) => Some(own.clone()),
            (None, known) => known
                .as_ref()
                .map(|issuer| issuer.fill_text(&parameters))
                .transpose()?,
        };
        let endpoints = self
            .endpoints(settings, provider, issuer.as_deref(), wanted)
            .await?;
        let fill = |template: &Option<UrlTemplate>| {
            template
                .as_ref()
                .map(|url| url.fill(&parameters))
                .transpose()
        };
        let token_url = fill(&endpoints.token)?.ok_or(ResolveError::NoTokenEndpoint)?;
        let mut dialect = Dialect::from(provider);
        dialect.token_params.extend(settings.token_params.clone());
        let audience = issuer.clone().unwrap_or_else(|| token_url.to_string());
        let (secret, previous) = self.secrets(client).await?;
        let refresh_url = fill(&endpoints.refresh)?.unwrap_or_else(|| token_url.clone());
        let assertion = provider.refresh.jwt_bearer.clone().unwrap_or(STANDARD);
        Ok(Resolved {
            client: authenticated(settings, secret.as_ref(), &audience)?,
            previous: previous
                .map(|secret| authenticated(settings, Some(&secret), &audience))
                .transpose()?,
            rules: rules(provider, settings, &dialect),
            dialect,
            push_url: fill(&endpoints.pushed_authorization_request)?,
            device_url: fill(&endpoints.device_authorization)?,
            trades: endpoints::trades(provider, settings, &refresh_url, &parameters)?,
            audience: match &assertion.audience {
                _ if settings.issuer.is_some() || settings.endpoints.token.is_some() => settings
                    .issuer
                    .clone()
                    .unwrap_or_else(|| token_url.to_string()),
                Some(audience) => audience.fill(&parameters)?,
                None => token_url.to_string(),
            },
            assertion,
            refresh: provider.refresh.clone(),
            refresh_url,
            token_url,
            revocation_url: fill(&endpoints.revocation)?,
            revocation: provider.revocation.clone(),
            issuer,
            jwks_url: fill(&endpoints.jwks)?,
        })
    }

    /// The client's secret, and the one before while it may still be used.
    pub(crate) async fn secrets(
        &self,
        client: &OAuthClient,
    ) -> Result<(Option<Secret<String>>, Option<Secret<String>>), ResolveError> {
        let secret = self
            .secret(client, "secret", client.secret.as_deref())
            .await?;
        let is_current = client
            .previous_secret_expires_at
            .is_some_and(|end| end > client.read_at);
        let previous = client.previous_secret.as_deref().filter(|_| is_current);
        Ok((
            secret,
            self.secret(client, "previous_secret", previous).await?,
        ))
    }

    async fn secret(
        &self,
        client: &OAuthClient,
        column: &'static str,
        sealed: Option<&[u8]>,
    ) -> Result<Option<Secret<String>>, ResolveError> {
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let opened: SealedSecret =
            secrets::open(&self.keys, &secret_place(client, column), sealed).await?;
        Ok(Some(opened.reveal(&client.settings)?))
    }
}

/// Where a client's secret lies.
pub(crate) fn secret_place(client: &OAuthClient, column: &'static str) -> Place {
    Place {
        table: "oauth_clients",
        column,
        tenant: client.key.tenant,
        row: client.key.id,
        version: client.secret_version,
    }
}

impl Resolved {
    /// Builds the request for tokens and opens the connection that it will be sent on.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) async fn prepare(
        &self,
        url: &Url,
        grant: &TokenGrant<'_>,
        egress: &Egress,
        timeout: Duration,
        deps: &Deps,
    ) -> Result<Prepared, PrepareError> {
        let call = |client: &Client| {
            let endpoint = TokenEndpoint {
                url,
                client,
                dialect: &self.dialect,
            };
            endpoint.call(grant, deps).map(|call| call.timeout(timeout))
        };
        let with_previous = self.previous.as_ref().map(call).transpose()?;
        // Both have to fit into one lease.
        let with_previous = with_previous.map(|call| call.timeout(timeout.min(SECOND_TIMEOUT)));
        let call = call(&self.client)?;
        let connection = egress.connect(url).await?;
        Ok(Prepared {
            connection,
            call,
            with_previous,
        })
    }

    /// Our client there.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Our client there, and then the same with the secret that is being replaced, for where the newer one is refused.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &Client> {
        std::iter::once(&self.client).chain(&self.previous)
    }
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// The client's key cannot sign.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// There is no connection.
    #[error("there is no connection to the token endpoint")]
    Connect(#[from] EgressError),
}

impl PrepareError {
    /// As a failure of the request that it was for.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Key(_) => Failure {
                code: Some("bad_private_key".to_owned()),
                ..Failure::new(Class::Configuration)
            },
            Self::Connect(error) => {
                let class = if matches!(error, EgressError::Refused(_)) {
                    Class::Configuration
                } else {
                    Class::Transient
                };
                Failure {
                    source: Some(Box::new(error)),
                    ..Failure::new(class)
                }
            }
        }
    }
}

impl Prepared {
    /// Sends it; and once more with the secret that is being replaced, where the provider refuses the newer one.
    pub(crate) async fn send(self, egress: &Egress, deps: &Deps) -> Result<TokenSet, Failure> {
        let outcome = Box::pin(self.call.send_on(self.connection, deps)).await;
        match (outcome, self.with_previous) {
            (Err(failure), Some(call)) if is_client_refused(&failure) => {
                Box::pin(call.send(egress, deps)).await
            }
            (outcome, _) => outcome,
        }
    }
}

/// Whether it is our client that the provider does not take, and not the request.
pub(crate) fn is_client_refused(failure: &Failure) -> bool {
    let code = failure.code.as_deref().unwrap_or_default();
    let code = code.to_ascii_lowercase();
    failure.class == Class::Configuration
        && (code.contains("client") || failure.status == Some(401) || code == "bad_private_key")
}

/// The same time and randomness, with the database's time: an instance's own clock may be off.
pub(crate) fn at_database_time(deps: &Deps, database_time: OffsetDateTime) -> Deps {
    let offset = database_time - deps.now();
    Deps {
        clock: Arc::new(DatabaseClock {
            inner: Arc::clone(&deps.clock),
            offset,
        }),
        ..deps.clone()
    }
}

#[derive(Debug)]
struct DatabaseClock {
    inner: Arc<dyn Clock>,
    offset: time::Duration,
}

impl Clock for DatabaseClock {
    fn now(&self) -> OffsetDateTime {
        self.inner.now() + self.offset
    }

    fn boottime(&self) -> Duration {
        self.inner.boottime()
    }
}

/// RFC 7523, 3, for providers that say nothing else.
const STANDARD: JwtBearer = JwtBearer {
    carried: AssertionCarrier::GrantType,
    audience: None,
    subject: AssertionSubject::Required,
    scopes: AssertionScopes::Parameter,
    lifetime: Duration::from_mins(5),
};

fn authenticated(
    settings: &Settings,
    secret: Option<&Secret<String>>,
    audience: &str,
) -> Result<Client, BadKey> {
    let secret = || secret.cloned().unwrap_or_else(|| Secret::from(""));
    let auth = match settings.auth_method {
        AuthMethod::SecretBasic => ClientAuth::SecretBasic(secret()),
        AuthMethod::SecretPost => ClientAuth::SecretPost(secret()),
        AuthMethod::PrivateKeyJwt => ClientAuth::PrivateKeyJwt {
            key: SigningKey::from_pem(&secret())?,
            key_id: settings.key_id.clone(),
            audience: audience.to_owned(),
        },
        AuthMethod::None => ClientAuth::None,
    };
    Ok(Client {
        id: settings.client_id.clone(),
        auth,
    })
}

fn rules(provider: &Provider, settings: &Settings, dialect: &Dialect) -> RefreshRules {
    RefreshRules {
        rotates: dialect.rotates,
        replay: crate::failpoint::replay_window(provider.refresh.replay_window),
        margin: settings.refresh_margin.unwrap_or(DEFAULT_MARGIN),
        idle: provider.refresh.idle_lifetime,
        absolute: provider.refresh.absolute_lifetime,
    }
}

/// The parameters with the catalogue's defaults, each checked against its pattern.
fn check_parameters(
    provider: &Provider,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ResolveError> {
    let mut values = BTreeMap::new();
    let mut violations = Vec::new();
    let mut violate = |name: &str, description: String| {
        violations.push(FieldViolation {
            field: format!("parameters.{name}"),
            description,
        });
    };
    for (name, parameter) in &provider.parameters {
        match given.get(name).or(parameter.default.as_ref()) {
            // The provider tells it later, and no endpoint of the vault's needs it before.
            None if parameter.captured.is_some() => {}
            None => violate(name, format!("is required: {}", parameter.description)),
            Some(value) if !parameter.admits(value) => {
                violate(name, format!("must match {}", parameter.pattern.as_str()));
            }
            Some(value) => drop(values.insert(name.clone(), value.clone())),
        }
    }
    for name in given
        .keys()
        .filter(|name| !provider.parameters.contains_key(*name))
    {
        violate(name, "is no parameter of this provider".to_owned());
    }
    if violations.is_empty() {
        Ok(values)
    } else {
        Err(ResolveError::Parameters(violations))
    }
}

#[cfg(test)]
impl Resolved {
    /// A client of `https://as.example`, with what the catalogue says of renewing.
    pub(crate) fn for_tests(refresh: Refresh, trades: Option<Trades>) -> Self {
        let url = |path: &str| {
            format!("https://as.example/{path}")
                .parse::<Url>()
                .expect("a URL")
        };
        Self {
            client: Client {
                id: "client".to_owned(),
                auth: ClientAuth::None,
            },
            previous: None,
            dialect: Dialect::default(),
            rules: RefreshRules {
                rotates: true,
                replay: refresh.replay_window,
                margin: DEFAULT_MARGIN,
                idle: refresh.idle_lifetime,
                absolute: refresh.absolute_lifetime,
            },
            token_url: url("token"),
            refresh_url: url("refresh"),
            revocation_url: None,
            revocation: Revocation::default(),
            push_url: None,
            device_url: None,
            assertion: STANDARD,
            audience: "https://as.example".to_owned(),
            refresh,
            trades,
            issuer: None,
            jwks_url: None,
        }
    }
}
