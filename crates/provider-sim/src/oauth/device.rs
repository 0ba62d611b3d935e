//! `POST /oauth/device_authorization`, and the polls that follow it (RFC 8628).

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Value, json};

use super::client_auth::authenticate;
use super::error::OAuthError;
use super::grants::Issued;
use super::parameters::Parameters;
use super::token::requested_scope;
use crate::config::ProviderConfig;
use crate::random;
use crate::world::Site;

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const LIFETIME_SECONDS: i64 = 600;

/// Device authorizations, by device code.
#[derive(Debug, Default)]
pub(crate) struct Devices(HashMap<String, Device>);

#[derive(Debug)]
struct Device {
    provider: String,
    client_id: String,
    user_code: String,
    scope: Vec<String>,
    expires_ms: i64,
    /// Not to be polled again before.
    next_poll_ms: i64,
    decision: Option<Decision>,
}

#[derive(Debug)]
enum Decision {
    Allowed { user: String },
    Denied,
}

impl Devices {
    /// What the person says who has typed the code in; nobody stands for "no". Says whether there is such a code.
    pub(crate) fn decide(&mut self, slug: &str, user_code: &str, user: Option<&str>) -> bool {
        let found = self.0.values_mut().find(|device| {
            device.provider == slug && device.user_code == user_code && device.decision.is_none()
        });
        let Some(device) = found else { return false };
        device.decision = Some(match user {
            Some(user) => Decision::Allowed {
                user: user.to_owned(),
            },
            None => Decision::Denied,
        });
        true
    }
}

pub(crate) async fn start(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let provider = site.provider();
    match begin(&site, &provider, &headers, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => error.into_response(provider.token_shape),
    }
}

fn begin(
    site: &Site,
    provider: &ProviderConfig,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, OAuthError> {
    let form = Parameters::form(headers, body)?;
    let client = authenticate(site, provider, headers, &form)?;
    let scope = requested_scope(provider, &form)?;
    let device_code = random::token("sim_dc_");
    let user_code = random::user_code();
    let verification_uri = format!("{}/device", site.issuer());
    let now = site.world.clock.now_ms();
    let device = Device {
        provider: provider.slug.clone(),
        client_id: client.client_id.clone(),
        user_code: user_code.clone(),
        scope,
        expires_ms: now + LIFETIME_SECONDS * 1000,
        next_poll_ms: now,
        decision: None,
    };
    site.world.devices().0.insert(device_code.clone(), device);
    Ok(json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": verification_uri,
        "verification_uri_complete": format!("{verification_uri}?user_code={user_code}"),
        "expires_in": LIFETIME_SECONDS,
        "interval": provider.device_interval_seconds,
    }))
}

/// Section 3.5. A code that was answered for good is forgotten.
pub(super) fn poll(
    site: &Site,
    provider: &ProviderConfig,
    client_id: &str,
    form: &Parameters,
) -> Result<Issued, OAuthError> {
    let code = form.require("device_code")?;
    let now = site.world.clock.now_ms();
    let mut devices = site.world.devices();
    let device = devices
        .0
        .get_mut(code)
        .filter(|device| device.provider == provider.slug && device.client_id == client_id)
        .ok_or_else(|| OAuthError::new("invalid_grant", "The device code is not known."))?;
    if now >= device.expires_ms {
        devices.0.remove(code);
        return Err(OAuthError::new(
            "expired_token",
            "The device code has expired.",
        ));
    }
    if now < device.next_poll_ms {
        return Err(OAuthError::new(
            "slow_down",
            "The device code is polled too often.",
        ));
    }
    device.next_poll_ms = now + i64::from(provider.device_interval_seconds) * 1000;
    match &device.decision {
        None => Err(OAuthError::new(
            "authorization_pending",
            "Nobody has typed the code in yet.",
        )),
        Some(Decision::Denied) => {
            devices.0.remove(code);
            Err(OAuthError::new("access_denied", "The user said no."))
        }
        Some(Decision::Allowed { user }) => {
            let (user, scope) = (user.clone(), device.scope.clone());
            devices.0.remove(code);
            drop(devices);
            Ok(site
                .world
                .grants()
                .consented(provider, client_id, &user, scope, now))
        }
    }
}
