//! The README's first integration, in Rust: `hawser up` and `hawser db seed`, then this.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use contracts::broker::v1::connect_service_client::ConnectServiceClient;
use contracts::broker::v1::connection_service_client::ConnectionServiceClient;
use contracts::broker::v1::integration_service_client::IntegrationServiceClient;
use contracts::broker::v1::{
    CreateConnectSessionRequest, CreateIntegrationRequest, GetConnectSessionRequest,
    GetRequestContextRequest, Integration,
};
use contracts::directory::v1::GetTenantBySubdomainRequest;
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use prost_types::value::Kind;
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

#[tokio::main]
async fn main() -> Result<()> {
    let here: Value = serde_json::from_slice(&std::fs::read(".hawser/hawser.json")?)?;
    let broker = connect(&here, "broker").await?;
    let mut terminal = std::io::stdout();

    let mut tenants = DirectoryServiceClient::new(connect(&here, "directory").await?);
    let request = GetTenantBySubdomainRequest {
        subdomain: "acme".to_owned(),
    };
    let acme = tenants.get_tenant_by_subdomain(request).await?.into_inner();
    let tenant_id = acme.tenant.context("the tenant")?.tenant_id;

    // Once, for each provider; the simulated one that `up` starts stands in here.
    let issuer = text(&here["http"]["provider_sim"])?.to_owned();
    let issuer = prost_types::Value {
        kind: Some(Kind::StringValue(issuer)),
    };
    let integration = Integration {
        tenant_id: tenant_id.clone(),
        integration_id: "in-rust".to_owned(),
        provider: "oidc".to_owned(),
        client_id: "sim-oidc".to_owned(),
        client_secret: "sim-secret".to_owned(),
        overrides: Some(prost_types::Struct {
            fields: [("issuer".to_owned(), issuer)].into(),
        }),
        ..Integration::default()
    };
    let request = CreateIntegrationRequest {
        request_id: "in-rust".to_owned(),
        integration: Some(integration),
    };
    let made = IntegrationServiceClient::new(broker.clone())
        .create_integration(request)
        .await?;
    let integration = made.into_inner().integration.context("the integration")?;
    writeln!(
        terminal,
        "register with the provider: {}",
        integration.redirect_uri
    )?;

    let mut connect = ConnectServiceClient::new(broker.clone());
    let request = CreateConnectSessionRequest {
        tenant_id: tenant_id.clone(),
        user_id: "user-1".to_owned(),
        user_email: "user-1@acme.example".to_owned(),
        integration_id: integration.integration_id,
        ..CreateConnectSessionRequest::default()
    };
    let made = connect.create_connect_session(request).await?.into_inner();
    let session = made.session.context("the session")?;
    writeln!(
        terminal,
        "open in the user's browser, then press Enter: {}",
        made.connect_url
    )?;
    std::io::stdin().read_line(&mut String::new())?;

    // Whenever you call the provider; your application keeps the connection's id.
    let request = GetConnectSessionRequest {
        tenant_id: tenant_id.clone(),
        session_id: session.session_id,
    };
    let made = connect.get_connect_session(request).await?.into_inner();
    let connection_id = made.session.context("the session")?.connection_id;
    let mut connections = ConnectionServiceClient::new(broker);
    let request = GetRequestContextRequest {
        tenant_id,
        connection_id,
        purpose: "show the calendar".to_owned(),
        ..GetRequestContextRequest::default()
    };
    let context = connections.get_request_context(request).await?.into_inner();
    let headers: Vec<_> = context.headers.into_keys().collect();
    writeln!(terminal, "call the provider with {}", headers.join(" "))?;
    Ok(())
}

/// A connection with mutual TLS.
#[expect(
    clippy::disallowed_methods,
    reason = "an application has tonic alone, without what our services share"
)]
async fn connect(here: &Value, service: &str) -> Result<Channel> {
    let file = |name: &str| -> Result<Vec<u8>> {
        Ok(std::fs::read(Path::new(text(&here["tls"][name])?))?)
    };
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(file("ca")?))
        .identity(Identity::from_pem(
            file("client_cert")?,
            file("client_key")?,
        ));
    let address = format!("https://{}", text(&here["grpc"][service])?);
    Ok(Endpoint::new(address)?.tls_config(tls)?.connect().await?)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("hawser.json is complete")
}
