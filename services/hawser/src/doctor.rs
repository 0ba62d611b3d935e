//! Looks at a data folder and what runs in it, and says what to do about what is not well.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use common::Deps;
use common::identity::tls::{Tls, TlsConfig};
use common::pg::{self, Database};
use common::problem::Chain;
use common::rpc::CallError;
use contracts::operations::v1::ListAuditEventsRequest;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;

use crate::cli::say;
use crate::data_dir::DataDir;
use crate::instance::Instance;
use crate::remote::{Remote, SERVICES};
use crate::up::{SCHEMAS, Server};

/// Clocks may differ so much before leases and tokens suffer.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

struct Findings {
    bad: usize,
}

impl Findings {
    fn note(&mut self, what: &str, outcome: Result<String, String>) -> Result<()> {
        match outcome {
            Ok(detail) => say(&format!("ok    {what}: {detail}")),
            Err(advice) => {
                self.bad += 1;
                say(&format!("BAD   {what}: {advice}"))
            }
        }
    }
}

/// Checks everything, one line each.
///
/// # Errors
/// Where something is not well.
pub async fn doctor(data_dir: PathBuf) -> Result<()> {
    let deps = Deps::system("hawser");
    let mut findings = Findings { bad: 0 };
    let dir = DataDir::at(&data_dir)?;
    let instance = Instance::read(&dir);
    findings.note(
        "data folder",
        instance
            .as_ref()
            .map(|_| dir.root().display().to_string())
            .map_err(ToString::to_string),
    )?;
    if let Ok(instance) = instance {
        check_certificates(&mut findings, &instance, &deps)?;
        check_database(&mut findings, &dir, &instance, &deps).await?;
        check_services(&mut findings, &instance, &deps).await?;
    }
    match findings.bad {
        0 => Ok(()),
        1 => bail!("one thing is not well; see above"),
        bad => bail!("{bad} things are not well; see above"),
    }
}

fn check_certificates(findings: &mut Findings, instance: &Instance, deps: &Deps) -> Result<()> {
    let config = TlsConfig {
        ca_file: instance.tls.ca.clone(),
        cert_file: instance.tls.client_cert.clone(),
        key_file: instance.tls.client_key.clone(),
    };
    let loaded = Tls::load(&config, deps.clock.clone());
    findings.note(
        "certificates",
        loaded
            .map(|_| config.cert_file.display().to_string())
            .map_err(|error| Chain(&error).to_string()),
    )
}

async fn check_database(
    findings: &mut Findings,
    dir: &DataDir,
    instance: &Instance,
    deps: &Deps,
) -> Result<()> {
    let server = Server::of_instance(dir, instance);
    for schema in SCHEMAS {
        let login = server.login(schema.name)?;
        let checked = pg::check_schema(&login, schema).await;
        let checked = checked
            .map(|()| "reached, and up to date".to_owned())
            .map_err(|error| {
                format!(
                    "{}; is Hawser running? start it with `hawser up`",
                    Chain(&error)
                )
            });
        let reached = checked.is_ok();
        findings.note(&format!("schema {}", schema.name), checked)?;
        if reached && schema.name == SCHEMAS[0].name {
            let database = Database::open(&login, schema, deps)?;
            check_clock(findings, &database, deps).await?;
        }
    }
    Ok(())
}

async fn check_clock(findings: &mut Findings, database: &Database, deps: &Deps) -> Result<()> {
    let theirs = database.server_time().await;
    let outcome = match theirs {
        Err(error) => Err(Chain(&error).to_string()),
        Ok(theirs) => {
            let apart = (theirs - deps.now()).unsigned_abs();
            if apart <= CLOCK_TOLERANCE {
                Ok("agrees with the database's".to_owned())
            } else {
                Err(format!(
                    "is {} s away from the database's; keep both in time with NTP",
                    apart.as_secs()
                ))
            }
        }
    };
    findings.note("clock", outcome)
}

async fn check_services(findings: &mut Findings, instance: &Instance, deps: &Deps) -> Result<()> {
    let remote = Remote::operator(instance, deps)?;
    let channels = [
        &remote.directory,
        &remote.vault,
        &remote.broker,
        &remote.scheduler,
        &remote.ingest,
    ];
    for ((short, service), channel) in SERVICES.iter().zip(channels) {
        let mut client = OperationsServiceClient::new(channel.clone());
        let request = ListAuditEventsRequest {
            page_size: 1,
            ..ListAuditEventsRequest::default()
        };
        let answer =
            tokio::time::timeout(Duration::from_secs(5), client.list_audit_events(request)).await;
        let address = instance
            .grpc
            .get(*short)
            .map(ToString::to_string)
            .unwrap_or_default();
        let outcome = match answer {
            Ok(Ok(_)) => Ok(format!("answers on {address}")),
            Ok(Err(status)) => Err(format!(
                "{} ({address}); look at its log, or start it with `hawser up`",
                CallError::from(status)
            )),
            Err(_) => Err(format!(
                "does not answer on {address}; start it with `hawser up`"
            )),
        };
        findings.note(service, outcome)?;
    }
    Ok(())
}
