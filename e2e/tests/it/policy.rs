//! Every method of the contracts against every kind of caller, compared with the policy; and what every method says to
//! requests that are empty or wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bytes::Bytes;
use common::identity::{Actor, Identity, Policy, UserRule};
use contracts::directory::v1 as directory;
use contracts::directory::v1::api_key_service_client::ApiKeyServiceClient;
use e2e::Home;
use futures::StreamExt as _;
use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::Type;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::calls::{self, Caller, Connection};
use crate::descriptors::{Contracts, Filling, Method};
use crate::path::{self, USER};
use crate::system::System;

/// What the guard says where it refuses; a handler says none of it.
const REFUSALS: [&str; 7] = [
    "may not call",
    "is not for users",
    "may not speak for others",
    "needs a user",
    "nobody is known by this call",
    "API keys are not taken",
    "send a client certificate or an API key",
];

/// What is to come of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The handler is reached, whatever it says then.
    Reached,
    /// Refused before that, with this code and these words.
    Refused(Code, &'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_every_caller_as_the_policy_says() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let contracts = Contracts::load();
    let mut violations = every_caller(&system, &contracts).await;
    violations.extend(not_built_yet(&system, &contracts).await);
    violations.extend(wrong_requests(&system, &contracts).await);
    violations.extend(strange_callers(&system, &contracts).await);
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
    system.hawser.finish().await;
}

/// Each pair of caller and method.
async fn every_caller(system: &System, contracts: &Contracts) -> Vec<String> {
    let policy = Policy::built_in();
    let callers = callers(system).await;
    let mut methods = contracts.methods.clone();
    methods.extend(served_everywhere());
    let mut calls = Vec::new();
    for caller in &callers {
        let connections: BTreeMap<_, _> = system
            .instance
            .grpc
            .keys()
            .map(|service| (service.as_str(), system.connect(caller, service)))
            .collect();
        for method in &methods {
            for service in services_of(method) {
                let expected = expected(&policy, caller, method, service);
                let connection = connections[service].clone();
                calls.push(async move {
                    let answer = calls::call(&connection, method, Bytes::new()).await;
                    let problem = compare(expected, &answer)?;
                    Some(format!("{} as {}: {problem}", method.name, caller.name))
                });
            }
        }
    }
    assert!(calls.len() > 3000, "there are only {} calls", calls.len());
    futures::stream::iter(calls)
        .buffer_unordered(16)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// What each server has besides its contracts.
fn served_everywhere() -> Vec<Method> {
    let method = |name: &str, streams| Method {
        name: name.to_owned(),
        input: String::new(),
        streams,
    };
    vec![
        method("grpc.health.v1.Health/Check", false),
        method("grpc.health.v1.Health/Watch", true),
        method(
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            true,
        ),
        method(
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            true,
        ),
    ]
}

fn services_of(method: &Method) -> Vec<&'static str> {
    if method.name.starts_with("grpc.") {
        vec!["broker", "directory", "ingest", "scheduler", "vault"]
    } else {
        method.served_by()
    }
}

