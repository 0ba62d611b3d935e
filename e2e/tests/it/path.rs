//! The way from nothing to a connection that syncs, as a host application and its user go it.

use std::time::Duration;

use contracts::broker::v1 as broker;
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::ingest::v1 as ingest;
use contracts::ingest::v1::webhook_event_service_client::WebhookEventServiceClient;
use contracts::ingest::v1::webhook_source_service_client::WebhookSourceServiceClient;
use contracts::scheduler::v1 as scheduler;
use contracts::scheduler::v1::sync_service_client::SyncServiceClient;
use http::Method;
use prost_types::value::Kind;
use provider_sim::browser::{Browser, Page};
use serde_json::{Value, json};
use testkit::eventually_some;
use url::Url;

use crate::system::System;

/// The user of each tenant that is made here.
pub(crate) const USER: &str = "user-1";
/// The client that integrations have at the simulated provider.
const CLIENT: &str = "e2e";
pub(crate) const CLIENT_SECRET: &str = "the-client-secret-of-e2e";
/// The longest that anything in the background may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// What was made for a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) tenant: String,
    pub(crate) integration: String,
    pub(crate) connection: broker::Connection,
}

/// A tenant with the user [`USER`]; gives its id.
pub(crate) async fn tenant(system: &System, name: &str) -> String {
    let mut client = DirectoryServiceClient::new(system.to("directory"));
    let unique = system.unique();
    let tenant = directory::Tenant {
        company_name: format!("{name} {unique}"),
        subdomain: format!("t{unique}"),
        external_id: format!("ext-{unique}"),
        subscription: Some(directory::Subscription {
            tier: directory::SubscriptionTier::Enterprise.into(),
            status: directory::SubscriptionStatus::Active.into(),
            ..directory::Subscription::default()
        }),
        ..directory::Tenant::default()
    };
    let request = directory::CreateTenantRequest {
        request_id: unique,
        tenant: Some(tenant),
    };
    let made = client.create_tenant(request).await.expect("a tenant");
    let tenant_id = made
        .into_inner()
        .tenant
        .expect("the answer has it")
        .tenant_id;
    let user = directory::User {
        tenant_id: tenant_id.clone(),
        user_id: USER.to_owned(),
        email: format!("{USER}@{name}.example"),
        ..directory::User::default()
    };
    let request = directory::EnsureUserRequest { user: Some(user) };
    client.ensure_user(request).await.expect("a user");
    tenant_id
}

