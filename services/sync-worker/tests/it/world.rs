//! A simulated provider, the stand-ins, and sync workers that come and go.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use common::lifecycle::Process;
use common::rpc::ClientConfig;
use common::service::{Runtime, Service as _};
use connectors::Connector;
use contracts::broker::v1::connection_service_server::ConnectionServiceServer;
use contracts::ingest::v1::document_service_server::DocumentServiceServer;
use egress::EgressConfig;
use prost_types::Timestamp;
use provider_sim::config::{ClientConfig as OAuthClient, CollectionKind};
use provider_sim::{CollectionName, Control, Fault, FaultRule, SimConfig, Simulator};
use sync_worker::{Config, Connectors, PageConfig, SyncWorker};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use worker::{Job, JobKind, WorkerConfig};

use crate::stand_ins::{Broker, Ledger};
use crate::support::{Ground, Log, PATIENCE, Scheduler, process};

pub(crate) const COMPANY: &str = "562949953500001";
pub(crate) const OTHER_COMPANY: &str = "562949953500002";

pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) scheduler: Scheduler,
    pub(crate) broker: Broker,
    pub(crate) ledger: Ledger,
    pub(crate) config: Config,
    provider: &'static str,
    simulator: Simulator,
}

impl World {
    pub(crate) async fn procore(records: u32) -> Self {
        Self::new("procore", records, "").await
    }

    pub(crate) async fn outlook(records: u32) -> Self {
        Self::new("microsoft", records, "Mail.Read").await
    }