async fn callers(system: &System) -> Vec<Caller> {
    let tenant = path::tenant(system, "policy").await;
    let token = |roles: &[&str]| {
        system
            .hawser
            .user_token(&tenant, USER, roles)
            .expect("a token is minted")
    };
    let (user, admin) = (token(&[]), token(&["admin"]));
    let actor = |identity: &str, user: &str, roles: &[&str]| Actor {
        identity: identity.to_owned(),
        tenant_id: if user.is_empty() {
            String::new()
        } else {
            tenant.clone()
        },
        user_id: user.to_owned(),
        roles: roles.iter().map(ToString::to_string).collect(),
        purpose: String::new(),
    };
    let host = system.host();
    let console = system.certified(Identity::service("console"));
    let worker = system.certified(Identity::service("sync-worker"));
    let anonymous = system.anonymous();

    let mut callers = vec![
        anonymous.clone(),
        system.operator().clone(),
        system.certified(Identity::Operator("kim".to_owned())),
        host.clone(),
        host.with_token("the host application for a user", &user),
        host.with_token("the host application for a tenant's administrator", &admin),
        host.on_behalf_of(
            "the host application, speaking for an operator",
            actor("spiffe://hawser/operator/kim", "", &[]),
        ),
        user_alone(&anonymous, "a user alone", &user),
        user_alone(&anonymous, "a tenant's administrator alone", &admin),
        console.clone(),
        console.with_token("the console with a user's token", &user),
        console.on_behalf_of(
            "the console, speaking for a user",
            actor("spiffe://hawser/console", USER, &[]),
        ),
        console.on_behalf_of(
            "the console, speaking for a tenant's administrator",
            actor("spiffe://hawser/console", USER, &["admin"]),
        ),
        console.on_behalf_of(
            "the console, speaking for an operator",
            actor("spiffe://hawser/operator/kim", "", &[]),
        ),
        worker.clone(),
        worker.on_behalf_of(
            "the worker, speaking for a user",
            actor("spiffe://hawser/host/app", USER, &[]),
        ),
        system.certified(Identity::service("a-stranger")),
    ];
    for service in [
        "oauth-broker",
        "sync-scheduler",
        "tenant-directory",
        "token-vault",
        "webhook-ingest",
    ] {
        callers.push(system.certified(Identity::service(service)));
    }
    for role in ["host", "read-only", "worker", "no-such-role"] {
        if let Some((id, secret)) = api_key(system, &tenant, role).await {
            let identity = Identity::ApiKey {
                id,
                role: role.to_owned(),
            };
            callers.push(anonymous.with_key(&format!("an API key for {role}"), identity, &secret));
        }
    }
    callers
}

fn user_alone(anonymous: &Caller, name: &str, token: &str) -> Caller {
    let mut caller = anonymous.with_token(name, token);
    caller.identity = Some(Identity::User);
    caller
}

/// A key of this role; none where the directory does not know it.
async fn api_key(system: &System, tenant: &str, role: &str) -> Option<(String, String)> {
    let key = directory::ApiKey {
        display_name: format!("for {role}"),
        tenant_ids: vec![tenant.to_owned()],
        role: role.to_owned(),
        ..directory::ApiKey::default()
    };
    let request = directory::CreateApiKeyRequest {
        request_id: system.unique(),
        api_key: Some(key),
    };
    let made = ApiKeyServiceClient::new(system.to("directory"))
        .create_api_key(request)
        .await;
    match made {
        Ok(made) => {
            let made = made.into_inner();
            Some((
                made.api_key.expect("the answer has it").api_key_id,
                made.secret,
            ))
        }
        Err(status) => {
            assert_eq!(role, "no-such-role", "{status}");
            None
        }
    }
}

/// What the policy says, in the order in which the guard asks.
fn expected(policy: &Policy, caller: &Caller, method: &Method, service: &str) -> Expected {
    let Some(identity) = &caller.identity else {
        return Expected::Refused(Code::Unauthenticated, "nobody is known by this call");
    };
    // The vault may not ask the directory.
    if matches!(identity, Identity::ApiKey { .. }) && service == "vault" {
        return Expected::Refused(Code::Unauthenticated, "API keys are not taken");
    }
    let actor = caller.credentials.actor.as_ref();
    if actor.is_some() && !policy.may_forward(identity) {
        return Expected::Refused(Code::PermissionDenied, "may not speak for others");
    }
    let Some(row) = policy.row(identity, &method.name) else {
        return Expected::Refused(Code::PermissionDenied, "may not call");
    };
    let has_token =
        caller.credentials.bearer.is_some() && !matches!(identity, Identity::ApiKey { .. });
    let has_user = has_token || actor.is_some_and(|actor| !actor.user_id.is_empty());
    let for_operator =
        actor.is_some_and(|actor| actor.identity.starts_with("spiffe://hawser/operator/"));
    match row.user {
        UserRule::Required if !has_user && !for_operator => {
            Expected::Refused(Code::Unauthenticated, "needs a user")
        }
        UserRule::Forbidden if has_user => {
            Expected::Refused(Code::PermissionDenied, "is not for users")
        }
        _ => Expected::Reached,
    }
}

