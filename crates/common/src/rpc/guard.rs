//! The identity layer: verifies who calls, asks the policy, sets the deadline, and only then lets the handler run.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::connection::Peer;
use crate::config::{Problems, Validate};
use crate::identity::{
    self, Actor, Authenticate, Caller, FetchKeys, Identity, IssuerConfig, JwtVerifier, Policy,
    PolicyError, TenantLookup, Tenants, UserContext, UserRule,
};
use crate::{Deps, Problem, Secret, TenantKey};

/// The metadata in which a verified actor is passed on, as `hawser.common.v1.Actor`.
pub const ACTOR_HEADER: &str = "hawser-actor-bin";
const API_KEY_PREFIX: &str = "hk_";

/// Whose callers are known here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Replaces the policy that Hawser ships.
    pub policy_file: Option<PathBuf>,
    /// Whose users' tokens are taken.
    pub issuers: Vec<IssuerConfig>,
}

impl Validate for IdentityConfig {
    fn validate(&self, problems: &mut Problems) {
        if let Some(path) = &self.policy_file
            && let Err(error) = Policy::read(path)
        {
            problems.report("policy_file", error.to_string());
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            let sources = [
                issuer.public_key_file.is_some(),
                issuer.jwks_file.is_some(),
                issuer.jwks_url.is_some(),
            ];
            let one = sources.into_iter().filter(|set| *set).count() == 1;
            problems.check(
                one,
                &format!("issuers.{index}"),
                "set exactly one of public_key_file, jwks_file, jwks_url",
            );
        }
    }
}

/// Why identities cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The policy cannot be used.
    #[error("the policy cannot be used")]
    Policy(#[from] PolicyError),
    /// An issuer's keys cannot be used.
    #[error("an issuer of users' tokens cannot be used")]
    Issuer(#[from] identity::IssuerError),
}

/// Everything that is needed to know a caller.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<Inner>,
}

struct Inner {
    policy: Policy,
    jwt: JwtVerifier,
    api_keys: Option<Arc<dyn Authenticate>>,
    tenants: Option<Arc<dyn TenantLookup>>,
    deps: Deps,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("jwt", &self.inner.jwt)
            .finish_non_exhaustive()
    }
}

/// A refusal, before it is known whether it is logged with an identity.
type Refusal = Problem;

