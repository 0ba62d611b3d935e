//! SIGKILL of `hawser up` at random moments, and up again: everything that was acknowledged is there.
//!
//! `CRASH_KILLS` says how often (5), `CRASH_SEED` repeats a run whose seed a failure has told.

mod steps;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use common::Rng as _;
use contracts::broker::v1 as broker;
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::ingest::v1 as ingest;
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::scheduler::v1 as scheduler;
use contracts::scheduler::v1::sync_permission_service_client::SyncPermissionServiceClient;
use e2e::{Hawser, Home};
use nix::sys::signal::Signal;
use serde_json::json;
use testkit::{SeededRng, eventually, eventually_some};
use tonic::Code;

use crate::path::{self, PATIENCE};
use crate::system::System;
use crate::webhooks;

/// What was acknowledged, by its ids.
#[derive(Debug, Default)]
struct Acknowledged {
    tenants: BTreeSet<String>,
    users: BTreeSet<String>,
    connections: BTreeSet<String>,
    documents: BTreeSet<String>,
    webhooks: BTreeSet<String>,
    overrides: BTreeSet<String>,
}

impl Acknowledged {
    fn count(&self) -> usize {
        [
            &self.tenants,
            &self.users,
            &self.connections,
            &self.documents,
            &self.webhooks,
            &self.overrides,
        ]
        .into_iter()
        .map(BTreeSet::len)
        .sum()
    }
}

/// Where the work is done.
#[derive(Clone, Debug)]
struct Ground {
    tenant: String,
    integration: String,
    source: ingest::Source,
}

/// The longest that it works before it is killed; starting takes part of it.
const LONGEST_LIFE_MS: u64 = 4000;
/// A start that is killed may be killed before it is ready.
const READY: Duration = Duration::from_secs(90);
const GONE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    let kills = setting("CRASH_KILLS").unwrap_or(5);
    let seed = setting("CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("killing it {kills} times; CRASH_SEED={seed} does it again");
    let random = SeededRng::new(seed);
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let ground = ground(&system).await;
    system.hawser.kill().await;

    let mut all = Acknowledged::default();
    for kill in 1..kills {
        let life = Duration::from_millis(below(&random, LONGEST_LIFE_MS));
        if kill > 1 && below(&random, 3) == 0 {
            kill_while_starting(&home, life).await;
            continue;
        }
        let system = System::of(again(&home).await);
        check(&system, &ground, &all).await;
        work_until_killed(system, &ground, &mut all, kill, life).await;
    }
    let system = System::of(again(&home).await);
    check(&system, &ground, &all).await;
    // The path is open: what was begun before goes on.
    let made = path::connected(&system, "after").await;
    path::initial_sync(&system, &made).await;
    system.hawser.finish().await;
    eprintln!("{} acknowledgements were kept", all.count());
}

async fn kill_while_starting(home: &Home, life: Duration) {
    let process = home.up().spawn().expect("it is started");
    let _ = tokio::time::timeout(life, process.line("ready", READY)).await;
    process.signal(Signal::SIGKILL);
    process.ended(GONE).await;
}

/// Starts it anew, as whoever runs it does.
async fn again(home: &Home) -> Hawser {
    // What a crash cuts short is logged, and no reason to fail.
    let up = home.up().expect("cut short").expect("Unavailable");
    up.start().await.expect("hawser up becomes ready again")
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test goes on is said to the test alone"
)]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

fn below(random: &SeededRng, limit: u64) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    u64::from_le_bytes(bytes) % limit
}

async fn ground(system: &System) -> Ground {
    let tenant = path::tenant(system, "crash").await;
    let made = path::integration(system, &tenant, "api-key", "", &json!({})).await;
    let source = ingest::Source {
        tenant_id: tenant.clone(),
        integration_id: made.integration_id.clone(),
        scheme: "standard-webhooks".to_owned(),
        ..ingest::Source::default()
    };
    let request = ingest::CreateSourceRequest {
        request_id: system.unique(),
        source: Some(source),
        secret: webhooks::SECRET.to_owned(),
    };
    let source =
        ingest::webhook_source_service_client::WebhookSourceServiceClient::new(system.to("ingest"))
            .create_source(request)
            .await
            .expect("a webhook source");
    Ground {
        tenant,
        integration: made.integration_id,
        source: source.into_inner().source.expect("the answer has it"),
    }
}

/// Everybody works at once until the process is killed.
async fn work_until_killed(
    system: System,
    ground: &Ground,
    all: &mut Acknowledged,
    kill: u64,
    life: Duration,
) {
    let done = RefCell::new(all);
    let work = async {
        tokio::join!(
            repeat(kill, async |number| tenants(&system, ground, &done, number)
                .await),
            repeat(kill, async |number| connections(
                &system, ground, &done, number
            )
            .await),
            repeat(kill, async |number| documents(
                &system, ground, &done, number
            )
            .await),
            repeat(kill, async |number| webhooks(
                &system, ground, &done, number
            )
            .await),
            repeat(kill, async |number| overrides(
                &system, ground, &done, number
            )
            .await),
        )
    };
    {
        let mut work = pin!(work);
        if kill == 1 {
            // A run in which nothing was acknowledged would show nothing.
            let acknowledged = eventually(PATIENCE, async || done.borrow().count() > 0);
            tokio::select! {
                _ = &mut work => {}
                () = acknowledged => {}
            }
        }
        let _ = tokio::time::timeout(life, &mut work).await;
        // Whoever waits for an answer waits for it still.
        system.process().signal(Signal::SIGKILL);
    }
    system.process().ended(GONE).await;
}

