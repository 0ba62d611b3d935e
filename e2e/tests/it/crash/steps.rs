//! SIGKILL in the middle of the demo's steps, and up again: what was acknowledged stays done, and what was cut short is
//! done by doing it again, with the same request id.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use common::Reason;
use common::rpc::CallError;
use contracts::broker::v1 as broker;
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::ingest::v1 as ingest;
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::ingest::v1::webhook_event_service_client::WebhookEventServiceClient;
use contracts::ingest::v1::webhook_source_service_client::WebhookSourceServiceClient;
use contracts::scheduler::v1 as scheduler;
use contracts::scheduler::v1::sync_permission_service_client::SyncPermissionServiceClient;
use contracts::scheduler::v1::sync_service_client::SyncServiceClient;
use e2e::Home;
use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use provider_sim::browser::{BrowseError, Browser};
use serde_json::json;
use testkit::{SeededRng, eventually_some};
use url::Url;

use super::{GONE, again, below, setting};
use crate::path::{self, CLIENT_SECRET, PATIENCE, USER};
use crate::system::System;
use crate::webhooks;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Prepare,
    Connect,
    ChooseAccount,
    ReadToken,
    StartSync,
    AwaitSync,
    BeRefused,
    GrantOverride,
    StartOverridden,
    AwaitOverridden,
    SendWebhook,
    AwaitWebhook,
    Done,
}

/// One customer's way through the steps, and what was acknowledged on it.
#[derive(Debug)]
struct Walk {
    number: usize,
    next: Step,
    tenant: String,
    integration: String,
    source: ingest::Source,
    connection: String,
    account: String,
    token: String,
    documents: usize,
}

/// Between two steps' moments there is half a second at most; a sync takes a few of them.
const LONGEST_LIFE_MS: u64 = 2500;

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_cut_short_is_done_by_doing_it_again() {
    let kills = setting("CRASH_KILLS").unwrap_or(5);
    let seed = setting("CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("killing it {kills} times; CRASH_SEED={seed} does it again");
    let random = SeededRng::new(seed);
    let home = Home::new().expect("a folder");
    let mut walks = Vec::new();
    let mut cut = Vec::new();
    for _ in 0..kills {
        let system = System::of(again(&home).await);
        check_all(&system, &walks).await;
        let life = Duration::from_millis(below(&random, LONGEST_LIFE_MS));
        {
            let mut work = pin!(walk_on(&system, &mut walks));
            if tokio::time::timeout(life, &mut work).await.is_ok() {
                unreachable!("there is always another walk");
            }
            // Whoever waits for an answer waits for it still.
            system.process().signal(Signal::SIGKILL);
        }
        cut.extend(walks.last().map(|walk| format!("{:?}", walk.next)));
        system.process().ended(GONE).await;
    }
    let system = System::of(again(&home).await);
    check_all(&system, &walks).await;
    for walk in &mut walks {
        while walk.next < Step::Done {
            take(&system, walk).await;
        }
    }
    check_all(&system, &walks).await;
    system.hawser.finish().await;
    eprintln!("{} walks, cut short at: {}", walks.len(), cut.join(", "));
}

/// Goes from step to step, and from customer to customer. What waits for a dead worker's lease to end is left to wait.
async fn walk_on(system: &System, walks: &mut Vec<Walk>) {
    let waits = walks.last().is_some_and(|walk| walk.next.waits());
    if waits {
        walks.push(Walk::new(walks.len()));
    }
    loop {
        if walks.last().is_none_or(|walk| walk.next == Step::Done) {
            walks.push(Walk::new(walks.len()));
        }
        let walk = walks.last_mut().expect("one was just begun");
        take(system, walk).await;
    }
}

/// Takes the next step; it is tried again while the services have only just found each other.
async fn take(system: &System, walk: &mut Walk) {
    let step = walk.next;
    eventually_some(PATIENCE, async || match walk.take(system).await {
        Ok(next) => {
            walk.next = next;
            Some(())
        }
        Err(error) if passes(&error) => None,
        Err(error) => panic!("{step:?} of walk {}: {error:#}", walk.number),
    })
    .await;
}

/// Whether it is worth another try.
fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotYet>().is_some()
        || error
            .downcast_ref::<CallError>()
            .is_some_and(CallError::is_transient)
        || error.downcast_ref::<BrowseError>().is_some()
}

/// Something in the background is still going on.
#[derive(Debug, thiserror::Error)]
#[error("not yet")]
struct NotYet;

impl Walk {
    fn new(number: usize) -> Self {
        Self {
            number,
            next: Step::Prepare,
            tenant: String::new(),
            integration: String::new(),
            source: ingest::Source::default(),
            connection: String::new(),
            account: String::new(),
            token: String::new(),
            documents: 0,
        }
    }

