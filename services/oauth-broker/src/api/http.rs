//! What browsers ask: connect pages, and the OAuth callback.
//!
//! A link's token leaves the address bar at once, by a redirect to a page that knows the session by a cookie. No GET
//! changes anything but cookies; the person's POST binds the browser. Names of cookies carry the session's id, so that several
//! tabs do not disturb each other.

mod cookies;
mod pages;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use common::lifecycle::Shutdown;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oauth_client::{Callback, CallbackProblem};
use tokio::net::TcpListener;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument as _;
use url::form_urlencoded;
use uuid::Uuid;

use crate::broker::{Broker, SharedBroker};
use crate::finish_authorization::Finished;
use crate::link_token;
use crate::pages::{STYLE, words};
use crate::store::sessions::session_by_token;
use cookies::Cookies;
use pages::{broken, said, see_other, shown};

const MOST_BYTES: usize = 64 * 1024;
const LONGEST: Duration = Duration::from_mins(1);

/// Serves until shutdown; who is being answered is answered to the end.
pub(crate) async fn serve(
    listener: TcpListener,
    broker: SharedBroker,
    shutdown: Shutdown,
) -> io::Result<()> {
    if !broker.public_url.starts_with("https://") {
        tracing::info!(
            event = "insecure_cookies",
            public_url = broker.public_url,
            "connect pages are served over plain http on this machine: cookies are not Secure and have no __Host- prefix"
        );
    }
    tracing::info!(
        event = "http_listening",
        public_url = broker.public_url,
        "connect pages are at {}",
        broker.public_url
    );
    axum::serve(listener, router(broker))
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await
}

fn router(broker: SharedBroker) -> Router {
    Router::new()
        .route("/connect/{token}", get(open_link))
        .route(
            "/connect/session/{session_id}",
            get(show_session).post(answer_session),
        )
        .route(
            "/oauth/callback",
            get(callback_without_id).post(posted_callback_without_id),
        )
        .route(
            "/oauth/callback/{integration_id}",
            get(callback).post(posted_callback),
        )
        .route("/assets/connect.css", get(style))
        .fallback(unknown_page)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            LONGEST,
        ))
        .layer(middleware::from_fn_with_state(broker.clone(), harden))
        .with_state(broker)
}

