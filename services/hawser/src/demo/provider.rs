//! The simulated provider's control API, as the demo uses it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use provider_sim::http_client;
use serde_json::{Value, json};

/// The provider's key in the catalogue, and the simulator's name for it.
pub(super) const PROVIDER: &str = "procore";
/// The user who connects.
pub(super) const USER: &str = "alice";
const PATIENCE: Duration = Duration::from_secs(30);

/// The simulator of an instance.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    base: String,
}

impl Provider {
    pub(super) fn at(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    /// The catalogue's values that point to the real provider, pointed here.
    pub(super) fn overrides(&self) -> Value {
        let at = |path: &str| format!("{}/{PROVIDER}{path}", self.base);
        json!({
            "endpoints": {
                "authorization": at("/oauth/authorize"),
                "token": at("/oauth/token"),
                "revocation": at("/oauth/revoke"),
            },
            "api": {"base_url": at("")},
        })
    }

    pub(super) async fn register(&self, redirect_uri: &str) -> Result<()> {
        let client = json!({
            "client_id": "demo",
            "client_secrets": ["demo-secret"],
            "auth_methods": ["client_secret_post"],
            "redirect_uris": [redirect_uri],
        });
        self.ask(
            Method::PUT,
            &format!("providers/{PROVIDER}/clients"),
            &client,
        )
        .await
        .map(drop)
    }

    pub(super) async fn set_token_lifetime(&self, seconds: u32) -> Result<()> {
        let change = json!({"access_lifetime_seconds": seconds});
        self.ask(Method::PATCH, &format!("providers/{PROVIDER}"), &change)
            .await
            .map(drop)
    }

    /// Refreshes that the provider granted so far.
    pub(super) async fn refreshes(&self) -> Result<u64> {
        let counters = self.ask(Method::GET, "counters", &Value::Null).await?;
        counters["refreshes"]
            .as_u64()
            .context("the simulator counts refreshes")
    }

    /// How many projects the company has there.
    pub(super) async fn projects(&self, company: &str) -> Result<usize> {
        Ok(self.project_ids(company).await?.len())
    }

    /// Renames a project, as somebody at the provider would; tells its id.
    pub(super) async fn rename_project(&self, company: &str, name: &str) -> Result<String> {
        let id = self
            .project_ids(company)
            .await?
            .into_iter()
            .next()
            .context("the company has a project")?;
        let change = json!({
            "provider": PROVIDER, "collection": "projects", "owner": company,
            "update": [{"id": id, "fields": {"name": name}}],
        });
        self.ask(Method::POST, "records", &change).await?;
        Ok(id)
    }

    async fn project_ids(&self, company: &str) -> Result<Vec<String>> {
        let query = format!("records?provider={PROVIDER}&collection=projects&owner={company}");
        let records = self.ask(Method::GET, &query, &Value::Null).await?;
        let records = records
            .as_array()
            .context("the simulator lists its records")?;
        Ok(records
            .iter()
            .filter_map(|record| record["id"].as_str().map(str::to_owned))
            .collect())
    }

    /// Sends a webhook; tells the status that each sending got.
    pub(super) async fn send_webhook(&self, webhook: &Value) -> Result<Vec<u64>> {
        let outcomes = self.ask(Method::POST, "webhooks", webhook).await?;
        let outcomes = outcomes
            .as_array()
            .context("the simulator tells what came of it")?;
        Ok(outcomes
            .iter()
            .filter_map(|outcome| outcome["status"].as_u64())
            .collect())
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/_sim/{path}", self.base);
        let body = if body.is_null() {
            Bytes::new()
        } else {
            serde_json::to_vec(body)?.into()
        };
        let answer = http_client::send(
            method,
            &url,
            &[("content-type", "application/json")],
            body,
            PATIENCE,
        )
        .await?;
        ensure!(
            answer.status.is_success(),
            "the simulated provider refused {path}: {}",
            answer.text()
        );
        if answer.body.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(answer.json()?)
        }
    }
}