/// An integration with the simulated provider's Procore, whose client knows its redirect URI; gives its id.
pub(crate) async fn procore(system: &System, tenant: &str) -> String {
    let overrides = at_the_simulator(system);
    let integration = integration(system, tenant, "procore", CLIENT_SECRET, &overrides).await;
    let providers = system.sim(Method::GET, "/providers", None).await;
    let of_procore = |provider: &&Value| provider["config"]["slug"] == "procore";
    let clients = providers
        .as_array()
        .and_then(|providers| {
            providers
                .iter()
                .find(of_procore)?
                .pointer("/config/clients")
        })
        .and_then(Value::as_array)
        .expect("the simulated provider lists its clients");
    let known = clients.iter().find(|client| client["client_id"] == CLIENT);
    let mut uris = known.map_or_else(Vec::new, |client| {
        client["redirect_uris"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    });
    uris.push(json!(integration.redirect_uri));
    let client =
        json!({"client_id": CLIENT, "client_secrets": [CLIENT_SECRET], "redirect_uris": uris});
    system
        .sim(Method::PUT, "/providers/procore/clients", Some(client))
        .await;
    integration.integration_id
}

/// The catalogue's values that point to Procore, pointed to the simulated one.
pub(crate) fn at_the_simulator(system: &System) -> Value {
    let sim = format!("{}/procore", system.http("provider_sim"));
    json!({
        "endpoints": {
            "authorization": format!("{sim}/oauth/authorize"),
            "token": format!("{sim}/oauth/token"),
            "revocation": format!("{sim}/oauth/revoke"),
        },
        "api": {"base_url": sim},
    })
}

/// An integration with some provider.
pub(crate) async fn integration(
    system: &System,
    tenant: &str,
    provider: &str,
    client_secret: &str,
    overrides: &Value,
) -> broker::Integration {
    let unique = system.unique();
    let has_client = !client_secret.is_empty();
    let integration = broker::Integration {
        tenant_id: tenant.to_owned(),
        integration_id: format!("{provider}-{unique}"),
        provider: provider.to_owned(),
        display_name: format!("The {provider} of a test"),
        client_id: if has_client {
            CLIENT.to_owned()
        } else {
            String::new()
        },
        client_secret: client_secret.to_owned(),
        overrides: Some(to_struct(overrides)),
        ..broker::Integration::default()
    };
    let request = broker::CreateIntegrationRequest {
        request_id: unique,
        integration: Some(integration),
    };
    let made = IntegrationServiceClient::new(system.to("broker"))
        .create_integration(request)
        .await
        .expect("an integration");
    made.into_inner().integration.expect("the answer has it")
}

/// A tenant whose user is connected with the simulated Procore as `alice`.
pub(crate) async fn connected(system: &System, name: &str) -> Connected {
    let tenant = tenant(system, name).await;
    let integration = procore(system, &tenant).await;
    let mut browser = Browser::new();
    let session = session(system, &tenant, &integration).await;
    let consent = begin(&mut browser, &session.connect_url).await;
    let back = browser
        .consent(consent.as_str(), "alice")
        .await
        .expect("the provider's consent page");
    arrive(system, &mut browser, back).await;
    let connection = succeeded(system, &session).await;
    Connected {
        tenant,
        integration,
        connection,
    }
}

/// A connect session for [`USER`].
pub(crate) async fn session(
    system: &System,
    tenant: &str,
    integration: &str,
) -> broker::CreateConnectSessionResponse {
    let request = broker::CreateConnectSessionRequest {
        request_id: system.unique(),
        tenant_id: tenant.to_owned(),
        user_id: USER.to_owned(),
        user_email: format!("{USER}@app.example"),
        integration_id: integration.to_owned(),
        ..broker::CreateConnectSessionRequest::default()
    };
    ConnectServiceClient::new(system.to("broker"))
        .create_connect_session(request)
        .await
        .expect("a connect session")
        .into_inner()
}

/// Opens the link, says yes on the page behind it, and gives the provider's address that it leads to.
pub(crate) async fn begin(browser: &mut Browser, connect_url: &str) -> Url {
    let page = browser.open(connect_url).await.expect("the connect page");
    let form = page.form().unwrap_or_else(|error| {
        panic!(
            "the connect page cannot be used: {error}\n{}",
            page.answer.text()
        )
    });
    assert!(form.post, "nothing may happen on GET");
    let sent = browser.submit(&form, &[]).await.expect("an answer");
    sent.redirect().unwrap_or_else(|| {
        panic!(
            "the connect page leads nowhere ({}): {}",
            sent.answer.status,
            sent.answer.text()
        )
    })
}

/// Follows the provider's redirect back, through the broker's pages to the last of them.
pub(crate) async fn arrive(system: &System, browser: &mut Browser, mut page: Page) -> Page {
    let broker = Url::parse(system.http("broker")).expect("a base URL");
    while let Some(next) = page
        .redirect()
        .filter(|next| next.origin() == broker.origin())
    {
        page = browser
            .get(next.as_str())
            .await
            .expect("the broker answers");
    }
    page
}

/// The connection that a session has led to.
pub(crate) async fn succeeded(
    system: &System,
    session: &broker::CreateConnectSessionResponse,
) -> broker::Connection {
    let made = session.session.as_ref().expect("the answer has it");
    let mut client = ConnectServiceClient::new(system.to("broker"));
    let over = eventually_some(PATIENCE, async || {
        let request = broker::GetConnectSessionRequest {
            tenant_id: made.tenant_id.clone(),
            session_id: made.session_id.clone(),
        };
        let answer = client
            .get_connect_session(request)
            .await
            .expect("the session is there");
        let session = answer.into_inner().session.expect("the answer has it");
        let open = [
            broker::ConnectSessionState::Pending,
            broker::ConnectSessionState::Authorizing,
        ];
        (!open.contains(&session.state())).then_some(session)
    })
    .await;
    assert_eq!(
        over.state(),
        broker::ConnectSessionState::Succeeded,
        "{} {}",
        over.error_reason,
        over.error
    );
    connection(system, &over.tenant_id, &over.connection_id).await
}

/// A connection as the broker has it.
pub(crate) async fn connection(
    system: &System,
    tenant: &str,
    connection_id: &str,
) -> broker::Connection {
    let request = broker::GetConnectionRequest {
        tenant_id: tenant.to_owned(),
        connection_id: connection_id.to_owned(),
    };
    let answer = ConnectionServiceClient::new(system.to("broker"))
        .get_connection(request)
        .await
        .expect("the connection is there");
    answer.into_inner().connection.expect("the answer has it")
}

/// What a client needs for a call to the provider.
pub(crate) async fn request_context(
    system: &System,
    connection: &broker::Connection,
    refused_version: i64,
) -> broker::GetRequestContextResponse {
    let request = broker::GetRequestContextRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
        purpose: "a whole-system test".to_owned(),
        refused_credential_version: refused_version,
        ..broker::GetRequestContextRequest::default()
    };
    ConnectionServiceClient::new(system.to("broker"))
        .get_request_context(request)
        .await
        .expect("a request context")
        .into_inner()
}

/// Starts the historical sync of a connection's projects, and waits until it is complete.
pub(crate) async fn initial_sync(system: &System, connected: &Connected) {
    start_initial_sync(system, connected, "").await;
    let mut client = SyncServiceClient::new(system.to("scheduler"));
    eventually_some(PATIENCE, async || {
        let request = scheduler::GetSyncStateRequest {
            tenant_id: connected.tenant.clone(),
            connection_id: connected.connection.connection_id.clone(),
        };
        let answer = client
            .get_sync_state(request)
            .await
            .expect("its state is there");
        let state = answer.into_inner().sync_state.expect("the answer has it");
        assert_ne!(
            state.initial_sync_state(),
            scheduler::InitialSyncState::Failed,
            "{state:?}"
        );
        state.initial_sync_completed.then_some(())
    })
    .await;
}