async fn repeat(kill: u64, mut once: impl AsyncFnMut(u64)) {
    for number in 0.. {
        once(kill * 1_000_000 + number).await;
    }
}

async fn tenants(system: &System, ground: &Ground, done: &RefCell<&mut Acknowledged>, number: u64) {
    let mut client = DirectoryServiceClient::new(system.to("directory"));
    let request = directory::CreateTenantRequest {
        request_id: format!("crash-{number}"),
        tenant: Some(directory::Tenant {
            company_name: format!("Crash {number}"),
            subdomain: format!("crash-{number}"),
            external_id: format!("crash-{number}"),
            ..directory::Tenant::default()
        }),
    };
    if let Ok(answer) = client.create_tenant(request).await {
        let tenant = answer.into_inner().tenant.expect("the answer has it");
        done.borrow_mut().tenants.insert(tenant.tenant_id);
    }
    let user = directory::User {
        tenant_id: ground.tenant.clone(),
        user_id: format!("user-{number}"),
        email: format!("user-{number}@crash.example"),
        ..directory::User::default()
    };
    let request = directory::EnsureUserRequest { user: Some(user) };
    if let Ok(answer) = client.ensure_user(request).await {
        let user = answer.into_inner().user.expect("the answer has it");
        done.borrow_mut().users.insert(user.user_id);
    }
}

async fn connections(
    system: &System,
    ground: &Ground,
    done: &RefCell<&mut Acknowledged>,
    number: u64,
) {
    let request = broker::ImportConnectionRequest {
        request_id: format!("crash-{number}"),
        tenant_id: ground.tenant.clone(),
        user_id: format!("importer-{number}"),
        user_email: format!("importer-{number}@crash.example"),
        integration_id: ground.integration.clone(),
        credential: Some(broker::import_connection_request::Credential::ApiKey(
            key_of(number),
        )),
        ..broker::ImportConnectionRequest::default()
    };
    let mut client = ConnectServiceClient::new(system.to("broker"));
    if let Ok(answer) = client.import_connection(request).await {
        let connection = answer.into_inner().connection.expect("the answer has it");
        let key = format!("{} {number}", connection.connection_id);
        done.borrow_mut().connections.insert(key);
    }
}

async fn documents(
    system: &System,
    ground: &Ground,
    done: &RefCell<&mut Acknowledged>,
    number: u64,
) {
    let external_id = format!("document-{number}");
    let document = ingest::Document {
        external_id: external_id.clone(),
        title: external_id.clone(),
        content_json: format!("{{\"number\":{number}}}").into_bytes(),
        ..ingest::Document::default()
    };
    let request = ingest::RecordDocumentsRequest {
        tenant_id: ground.tenant.clone(),
        stream: "uploads".to_owned(),
        documents: vec![document],
        ..ingest::RecordDocumentsRequest::default()
    };
    let mut client = DocumentServiceClient::new(system.to("ingest"));
    if let Ok(answer) = client.record_documents(request).await {
        assert_eq!(answer.into_inner().rejected, []);
        done.borrow_mut().documents.insert(external_id);
    }
}

async fn webhooks(
    system: &System,
    ground: &Ground,
    done: &RefCell<&mut Acknowledged>,
    number: u64,
) {
    let id = format!("msg_{number}");
    let body = webhooks::body("0", number);
    let source = at_port_of(system, &ground.source);
    if webhooks::try_send(system, &source, &id, &body).await {
        done.borrow_mut().webhooks.insert(id);
    }
}

/// The source, where this instance has it: its port may be another one than when it was made.
fn at_port_of(system: &System, source: &ingest::Source) -> ingest::Source {
    let token = source.url.rsplit('/').next().expect("a URL has a path");
    ingest::Source {
        url: format!("{}/hooks/{token}", system.http("ingest")),
        ..source.clone()
    }
}

async fn overrides(
    system: &System,
    ground: &Ground,
    done: &RefCell<&mut Acknowledged>,
    number: u64,
) {
    let request = scheduler::GrantOverrideRequest {
        tenant_id: ground.tenant.clone(),
        reason: format!("crash {number}"),
        request_id: format!("crash-{number}"),
        ..scheduler::GrantOverrideRequest::default()
    };
    let mut client = SyncPermissionServiceClient::new(system.to("scheduler"));
    if let Ok(answer) = client.grant_override(request).await {
        let granted = answer.into_inner().r#override.expect("the answer has it");
        done.borrow_mut().overrides.insert(granted.override_id);
    }
}

