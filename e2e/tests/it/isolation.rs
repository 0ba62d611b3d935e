//! No tenant sees anything of another: not through any method, and not by a query that forgets the tenant.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::TenantKey;
use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::ingest::v1 as ingest;
use contracts::ingest::v1::document_service_client::DocumentServiceClient;
use contracts::scheduler::v1 as scheduler;
use contracts::scheduler::v1::sync_permission_service_client::SyncPermissionServiceClient;
use e2e::Home;
use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::Type;
use tonic::{Code, Status};

use crate::calls;
use crate::descriptors::{Contracts, Filling, Method};
use crate::path::{self, Connected, USER};
use crate::row_security;
use crate::system::System;
use crate::webhooks;

/// Everything that belongs to a tenant, by the names that fields have for it.
type Resources = BTreeMap<&'static str, String>;

/// A queue of the host application's own, whose jobs nobody takes up.
const QUEUE: &str = "e2e";

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_sees_another() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let one = resources(&system, "one").await;
    let other = resources(&system, "other").await;
    let contracts = Contracts::load();
    let mut violations = through_the_api(&system, &contracts, &one, &other).await;
    violations
        .extend(row_security::violations(&system, &one["tenant_id"], &other["tenant_id"]).await);
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
    system.hawser.finish().await;
}

/// A tenant with something of everything, made through the API.
async fn resources(system: &System, name: &str) -> Resources {
    let connected = path::connected(system, name).await;
    let jobs = path::start_initial_sync(system, &connected, QUEUE).await;
    let source = path::source(
        system,
        &connected,
        "standard-webhooks",
        webhooks::SECRET,
        &[],
    )
    .await;
    let account = connected
        .connection
        .active_account
        .clone()
        .expect("it has one");
    let account = account.external_account_id;
    let event = format!("msg_{name}");
    let sent = webhooks::send(system, &source, &event, &webhooks::body(&account, 1)).await;
    assert!(sent.is_success(), "{sent}");
    let event = path::processed(system, &source, &event).await;
    let Connected {
        tenant,
        integration,
        connection,
    } = connected;
    let session = path::session(system, &tenant, &integration).await;
    let grant = scheduler::GrantOverrideRequest {
        tenant_id: tenant.clone(),
        connection_id: connection.connection_id.clone(),
        reason: "a test of isolation".to_owned(),
        request_id: system.unique(),
        expires_at: None,
    };
    let granted = SyncPermissionServiceClient::new(system.to("scheduler"))
        .grant_override(grant)
        .await
        .expect("an override");
    let document = document(system, &tenant, name).await;
    let user = user(system, &tenant, name).await;
    BTreeMap::from([
        ("tenant_id", tenant),
        ("user_id", user),
        ("integration_tenant_id", connection.integration_tenant_id),
        ("integration_id", integration),
        ("connection_id", connection.connection_id),
        ("grant_id", connection.grant_id),
        ("external_account_id", account),
        (
            "session_id",
            session.session.expect("the answer has it").session_id,
        ),
        ("source_id", source.source_id),
        ("event_id", event.event_id),
        ("job_id", jobs[0].job_id.clone()),
        ("document_id", document),
        (
            "override_id",
            granted
                .into_inner()
                .r#override
                .expect("the answer has it")
                .override_id,
        ),
    ])
}

/// A user that no other tenant has; gives its id.
async fn user(system: &System, tenant: &str, name: &str) -> String {
    let user = directory::User {
        tenant_id: tenant.to_owned(),
        user_id: format!("user-of-{name}"),
        email: format!("user@{name}.example"),
        ..directory::User::default()
    };
    let request = directory::EnsureUserRequest { user: Some(user) };
    let made = DirectoryServiceClient::new(system.to("directory"))
        .ensure_user(request)
        .await
        .expect("a user");
    made.into_inner().user.expect("the answer has it").user_id
}