/// Starts the historical sync of a connection's projects, to be done by who serves the queue; gives its jobs.
pub(crate) async fn start_initial_sync(
    system: &System,
    connected: &Connected,
    queue: &str,
) -> Vec<scheduler::Job> {
    let mut client = SyncServiceClient::new(system.to("scheduler"));
    let request = scheduler::StartInitialSyncRequest {
        request_id: system.unique(),
        tenant_id: connected.tenant.clone(),
        connection_id: connected.connection.connection_id.clone(),
        user_id: USER.to_owned(),
        streams: vec!["projects".to_owned()],
        queue: queue.to_owned(),
        ..scheduler::StartInitialSyncRequest::default()
    };
    let started = client
        .start_initial_sync(request)
        .await
        .expect("the sync starts");
    started.into_inner().jobs
}

/// A source whose events lead to a sync of these streams.
pub(crate) async fn source(
    system: &System,
    connected: &Connected,
    scheme: &str,
    secret: &str,
    streams: &[&str],
) -> ingest::Source {
    let source = ingest::Source {
        tenant_id: connected.tenant.clone(),
        integration_id: connected.integration.clone(),
        scheme: scheme.to_owned(),
        trigger_streams: streams
            .iter()
            .map(|stream| ("*".to_owned(), stream.to_string()))
            .collect(),
        ..ingest::Source::default()
    };
    let request = ingest::CreateSourceRequest {
        request_id: system.unique(),
        source: Some(source),
        secret: secret.to_owned(),
    };
    let made = WebhookSourceServiceClient::new(system.to("ingest"))
        .create_source(request)
        .await
        .expect("a webhook source");
    made.into_inner().source.expect("the answer has it")
}

/// The events of a source, the newest last.
pub(crate) async fn events(system: &System, source: &ingest::Source) -> Vec<ingest::Event> {
    let mut client = WebhookEventServiceClient::new(system.to("ingest"));
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ingest::ListEventsRequest {
            tenant_id: source.tenant_id.clone(),
            source_id: source.source_id.clone(),
            page_size: 1000,
            page_token,
            ..ingest::ListEventsRequest::default()
        };
        let answer = client.list_events(request).await.expect("a list of events");
        let answer = answer.into_inner();
        events.extend(answer.events);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    events.sort_by_key(|event| {
        let at = event.received_at.unwrap_or_default();
        (at.seconds, at.nanos)
    });
    events
}

/// Waits until the event with the provider's id `external_event_id` was processed.
pub(crate) async fn processed(
    system: &System,
    source: &ingest::Source,
    external_event_id: &str,
) -> ingest::Event {
    let event = eventually_some(PATIENCE, async || {
        let events = events(system, source).await;
        let found = events
            .into_iter()
            .find(|event| event.external_event_id == external_event_id);
        found.filter(|event| event.state() != ingest::EventState::Received)
    })
    .await;
    assert_eq!(
        event.state(),
        ingest::EventState::Processed,
        "{} {:?}",
        event.last_error,
        event.routing_keys
    );
    event
}

/// Waits until it was processed, and the sync that it led to is over.
pub(crate) async fn synced(
    system: &System,
    source: &ingest::Source,
    external_event_id: &str,
) -> scheduler::Job {
    let event = processed(system, source, external_event_id).await;
    let [job_id] = event.job_ids.as_slice() else {
        panic!("the event led to {} jobs", event.job_ids.len());
    };
    let mut client = SyncServiceClient::new(system.to("scheduler"));
    let job = eventually_some(PATIENCE, async || {
        let request = scheduler::GetJobRequest {
            tenant_id: event.tenant_id.clone(),
            job_id: job_id.clone(),
        };
        let answer = client.get_job(request).await.expect("the job is there");
        let job = answer.into_inner().job.expect("the answer has it");
        let over = [
            scheduler::JobState::Succeeded,
            scheduler::JobState::Failed,
            scheduler::JobState::Cancelled,
            scheduler::JobState::Parked,
        ];
        over.contains(&job.state()).then_some(job)
    })
    .await;
    assert_eq!(
        job.state(),
        scheduler::JobState::Succeeded,
        "{} {}",
        job.last_error,
        job.waiting_for
    );
    assert_eq!(job.triggered_by(), scheduler::TriggerSource::Webhook);
    job
}

/// JSON as contracts have it.
pub(crate) fn to_struct(value: &Value) -> prost_types::Struct {
    let members = value.as_object().into_iter().flatten();
    prost_types::Struct {
        fields: members
            .map(|(name, value)| (name.clone(), to_value(value)))
            .collect(),
    }
}

fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(to_struct(value)),
    };
    prost_types::Value { kind: Some(kind) }
}