impl Guard {
    /// A guard without API keys and external tenant ids, which need the directory.
    ///
    /// # Errors
    /// [`IdentityError`] where policy or keys cannot be read.
    pub fn new(
        config: &IdentityConfig,
        fetch: Option<Arc<dyn FetchKeys>>,
        deps: &Deps,
    ) -> Result<Self, IdentityError> {
        let policy = config
            .policy_file
            .as_deref()
            .map_or_else(|| Ok(Policy::built_in()), Policy::read)?;
        let jwt = JwtVerifier::new(&config.issuers, fetch, deps.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                policy,
                jwt,
                api_keys: None,
                tenants: None,
                deps: deps.clone(),
            }),
        })
    }

    /// Takes API keys and external tenant ids too.
    #[must_use]
    pub fn with_directory(self, directory: Arc<identity::Directory>) -> Self {
        self.with_lookups(directory.clone(), directory)
    }

    /// As [`Guard::with_directory`], for the directory itself, which asks nobody.
    #[must_use]
    pub fn with_lookups(
        self,
        api_keys: Arc<dyn Authenticate>,
        tenants: Arc<dyn TenantLookup>,
    ) -> Self {
        let inner = Arc::into_inner(self.inner).expect("a guard is completed before it is shared");
        Self {
            inner: Arc::new(Inner {
                api_keys: Some(api_keys),
                tenants: Some(tenants),
                ..inner
            }),
        }
    }

    /// Verifies the caller of `method` (`package.Service/Method`) from what came with the request.
    ///
    /// HTTP listeners that take API keys or users' tokens use it too.
    ///
    /// # Errors
    /// UNAUTHENTICATED where it is not known who calls, PERMISSION_DENIED where the policy does not list it.
    pub async fn verify(
        &self,
        method: &str,
        certificate: Option<Identity>,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<Caller, Problem> {
        let verified = self.verify_unlogged(method, certificate, headers).await;
        verified.inspect_err(|problem| {
            let peer = peer.map(|peer| peer.to_string());
            tracing::info!(
                event = "call_refused",
                rpc.method = method,
                peer,
                reason = problem.reason_name(),
                "a call was refused: {}",
                problem.message
            );
        })
    }

    async fn verify_unlogged(
        &self,
        method: &str,
        certificate: Option<Identity>,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let inner = &*self.inner;
        let bearer = bearer_token(headers)?;
        let (api_key, jwt) = match bearer {
            Some(token) if token.expose().starts_with(API_KEY_PREFIX) => (Some(token), None),
            other => (None, other),
        };
        let (identity, tenants) = self.identity(certificate, api_key, jwt.is_some()).await?;
        let mut user = match jwt {
            Some(token) => Some(self.user_context(&token).await?),
            None => None,
        };
        let mut actor = own_actor(&identity, user.as_ref());
        let mut forwarded_operator = false;
        if let Some(forwarded) = forwarded_actor(headers)? {
            if !inner.policy.may_forward(&identity) {
                return Err(Problem::permission_denied(format!(
                    "{identity} may not speak for others: leave {ACTOR_HEADER} out"
                )));
            }
            forwarded_operator = forwarded.identity.starts_with("spiffe://hawser/operator/");
            user = user.or_else(|| forwarded_user(&forwarded));
            actor = forwarded;
        }
        let row = inner.policy.row(&identity, method).ok_or_else(|| {
            Problem::permission_denied(format!("{identity} may not call {method}"))
        })?;
        match row.user {
            UserRule::Required if user.is_none() && !forwarded_operator => {
                return Err(Problem::unauthenticated(format!(
                    "{method} needs a user: send its token as `authorization: Bearer …`"
                )));
            }
            UserRule::Forbidden if user.is_some() => {
                return Err(Problem::permission_denied(format!(
                    "{method} is not for users: leave the user's token out"
                )));
            }
            _ => {}
        }
        let acting = row.acting(user.as_ref().map(UserContext::is_admin), forwarded_operator);
        let request_id = request_id(headers, &inner.deps);
        Ok(Caller {
            identity,
            user,
            acting,
            tenants,
            actor,
            request_id,
            deadline: None,
        })
    }

    async fn identity(
        &self,
        certificate: Option<Identity>,
        api_key: Option<Secret<String>>,
        has_jwt: bool,
    ) -> Result<(Identity, Tenants), Refusal> {
        match (certificate, api_key) {
            (Some(identity), None) => Ok((identity, Tenants::Any)),
            (None, Some(key)) => {
                let Some(api_keys) = &self.inner.api_keys else {
                    return Err(Problem::unauthenticated(
                        "API keys are not taken by this service: come with a client certificate",
                    ));
                };
                let found = api_keys.authenticate(&key).await?;
                let found = found.ok_or_else(|| {
                    Problem::unauthenticated("the API key is unknown, revoked, or past its end")
                })?;
                Ok((found.identity, found.tenants))
            }
            (Some(_), Some(_)) => Err(Problem::unauthenticated(
                "send a client certificate or an API key, not both",
            )),
            (None, None) if has_jwt => Ok((Identity::User, Tenants::Only(Vec::new()))),
            (None, None) => Err(Problem::unauthenticated(
                "nobody is known by this call: come with a client certificate, an API key, or a user's token",
            )),
        }
    }

    async fn user_context(&self, token: &Secret<String>) -> Result<UserContext, Refusal> {
        let claims = self
            .inner
            .jwt
            .verify(token.expose())
            .await
            .map_err(|error| match error {
                identity::JwtError::KeysUnavailable => Problem::unavailable(
                    "the keys of the token's issuer cannot be fetched",
                    Duration::from_secs(5),
                ),
                other => Problem::unauthenticated(other.to_string()),
            })?;
        let user_id = claims
            .user_id
            .ok_or_else(|| Problem::unauthenticated("the token names no user: `sub` is missing"))?;
        let tenant = claims.tenant.ok_or_else(|| {
            Problem::unauthenticated("the token names no tenant: its tenant claim is missing")
        })?;
        let tenant = match (TenantKey::parse(&tenant), &self.inner.tenants) {
            (Ok(tenant), _) => Some(tenant),
            (Err(_), Some(lookup)) => lookup.by_external_id(&tenant).await?,
            (Err(_), None) => None,
        };
        let tenant = tenant
            .ok_or_else(|| Problem::unauthenticated("the token's tenant is not known here"))?;
        Ok(UserContext {
            tenant,
            user_id,
            roles: claims.roles,
        })
    }
}