/// Headers that every answer has, and a span that says nothing of tokens, states, or codes.
async fn harden(State(broker): State<SharedBroker>, request: Request, next: Next) -> Response {
    let what = match request.uri().path() {
        path if path.starts_with("/connect/session/") => "connect page",
        path if path.starts_with("/connect/") => "connect link",
        path if path.starts_with("/oauth/callback") => "oauth callback",
        _ => "other page",
    };
    let method = request.method().clone();
    let span = tracing::info_span!("http", otel.name = format!("{method} {what}"), otel.kind = "server", http.request.method = %method);
    let mut response = next.run(request).instrument(span).await;
    let is_style = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/css"));
    let headers = response.headers_mut();
    let fixed = [
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CACHE_CONTROL,
            if is_style {
                "public, max-age=3600"
            } else {
                "no-store"
            },
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let secure = broker.public_url.starts_with("https://");
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(content_security_policy(secure)),
    );
    if secure {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

/// A form's answer is a redirect to the provider, and from there to wherever it sends the browser, which browsers hold against
/// `form-action` too: so that names schemes, not hosts.
fn content_security_policy(secure: bool) -> &'static str {
    if secure {
        "default-src 'none'; style-src 'self'; form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'"
    } else {
        "default-src 'none'; style-src 'self'; form-action 'self' https: http://127.0.0.1:* http://localhost:*; \
         base-uri 'none'; frame-ancestors 'none'"
    }
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn unknown_page(State(broker): State<SharedBroker>) -> Response {
    said(&broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN)
}

/// The link from the host application, or from a mail that a scanner reads: nothing happens but that its token goes from the address
/// into a cookie.
async fn open_link(State(broker): State<SharedBroker>, Path(token): Path<String>) -> Response {
    let Some((bucket, hash)) = link_token::presented(&token) else {
        return said(&broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN);
    };
    match session_by_token(&broker.db, bucket, &hash).await {
        Ok(Some(session)) => {
            let mut response = see_other(&format!("/connect/session/{}", session.session_id));
            let left = session.expires_at - broker.deps.now();
            cookies::put(
                &mut response,
                &broker.public_url,
                cookies::Kind::Link,
                session.session_id,
                &token,
                left,
            );
            response
        }
        Ok(None) => said(&broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN),
        Err(error) => broken(&broker, &error.into()),
    }
}

async fn show_session(
    State(broker): State<SharedBroker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Ok(session_id) = id.parse::<Uuid>() else {
        return said(&broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN);
    };
    pages::show(&broker, session_id, &Cookies::of(&headers)).await
}

/// The person's word: to go on to the provider, or which account it is to be.
async fn answer_session(
    State(broker): State<SharedBroker>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(session_id) = id.parse::<Uuid>() else {
        return said(&broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN);
    };
    let site = headers
        .get("sec-fetch-site")
        .and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| site != "same-origin") {
        return said(&broker, StatusCode::FORBIDDEN, words::pages::COOKIES);
    }
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    pages::answer(&broker, session_id, &Cookies::of(&headers), &form).await
}

async fn callback(
    State(broker): State<SharedBroker>,
    Path(integration_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let redirect_uri = format!("{}/oauth/callback/{integration_id}", broker.public_url);
    finish(
        &broker,
        &redirect_uri,
        query.as_deref().unwrap_or_default(),
        &headers,
    )
    .await
}

async fn callback_without_id(
    State(broker): State<SharedBroker>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let redirect_uri = format!("{}/oauth/callback", broker.public_url);
    finish(
        &broker,
        &redirect_uri,
        query.as_deref().unwrap_or_default(),
        &headers,
    )
    .await
}

/// A posted answer comes from another site, so the browser keeps our cookies back; as a GET they come along.
async fn posted_callback(Path(integration_id): Path<String>, body: Bytes) -> Response {
    as_get(
        &format!("/oauth/callback/{}", encoded(&integration_id)),
        &body,
    )
}

async fn posted_callback_without_id(body: Bytes) -> Response {
    as_get("/oauth/callback", &body)
}

fn as_get(path: &str, body: &[u8]) -> Response {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form_urlencoded::parse(body))
        .finish();
    see_other(&format!("{path}?{query}"))
}

fn encoded(segment: &str) -> String {
    form_urlencoded::byte_serialize(segment.as_bytes()).collect()
}

async fn finish(broker: &Broker, redirect_uri: &str, query: &str, headers: &HeaderMap) -> Response {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let parameters = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let callback = match Callback::parse(parameters) {
        Ok(callback) => callback,
        Err(problem @ (CallbackProblem::Unsolicited | CallbackProblem::Repeated)) => {
            tracing::info!(
                event = "oauth_callback_refused",
                "an authorization response is of no use: {problem}"
            );
            return said(broker, StatusCode::BAD_REQUEST, words::pages::UNKNOWN_STATE);
        }
        Err(_) => return said(broker, StatusCode::BAD_REQUEST, words::pages::UNKNOWN_STATE),
    };
    let cookies = Cookies::of(headers);
    let browser = |session_id| cookies.get(&broker.public_url, cookies::Kind::Browser, session_id);
    match broker
        .finish_authorization(&callback, redirect_uri, browser)
        .await
    {
        Ok(finished) => after(broker, finished),
        Err(error) => broken(broker, &error),
    }
}

/// Where the browser goes once the session has gone on.
fn after(broker: &Broker, finished: Finished) -> Response {
    match finished {
        Finished::Session(session) => shown(broker, &session),
        Finished::AwaitingConfirmation(session, code) => {
            match session.destination(Some(code.expose())) {
                Some(url) => see_other(url.as_str()),
                None => shown(broker, &session),
            }
        }
        Finished::OtherBrowser => said(broker, StatusCode::FORBIDDEN, words::pages::OTHER_BROWSER),
        Finished::Unknown => said(broker, StatusCode::BAD_REQUEST, words::pages::UNKNOWN_STATE),
    }
}
