//! What a fault answers.

use axum::body::{Body, Bytes};
use axum::response::{Html, IntoResponse, Response};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Endpoint;
use crate::api;
use crate::clock::http_date;
use crate::config::{ProviderConfig, RateHeaders, TokenShape};
use crate::faults::{ErrorShape, Fault, MalformedBody};
use crate::fixtures;
use crate::oauth::error::OAuthError;

/// Marks a response that is not sent: the server closes the connection instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abort;

/// The answer that `fault` gives, in place of `real` where the work was done.
pub(super) async fn response(
    endpoint: &Endpoint,
    provider: &ProviderConfig,
    fault: &Fault,
    real: Option<Response>,
) -> Response {
    match fault {
        Fault::Delay { .. } => unreachable!("delays keep the real answer"),
        Fault::Drop => abort(),
        Fault::CutBody { bytes } => match real {
            Some(real) => cut(real, *bytes).await,
            None => abort(),
        },
        Fault::RateLimited { headers, seconds } => {
            let mut response = too_many(endpoint.name);
            let now = endpoint.site.world.clock.now();
            response
                .headers_mut()
                .extend(rate_headers(*headers, 100, 0, i64::from(*seconds), now));
            response
        }
        Fault::Status {
            status,
            retry_after_seconds,
        } => {
            let mut response = error(endpoint.name, provider.token_shape, status_code(*status));
            if let Some(seconds) = retry_after_seconds {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            response
        }
        Fault::OauthError { error, status } => {
            let mut error = OAuthError::new(error, "The simulator was asked for this error.");
            if let Some(status) = status {
                error.status = status_code(*status);
            }
            error.into_response(provider.token_shape)
        }
        Fault::ErrorIn200 { shape } => axum::Json(error_in_200(*shape)).into_response(),
        Fault::Malformed { body } => malformed(*body, real).await,
        Fault::Answer {
            status,
            headers,
            body,
        } => {
            let mut response = (status_code(*status), body.clone()).into_response();
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name), HeaderValue::try_from(value))
                {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
    }
}

fn abort() -> Response {
    let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    response.extensions_mut().insert(Abort);
    response
}

/// The whole length is announced, and only the beginning sent.
async fn cut(real: Response, bytes: Option<usize>) -> Response {
    let (mut parts, body) = real.into_parts();
    let body = collect(body).await;
    let kept = bytes
        .unwrap_or(body.len() / 2)
        .min(body.len().saturating_sub(1));
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let first = futures::stream::once(std::future::ready(Ok(body.slice(..kept))));
    let broken = futures::stream::once(async {
        // Lets the server send what it has before the connection is closed.
        tokio::task::yield_now().await;
        Err(std::io::Error::other(
            "the simulator was asked to cut this body",
        ))
    });
    Response::from_parts(parts, Body::from_stream(first.chain(broken)))
}

async fn malformed(how: MalformedBody, real: Option<Response>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match how {
        MalformedBody::TruncatedJson => {
            let body = match real {
                Some(real) => collect(real.into_body()).await,
                None => Bytes::from_static(br#"{"access_token": "sim_at_", "token_type": "Bea"#),
            };
            // Half of a JSON object or list never ends it.
            (json, body.slice(..body.len() / 2)).into_response()
        }
        MalformedBody::Html => {
            Html("<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>")
                .into_response()
        }
        MalformedBody::Empty => (json, "").into_response(),
        MalformedBody::WrongType => (json, r#"["unexpected"]"#).into_response(),
    }
}

async fn collect(body: Body) -> Bytes {
    match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    }
}

fn error_in_200(shape: ErrorShape) -> Value {
    let name = match shape {
        ErrorShape::Slack => "slack",
        ErrorShape::Github => "github",
        ErrorShape::Tiktok => "tiktok",
        ErrorShape::Zoho => "zoho",
    };
    fixtures::ERRORS_IN_200
        .get(name)
        .cloned()
        .unwrap_or_default()
}

/// 429 in the endpoint's own form.
pub(super) fn too_many(endpoint: &str) -> Response {
    error(
        endpoint,
        TokenShape::Standard,
        StatusCode::TOO_MANY_REQUESTS,
    )
}

fn error(endpoint: &str, shape: TokenShape, status: StatusCode) -> Response {
    if endpoint.starts_with("api.procore") {
        return api::procore::error(
            status,
            if status == StatusCode::TOO_MANY_REQUESTS {
                "rate_limited"
            } else {
                "server"
            },
        );
    }
    if endpoint.starts_with("api.graph") {
        let code = match status {
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::SERVICE_UNAVAILABLE => "serviceNotAvailable",
            _ => "generalException",
        };
        return api::graph::error(status, code);
    }
    if endpoint == "token" || endpoint == "revoke" {
        let code = if status == StatusCode::INTERNAL_SERVER_ERROR {
            "server_error"
        } else {
            "temporarily_unavailable"
        };
        let mut error = OAuthError::new(code, "The simulator was asked for this error.");
        error.status = status;
        return error.into_response(shape);
    }
    (
        status,
        axum::Json(json!({"error": status.canonical_reason()})),
    )
        .into_response()
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The headers that tell a limit, what is left of it, and the seconds until it is whole again.
pub(crate) fn rate_headers(
    shape: RateHeaders,
    limit: u32,
    remaining: u32,
    seconds: i64,
    now: OffsetDateTime,
) -> HeaderMap {
    let number = |number: i64| HeaderValue::from(number);
    let (limit, remaining) = (number(limit.into()), number(remaining.into()));
    let epoch = number(now.unix_timestamp() + seconds);
    let triple = |limit_name, remaining_name, reset_name, reset| {
        let name = HeaderName::from_static;
        HeaderMap::from_iter([
            (name(limit_name), limit),
            (name(remaining_name), remaining),
            (name(reset_name), reset),
        ])
    };
    match shape {
        RateHeaders::None => HeaderMap::new(),
        RateHeaders::RetryAfterSeconds => {
            HeaderMap::from_iter([(header::RETRY_AFTER, number(seconds))])
        }
        RateHeaders::RetryAfterDate => {
            let date = http_date(now + time::Duration::seconds(seconds));
            let date = HeaderValue::try_from(date).expect("an HTTP date is ASCII");
            HeaderMap::from_iter([(header::RETRY_AFTER, date)])
        }
        RateHeaders::XRatelimitEpoch => triple(
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            epoch,
        ),
        RateHeaders::XRatelimitSeconds => triple(
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            number(seconds),
        ),
        RateHeaders::Procore => triple(
            "x-rate-limit-limit",
            "x-rate-limit-remaining",
            "x-rate-limit-reset",
            epoch,
        ),
        RateHeaders::Ietf => triple(
            "ratelimit-limit",
            "ratelimit-remaining",
            "ratelimit-reset",
            number(seconds),
        ),
    }
}
