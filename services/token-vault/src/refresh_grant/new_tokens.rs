//! A provider's tokens, sealed as the grant's next version.

use std::time::Duration;

use common::Secret;
use egress::Url;
use envelope::DataKey;
use oauth_client::TokenSet;
use provider_catalog::ReplayWindow;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::grant::{Answer, ExchangeFacts, Grant, GrantKey, RefreshRules, spread};
use crate::keys::Keys;
use crate::providers::Resolved;
use crate::secrets::{self, Credential, RefreshToken};

/// What a new version is sealed with, and for where.
pub(crate) struct Seals<'a> {
    pub(crate) keys: &'a Keys,
    /// In hand before the request was sent.
    pub(crate) data_key: &'a DataKey,
    pub(crate) resolved: &'a Resolved,
    /// From 0 to 1.
    pub(crate) random: f64,
}

/// Where a token may be sent.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The grant's next version. `sent` is the refresh token that was traded; `grant` is the row as it was read.
pub(crate) fn seal_tokens(
    seals: &Seals<'_>,
    grant: &Grant,
    sent: Option<&Secret<String>>,
    tokens: &TokenSet,
    sent_at: OffsetDateTime,
    exchange: Option<ExchangeFacts>,
) -> Answer {
    let (resolved, key) = (seals.resolved, grant.key);
    let version = grant.version + 1;
    // An answer without a refresh token keeps the one before (RFC 6749, 6).
    let refresh_token = tokens.refresh_token.as_ref().or(sent);
    let has_rotated = sent.is_some_and(|sent| {
        tokens
            .refresh_token
            .as_ref()
            .is_some_and(|new| new.expose() != sent.expose())
    });
    let previous_until = previous_until(&resolved.rules, sent_at).filter(|_| has_rotated);
    let by_client = exchange.as_ref().map_or(
        grant.strategy == crate::grant::Strategy::ClientCredentials,
        |facts| facts.by_client,
    );
    let scopes = tokens
        .scopes
        .clone()
        .unwrap_or_else(|| grant.scopes.clone());
    let expires_at = tokens.expires_at;
    Answer {
        tenant_id: key.tenant.id(),
        grant_id: key.id,
        fence: grant.fence,
        read_version: grant.version,
        credential: seal_credential(seals, key, version, tokens),
        refresh_token: refresh_token.map(|token| {
            seal_refresh_token(seals, &secrets::refresh_token_place(key, version), token)
        }),
        previous: sent
            .filter(|_| previous_until.is_some())
            .map(|token| seal_refresh_token(seals, &secrets::previous_place(key, version), token)),
        previous_until,
        key_version: seals.data_key.version().cast_signed(),
        token_type: tokens.token_type.clone(),
        scope_raw: tokens
            .scope_raw
            .clone()
            .unwrap_or_else(|| grant.scope_raw.clone()),
        scopes,
        token_names: Vec::new(),
        issued_at: sent_at,
        expires_at,
        refresh_token_expires_at: refresh_end(
            &resolved.rules,
            grant,
            tokens,
            sent_at,
            exchange.is_some(),
        ),
        next_refresh_at: next_refresh_at(
            &resolved.rules,
            refresh_token.is_some() || by_client,
            sent_at,
            expires_at,
            seals.random,
        ),
        raw_json: merged(&grant.raw_json, &tokens.raw, exchange.is_some()),
        exchange,
    }
}

fn seal_credential(seals: &Seals<'_>, key: GrantKey, version: i64, tokens: &TokenSet) -> Vec<u8> {
    let credential = Credential::AccessToken {
        value: tokens.access_token.expose().clone(),
        others: Vec::new(),
        revocation_origin: seals.resolved.revocation_url.as_ref().map(origin),
    };
    secrets::seal(
        seals.keys,
        seals.data_key,
        &secrets::credential_place(key, version),
        &credential,
    )
}

fn seal_refresh_token(
    seals: &Seals<'_>,
    place: &crate::keys::Place,
    token: &Secret<String>,
) -> Vec<u8> {
    let token = RefreshToken::new(token, origin(&seals.resolved.refresh_url));
    secrets::seal(seals.keys, seals.data_key, place, &token)
}

/// Until when the provider still takes the token that was sent.
fn previous_until(rules: &RefreshRules, sent_at: OffsetDateTime) -> Option<OffsetDateTime> {
    match rules.replay {
        _ if !rules.rotates => None,
        ReplayWindow::None => None,
        ReplayWindow::For(window) => Some(sent_at + window),
        ReplayWindow::UntilSuccessorIsUsed | ReplayWindow::Unlimited => {
            Some(sent_at + time::Duration::days(1))
        }
    }
}

fn refresh_end(
    rules: &RefreshRules,
    grant: &Grant,
    tokens: &TokenSet,
    sent_at: OffsetDateTime,
    is_exchange: bool,
) -> Option<OffsetDateTime> {
    let by_consent = if is_exchange {
        rules.absolute.map(|life| sent_at + life)
    } else {
        grant.refresh_token_expires_at
    };
    match (tokens.refresh_token_expires_at, by_consent) {
        (Some(told), Some(limit)) if is_exchange || rules.absolute.is_some() => {
            Some(told.min(limit))
        }
        (told, limit) => told.or(limit),
    }
}

/// Ahead of the token's end, at half of the refresh token's idle life, or when a token that cannot be renewed ends.
pub(crate) fn next_refresh_at(
    rules: &RefreshRules,
    is_refreshable: bool,
    issued_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    random: f64,
) -> Option<OffsetDateTime> {
    if !is_refreshable {
        return expires_at;
    }
    let by_expiry = expires_at.map(|end| {
        let lifetime = Duration::try_from(end - issued_at).unwrap_or_default();
        let margin = rules.margin.min(lifetime / 5);
        spread(end - margin, margin / 4, random)
    });
    let by_idle = rules
        .idle
        .map(|idle| spread(issued_at + idle / 2, idle / 20, random));
    match (by_expiry, by_idle) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What the first answer said of the user stays, unless a later one says otherwise.
fn merged(before: &str, raw: &Map<String, Value>, is_exchange: bool) -> String {
    let mut all = match serde_json::from_str::<Value>(before) {
        Ok(Value::Object(all)) if !is_exchange => all,
        _ => Map::new(),
    };
    all.extend(raw.clone());
    Value::Object(all).to_string()
}