/// What is wrong with the answer, if anything is.
fn compare(expected: Expected, answer: &Result<Bytes, Status>) -> Option<String> {
    let (code, message) = match answer {
        Ok(_) => (Code::Ok, ""),
        Err(status) => (status.code(), status.message()),
    };
    let holds = match expected {
        Expected::Refused(refused, words) => code == refused && message.contains(words),
        Expected::Reached => {
            let refused = REFUSALS.iter().any(|words| message.contains(words));
            let broken = matches!(
                code,
                Code::Unauthenticated | Code::Internal | Code::Unknown | Code::DeadlineExceeded
            );
            !refused && !broken
        }
    };
    (!holds).then(|| format!("expected {expected:?}, got {code:?} {message:?}"))
}

/// The methods that are not built yet are those that the README lists, and no others.
async fn not_built_yet(system: &System, contracts: &Contracts) -> Vec<String> {
    let mut found = BTreeSet::new();
    for method in &contracts.methods {
        for service in method.served_by() {
            let connection = someone_who_may(system, method, service);
            let answer = calls::call(&connection, method, Bytes::new()).await;
            if answer.is_err_and(|status| status.code() == Code::Unimplemented) {
                found.insert(method.short().to_owned());
            }
        }
    }
    let readme = fs::read_to_string(e2e::root().join("README.md")).expect("there is a README");
    let listed = listed_methods(&readme, contracts);
    let missing = found
        .difference(&listed)
        .map(|method| format!("{method} is not built, and README.md does not list it"));
    let stale = listed
        .difference(&found)
        .map(|method| format!("README.md lists {method} as not built, and it is"));
    missing.chain(stale).collect()
}

/// The methods under the README's heading: `Service/Method`, or `Service/*` for all of them.
fn listed_methods(readme: &str, contracts: &Contracts) -> BTreeSet<String> {
    let section = readme
        .split("\n## Not built yet\n")
        .nth(1)
        .expect("README.md has a section `Not built yet`");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut listed = BTreeSet::new();
    for name in section.split('`').skip(1).step_by(2) {
        let Some((service, verb)) = name.split_once('/') else {
            continue;
        };
        let of_service: Vec<_> = contracts
            .methods
            .iter()
            .map(Method::short)
            .filter(|method| method.starts_with(&format!("{service}/")))
            .collect();
        let of_it: Vec<_> = of_service
            .iter()
            .filter(|method| verb == "*" || **method == name)
            .collect();
        // Other things have a slash in them too.
        assert!(
            of_service.is_empty() || !of_it.is_empty(),
            "README.md lists `{name}`, which is no method"
        );
        listed.extend(of_it.into_iter().map(ToString::to_string));
    }
    listed
}

/// The operator, or, for what is no operator's business, the broker.
fn someone_who_may(system: &System, method: &Method, service: &str) -> Connection {
    if method.name.contains("ServiceKeyService") {
        let broker = system.certified(Identity::service("oauth-broker"));
        system.connect(&broker, service)
    } else {
        system.to(service)
    }
}

/// Ids that Hawser makes: no other text can be one.
const OUR_IDS: [&str; 11] = [
    "tenant_id",
    "connection_id",
    "session_id",
    "grant_id",
    "job_id",
    "override_id",
    "schedule_id",
    "event_id",
    "document_id",
    "delivery_id",
    "deletion_id",
];