/// A document that a person uploaded; gives its id.
async fn document(system: &System, tenant: &str, name: &str) -> String {
    let mut client = DocumentServiceClient::new(system.to("ingest"));
    let document = ingest::Document {
        external_id: format!("upload-{name}"),
        title: format!("of {name}"),
        content_json: b"{\"secret\":\"of the tenant\"}".to_vec(),
        ..ingest::Document::default()
    };
    let request = ingest::RecordDocumentsRequest {
        tenant_id: tenant.to_owned(),
        stream: "uploads".to_owned(),
        documents: vec![document],
        ..ingest::RecordDocumentsRequest::default()
    };
    let recorded = client
        .record_documents(request)
        .await
        .expect("it is recorded");
    assert_eq!(recorded.into_inner().rejected, []);
    let request = ingest::ListDocumentsRequest {
        tenant_id: tenant.to_owned(),
        stream: "uploads".to_owned(),
        ..ingest::ListDocumentsRequest::default()
    };
    let listed = client.list_documents(request).await.expect("a list");
    listed.into_inner().documents[0].document_id.clone()
}

/// Every method of one with the other's ids: what is there answers as what never was.
async fn through_the_api(
    system: &System,
    contracts: &Contracts,
    one: &Resources,
    other: &Resources,
) -> Vec<String> {
    let admin = system.host_for(&one["tenant_id"], USER, &["admin"]);
    let absent = absent(system);
    // The other's things in one's own tenant, and things that never were there.
    let theirs = with_tenant(other, one);
    let nothing = with_tenant(&absent, one);
    let mut violations = Vec::new();
    let mut compared = 0;
    for method in &contracts.methods {
        if !names_a_tenant(contracts, method) || method.served_by().len() > 1 {
            continue;
        }
        let connection = system.connect(&admin, method.served_by()[0]);
        let ask = async |resources: &Resources| {
            let fill = fill(system, contracts, method, resources);
            let message = contracts.encode(&method.input, &fill);
            let answer = calls::call(&connection, method, message).await;
            said(method, answer, resources)
        };
        let (to_other, to_absent) = (ask(other).await, ask(&absent).await);
        if is_refused(&to_other) {
            continue;
        }
        compared += 1;
        if to_other != to_absent {
            violations.push(format!(
                "{} tells another tenant from one that is not there: {to_other:?}, {to_absent:?}",
                method.short()
            ));
        }
        // Who holds no lease is told so, whatever the job.
        let leases = method.short().starts_with("WorkerService/");
        let is_silent = match &to_other {
            Err((Code::NotFound, _)) => true,
            _ => leases,
        };
        if !is_silent {
            violations.push(format!(
                "{} for another tenant: {to_other:?}",
                method.short()
            ));
        }
        // What makes something new, or takes ids that the host application chose, may take any.
        let makes = ["Create", "Ensure", "Put", "Record", "Import"];
        if makes.iter().any(|verb| method.verb().starts_with(verb)) {
            continue;
        }
        let (to_theirs, to_nothing) = (ask(&theirs).await, ask(&nothing).await);
        if to_theirs != to_nothing {
            violations.push(format!(
                "{} tells another tenant's things from such that are not there: {to_theirs:?}, {to_nothing:?}",
                method.short()
            ));
        }
    }
    assert!(compared > 30, "only {compared} methods could be compared");
    violations
}

/// Ids of the same form, of what nobody ever made.
fn absent(system: &System) -> Resources {
    let tenant = TenantKey::from_id(uuid::Uuid::from_bytes({
        let mut bytes: [u8; 16] = system.deps.random();
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes[14] = 0;
        bytes
    }))
    .expect("it is of version 7");
    let id = || tenant.new_id(&system.deps).to_string();
    BTreeMap::from([
        ("tenant_id", tenant.to_string()),
        ("user_id", "user-of-nobody".to_owned()),
        ("integration_tenant_id", tenant.to_string()),
        ("integration_id", format!("procore-{}", system.unique())),
        ("connection_id", id()),
        ("grant_id", id()),
        ("external_account_id", "562949953421999".to_owned()),
        ("session_id", id()),
        ("source_id", id()),
        ("event_id", id()),
        ("job_id", id()),
        ("document_id", id()),
        ("override_id", id()),
    ])
}

fn with_tenant(resources: &Resources, tenant: &Resources) -> Resources {
    let mut mixed = resources.clone();
    for name in ["tenant_id", "integration_tenant_id"] {
        mixed.insert(name, tenant[name].clone());
    }
    mixed
}

