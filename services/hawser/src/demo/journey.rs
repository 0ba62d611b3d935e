//! What the host application, its user, and an operator do, one after the other.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use common::problem::reason_name;
use common::rpc::CallError;
use common::{Deps, Reason};
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::broker::v1::{
    CreateConnectSessionRequest, CreateIntegrationRequest, GetConnectionRequest,
    GetRequestContextRequest, GetRequestContextResponse, Integration, ListAccountsRequest,
    SelectAccountRequest,
};
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::{
    EnsureTenantRequest, EnsureUserRequest, Subscription, SubscriptionStatus, SubscriptionTier,
    Tenant, User,
};
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::ingest::v1::webhook_event_service_client::WebhookEventServiceClient;
use contracts::ingest::v1::webhook_source_service_client::WebhookSourceServiceClient;
use contracts::ingest::v1::{
    CreateSourceRequest, Document, EventState, ListDocumentsRequest, ListEventsRequest, Source,
};
use contracts::scheduler::v1::sync_permission_service_client::SyncPermissionServiceClient;
use contracts::scheduler::v1::sync_service_client::SyncServiceClient;
use contracts::scheduler::v1::{
    GetSyncStateRequest, GrantOverrideRequest, InitialSyncState, JobState, StartInitialSyncRequest,
    SyncState,
};
use contracts::vault::v1::GetCredentialRequest;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use provider_sim::browser::{Browser, Page};
use serde_json::json;

use super::Steps;
use super::provider::{PROVIDER, Provider, USER};
use super::system::System;
use crate::remote::Remote;

/// Where the user's browser ends up; nothing listens there.
const RETURN_URL: &str = "https://app.acme.example/settings";
/// Lifetime of the first access token, so that the demo sees it end.
const SHORT_LIFE: u32 = 8;
const LONG_LIFE: u32 = 5400;
/// For whatever goes on by itself.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MOST_PAGES: usize = 12;

/// What has been made so far.
pub(super) struct Journey {
    remote: Remote,
    provider: Provider,
    /// The customer.
    pub(super) tenant: String,
    integration: String,
    connection: String,
    grant: String,
    company: String,
    documents: i64,
}

fn failed<E: Into<CallError>>(what: &'static str) -> impl Fn(E) -> anyhow::Error {
    move |status| anyhow::Error::from(status.into()).context(what)
}

impl Journey {
    /// The customer, its user, and its integration.
    pub(super) async fn begin(system: &System, deps: &Deps) -> Result<Self> {
        let remote = Remote::operator(system.instance(), deps)?;
        let base = system
            .instance()
            .http
            .get("provider_sim")
            .context("the instance has a simulated provider")?;
        let provider = Provider::at(base);

        let mut directory = DirectoryServiceClient::new(remote.directory.clone());
        let subscription = Subscription {
            tier: SubscriptionTier::Enterprise.into(),
            status: SubscriptionStatus::Active.into(),
            ..Subscription::default()
        };
        let tenant = Tenant {
            external_id: "acme".into(),
            company_name: "Acme Construction".into(),
            subdomain: "acme".into(),
            subscription: Some(subscription),
            allowed_origins: vec!["https://app.acme.example".into()],
            ..Tenant::default()
        };
        let made = directory
            .ensure_tenant(EnsureTenantRequest {
                tenant: Some(tenant),
            })
            .await
            .map_err(failed("the tenant"))?;
        let tenant = made
            .into_inner()
            .tenant
            .context("the directory answers with the tenant")?
            .tenant_id;
        let user = User {
            tenant_id: tenant.clone(),
            user_id: USER.into(),
            email: "alice@acme.example".into(),
            first_name: "Alice".into(),
            ..User::default()
        };
        directory
            .ensure_user(EnsureUserRequest { user: Some(user) })
            .await
            .map_err(failed("the user"))?;

        let integration = Integration {
            tenant_id: tenant.clone(),
            integration_id: "procore".into(),
            provider: PROVIDER.into(),
            display_name: "Procore".into(),
            client_id: "demo".into(),
            client_secret: "demo-secret".into(),
            overrides: Some(json_struct(&provider.overrides())?),
            ..Integration::default()
        };
        let request = CreateIntegrationRequest {
            request_id: "demo-integration".into(),
            integration: Some(integration),
        };
        let made = IntegrationServiceClient::new(remote.broker.clone())
            .create_integration(request)
            .await;
        let integration = made
            .map_err(failed("the integration"))?
            .into_inner()
            .integration
            .context("the broker answers with the integration")?;
        provider.register(&integration.redirect_uri).await?;
        provider.set_token_lifetime(SHORT_LIFE).await?;
        Ok(Self {
            remote,
            provider,
            tenant,
            integration: integration.integration_id,
            connection: String::new(),
            grant: String::new(),
            company: String::new(),
            documents: 0,
        })
    }