fn bearer_token(headers: &HeaderMap) -> Result<Option<Secret<String>>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || Problem::unauthenticated("`authorization` must be `Bearer` and one token");
    if values.next().is_some() {
        return Err(malformed());
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(Some(Secret::from(token.trim())))
    } else {
        Err(malformed())
    }
}

fn forwarded_actor(headers: &HeaderMap) -> Result<Option<Actor>, Refusal> {
    let Some(value) = headers.get(ACTOR_HEADER) else {
        return Ok(None);
    };
    let bytes = STANDARD
        .decode(value)
        .or_else(|_| STANDARD_NO_PAD.decode(value))
        .ok();
    let actor = bytes.and_then(|bytes| Actor::decode(bytes.as_slice()).ok());
    actor.map(Some).ok_or_else(|| {
        Problem::unauthenticated(format!(
            "{ACTOR_HEADER} is not an encoded hawser.common.v1.Actor"
        ))
    })
}

fn forwarded_user(actor: &Actor) -> Option<UserContext> {
    if actor.user_id.is_empty() {
        return None;
    }
    let tenant = TenantKey::parse(&actor.tenant_id).ok()?;
    Some(UserContext {
        tenant,
        user_id: actor.user_id.clone(),
        roles: actor.roles.clone(),
    })
}

fn own_actor(identity: &Identity, user: Option<&UserContext>) -> Actor {
    Actor {
        identity: identity.to_string(),
        tenant_id: user.map(|user| user.tenant.to_string()).unwrap_or_default(),
        user_id: user.map(|user| user.user_id.clone()).unwrap_or_default(),
        roles: user.map(|user| user.roles.clone()).unwrap_or_default(),
        purpose: String::new(),
    }
}

/// The caller's `x-request-id` where it is a plain one, else a new one.
fn request_id(headers: &HeaderMap, deps: &Deps) -> String {
    let plain = |text: &&str| {
        !text.is_empty()
            && text.len() <= 64
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(plain);
    given.map_or_else(|| hex::encode(deps.random::<16>()), str::to_owned)
}

/// Puts a [`Guard`] and deadlines before a gRPC service.
#[derive(Clone, Debug)]
pub struct GuardLayer {
    guard: Guard,
    default_deadline: Duration,
    max_deadline: Duration,
}

impl GuardLayer {
    /// A call without `grpc-timeout` gets `default_deadline`; none gets more than `max_deadline`.
    pub fn new(guard: Guard, default_deadline: Duration, max_deadline: Duration) -> Self {
        Self {
            guard,
            default_deadline,
            max_deadline,
        }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GuardService {
            inner,
            layer: self.clone(),
        }
    }
}

/// See [`GuardLayer`].
#[derive(Clone, Debug)]
pub struct GuardService<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S> Service<Request<Body>> for GuardService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let method = request.uri().path().trim_start_matches('/').to_owned();
            let (certificate, peer) = peer_of(&request);
            let now = Instant::now();
            let timeout = grpc_timeout(request.headers())
                .unwrap_or(layer.default_deadline)
                .min(layer.max_deadline);
            let deadline = now + timeout;
            let verified = layer
                .guard
                .verify(&method, certificate, request.headers(), peer);
            let caller = match tokio::time::timeout_at(deadline, verified).await {
                Ok(Ok(caller)) => Caller {
                    deadline: Some(deadline),
                    ..caller
                },
                Ok(Err(problem)) => return Ok(Status::from(problem).into_http()),
                Err(_) => return Ok(deadline_exceeded().into_http()),
            };
            let span = tracing::Span::current();
            span.record("hawser.caller", caller.identity.to_string());
            if let Some(user) = &caller.user {
                span.record("tenant.id", user.tenant.to_string());
                span.record("user.id", &user.user_id);
            }
            request.extensions_mut().insert(caller.clone());
            let handled = identity::scope(caller, inner.call(request).in_current_span());
            match tokio::time::timeout_at(deadline, handled).await {
                Ok(response) => response,
                Err(_) => Ok(deadline_exceeded().into_http()),
            }
        })
    }
}

fn deadline_exceeded() -> Status {
    Problem::bare(
        crate::Code::DeadlineExceeded,
        "the call's deadline passed before it was done",
    )
    .into()
}

fn peer_of(request: &Request<Body>) -> (Option<Identity>, Option<SocketAddr>) {
    match request.extensions().get::<Peer>() {
        Some(peer) => (peer.identity.clone(), Some(peer.address)),
        None => (None, None),
    }
}

/// Reads `grpc-timeout` as the gRPC protocol over HTTP/2 has it: at most 8 digits and a unit.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}