    pub(crate) async fn new(provider: &'static str, records: u32, scope: &'static str) -> Self {
        let mut config = SimConfig {
            records,
            ..SimConfig::default()
        };
        for known in &mut config.providers {
            known.clients.push(OAuthClient {
                service_user: Some("alice".to_owned()),
                ..OAuthClient::confidential("worker", "secret", &[])
            });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = Simulator::start(config, listener).await.unwrap();
        let ground = Ground::new();
        let scheduler = Scheduler::default();
        let broker = Broker::new(simulator.control(), provider, scope, scheduler.log());
        let ledger = Ledger::new(scheduler.log());
        let address = |address: std::net::SocketAddr| ClientConfig {
            address: address.to_string(),
        };
        let config = Config {
            tls: ground.tls(SyncWorker::NAME),
            jobs: WorkerConfig {
                lease: Duration::from_secs(30).into(),
                ..WorkerConfig::default()
            },
            pages: PageConfig {
                attempts: 3,
                ..PageConfig::default()
            },
            egress: EgressConfig {
                allow_loopback_http: true,
                ..EgressConfig::default()
            },
            scheduler: address(ground.serve_scheduler(&scheduler).await),
            broker: address(
                ground
                    .serve(
                        ground
                            .server("oauth-broker")
                            .service(ConnectionServiceServer::new(broker.clone())),
                    )
                    .await,
            ),
            ingest: address(
                ground
                    .serve(
                        ground
                            .server("webhook-ingest")
                            .service(DocumentServiceServer::new(ledger.clone())),
                    )
                    .await,
            ),
            ..Config::default()
        };
        Self {
            ground,
            scheduler,
            broker,
            ledger,
            config,
            provider,
            simulator,
        }
    }

    pub(crate) fn control(&self) -> &Control {
        self.simulator.control()
    }

    pub(crate) fn log(&self) -> &Log {
        self.scheduler.log()
    }

    pub(crate) fn start(&self) -> Process {
        self.start_with(connectors::find)
    }

    pub(crate) fn start_with(&self, connectors: Connectors) -> Process {
        let process = process();
        let runtime = Runtime {
            deps: self.ground.deps.clone(),
            ..Runtime::new(&process, SyncWorker::NAME)
        };
        sync_worker::start(self.config.clone(), runtime, connectors).unwrap();
        process
    }

    /// A job of the provider's stream, over the last year where it is a first one.
    pub(crate) fn job(&self, kind: JobKind) -> Job {
        let now = self.ground.deps.now();
        let window = |at: OffsetDateTime| (kind == JobKind::Initial).then(|| timestamp(at));
        let (provider, stream, account) = match self.provider {
            "procore" => ("procore", "projects", COMPANY),
            _ => ("outlook", "messages", ""),
        };
        Job {
            provider: provider.to_owned(),
            stream: stream.to_owned(),
            external_account_id: account.to_owned(),
            window_start: window(now - time::Duration::days(366)),
            window_end: window(now),
            ..self.ground.job(kind)
        }
    }

    /// Works on one job, from its lease to its end, and says how that was.
    pub(crate) async fn work(&self, job: Job) -> Ended {
        let process = self.start();
        let ended = self.work_on(&process, job).await;
        stop(&process).await;
        ended
    }

    pub(crate) async fn work_on(&self, process: &Process, job: Job) -> Ended {
        assert!(!process.shutdown.is_requested());
        let id = job.job_id.clone();
        self.scheduler.give(job, 1);
        testkit::eventually_some(PATIENCE, async || {
            ["completed", "failed", "released"]
                .into_iter()
                .find_map(|what| {
                    let entry = self
                        .log()
                        .all(what)
                        .into_iter()
                        .find(|entry| entry.job_id == id)?;
                    Some(Ended {
                        what,
                        detail: entry.detail,
                    })
                })
        })
        .await
    }

    /// Lets calls to an endpoint fail.
    pub(crate) fn inject(&self, endpoint: &str, skip: u64, times: Option<u64>, fault: Fault) {
        self.control().inject(FaultRule {
            endpoint: endpoint.to_owned(),
            provider: None,
            client_id: None,
            grant_type: None,
            user: None,
            skip,
            times,
            probability: 1.0,
            after_work: false,
            fault,
        });
    }

    pub(crate) fn collection(&self, owner: &str) -> CollectionName {
        let collection = match self.provider {
            "procore" => CollectionKind::Projects,
            _ => CollectionKind::Messages,
        };
        CollectionName {
            provider: self.provider.to_owned(),
            collection,
            owner: owner.to_owned(),
        }
    }

    /// What the provider has.
    pub(crate) fn ids(&self, owner: &str) -> BTreeSet<String> {
        let records = self.control().records(&self.collection(owner)).unwrap();
        records.into_iter().map(|record| record.id).collect()
    }

    /// What the ledger has.
    pub(crate) fn recorded(&self) -> BTreeSet<String> {
        self.ledger.live().into_keys().collect()
    }
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) what: &'static str,
    pub(crate) detail: serde_json::Value,
}

impl Ended {
    #[track_caller]
    pub(crate) fn completed(self) -> serde_json::Value {
        assert_eq!(self.what, "completed", "{}", self.detail);
        self.detail
    }

    #[track_caller]
    pub(crate) fn failed(self, kind: &str) -> serde_json::Value {
        assert_eq!(self.what, "failed", "{}", self.detail);
        assert_eq!(
            self.detail["kind"],
            format!("FAILURE_KIND_{kind}"),
            "{}",
            self.detail
        );
        self.detail
    }
}

pub(crate) async fn stop(process: &Process) {
    process.shutdown.request();
    assert_eq!(process.tasks.drained(PATIENCE).await, Vec::<String>::new());
    assert!(!process.tasks.any_failed());
}

pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: at.nanosecond().cast_signed(),
    }
}

/// The inbox by delta queries, from a file as users write them.
pub(crate) fn graph_inbox(provider: &str) -> Option<&'static Connector> {
    static CONNECTOR: OnceLock<Connector> = OnceLock::new();
    let file = include_str!("../../../../crates/connectors/tests/fixtures/graph_inbox.yaml");
    let connector = CONNECTOR.get_or_init(|| connectors::parse("graph_inbox.yaml", file).unwrap());
    (provider == "outlook").then_some(connector)
}