/// A request with every field wrong gets one INVALID_ARGUMENT that names each; and whatever is named is a field of the
/// request, by its path.
async fn wrong_requests(system: &System, contracts: &Contracts) -> Vec<String> {
    let mut violations = Vec::new();
    for method in &contracts.methods {
        for service in method.served_by() {
            let connection = someone_who_may(system, method, service);
            for (kind, message) in [
                ("empty", Bytes::new()),
                ("wrong", contracts.encode(&method.input, &wrong)),
            ] {
                let Err(status) = calls::call(&connection, method, message).await else {
                    continue;
                };
                let problem = match status.code() {
                    Code::InvalidArgument => check_fields(contracts, method, kind, &status),
                    // There is nothing in it that could be wrong, or nobody to say so yet.
                    Code::Unimplemented | Code::NotFound | Code::OutOfRange => Vec::new(),
                    Code::FailedPrecondition | Code::PermissionDenied if kind == "empty" => {
                        Vec::new()
                    }
                    code => vec![format!("{code:?} {:?}", status.message())],
                };
                violations.extend(problem.into_iter().map(|problem| {
                    format!(
                        "{} with {kind} fields on {service}: {problem}",
                        method.short()
                    )
                }));
            }
        }
    }
    violations
}

fn wrong(_: &str, field: &FieldDescriptorProto) -> Filling {
    match field.r#type() {
        Type::String | Type::Bytes => Filling::Text(" \u{7}no value of any kind\u{7} ".to_owned()),
        Type::Message => Filling::Fields,
        Type::Enum => Filling::Number(9999),
        Type::Bool => Filling::Nothing,
        _ => Filling::Number(-1),
    }
}

fn check_fields(
    contracts: &Contracts,
    method: &Method,
    kind: &str,
    status: &Status,
) -> Vec<String> {
    let details = status.get_error_details();
    let named: BTreeSet<_> = details
        .bad_request()
        .into_iter()
        .flat_map(|bad| &bad.field_violations)
        .map(|violation| violation.field.clone())
        .collect();
    let mut problems = Vec::new();
    if named.is_empty() {
        problems.push(format!("no field is named: {:?}", status.message()));
    }
    let reason = details.error_info().map(|info| info.reason.as_str());
    if reason != Some("INVALID_FIELD") {
        problems.push(format!("the reason is {reason:?}"));
    }
    for field in &named {
        if !contracts.has_path(&method.input, field) {
            problems.push(format!("`{field}` is no field of the request"));
        }
        if !status.message().contains(field) {
            problems.push(format!("the message does not name `{field}`"));
        }
    }
    if kind == "wrong" {
        for field in contracts.fields(&method.input) {
            let name = field.name();
            // The ledger keeps a job's name as whoever read the documents gives it.
            let free = name == "job_id" && method.name.contains("DocumentService");
            let surely = OUR_IDS.contains(&name) && field.r#type() == Type::String && !free;
            if (surely || name == "page_size") && !named.contains(name) {
                problems.push(format!("`{name}` is wrong, and only {named:?} are named"));
            }
        }
    }
    problems
}

/// Those whose word is not taken at all.
async fn strange_callers(system: &System, contracts: &Contracts) -> Vec<String> {
    let method = contracts.method("ConnectionService/ListConnections");
    let tenant = path::tenant(system, "strange").await;
    let token = system
        .hawser
        .user_token(&tenant, USER, &[])
        .expect("a token is minted");
    let (head, signature) = token.rsplit_once('.').expect("a token has three parts");
    let altered = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let elsewhere = system
        .hawser
        .user_token("no-such-tenant", USER, &[])
        .expect("a token is minted");
    let (_, key) = api_key(system, &tenant, "host").await.expect("a key");
    let anonymous = system.anonymous();
    let mut violations = Vec::new();
    for caller in [
        anonymous.with_token("a token with another signature", &altered),
        anonymous.with_token("a token of an unknown tenant", &elsewhere),
        anonymous.with_token("a token that is none", "nonsense"),
        anonymous.with_token(
            "an API key that nobody made",
            "hk_0000000000000000000000000000",
        ),
        anonymous.with_token("an empty token", ""),
        system
            .host()
            .with_token("a certificate and an API key", &key),
    ] {
        let connection = system.connect(&caller, "broker");
        let answer = calls::call(&connection, method, Bytes::new()).await;
        let code = answer.as_ref().err().map(Status::code);
        if code != Some(Code::Unauthenticated) {
            violations.push(format!("{} gets {answer:?}", caller.name));
        }
    }
    violations
}
