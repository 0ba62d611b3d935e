//! Authorization requests that go to the provider directly, so that the browser carries a reference alone (RFC 9126).

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Deps, Secret};
use egress::{Egress, EgressError, Response};
use time::OffsetDateTime;
use url::Url;

use crate::client::{BadKey, Client, Field};
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::form_call::{FormCall, incomplete, seconds, text};

/// Where authorization requests are pushed to, and by whom.
#[derive(Clone, Debug)]
pub struct PushEndpoint<'a> {
    /// The endpoint.
    pub url: &'a Url,
    /// Our client there.
    pub client: &'a Client,
    /// The provider's habits.
    pub dialect: &'a Dialect,
}

/// A pushed request, ready to be sent.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing before it is sent"]
pub struct PushCall(FormCall);

/// What stands for the request in the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// The reference, good once.
    pub request_uri: String,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

/// Told by the provider, as a rule; RFC 9126, 2.2 has "5 to 600 seconds".
const DEFAULT_LIFE: Duration = Duration::from_mins(1);

impl PushEndpoint<'_> {
    /// Parameters that only the client's authentication sets, or that a pushed request must not have (RFC 9126, 2.1).
    pub const RESERVED: [&'static str; 4] = [
        "client_assertion",
        "client_assertion_type",
        "client_secret",
        "request_uri",
    ];

    /// Builds the request. A reserved parameter is left out, and `client_id` is always the client's.
    ///
    /// # Errors
    ///
    /// Where the client's key cannot sign.
    pub fn call(
        &self,
        parameters: &BTreeMap<String, String>,
        deps: &Deps,
    ) -> Result<PushCall, BadKey> {
        let is_own = |name: &str| name == "client_id" || Self::RESERVED.contains(&name);
        let mut fields: Vec<Field<'_>> = parameters
            .iter()
            .filter(|(name, _)| !is_own(name))
            .map(|(name, value)| (name.as_str(), Secret::from(value.as_str())))
            .collect();
        if !self.client.is_named_in_body() {
            fields.push(("client_id", Secret::from(self.client.id.as_str())));
        }
        FormCall::new(
            self.url,
            self.client,
            self.dialect,
            fields,
            Vec::new(),
            deps,
        )
        .map(PushCall)
    }
}

impl PushCall {
    /// Replaces the configured time for the whole call.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// Sends it.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`](crate::Class).
    pub async fn send(&self, egress: &Egress, deps: &Deps) -> Result<PushedRequest, Failure> {
        let sent_at = deps.now();
        let outcome = self.0.send(egress).await;
        self.read(outcome, sent_at, deps.now())
    }

    /// What an outcome means; the reference's life counts from `sent_at`.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn read(
        &self,
        outcome: Result<Response, EgressError>,
        sent_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<PushedRequest, Failure> {
        let body = self.0.read(outcome, now)?;
        let request_uri = text(&body, "request_uri").ok_or_else(|| incomplete("request_uri"))?;
        Ok(PushedRequest {
            request_uri: request_uri.to_owned(),
            expires_at: sent_at + seconds(&body, "expires_in").unwrap_or(DEFAULT_LIFE),
        })
    }
}