/// Looks for everything that was acknowledged.
async fn check(system: &System, ground: &Ground, all: &Acknowledged) {
    check_directory(system, ground, all).await;
    check_connections(system, ground, all).await;
    let events = path::events(system, &ground.source).await;
    let mut kept: Vec<_> = events
        .iter()
        .map(|event| event.external_event_id.clone())
        .collect();
    kept.sort();
    let repeated = kept.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(repeated, None, "a webhook was kept twice");
    lost("webhooks", &all.webhooks, &kept.into_iter().collect());
    lost(
        "documents",
        &all.documents,
        &documents_kept(system, ground).await,
    );
    lost(
        "overrides",
        &all.overrides,
        &overrides_kept(system, ground).await,
    );
}

#[track_caller]
fn lost(what: &str, acknowledged: &BTreeSet<String>, kept: &BTreeSet<String>) {
    let lost: Vec<_> = acknowledged.difference(kept).collect();
    assert!(lost.is_empty(), "{what} are lost: {lost:?}");
}

async fn check_directory(system: &System, ground: &Ground, all: &Acknowledged) {
    let mut client = DirectoryServiceClient::new(system.to("directory"));
    for tenants in all.tenants.iter().collect::<Vec<_>>().chunks(1000) {
        let request = directory::BatchGetTenantsRequest {
            tenant_ids: tenants.iter().map(ToString::to_string).collect(),
        };
        let answer = client.batch_get_tenants(request).await.expect("an answer");
        let kept = answer
            .into_inner()
            .tenants
            .into_iter()
            .map(|tenant| tenant.tenant_id);
        let asked = tenants.iter().map(ToString::to_string).collect();
        lost("tenants", &asked, &kept.collect());
    }
    let mut kept = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let request = directory::ListUsersRequest {
            tenant_id: ground.tenant.clone(),
            page_size: 1000,
            page_token,
        };
        let page = client
            .list_users(request)
            .await
            .expect("a list")
            .into_inner();
        kept.extend(page.users.into_iter().map(|user| user.user_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    lost("users", &all.users, &kept);
}

/// Each connection is there, and hands out the key that it was made with.
async fn check_connections(system: &System, ground: &Ground, all: &Acknowledged) {
    let mut client = ConnectionServiceClient::new(system.to("broker"));
    let connections: Vec<_> = all
        .connections
        .iter()
        .map(|connection| connection.split_once(' ').expect("it has both"))
        .collect();
    for some in connections.chunks(100) {
        let request = broker::BatchGetRequestContextsRequest {
            tenant_id: ground.tenant.clone(),
            connection_ids: some.iter().map(|(id, _)| (*id).to_owned()).collect(),
            purpose: "a look after a crash".to_owned(),
        };
        // The services have only just found each other.
        let contexts = eventually_some(PATIENCE, async || {
            match client.batch_get_request_contexts(request.clone()).await {
                Ok(answer) => keys(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable => None,
                Err(status) => panic!("the connections cannot be read: {status}"),
            }
        })
        .await;
        let expected = some.iter().map(|(_, number)| key_of(number));
        assert_eq!(contexts, expected.collect::<Vec<_>>());
    }
}

/// The keys that were handed out; none while the vault is not there.
fn keys(answer: broker::BatchGetRequestContextsResponse) -> Option<Vec<String>> {
    use broker::request_context_result::Result as Outcome;
    let key = |result: broker::RequestContextResult| match result.result {
        Some(Outcome::Context(context)) => Some(context.access_token),
        Some(Outcome::Error(error)) if error.code == Code::Unavailable as i32 => None,
        other => panic!("a connection is lost: {other:?}"),
    };
    answer.results.into_iter().map(key).collect()
}

fn key_of(number: impl Display) -> String {
    format!("a-key-that-is-kept-{number}")
}

async fn documents_kept(system: &System, ground: &Ground) -> BTreeSet<String> {
    let mut client = DocumentServiceClient::new(system.to("ingest"));
    let mut kept = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let request = ingest::ListDocumentsRequest {
            tenant_id: ground.tenant.clone(),
            stream: "uploads".to_owned(),
            page_size: 1000,
            page_token,
            ..ingest::ListDocumentsRequest::default()
        };
        let page = client
            .list_documents(request)
            .await
            .expect("a list")
            .into_inner();
        kept.extend(
            page.documents
                .into_iter()
                .map(|document| document.external_id),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return kept;
        }
    }
}

async fn overrides_kept(system: &System, ground: &Ground) -> BTreeSet<String> {
    let mut client = SyncPermissionServiceClient::new(system.to("scheduler"));
    let mut kept = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let request = scheduler::ListOverridesRequest {
            tenant_id: ground.tenant.clone(),
            include_used: true,
            page_size: 1000,
            page_token,
        };
        let page = client
            .list_overrides(request)
            .await
            .expect("a list")
            .into_inner();
        kept.extend(
            page.overrides
                .into_iter()
                .map(|granted| granted.override_id),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return kept;
        }
    }
}