    /// What Alice does in her browser.
    pub(super) async fn connect(&mut self, steps: &mut Steps) -> Result<()> {
        let request = CreateConnectSessionRequest {
            tenant_id: self.tenant.clone(),
            user_id: USER.into(),
            user_email: "alice@acme.example".into(),
            integration_id: self.integration.clone(),
            return_url: RETURN_URL.into(),
            ..CreateConnectSessionRequest::default()
        };
        let session = ConnectServiceClient::new(self.remote.broker.clone())
            .create_connect_session(request)
            .await;
        let url = session
            .map_err(failed("the connect session"))?
            .into_inner()
            .connect_url;
        let back = browse(&url).await?;
        let value = |name: &str| {
            back.query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        if let Some(error) = value("error") {
            bail!(
                "the browser came back with {error}: {}",
                value("error_reason").unwrap_or_default()
            );
        }
        self.connection =
            value("connection_id").context("the browser came back without a connection")?;
        let request = GetConnectionRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
        };
        let found = ConnectionServiceClient::new(self.remote.broker.clone())
            .get_connection(request)
            .await;
        let connection = found
            .map_err(failed("the connection"))?
            .into_inner()
            .connection
            .context("the broker answers with the connection")?;
        self.grant = connection.grant_id;
        // What follows is refreshed into tokens that last.
        self.provider.set_token_lifetime(LONG_LIFE).await?;
        let account = connection.active_account.unwrap_or_default();
        self.company = account.external_account_id;
        steps.done(&format!(
            "connected as {} ({}), company {}",
            connection.user_email, connection.external_user_id, account.name
        ))
    }