fn names_a_tenant(contracts: &Contracts, method: &Method) -> bool {
    let fields = contracts.fields(&method.input);
    let inner = |field: &FieldDescriptorProto| {
        let name = field.type_name().trim_start_matches('.');
        field.r#type() == Type::Message
            && name.starts_with("hawser.")
            && contracts
                .fields(name)
                .iter()
                .any(|field| field.name() == "tenant_id")
    };
    // A tenant that is to be created has no id yet.
    let creates = ["CreateTenant", "EnsureTenant"].contains(&method.verb());
    !creates
        && fields
            .iter()
            .any(|field| field.name() == "tenant_id" || inner(field))
}

/// A request that is right but for whose things it names.
fn fill(
    system: &System,
    contracts: &Contracts,
    method: &Method,
    resources: &Resources,
) -> impl Fn(&str, &FieldDescriptorProto) -> Filling {
    let unique = system.unique();
    let resources = resources.clone();
    let changed = changeable(contracts, method);
    move |path, field| {
        let name = field.name();
        if let Some(id) = resources.get(name.trim_end_matches('s')) {
            return Filling::Text(id.clone());
        }
        if field.r#type() == Type::Message {
            let inner = field.type_name();
            let is_map = inner.ends_with("Entry");
            let looked_into = inner.starts_with(".hawser.") || name == "update_mask";
            return if looked_into && !is_map {
                Filling::Fields
            } else {
                Filling::Nothing
            };
        }
        match name {
            "request_id" => Filling::Text(unique.clone()),
            "paths" if path.starts_with("update_mask") => Filling::Text(changed.clone()),
            "confirm_subdomain" => Filling::Text("no-subdomain".to_owned()),
            "reason" | "purpose" | "display_name" | "title" | "company_name" | "first_name" => {
                Filling::Text("a test of isolation".to_owned())
            }
            "email" | "user_email" => Filling::Text("user@app.example".to_owned()),
            "stream" => Filling::Text("projects".to_owned()),
            "time_zone" => Filling::Text("UTC".to_owned()),
            "cron" => Filling::Text("0 * * * *".to_owned()),
            "max_calls" | "calls" | "lease_token" | "stream_epoch" | "checkpoint_number"
            | "to_version" | "refused_version" | "step" => Filling::Number(1),
            "cursor_json" => Filling::Text("{}".to_owned()),
            _ => Filling::Nothing,
        }
    }
}

/// A field that an update may change.
fn changeable(contracts: &Contracts, method: &Method) -> String {
    let fields = contracts.fields(&method.input);
    let resource = fields
        .iter()
        .find(|field| field.r#type() == Type::Message && field.type_name().starts_with(".hawser."));
    let resource = resource.map_or(&[][..], |field| {
        contracts.fields(field.type_name().trim_start_matches('.'))
    });
    let known = [
        "display_name",
        "company_name",
        "first_name",
        "risk_rules",
        "rate_limit",
    ];
    let found = known
        .iter()
        .find(|known| resource.iter().any(|field| field.name() == **known));
    found.map_or_else(String::new, ToString::to_string)
}

type Said = Result<Vec<u8>, (Code, String)>;

/// The answer, without the ids that were asked for.
fn said(method: &Method, answer: Result<Bytes, Status>, resources: &Resources) -> Said {
    let without = |text: &[u8]| {
        let mut text = String::from_utf8_lossy(text).into_owned();
        for (name, id) in resources {
            text = text.replace(id.as_str(), &format!("<{name}>"));
        }
        text
    };
    match answer {
        // The cursor behind nothing is another one for each question.
        Ok(answer) if method.verb() == "ListDocumentChanges" => Ok(vec![0; answer.len()]),
        Ok(answer) => Ok(without(&answer).into_bytes()),
        Err(status) => Err((status.code(), without(status.message().as_bytes()))),
    }
}

/// The method is not this caller's, or not there yet.
fn is_refused(said: &Said) -> bool {
    match said {
        Err((Code::Unimplemented, _)) => true,
        Err((Code::PermissionDenied, message)) => {
            message.contains("may not call") || message.contains("is not for users")
        }
        _ => false,
    }
}
