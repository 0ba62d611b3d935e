//! A page for whoever runs `hawser up`: what is ready, and what happened last, from every service's audit events.
//!
//! It is there for development, on loopback, without a sign-in, and reads only. It answers no other host name than
//! loopback's, so that no other site can read it through a browser.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use common::admin::Readiness;
use common::lifecycle::Shutdown;
use common::rpc::{CallError, Channel};
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{AuditEvent, ListAuditEventsRequest};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::net::TcpListener;

use crate::remote::{Remote, SERVICES};

/// Of each service.
const EVENTS: i32 = 50;

/// What the page is made from.
#[derive(Clone)]
pub(super) struct Overview {
    pub(super) readiness: Readiness,
    pub(super) remote: Remote,
    pub(super) addresses: BTreeMap<String, String>,
}

/// Serves the page until a shutdown is requested.
pub(super) async fn serve(
    listener: TcpListener,
    overview: Overview,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .layer(middleware::from_fn(loopback_alone))
        .with_state(overview);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await
}

async fn loopback_alone(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !["127.0.0.1", "localhost", "[::1]"].contains(&name) {
        return (
            StatusCode::MISDIRECTED_REQUEST,
            "ask for 127.0.0.1 or localhost",
        )
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(overview): State<Overview>) -> Html<String> {
    let report = overview.readiness.check().await;
    let mut html = String::from(HEAD);
    let _ = write!(
        html,
        "<h1>Hawser is {}</h1>",
        if report.ready { "ready" } else { "not ready" }
    );
    html.push_str("<table><caption>What it needs</caption><tbody>");
    for (name, check) in &report.checks {
        let state = check.error.as_deref().unwrap_or("ok");
        row(&mut html, &[name, state]);
    }
    html.push_str("</tbody></table><table><caption>Where it is</caption><tbody>");
    for (name, url) in &overview.addresses {
        row(&mut html, &[name, url]);
    }
    html.push_str(
        "</tbody></table><table><caption>What happened last</caption><thead><tr><th>When (UTC)</th><th>Service</th>\
         <th>What</th><th>To what</th><th>By whom</th><th>Why</th></tr></thead><tbody>",
    );
    let (events, silent) = latest(&overview.remote).await;
    for (service, event) in &events {
        let by = if event.actor_user_id.is_empty() {
            event.actor.clone()
        } else {
            format!("{} ({})", event.actor_user_id, event.actor)
        };
        let when = moment(event);
        row(
            &mut html,
            &[
                &when,
                service,
                &event.action,
                &event.resource,
                &by,
                &event.reason,
            ],
        );
    }
    html.push_str("</tbody></table>");
    if events.is_empty() {
        html.push_str(
            "<p>Nothing yet. <code>hawser db seed</code> makes a tenant to begin with.</p>",
        );
    }
    for (service, error) in silent {
        let _ = write!(
            html,
            "<p>{} did not answer: {}</p>",
            escaped(service),
            escaped(&error)
        );
    }
    html.push_str("</main></body></html>");
    Html(html)
}

/// The newest events of all services, and those that did not answer.
async fn latest(remote: &Remote) -> (Vec<(&'static str, AuditEvent)>, Vec<(&'static str, String)>) {
    let channels: [&Channel; 5] = [
        &remote.directory,
        &remote.vault,
        &remote.broker,
        &remote.scheduler,
        &remote.ingest,
    ];
    let (mut events, mut silent) = (Vec::new(), Vec::new());
    for ((_, service), channel) in SERVICES.iter().zip(channels) {
        let request = ListAuditEventsRequest {
            page_size: EVENTS,
            ..ListAuditEventsRequest::default()
        };
        match OperationsServiceClient::new(channel.clone())
            .list_audit_events(request)
            .await
        {
            Ok(answer) => {
                let answer = answer.into_inner().audit_events.into_iter();
                events.extend(answer.map(|event| (*service, event)));
            }
            Err(status) => silent.push((*service, CallError::from(status).to_string())),
        }
    }
    let order = |event: &AuditEvent| event.occurred_at.map(|at| (at.seconds, at.nanos));
    events.sort_by_key(|(_, event)| Reverse(order(event)));
    events.truncate(EVENTS as usize);
    (events, silent)
}

fn moment(event: &AuditEvent) -> String {
    let at = event.occurred_at.unwrap_or_default().seconds;
    let at = OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second]"
    ))
    .unwrap_or_default()
}

fn row(html: &mut String, cells: &[&str]) {
    html.push_str("<tr>");
    for cell in cells {
        let _ = write!(html, "<td>{}</td>", escaped(cell));
    }
    html.push_str("</tr>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const POLICY: &str = "default-src 'none'; style-src 'sha256-14pZMP7IcPzTY4s4I8j+RWVl2vmsPtXhDKP+CglTNjo='; frame-ancestors 'none'";

const HEAD: &str = concat!(
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hawser</title>",
    "<meta name=\"viewport\" content=\"width=device-width\"><style>",
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}main{max-width:72rem;margin:2rem auto;padding:0 1rem}",
    "table{border-collapse:collapse;width:100%;margin:1.5rem 0}caption{text-align:left;font-weight:600}",
    "td,th{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884;overflow-wrap:anywhere;vertical-align:top}",
    "</style></head><body><main>",
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A browser drops a style whose hash the policy does not name.
    #[test]
    fn the_policy_names_the_style() {
        use aws_lc_rs::digest::{SHA256, digest};
        use base64::Engine as _;
        let style = HEAD.split("<style>").nth(1).expect("there is a style");
        let style = style.split("</style>").next().expect("it ends");
        let hash =
            base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, style.as_bytes()));
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }

    #[test]
    fn names_are_no_markup() {
        let mut html = String::new();
        row(&mut html, &["<script>alert(\"1\")</script>&"]);
        assert_eq!(
            html,
            "<tr><td>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;</td></tr>"
        );
    }
}