    /// Makes the other company the active one, and back.
    pub(super) async fn switch_account(&mut self) -> Result<(String, String)> {
        let mut broker = ConnectionServiceClient::new(self.remote.broker.clone());
        let request = ListAccountsRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            ..ListAccountsRequest::default()
        };
        let accounts = broker
            .list_accounts(request)
            .await
            .map_err(failed("the accounts"))?
            .into_inner()
            .accounts;
        let active = accounts
            .iter()
            .find(|account| account.active)
            .context("one account is the active one")?
            .clone();
        let other = accounts
            .iter()
            .find(|account| !account.active)
            .context("the grant reaches a second account")?
            .clone();
        let select = |account: &str| SelectAccountRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            external_account_id: account.to_owned(),
        };
        broker
            .select_account(select(&other.external_account_id))
            .await
            .map_err(failed("the choice of an account"))?;
        let context = self.request_context("demo: after the switch").await?;
        let sent = context
            .headers
            .get("Procore-Company-Id")
            .cloned()
            .unwrap_or_default();
        ensure!(
            sent == other.external_account_id,
            "the request carries company {sent}, not {}",
            other.external_account_id
        );
        self.company = other.external_account_id;
        Ok((active.name, other.name))
    }

    /// One token, as a backend gets it.
    pub(super) async fn read_token(&self) -> Result<String> {
        let context = self.request_context("demo: one call").await?;
        ensure!(
            !context.access_token.is_empty(),
            "the context holds no token"
        );
        let headers: Vec<_> = context.headers.keys().map(String::as_str).collect();
        Ok(format!(
            "version {} of the token ({} characters, shown to nobody here), for {}, with {}",
            context.credential_version,
            context.access_token.len(),
            context.base_url,
            headers.join(" and "),
        ))
    }

    /// Waits until the token has ended, then reads it with so many readers at once; tells how often it was refreshed.
    pub(super) async fn read_expired(&self, readers: usize) -> Result<u64> {
        let before = self.provider.refreshes().await?;
        tokio::time::sleep(Duration::from_secs(u64::from(SHORT_LIFE) + 1)).await;
        let reads = (0..readers).map(|_| {
            let mut vault = TokenVaultServiceClient::new(self.remote.vault.clone());
            let request = GetCredentialRequest {
                tenant_id: self.tenant.clone(),
                grant_id: self.grant.clone(),
                purpose: "demo: one of many readers".into(),
                ..GetCredentialRequest::default()
            };
            async move {
                vault
                    .get_credential(request)
                    .await
                    .map_err(failed("a reader of the expired token"))
            }
        });
        try_join_all(reads).await?;
        Ok(self.provider.refreshes().await? - before)
    }

    /// The historical sync, with a progress bar.
    pub(super) async fn initial_sync(&mut self) -> Result<i64> {
        self.start_sync("demo-initial")
            .await
            .map_err(|error| anyhow::Error::from(error).context("the historical sync"))?;
        let state = self.follow_sync().await?;
        ensure!(
            state.auto_sync_enabled,
            "the connection is not kept up to date by itself"
        );
        self.documents = self.count_documents().await?;
        let expected = self.provider.projects(&self.company).await?;
        let projects = self.count_documents_of("projects").await?;
        ensure!(
            projects == expected as i64,
            "{projects} projects were recorded where the provider has {expected}"
        );
        Ok(self.documents)
    }

    async fn start_sync(&self, request_id: &str) -> Result<(), CallError> {
        let request = StartInitialSyncRequest {
            request_id: request_id.into(),
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            user_id: USER.into(),
            ..StartInitialSyncRequest::default()
        };
        SyncServiceClient::new(self.remote.scheduler.clone())
            .start_initial_sync(request)
            .await?;
        Ok(())
    }

    async fn sync_state(&self) -> Result<SyncState> {
        let request = GetSyncStateRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
        };
        let answer = SyncServiceClient::new(self.remote.scheduler.clone())
            .get_sync_state(request)
            .await;
        answer
            .map_err(failed("the sync's state"))?
            .into_inner()
            .sync_state
            .context("the scheduler answers with the state")
    }

    async fn follow_sync(&self) -> Result<SyncState> {
        let style = ProgressStyle::with_template("    {bar:40} {pos} records, {elapsed}")?;
        let bar = ProgressBar::new(0).with_style(style);
        let followed = tokio::time::timeout(PATIENCE, async {
            loop {
                let state = self.sync_state().await?;
                let progress = state.initial_sync_progress.unwrap_or_default();
                bar.set_length(
                    progress
                        .records_expected
                        .max(progress.records_read)
                        .unsigned_abs(),
                );
                bar.set_position(progress.records_read.unsigned_abs());
                match state.initial_sync_state() {
                    InitialSyncState::Completed => return Ok(state),
                    InitialSyncState::Failed | InitialSyncState::Partial => {
                        bail!(
                            "the sync failed: {}",
                            state.last_job.unwrap_or_default().last_error
                        )
                    }
                    _ => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        })
        .await;
        bar.finish_and_clear();
        followed.context("the sync did not come to its end in time")?
    }

    /// The lock holds; tells what a person reads.
    pub(super) async fn second_sync_is_refused(&self) -> Result<String> {
        match self.start_sync("demo-again").await {
            Err(error) if error.reason == Some(Reason::SyncLocked) => Ok(format!(
                "{}: {}",
                reason_name(Reason::SyncLocked),
                error.message
            )),
            Err(error) => {
                Err(anyhow::Error::from(error).context("it was refused for another reason"))
            }
            Ok(()) => bail!("it was let through"),
        }
    }

    /// One more start; tells how many documents there are after it.
    pub(super) async fn override_once(&self) -> Result<i64> {
        let request = GrantOverrideRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            reason: "the demo shows it".into(),
            request_id: "demo-override".into(),
            ..GrantOverrideRequest::default()
        };
        let mut permission = SyncPermissionServiceClient::new(self.remote.scheduler.clone());
        permission
            .grant_override(request)
            .await
            .map_err(failed("the override"))?;
        self.start_sync("demo-overridden")
            .await
            .map_err(|error| anyhow::Error::from(error).context("the overridden sync"))?;
        self.follow_sync().await?;
        self.second_sync_is_refused()
            .await
            .context("the override was not used up")?;
        let documents = self.count_documents().await?;
        ensure!(
            documents == self.documents,
            "{documents} documents where there were {}",
            self.documents
        );
        Ok(documents)
    }

    /// A signed webhook leads to a sync, once.
    pub(super) async fn webhook(&self) -> Result<String> {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let source = Source {
            tenant_id: self.tenant.clone(),
            integration_id: self.integration.clone(),
            scheme: "standard-webhooks".into(),
            trigger_streams: [("*".to_owned(), "projects".to_owned())].into(),
            ..Source::default()
        };
        let request = CreateSourceRequest {
            request_id: "demo-source".into(),
            source: Some(source),
            secret: secret.into(),
        };
        let made = WebhookSourceServiceClient::new(self.remote.ingest.clone())
            .create_source(request)
            .await;
        let source = made
            .map_err(failed("the webhook source"))?
            .into_inner()
            .source
            .context("the ingest answers with the source")?;

        let name = "Renamed at the provider";
        let project = self.provider.rename_project(&self.company, name).await?;
        let webhook = json!({
            "url": source.url, "scheme": "standard-webhooks", "secret": secret, "times": 2, "concurrently": true,
            "payload": {"type": "project.updated", "data": {"account_id": self.company, "id": project}},
        });
        let statuses = self.provider.send_webhook(&webhook).await?;
        ensure!(
            statuses.len() == 2 && statuses.iter().all(|status| (200..300).contains(status)),
            "it was answered with {statuses:?}"
        );
        let mut forged = webhook.clone();
        forged["tamper"] = json!(true);
        forged["times"] = json!(1);
        let refused = self.provider.send_webhook(&forged).await?;
        ensure!(
            refused.iter().all(|status| (400..500).contains(status)),
            "a forged one was answered with {refused:?}"
        );
        self.until("the renamed project", async || {
            Ok(self
                .document("projects", &project)
                .await?
                .is_some_and(|found| {
                    found.title == name
                        || String::from_utf8_lossy(&found.content_json).contains(name)
                }))
        })
        .await?;
        let events = self.events(&source.source_id).await?;
        ensure!(
            events.len() == 1,
            "{} events were kept of one that was sent twice",
            events.len()
        );
        let jobs = events.first().map_or(0, |event| event.job_ids.len());
        Ok(format!(
            "verified, kept once, and turned into {jobs} sync; the renamed project is here"
        ))
    }

    async fn events(&self, source_id: &str) -> Result<Vec<contracts::ingest::v1::Event>> {
        let request = ListEventsRequest {
            tenant_id: self.tenant.clone(),
            source_id: source_id.to_owned(),
            state: EventState::Processed.into(),
            ..ListEventsRequest::default()
        };
        let listed = WebhookEventServiceClient::new(self.remote.ingest.clone())
            .list_events(request)
            .await;
        Ok(listed.map_err(failed("the events"))?.into_inner().events)
    }

    async fn document(&self, stream: &str, external_id: &str) -> Result<Option<Document>> {
        Ok(self
            .documents_of(stream)
            .await?
            .into_iter()
            .find(|document| document.external_id == external_id))
    }

    async fn documents_of(&self, stream: &str) -> Result<Vec<Document>> {
        let mut client = DocumentServiceClient::new(self.remote.ingest.clone());
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListDocumentsRequest {
                tenant_id: self.tenant.clone(),
                connection_id: self.connection.clone(),
                stream: stream.to_owned(),
                page_size: 1000,
                page_token,
                ..ListDocumentsRequest::default()
            };
            let page = client
                .list_documents(request)
                .await
                .map_err(failed("the documents"))?
                .into_inner();
            all.extend(page.documents);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    async fn count_documents_of(&self, stream: &str) -> Result<i64> {
        Ok(self.documents_of(stream).await?.len() as i64)
    }

    async fn count_documents(&self) -> Result<i64> {
        self.count_documents_of("").await
    }

    async fn request_context(&self, purpose: &str) -> Result<GetRequestContextResponse> {
        let request = GetRequestContextRequest {
            tenant_id: self.tenant.clone(),
            connection_id: self.connection.clone(),
            purpose: purpose.into(),
            ..GetRequestContextRequest::default()
        };
        let context = ConnectionServiceClient::new(self.remote.broker.clone())
            .get_request_context(request)
            .await;
        Ok(context.map_err(failed("the request context"))?.into_inner())
    }

    /// Calls the instance that was started anew.
    pub(super) fn reconnect(&mut self, system: &System, deps: &Deps) -> Result<()> {
        self.remote = Remote::operator(system.instance(), deps)?;
        let base = system
            .instance()
            .http
            .get("provider_sim")
            .context("the instance has a simulated provider")?;
        self.provider = Provider::at(base);
        Ok(())
    }

    /// Everything that was acknowledged is there.
    pub(super) async fn still_works(&self) -> Result<String> {
        let context = self.request_context("demo: after the restart").await?;
        ensure!(
            !context.access_token.is_empty(),
            "there is no token any more"
        );
        let documents = self.count_documents().await?;
        ensure!(
            documents == self.documents,
            "{documents} documents where there were {}",
            self.documents
        );
        self.second_sync_is_refused()
            .await
            .context("the lock did not last")?;
        self.until("the worker", async || {
            Ok(self
                .sync_state()
                .await?
                .current_jobs
                .iter()
                .all(|job| job.state() != JobState::Running))
        })
        .await?;
        Ok(format!(
            "the connection works, {documents} documents are there, the lock holds; nobody has to connect again"
        ))
    }

    async fn until(
        &self,
        what: &'static str,
        condition: impl AsyncFn() -> Result<bool>,
    ) -> Result<()> {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !condition().await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok::<_, anyhow::Error>(())
        });
        waited
            .await
            .with_context(|| format!("{what} did not come in time"))?
    }
}

