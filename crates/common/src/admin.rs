//! The admin listener: whether the process is alive and ready, its metrics, and its log filter.
//!
//! `GET /healthz` is 200 while the runtime turns. `GET /readyz` runs the checks that were registered with
//! [`Readiness`]. `GET /metrics` is for Prometheus. `GET` and `PUT /log-filter` show and change what is logged, the
//! latter only from this machine (a pod's port-forward counts as such). The listener is on loopback unless configured
//! otherwise, and has no other protection: nothing on it shows tenants' data.

mod readiness;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Json;
use axum::Router;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::config::{Duration, Problems, Validate};
use crate::telemetry::{FilterError, Telemetry};

pub use readiness::{CheckError, CheckReport, Phase, Readiness, ReadinessReport};

/// The `[admin]` part of every service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where `/healthz`, `/readyz`, `/metrics` and `/log-filter` are served; port 0 is a free one, told in the log.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        }
    }
}

impl Validate for AdminConfig {
    fn validate(&self, _: &mut Problems) {}
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {listen} for admin requests; set admin.listen to a free address of this machine"
)]
pub struct BindError {
    listen: SocketAddr,
    source: io::Error,
}

/// Listens where `config` says.
pub async fn bind(config: &AdminConfig) -> Result<TcpListener, BindError> {
    let listen = config.listen;
    TcpListener::bind(listen)
        .await
        .map_err(|source| BindError { listen, source })
}

/// Serves until `until` ends.
pub async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    readiness: Readiness,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = router(telemetry, readiness).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(until)
        .await
}

/// The routes.
pub fn router(telemetry: Telemetry, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/log-filter", get(log_filter).put(set_log_filter))
        .with_state(Admin {
            telemetry,
            readiness,
        })
}

#[derive(Clone)]
struct Admin {
    telemetry: Telemetry,
    readiness: Readiness,
}

/// For how long a new log filter is to stay.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stay {
    r#for: Option<Duration>,
}

async fn ready(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.check().await;
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.telemetry.prometheus_text();
    (
        [(header::CONTENT_TYPE, Telemetry::PROMETHEUS_CONTENT_TYPE)],
        text,
    )
        .into_response()
}

async fn log_filter(State(admin): State<Admin>) -> Response {
    Json(admin.telemetry.log_filter().current()).into_response()
}

async fn set_log_filter(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(stay): Query<Stay>,
    directives: String,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return (
            StatusCode::FORBIDDEN,
            "the log filter can be changed from this machine only\n",
        )
            .into_response();
    }
    let filter = admin.telemetry.log_filter();
    let changed = match stay.r#for {
        Some(time) => filter.set_for(&directives, time.get()),
        None => filter.set(&directives),
    };
    match changed {
        Ok(()) => {
            let current = filter.current();
            tracing::info!(
                event = "log_filter_changed",
                filter = current.filter,
                then = current.then,
                "the log filter was changed",
            );
            Json(current).into_response()
        }
        Err(error @ FilterError::Gone) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, format!("the log filter {error}\n")).into_response()
        }
    }
}
