//! Authorization on another device (RFC 8628): where the person types a code, and what the client polls with.

use std::time::Duration;

use common::{Deps, Secret};
use egress::{Egress, EgressError, Response};
use time::OffsetDateTime;
use url::Url;

use crate::client::{BadKey, Client, Field};
use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::form_call::{FormCall, incomplete, seconds, text};

/// The grant type that a device code is polled with.
pub(crate) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Where device authorizations begin, and by whom.
#[derive(Clone, Debug)]
pub struct DeviceEndpoint<'a> {
    /// The endpoint.
    pub url: &'a Url,
    /// Our client there.
    pub client: &'a Client,
    /// The provider's habits.
    pub dialect: &'a Dialect,
}

/// A device authorization request, ready to be sent.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing before it is sent"]
pub struct DeviceCall(FormCall);

/// What a person needs, and what the client polls with.
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// Traded for tokens once the person has consented.
    pub device_code: Secret<String>,
    /// What the person types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it, for a QR code.
    pub verification_uri_complete: Option<Url>,
    /// When both codes end.
    pub expires_at: OffsetDateTime,
    /// How long to wait between two polls.
    pub interval: Duration,
}

/// What a refused poll means (RFC 8628, 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The person has not decided yet.
    Pending,
    /// The same, and from now on five more seconds lie between two polls.
    SlowDown,
    /// The codes have ended; the person has to begin again.
    Expired,
    /// The person has said no.
    Denied,
}

/// Between two polls, where the provider says nothing (RFC 8628, 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// The life of both codes, where the provider does not tell.
const DEFAULT_LIFE: Duration = Duration::from_mins(5);

impl DeviceEndpoint<'_> {
    /// Builds the request.
    ///
    /// # Errors
    ///
    /// Where the client's key cannot sign.
    pub fn call(&self, scopes: &[String], deps: &Deps) -> Result<DeviceCall, BadKey> {
        let mut fields: Vec<Field<'_>> = Vec::new();
        if !scopes.is_empty() {
            let scope = scopes.join(&self.dialect.scope_separator);
            fields.push(("scope", Secret::new(scope)));
        }
        if !self.client.is_named_in_body() {
            // Where the header names the client, the parameter is still the protocol's (RFC 8628, 3.1).
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
        .map(DeviceCall)
    }
}

impl DeviceCall {
    /// Replaces the configured time for the whole call.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// Sends it.
    ///
    /// # Errors
    ///
    /// Sorted by [`Class`](crate::Class).
    pub async fn send(&self, egress: &Egress, deps: &Deps) -> Result<DeviceAuthorization, Failure> {
        let sent_at = deps.now();
        let outcome = self.0.send(egress).await;
        self.read(outcome, sent_at, deps.now())
    }

    /// What an outcome means; lives count from `sent_at`. The address comes from the provider and goes to a person, so it
    /// must be a web page's.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn read(
        &self,
        outcome: Result<Response, EgressError>,
        sent_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<DeviceAuthorization, Failure> {
        let body = self.0.read(outcome, now)?;
        let page = |name: &str| {
            let url = Url::parse(text(&body, name)?).ok()?;
            (matches!(url.scheme(), "https" | "http") && url.has_host()).then_some(url)
        };
        let device_code = text(&body, "device_code").ok_or_else(|| incomplete("device_code"))?;
        let user_code = text(&body, "user_code").ok_or_else(|| incomplete("user_code"))?;
        // Google calls it a URL.
        let verification_uri = page("verification_uri")
            .or_else(|| page("verification_url"))
            .ok_or_else(|| incomplete("verification_uri"))?;
        Ok(DeviceAuthorization {
            device_code: Secret::from(device_code),
            user_code: user_code.to_owned(),
            verification_uri,
            verification_uri_complete: page("verification_uri_complete"),
            expires_at: sent_at + seconds(&body, "expires_in").unwrap_or(DEFAULT_LIFE),
            interval: seconds(&body, "interval").unwrap_or(DEFAULT_INTERVAL),
        })
    }
}

impl Poll {
    /// What the refusal of a device code means; `None` where it is none of these.
    pub fn of(failure: &Failure) -> Option<Self> {
        match failure.code.as_deref()? {
            "authorization_pending" => Some(Self::Pending),
            "slow_down" => Some(Self::SlowDown),
            // GitHub and Microsoft each have a word of their own.
            "expired_token" | "code_expired" => Some(Self::Expired),
            "access_denied" | "authorization_declined" => Some(Self::Denied),
            _ => None,
        }
    }
}
