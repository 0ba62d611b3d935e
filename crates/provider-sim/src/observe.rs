//! The layer around every provider endpoint: learns what it can of the call, lets faults strike, keeps the rate limit, and counts.

mod strike;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header, request::Parts};
use url::form_urlencoded;

pub(crate) use strike::{Abort, rate_headers};

use crate::counters::Call;
use crate::faults::{CallFacts, Fault, Struck};
use crate::oauth::client_auth;
use crate::world::Site;

/// Forms and JSON sent to a provider are smaller than this.
const MAX_BODY: usize = 256 * 1024;

/// An endpoint of a provider, by the name that faults and counters have for it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) site: Site,
    pub(crate) name: &'static str,
}

/// What a handler says became of a call; attached to its response. Without it, the status speaks.
#[derive(Clone, Debug)]
pub(crate) struct Outcome(pub(crate) String);

/// Answers a call with everything that was asked for on top.
pub(crate) async fn observe(
    State(endpoint): State<Endpoint>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let facts = facts(&endpoint, &parts, &body);
    let struck = endpoint.site.world.faults().strike(&facts);
    let mut call = Call {
        provider: facts.provider.clone(),
        endpoint: facts.endpoint.to_owned(),
        client_id: facts.client_id.clone(),
        user: facts.user.clone(),
        grant_type: facts.grant_type.clone(),
        outcome: "none".to_owned(),
        fault: struck.as_ref().map(|struck| struck.fault.name().to_owned()),
    };
    let work = async |call: &mut Call| {
        let response = work(
            &endpoint,
            &facts,
            Request::from_parts(parts, Body::from(body)),
            next,
        )
        .await;
        call.outcome = outcome(&response);
        response
    };
    let provider = endpoint.site.provider();
    let response = match struck {
        None => work(&mut call).await,
        Some(Struck {
            fault: Fault::Delay { millis },
            after_work,
        }) => {
            let wait = tokio::time::sleep(std::time::Duration::from_millis(millis));
            if after_work {
                let response = work(&mut call).await;
                wait.await;
                response
            } else {
                wait.await;
                work(&mut call).await
            }
        }
        Some(Struck { fault, after_work }) => {
            let real = if after_work || matches!(fault, Fault::CutBody { .. }) {
                Some(work(&mut call).await)
            } else {
                None
            };
            strike::response(&endpoint, &provider, &fault, real).await
        }
    };
    tracing::debug!(
        event = "provider_call",
        provider = call.provider,
        endpoint = call.endpoint,
        outcome = call.outcome,
        fault = call.fault,
        "a call to {} of {}",
        call.endpoint,
        call.provider
    );
    *endpoint
        .site
        .world
        .counters()
        .calls
        .entry(call)
        .or_default() += 1;
    response
}

/// The handler, within the rate limit.
async fn work(endpoint: &Endpoint, facts: &CallFacts, request: Request, next: Next) -> Response {
    let world = &endpoint.site.world;
    let provider = endpoint.site.provider();
    let grant = facts.grant.filter(|_| facts.endpoint.starts_with("api."));
    if let Some(grant) = grant {
        world.counters().grant(grant).api_calls += 1;
    }
    let quota = grant
        .zip(provider.rate_limit)
        .map(|(grant, limit)| world.charge(limit, grant));
    let Some(quota) = quota else {
        return next.run(request).await;
    };
    let now = world.clock.now();
    let mut response = if quota.exceeded {
        strike::too_many(facts.endpoint)
    } else {
        next.run(request).await
    };
    let mut headers = rate_headers(
        quota.limit.headers,
        quota.limit.calls,
        quota.remaining,
        quota.resets_at - now.unix_timestamp(),
        now,
    );
    if !quota.exceeded {
        headers.remove(header::RETRY_AFTER);
    }
    response.headers_mut().extend(headers);
    response
}

fn facts(endpoint: &Endpoint, parts: &Parts, body: &Bytes) -> CallFacts {
    let world = &endpoint.site.world;
    let mut facts = CallFacts {
        provider: endpoint.site.slug.to_string(),
        endpoint: endpoint.name,
        ..CallFacts::default()
    };
    let token = match endpoint.name {
        "token" | "revoke" | "par" | "device_authorization" => {
            // Meta's tokens are traded by GET.
            let sent = if body.is_empty() {
                parts.uri.query().unwrap_or_default().as_bytes()
            } else {
                body
            };
            let field = |name: &str| {
                form_urlencoded::parse(sent)
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.into_owned())
            };
            facts.client_id = client_auth::basic(&parts.headers)
                .and_then(Result::ok)
                .map(|(id, _)| id)
                .or_else(|| field("client_id"));
            facts.grant_type = field("grant_type");
            field("refresh_token").or_else(|| field("token"))
        }
        "authorize" => {
            let query = parts.uri.query().unwrap_or_default();
            facts.client_id = form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == "client_id")
                .map(|(_, value)| value.into_owned());
            None
        }
        _ => bearer_token(&parts.headers).map(str::to_owned),
    };
    if let Some((id, grant)) = token.as_deref().and_then(|token| {
        world
            .grants()
            .grant_of(token)
            .map(|(id, grant)| (id, grant.clone()))
    }) {
        facts.grant = Some(id);
        facts.user = Some(grant.user);
        facts.client_id.get_or_insert(grant.client_id);
    }
    facts
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1).
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

fn outcome(response: &Response) -> String {
    if let Some(Outcome(outcome)) = response.extensions().get() {
        return outcome.clone();
    }
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        "ok".to_owned()
    } else {
        format!("http_{}", status.as_u16())
    }
}
