//! The broker's domain as the contract has it.

use contracts::broker::v1 as contract;
use prost_types::value::Kind;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::clients::map;
use crate::connection::{Account, Connection};
use crate::integration::Integration;
use crate::routing_key::RoutingKey;
use crate::session::Session;

/// A moment as the contract has it.
pub(crate) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: at.nanosecond() as i32,
    }
}

/// A moment of the contract's; `None` where it is out of range.
pub(crate) fn moment(at: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

/// A connection. Its routing keys are given where they were asked for.
pub(crate) fn connection(
    of: &Connection,
    active: Option<&Account>,
    keys: &[RoutingKey],
) -> contract::Connection {
    contract::Connection {
        tenant_id: of.tenant.to_string(),
        connection_id: of.connection_id.to_string(),
        integration_id: of.integration_id.clone(),
        provider: of.provider.clone(),
        user_id: of.user_id.clone(),
        user_email: of.user_email.clone(),
        external_user_id: of.external_user_id.clone(),
        active_account: active.map(account),
        state: of.state.into(),
        scopes: of.grant.scopes.clone(),
        token_type: of.grant.token_type.clone(),
        token_expires_at: of.grant.token_expires_at.map(timestamp),
        grant_id: of.grant.grant_id.to_string(),
        parameters: map(&of.parameters),
        metadata_json: of.metadata_json.clone(),
        last_error: of.last_error.clone(),
        connected_at: Some(timestamp(of.connected_at)),
        disconnected_at: of.disconnected_at.map(timestamp),
        updated_at: Some(timestamp(of.updated_at)),
        etag: format!("\"{}\"", of.revision),
        labels: map(&of.labels),
        requested_scopes: of.requested_scopes.clone(),
        scope_raw: of.grant.scope_raw.clone(),
        revoked_at: of.revoked_at.map(timestamp),
        reauthorization_cause: of.reauthorization_cause.clone(),
        routing_keys: keys.iter().map(Into::into).collect(),
        refresh_token_expires_at: of.grant.refresh_token_expires_at.map(timestamp),
        revision: of.revision,
        integration_tenant_id: of.integration_tenant.to_string(),
    }
}

/// An account.
pub(crate) fn account(of: &Account) -> contract::Account {
    contract::Account {
        external_account_id: of.external_account_id.clone(),
        name: of.name.clone(),
        active: of.active,
        metadata_json: format!("{{\"usable\":{}}}", of.usable),
        disconnected_at: of.disconnected_at.map(timestamp),
    }
}

/// An integration, without its secrets.
pub(crate) fn integration(of: &Integration, public_url: &str) -> contract::Integration {
    contract::Integration {
        tenant_id: of.tenant.to_string(),
        integration_id: of.integration_id.clone(),
        provider: of.provider.clone(),
        display_name: of.display_name.clone(),
        client_id: of.client_id.clone(),
        client_secret: String::new(),
        scopes: of.scopes.clone(),
        cardinality: of.cardinality.into(),
        exclusive_accounts: of.exclusive_accounts,
        overrides: struct_of(&of.overrides),
        redirect_uri: of.redirect_uri(public_url),
        configuration_error: of.configuration_error.clone(),
        etag: of.etag(),
        created_at: Some(timestamp(of.created_at)),
        updated_at: Some(timestamp(of.updated_at)),
        allowed_origins: of.allowed_origins.clone(),
        previous_client_secret: String::new(),
        accept_unverified: of.accept_unverified,
        auth_mode: of.auth_mode.into(),
    }
}

/// A session as it is at that time.
pub(crate) fn session(of: &Session, now: OffsetDateTime) -> contract::ConnectSession {
    contract::ConnectSession {
        tenant_id: of.tenant.to_string(),
        session_id: of.session_id.to_string(),
        user_id: of.user_id.clone(),
        user_email: of.user_email.clone(),
        integration_id: of
            .integration
            .as_ref()
            .map(|(_, id)| id.clone())
            .unwrap_or_default(),
        return_url: of.return_url.clone(),
        connection_parameters: map(&of.connection_parameters),
        state: of.state_at(now).into(),
        connection_id: of
            .connection_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        error: of.error.clone(),
        expires_at: Some(timestamp(of.expires_at)),
        error_reason: of.error_reason.clone(),
    }
}

/// A struct as JSON. Numbers without a fraction stay whole.
pub(crate) fn json_of(fields: &prost_types::Struct) -> Value {
    Value::Object(
        fields
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), json_value(value)))
            .collect::<Map<_, _>>(),
    )
}

fn json_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(fields)) => json_of(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(json_value).collect(),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Value::from(*number as i64)
        }
        Some(Kind::NumberValue(number)) => Value::from(*number),
    }
}

/// A JSON object as a struct; nothing where it is empty.
fn struct_of(value: &Value) -> Option<prost_types::Struct> {
    let members = value.as_object().filter(|members| !members.is_empty())?;
    let fields = members
        .iter()
        .map(|(name, value)| (name.clone(), proto_value(value)))
        .collect();
    Some(prost_types::Struct { fields })
}

fn proto_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(proto_value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(struct_of(value).unwrap_or_default()),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_survives_the_contract() {
        let value = serde_json::json!({"a": [1, 2.5, "x", null, true], "b": {"c": {}}, "big": 562_949_953_500_001_i64});
        assert_eq!(json_of(&struct_of(&value).expect("an object")), value);
    }
}
