//! What others wrote in Python: a client that grpcio-tools makes of the contracts.

use std::process::Command;

use contracts::directory::v1 as directory;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use e2e::Home;
use serde_json::{Value, json};

use crate::descriptors::Contracts;
use crate::path;
use crate::readme;
use crate::system::System;

#[tokio::test(flavor = "multi_thread")]
async fn first_integration() {
    readme::first_integration(async |folder| {
        let made = Command::new("python3")
            .args(["-m", "grpc_tools.protoc", "-I", "proto"])
            .args(["--python_out=.", "--grpc_python_out=."])
            .args(protos())
            .current_dir(folder)
            .output()
            .expect("python runs");
        assert!(made.status.success(), "{made:?}");
        let mut python = tokio::process::Command::new("python3");
        python
            .args(["-c", &readme::program("python")])
            .env("PYTHONUNBUFFERED", "1");
        python
    })
    .await;
}

/// The contracts' files, as the shell finds them.
fn protos() -> Vec<String> {
    let found = Command::new("find")
        .args(["proto", "-name", "*.proto"])
        .current_dir(e2e::root())
        .output()
        .expect("find runs");
    let found = String::from_utf8(found.stdout).expect("they have plain names");
    found.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_client() {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let tenants = [
        path::tenant(&system, "python").await,
        path::tenant(&system, "another").await,
    ];

    let output = Command::new("python3")
        .arg(e2e::root().join("e2e/python/client.py"))
        .arg(e2e::root().join("proto"))
        .arg(system.data_dir().join("hawser.json"))
        .arg(&tenants[0])
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the client failed:\n{said}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");

    // By reflection it sees what the contracts say, on each of the services.
    for method in Contracts::load().methods {
        let (service, name) = method.name.split_once('/').expect("service/method");
        for short in method.served_by() {
            let services = found["services"][short].as_array().expect("a list");
            assert!(
                services.contains(&json!(service)),
                "{short} lists {services:?}"
            );
        }
        let methods = found["methods"][service].as_array().expect("a list");
        assert!(
            methods.contains(&json!(name)),
            "{service} lists {methods:?}"
        );
    }
    for services in found["services"].as_object().expect("an object").values() {
        let services = services.as_array().expect("a list");
        assert!(services.contains(&json!("grpc.health.v1.Health")));
    }

    let request = directory::GetTenantRequest {
        tenant_id: tenants[0].clone(),
    };
    let known = DirectoryServiceClient::new(system.to("directory"))
        .get_tenant(request)
        .await
        .expect("the tenant is there")
        .into_inner()
        .tenant
        .expect("the answer has it");
    let tenant = json!({"tenant_id": known.tenant_id, "company_name": known.company_name});
    assert_eq!(found["tenant"], tenant);
    let listed = found["listed"].as_array().expect("a list");
    for tenant in &tenants {
        assert!(listed.contains(&json!(tenant)), "{listed:?}");
    }
    let providers = found["providers"].as_array().expect("a list");
    for provider in ["oidc", "oauth2", "api-key", "basic", "procore"] {
        assert!(providers.contains(&json!(provider)), "{providers:?}");
    }

    // What an error says can be read by programs and by people.
    let invalid = &found["invalid"];
    assert_eq!(invalid["code"], "INVALID_ARGUMENT");
    assert_eq!(invalid["domain"], "hawser");
    assert_eq!(invalid["reason"], "INVALID_FIELD");
    let fields = invalid["fields"].as_array().expect("a list");
    for field in ["tenant.subdomain", "tenant.company_name"] {
        assert!(fields.contains(&json!(field)), "{fields:?}");
        let message = invalid["message"].as_str().expect("a sentence");
        assert!(message.contains(field), "{message}");
    }
    assert_ne!(invalid["request_id"], "");
    assert_eq!(found["absent"]["code"], "NOT_FOUND");
    assert_eq!(found["anonymous"]["code"], "UNAUTHENTICATED");
    assert_eq!(found["anonymous"]["reason"], "IDENTITY_MISSING");
    system.hawser.finish().await;
}
