//! A provider's tokens, sealed as the grant's next version.

use std::time::Duration;

use common::Secret;
use egress::Url;
use oauth_client::TokenSet;
use provider_catalog::ReplayWindow;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::grant::{Answer, ExchangeFacts, Grant, GrantKey, RefreshRules, spread};
use crate::keys::{Keys, SealingKey};
use crate::providers::Resolved;
use crate::secrets::{self, Credential, NamedToken, RefreshToken};

/// What a new version is sealed with, and for where.
pub(crate) struct Seals<'a> {
    pub(crate) keys: &'a Keys,
    /// In hand before the request was sent.
    pub(crate) data_key: &'a SealingKey,
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
    let by_client = grant.strategy == crate::grant::Strategy::ClientCredentials;
    let scopes = tokens
        .scopes
        .clone()
        .unwrap_or_else(|| grant.scopes.clone());
    let expires_at = tokens.expires_at;
    let consent_ends_at = match &exchange {
        Some(_) => resolved.rules.absolute.map(|life| sent_at + life),
        None => grant.consent_ends_at,
    };
    // What the last answer said of the refresh token holds where this one says nothing of it.
    let told = tokens.refresh_token_expires_at.or_else(|| {
        grant
            .refresh_token_expires_at
            .filter(|end| exchange.is_none() && *end > sent_at)
    });
    let refresh_ends_at = earlier(told, consent_ends_at).filter(|_| refresh_token.is_some());
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
        token_names: tokens
            .others
            .iter()
            .map(|token| token.name.clone())
            .collect(),
        issued_at: sent_at,
        expires_at,
        refresh_token_expires_at: refresh_ends_at,
        consent_ends_at,
        next_refresh_at: next_refresh_at(
            &resolved.rules,
            refresh_token.is_some() || by_client,
            sent_at,
            expires_at,
            refresh_ends_at,
            seals.random,
        ),
        raw_json: merged(&grant.raw_json, &tokens.raw, exchange.is_some()),
        exchange,
    }
}

fn seal_credential(seals: &Seals<'_>, key: GrantKey, version: i64, tokens: &TokenSet) -> Vec<u8> {
    let credential = Credential::AccessToken {
        value: tokens.access_token.expose().clone(),
        others: tokens.others.iter().map(NamedToken::of).collect(),
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

fn earlier(a: Option<OffsetDateTime>, b: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Near an end that nothing moves, half of what is left is not less than this, so that there are not ever more refreshes.
const SHORTEST_HALF: Duration = Duration::from_mins(5);

/// Ahead of the token's end, at half of the refresh token's life or idle life, or when a token that cannot be renewed
/// ends.
pub(crate) fn next_refresh_at(
    rules: &RefreshRules,
    is_refreshable: bool,
    issued_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    refresh_ends_at: Option<OffsetDateTime>,
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
    let halfway = |life: Duration| spread(issued_at + life / 2, life / 20, random);
    let by_idle = rules.idle.map(halfway);
    let by_end = refresh_ends_at.filter(|end| *end > issued_at).map(|end| {
        let life = Duration::try_from(end - issued_at).unwrap_or_default();
        halfway(life).max(issued_at + SHORTEST_HALF.min(life * 4 / 5))
    });
    earlier(earlier(by_expiry, by_idle), by_end)
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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-15 12:00 UTC);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    fn due(
        idle: Option<Duration>,
        access: Option<Duration>,
        refresh: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        let rules = RefreshRules {
            rotates: true,
            replay: ReplayWindow::None,
            margin: Duration::from_mins(5),
            idle,
            absolute: None,
        };
        let at = next_refresh_at(
            &rules,
            true,
            NOW,
            access.map(|life| NOW + life),
            refresh.map(|life| NOW + life),
            random,
        );
        at.map(|at| Duration::try_from(at - NOW).expect("it is not in the past"))
    }

    #[test]
    fn ahead_of_the_end_by_the_margin_or_a_fifth_of_the_life() {
        let mins = Duration::from_mins;
        assert_eq!(due(None, Some(HOUR), None, 0.0), Some(mins(55)));
        assert_eq!(due(None, Some(mins(5)), None, 0.0), Some(mins(4)));
        assert_eq!(due(None, None, None, 0.0), None);
    }

    #[test]
    fn what_ends_together_is_spread() {
        let earliest = due(None, Some(HOUR), None, 1.0);
        assert_eq!(earliest, Some(Duration::from_secs(55 * 60 - 75)));
    }

    #[test]
    fn an_idle_grant_is_kept_alive_at_half_of_its_limit() {
        assert_eq!(due(Some(DAY * 60), None, None, 0.0), Some(DAY * 30));
        assert_eq!(
            due(Some(DAY * 60), Some(DAY * 90), None, 1.0),
            Some(DAY * 27)
        );
        assert_eq!(
            due(None, Some(DAY * 60), Some(DAY * 14), 0.0),
            Some(DAY * 7)
        );
        let mins = Duration::from_mins;
        assert_eq!(due(None, None, Some(mins(8)), 0.0), Some(SHORTEST_HALF));
        assert_eq!(due(None, None, Some(mins(5)), 0.0), Some(mins(4)));
    }
}
