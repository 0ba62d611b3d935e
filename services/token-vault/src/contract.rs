//! Grants and events as the contract says them.

use contracts::vault::v1 as pb;
use prost::Message as _;
use prost_types::Timestamp;
use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;

use crate::grant::{ClientKey, EventKind, Grant, State, Strategy};

/// The grant without its secrets.
pub(crate) fn grant(grant: &Grant) -> pb::Grant {
    pb::Grant {
        tenant_id: grant.key.tenant.to_string(),
        grant_id: grant.key.id.to_string(),
        oauth_client_id: grant
            .client
            .map(|client| client.id.to_string())
            .unwrap_or_default(),
        state: state(grant.state) as i32,
        token_type: grant.token_type.clone(),
        scopes: grant.scopes.clone(),
        expires_at: grant.expires_at.map(timestamp),
        has_refresh_token: grant.strategy == Strategy::RefreshToken
            && grant.refresh_token.is_some(),
        version: grant.version,
        refreshed_at: grant.refreshed_at.map(timestamp),
        next_refresh_at: grant.next_refresh_at.map(timestamp),
        consecutive_failures: grant.consecutive_failures,
        last_error: grant.last_error.clone(),
        raw_json: grant.raw_json.clone(),
        created_at: Some(timestamp(grant.created_at)),
        oauth_client_tenant_id: grant
            .client
            .map(|client| client.tenant.to_string())
            .unwrap_or_default(),
        reauthorization_cause: grant.cause.map_or(0, |found| cause(found) as i32),
        refresh_token_expires_at: grant.refresh_token_expires_at.map(timestamp),
        scope_raw: grant.scope_raw.clone(),
        revoked_at: grant.revoked_at.map(timestamp),
        parameters: grant.parameters.clone().into_iter().collect(),
        revision: grant.revision,
        token_names: grant.token_names.clone(),
    }
}

/// What watchers are told of a grant, encoded; the cursor and the time are added when it is read.
pub(crate) fn grant_event(changed: &Grant, kind: EventKind) -> Vec<u8> {
    let event = pb::WatchGrantEventsResponse {
        grant: Some(grant(changed)),
        kind: event_kind(kind) as i32,
        tenant_id: changed.key.tenant.to_string(),
        oauth_client_id: changed
            .client
            .map(|client| client.id.to_string())
            .unwrap_or_default(),
        error: changed.last_error.clone(),
        ..pb::WatchGrantEventsResponse::default()
    };
    event.encode_to_vec()
}

/// The provider refuses the client.
pub(crate) fn client_refused(key: ClientKey, error: &str) -> Vec<u8> {
    client_event(key, pb::GrantEventKind::ClientRefused, error)
}

/// The provider takes the client again.
pub(crate) fn client_accepted(key: ClientKey) -> Vec<u8> {
    client_event(key, pb::GrantEventKind::ClientAccepted, "")
}

fn client_event(key: ClientKey, kind: pb::GrantEventKind, error: &str) -> Vec<u8> {
    let event = pb::WatchGrantEventsResponse {
        kind: kind as i32,
        tenant_id: key.tenant.to_string(),
        oauth_client_id: key.id.to_string(),
        error: error.to_owned(),
        ..pb::WatchGrantEventsResponse::default()
    };
    event.encode_to_vec()
}

pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: at.nanosecond() as i32,
    }
}

/// `None` where it is out of range.
pub(crate) fn time(at: Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

pub(crate) fn state(state: State) -> pb::GrantState {
    match state {
        // Nobody sees these two.
        State::Exchanging | State::ExchangeFailed => pb::GrantState::Unspecified,
        State::Unconfirmed => pb::GrantState::Unconfirmed,
        State::Active => pb::GrantState::Active,
        State::RefreshFailing => pb::GrantState::RefreshFailing,
        State::ReauthorizationRequired => pb::GrantState::ReauthorizationRequired,
        State::Revoking => pb::GrantState::Revoking,
        State::Revoked => pb::GrantState::Revoked,
    }
}

/// `None` for "any".
pub(crate) fn state_from(state: pb::GrantState) -> Option<State> {
    match state {
        pb::GrantState::Unspecified => None,
        pb::GrantState::Active => Some(State::Active),
        pb::GrantState::RefreshFailing => Some(State::RefreshFailing),
        pb::GrantState::ReauthorizationRequired => Some(State::ReauthorizationRequired),
        pb::GrantState::Revoked => Some(State::Revoked),
        pb::GrantState::Unconfirmed => Some(State::Unconfirmed),
        pb::GrantState::Revoking => Some(State::Revoking),
    }
}

fn event_kind(kind: EventKind) -> pb::GrantEventKind {
    match kind {
        EventKind::Created => pb::GrantEventKind::Created,
        EventKind::Refreshed => pb::GrantEventKind::Refreshed,
        EventKind::ScopesChanged => pb::GrantEventKind::ScopesChanged,
        EventKind::RefreshFailing => pb::GrantEventKind::RefreshFailing,
        EventKind::Recovered => pb::GrantEventKind::Recovered,
        EventKind::ReauthorizationRequired => pb::GrantEventKind::ReauthorizationRequired,
        EventKind::ReauthorizationDue => pb::GrantEventKind::ReauthorizationDue,
        EventKind::Revoked => pb::GrantEventKind::Revoked,
    }
}

fn cause(cause: ReauthorizationCause) -> pb::ReauthorizationCause {
    match cause {
        ReauthorizationCause::Revoked => pb::ReauthorizationCause::Revoked,
        ReauthorizationCause::Expired => pb::ReauthorizationCause::Expired,
        ReauthorizationCause::LostRotation => pb::ReauthorizationCause::LostRotation,
        ReauthorizationCause::AccountDisabled => pb::ReauthorizationCause::AccountDisabled,
        ReauthorizationCause::AdminAction => pb::ReauthorizationCause::AdminAction,
        ReauthorizationCause::InteractionRequired => pb::ReauthorizationCause::InteractionRequired,
    }
}