/// Goes where a browser goes, says yes where a person would, and stops where the host application begins.
async fn browse(connect_url: &str) -> Result<url::Url> {
    let mut browser = Browser::new();
    let mut page: Page = browser.get(connect_url).await?;
    for _ in 0..MOST_PAGES {
        page = match page.redirect() {
            Some(next) if next.as_str().starts_with(RETURN_URL) => return Ok(next),
            Some(next) if next.path().ends_with("/oauth/authorize") => {
                browser.consent(next.as_str(), USER).await?
            }
            Some(next) => browser.get(next.as_str()).await?,
            None => {
                ensure!(
                    page.answer.status.is_success(),
                    "{} answered {}",
                    page.url.path(),
                    page.answer.status
                );
                let form = page.form().with_context(|| {
                    format!(
                        "{} asks for nothing: {}",
                        page.url.path(),
                        page.answer.text()
                    )
                })?;
                browser.submit(&form, &[]).await?
            }
        };
    }
    bail!("the browser was sent on and on")
}

fn json_struct(value: &serde_json::Value) -> Result<prost_types::Struct> {
    let object = value.as_object().context("overrides are an object")?;
    Ok(prost_types::Struct {
        fields: object
            .iter()
            .map(|(key, value)| (key.clone(), json_value(value)))
            .collect(),
    })
}

fn json_value(value: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    use serde_json::Value;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(json_value).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields
                .iter()
                .map(|(key, value)| (key.clone(), json_value(value)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