    /// A request id that is the same each time.
    fn request(&self, what: &str) -> String {
        format!("walk-{}-{what}", self.number)
    }

    /// Does what is next, and says what comes then.
    async fn take(&mut self, system: &System) -> Result<Step> {
        match self.next {
            Step::Prepare => self.prepare(system).await?,
            Step::Connect => self.connect(system).await?,
            Step::ChooseAccount => self.choose_account(system).await?,
            Step::ReadToken => self.token = self.read_token(system).await?,
            Step::StartSync => self.start_sync(system, "initial").await?,
            Step::BeRefused => self.be_refused(system).await?,
            Step::GrantOverride => self.grant_override(system).await?,
            Step::StartOverridden => self.start_sync(system, "overridden").await?,
            Step::AwaitSync | Step::AwaitOverridden => self.await_sync(system).await?,
            Step::SendWebhook => self.send_webhook(system).await?,
            Step::AwaitWebhook => self.await_webhook(system).await?,
            Step::Done => {}
        }
        Ok(self.next.then())
    }

    async fn prepare(&mut self, system: &System) -> Result<()> {
        let mut directory = DirectoryServiceClient::new(system.to("directory"));
        let tenant = directory::Tenant {
            external_id: self.request("tenant"),
            company_name: format!("Walk {}", self.number),
            subdomain: format!("walk-{}", self.number),
            ..directory::Tenant::default()
        };
        let request = directory::EnsureTenantRequest {
            tenant: Some(tenant),
        };
        let made = directory.ensure_tenant(request).await.map_err(called)?;
        self.tenant = made.into_inner().tenant.context("a tenant")?.tenant_id;
        let user = directory::User {
            tenant_id: self.tenant.clone(),
            user_id: USER.to_owned(),
            email: format!("{USER}@walk-{}.example", self.number),
            ..directory::User::default()
        };
        let request = directory::EnsureUserRequest { user: Some(user) };
        directory.ensure_user(request).await.map_err(called)?;
        self.make_integration(system).await?;
        let source = ingest::Source {
            tenant_id: self.tenant.clone(),
            integration_id: self.integration.clone(),
            scheme: "standard-webhooks".to_owned(),
            trigger_streams: [("*".to_owned(), "projects".to_owned())].into(),
            ..ingest::Source::default()
        };
        let request = ingest::CreateSourceRequest {
            request_id: self.request("source"),
            source: Some(source),
            secret: webhooks::SECRET.to_owned(),
        };
        let made = WebhookSourceServiceClient::new(system.to("ingest"))
            .create_source(request)
            .await
            .map_err(called)?;
        self.source = made.into_inner().source.context("a source")?;
        Ok(())
    }

    async fn make_integration(&mut self, system: &System) -> Result<()> {
        let client = self.request("client");
        let integration = broker::Integration {
            tenant_id: self.tenant.clone(),
            integration_id: "procore".to_owned(),
            provider: "procore".to_owned(),
            display_name: "Procore".to_owned(),
            client_id: client.clone(),
            client_secret: CLIENT_SECRET.to_owned(),
            overrides: Some(path::to_struct(&path::at_the_simulator(system))),
            ..broker::Integration::default()
        };
        let request = broker::CreateIntegrationRequest {
            request_id: self.request("integration"),
            integration: Some(integration),
        };
        let made = IntegrationServiceClient::new(system.to("broker"))
            .create_integration(request)
            .await
            .map_err(called)?;
        let made = made.into_inner().integration.context("an integration")?;
        self.integration = made.integration_id;
        let known = json!({
            "client_id": client,
            "client_secrets": [CLIENT_SECRET],
            "redirect_uris": [made.redirect_uri],
        });
        let to = "/providers/procore/clients";
        system.try_sim(Method::PUT, to, Some(known)).await?;
        Ok(())
    }

    /// What the user does in a browser: from the beginning each time, as a user does whose page does not load.
    async fn connect(&mut self, system: &System) -> Result<()> {
        let request = broker::CreateConnectSessionRequest {
            tenant_id: self.tenant.clone(),
            user_id: USER.to_owned(),
            user_email: format!("{USER}@walk-{}.example", self.number),
            integration_id: self.integration.clone(),
            ..broker::CreateConnectSessionRequest::default()
        };
        let mut client = ConnectServiceClient::new(system.to("broker"));
        let made = client
            .create_connect_session(request)
            .await
            .map_err(called)?
            .into_inner();
        browse(system, &made.connect_url).await?;
        let session = made.session.context("a session")?;
        let request = broker::GetConnectSessionRequest {
            tenant_id: session.tenant_id,
            session_id: session.session_id,
        };
        let answer = client.get_connect_session(request).await.map_err(called)?;
        let session = answer.into_inner().session.context("a session")?;
        ensure!(
            session.state() == broker::ConnectSessionState::Succeeded,
            "the session is {:?}: {} {}",
            session.state(),
            session.error_reason,
            session.error
        );
        self.connection = session.connection_id;
        Ok(())
    }

