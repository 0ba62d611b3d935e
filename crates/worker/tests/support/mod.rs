//! A scheduler that does what a test says, behind real mutual TLS, and a log of what it was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::identity::authority::Authority;
use common::identity::tls::{Tls, TlsConfig};
use common::identity::Identity;
use common::lifecycle::{Process, Shutdown};
use common::rpc::{self, Guard, IdentityConfig, ServerConfig};
use common::telemetry::{Telemetry, TelemetryConfig};
use common::{Code, Deps, Problem, Reason, TenantKey};
use contracts::scheduler::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use contracts::scheduler::v1::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Certificates, and the stand-ins that were started with them.
pub(crate) struct Ground {
    authority: Authority,
    pub(crate) deps: Deps,
    pub(crate) tenant: TenantKey,
    shutdown: Shutdown,
    _folder: TempDir,
}

/// What happened, in its order, at all stand-ins.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Entry>>>);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: &'static str,
    pub(crate) job_id: String,
    pub(crate) detail: Value,
}

#[derive(Clone, Default)]
pub(crate) struct Scheduler(Arc<State>);

#[derive(Default)]
struct State {
    log: Log,
    due: Mutex<VecDeque<LeasedJob>>,
    wake: Notify,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    /// What was given for a request, for when it is repeated.
    given: BTreeMap<String, Vec<LeasedJob>>,
    cancelled: BTreeSet<String>,
    lost: BTreeSet<String>,
    /// How the next calls of a method fail; with `true` after the work is done.
    failures: BTreeMap<&'static str, VecDeque<(Problem, bool)>>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let deps = Deps::system("test");
        let authority = Authority::open(folder.path(), &deps).unwrap();
        let tenant = TenantKey::new_tenant(&deps);
        Self { authority, deps, tenant, shutdown: Shutdown::new(), _folder: folder }
    }

    pub(crate) fn tls(&self, service: &str) -> TlsConfig {
        self.authority.issue(&Identity::service(service), &[]).unwrap()
    }

    /// Serves a stand-in as the service `name`.
    pub(crate) async fn serve<S>(&self, name: &'static str, service: S) -> SocketAddr
    where
        S: tower_service::Service<S>,
    {
        unreachable!("{name}")
    }
}