    async fn choose_account(&mut self, system: &System) -> Result<()> {
        let mut client = ConnectionServiceClient::new(system.to("broker"));
        let request = broker::ListAccountsRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            ..broker::ListAccountsRequest::default()
        };
        let accounts = client.list_accounts(request).await.map_err(called)?;
        let accounts = accounts.into_inner().accounts;
        let chosen = accounts
            .iter()
            .map(|account| &account.external_account_id)
            .max();
        let request = broker::SelectAccountRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            external_account_id: chosen.context("an account")?.clone(),
        };
        let chosen = request.external_account_id.clone();
        client.select_account(request).await.map_err(called)?;
        self.account = chosen;
        Ok(())
    }

    async fn read_token(&self, system: &System) -> Result<String> {
        let request = broker::GetRequestContextRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            purpose: "a step".to_owned(),
            ..broker::GetRequestContextRequest::default()
        };
        let context = ConnectionServiceClient::new(system.to("broker"))
            .get_request_context(request)
            .await
            .map_err(called)?
            .into_inner();
        ensure!(
            context.headers.get("Procore-Company-Id") == Some(&self.account),
            "another account is active than {}",
            self.account
        );
        Ok(context.access_token)
    }

    async fn start_sync(&self, system: &System, which: &str) -> Result<()> {
        let request = scheduler::StartInitialSyncRequest {
            request_id: self.request(which),
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            user_id: USER.to_owned(),
            ..scheduler::StartInitialSyncRequest::default()
        };
        SyncServiceClient::new(system.to("scheduler"))
            .start_initial_sync(request)
            .await
            .map_err(called)?;
        Ok(())
    }

    async fn await_sync(&mut self, system: &System) -> Result<()> {
        let request = scheduler::GetSyncStateRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
        };
        let answer = SyncServiceClient::new(system.to("scheduler"))
            .get_sync_state(request)
            .await
            .map_err(called)?;
        let state = answer.into_inner().sync_state.context("a state")?;
        match state.initial_sync_state() {
            scheduler::InitialSyncState::Completed => {}
            scheduler::InitialSyncState::Running => bail!(NotYet),
            other => bail!("the sync is {other:?}: {:?}", state.last_job),
        }
        let documents = self.documents(system).await?;
        ensure!(
            self.next == Step::AwaitSync || documents.len() == self.documents,
            "{} documents where there were {}",
            documents.len(),
            self.documents
        );
        self.documents = documents.len();
        let query = format!(
            "/records?provider=procore&collection=projects&owner={}",
            self.account
        );
        let there = system.try_sim(Method::GET, &query, None).await?;
        let there: BTreeSet<_> = there
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|record| Some(("projects".to_owned(), record["id"].as_str()?.to_owned())))
            .collect();
        ensure!(!there.is_empty(), "the provider has projects");
        let missing = there.difference(&documents).count();
        ensure!(
            missing == 0,
            "{missing} of {} projects are missing",
            there.len()
        );
        Ok(())
    }

    async fn be_refused(&self, system: &System) -> Result<()> {
        let Err(error) = self.start_sync(system, "refused").await else {
            bail!("the lock was gone round");
        };
        match error.downcast_ref::<CallError>() {
            Some(refused) if refused.reason == Some(Reason::SyncLocked) => Ok(()),
            _ => Err(error),
        }
    }

    async fn grant_override(&self, system: &System) -> Result<()> {
        let request = scheduler::GrantOverrideRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            reason: "a step".to_owned(),
            request_id: self.request("override"),
            ..scheduler::GrantOverrideRequest::default()
        };
        SyncPermissionServiceClient::new(system.to("scheduler"))
            .grant_override(request)
            .await
            .map_err(called)?;
        Ok(())
    }

    async fn send_webhook(&self, system: &System) -> Result<()> {
        let source = super::at_port_of(system, &self.source);
        let body = webhooks::body(&self.account, 1);
        if webhooks::try_send(system, &source, &self.request("webhook"), &body).await {
            Ok(())
        } else {
            // As a provider, who sends it again.
            bail!(NotYet)
        }
    }

    async fn await_webhook(&self, system: &System) -> Result<()> {
        let request = ingest::ListEventsRequest {
            tenant_id: self.tenant.clone(),
            source_id: self.source.source_id.clone(),
            ..ingest::ListEventsRequest::default()
        };
        let answer = WebhookEventServiceClient::new(system.to("ingest"))
            .list_events(request)
            .await
            .map_err(called)?;
        let events = answer.into_inner().events;
        let [event] = events.as_slice() else {
            bail!("{} events were kept of one", events.len());
        };
        let [job_id] = event.job_ids.as_slice() else {
            ensure!(
                event.state() == ingest::EventState::Received,
                "the event led to no job: {event:?}"
            );
            bail!(NotYet);
        };
        let request = scheduler::GetJobRequest {
            tenant_id: self.tenant.clone(),
            job_id: job_id.clone(),
        };
        let answer = SyncServiceClient::new(system.to("scheduler"))
            .get_job(request)
            .await
            .map_err(called)?;
        let job = answer.into_inner().job.context("a job")?;
        match job.state() {
            scheduler::JobState::Succeeded => Ok(()),
            scheduler::JobState::Queued
            | scheduler::JobState::Running
            | scheduler::JobState::Retrying
            | scheduler::JobState::Parked => bail!(NotYet),
            other => bail!("the event's job is {other:?}: {}", job.last_error),
        }
    }

    /// Streams and ids of all documents, each of which there is once.
    async fn documents(&self, system: &System) -> Result<BTreeSet<(String, String)>> {
        let mut client = DocumentServiceClient::new(system.to("ingest"));
        let mut found = BTreeSet::new();
        let mut page_token = String::new();
        loop {
            let request = ingest::ListDocumentsRequest {
                tenant_id: self.tenant.clone(),
                page_size: 1000,
                page_token,
                ..ingest::ListDocumentsRequest::default()
            };
            let page = client.list_documents(request).await.map_err(called)?;
            let page = page.into_inner();
            for document in page.documents {
                let key = (document.stream, document.external_id);
                ensure!(found.insert(key.clone()), "{key:?} is there twice");
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(found);
            }
        }
    }

    /// What was acknowledged is as it was.
    async fn check(&self, system: &System) -> Result<()> {
        if self.next > Step::Connect {
            let request = broker::ListConnectionsRequest {
                tenant_id: self.tenant.clone(),
                ..broker::ListConnectionsRequest::default()
            };
            let answer = ConnectionServiceClient::new(system.to("broker"))
                .list_connections(request)
                .await
                .map_err(called)?;
            let connections = answer.into_inner().connections;
            ensure!(
                matches!(connections.as_slice(), [one] if one.connection_id == self.connection
                    && one.state() == broker::ConnectionState::Connected),
                "the connection is not as it was: {connections:?}"
            );
        }
        if self.next > Step::ReadToken {
            let token = self.read_token(system).await?;
            ensure!(token == self.token, "another token is handed out");
        }
        if self.next > Step::AwaitSync {
            let documents = self.documents(system).await?.len();
            ensure!(
                documents == self.documents,
                "{documents} documents where there were {}",
                self.documents
            );
        }
        let overridden = Step::GrantOverride..=Step::StartOverridden;
        if self.next > Step::StartSync && !overridden.contains(&self.next) {
            self.be_refused(system).await?;
        }
        Ok(())
    }
}

async fn check_all(system: &System, walks: &[Walk]) {
    for walk in walks {
        eventually_some(PATIENCE, async || match walk.check(system).await {
            Ok(()) => Some(()),
            Err(error) if passes(&error) => None,
            Err(error) => panic!("walk {} before {:?}: {error:#}", walk.number, walk.next),
        })
        .await;
    }
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Prepare,
        Self::Connect,
        Self::ChooseAccount,
        Self::ReadToken,
        Self::StartSync,
        Self::AwaitSync,
        Self::BeRefused,
        Self::GrantOverride,
        Self::StartOverridden,
        Self::AwaitOverridden,
        Self::SendWebhook,
        Self::AwaitWebhook,
        Self::Done,
    ];

    fn waits(self) -> bool {
        matches!(
            self,
            Self::AwaitSync | Self::AwaitOverridden | Self::AwaitWebhook
        )
    }

    fn then(self) -> Self {
        Self::ALL
            .into_iter()
            .find(|next| *next > self)
            .unwrap_or(Self::Done)
    }
}

fn called(status: tonic::Status) -> anyhow::Error {
    CallError::from(status).into()
}

/// From the link over the consent page to the broker's last page.
async fn browse(system: &System, connect_url: &str) -> Result<()> {
    let mut browser = Browser::new();
    let broker = Url::parse(system.http("broker"))?;
    let page = browser.open(connect_url).await?;
    let asked = page.form()?;
    let sent = browser.submit(&asked, &[]).await?;
    let consent = sent.redirect().context("the page leads to the provider")?;
    let mut page = browser.consent(consent.as_str(), "alice").await?;
    while let Some(next) = page
        .redirect()
        .filter(|next| next.origin() == broker.origin())
    {
        page = browser.get(next.as_str()).await?;
    }
    match page.answer.status {
        StatusCode::SERVICE_UNAVAILABLE => bail!(NotYet),
        status => ensure!(status.is_success(), "{status}: {}", page.answer.text()),
    }
    Ok(())
}
