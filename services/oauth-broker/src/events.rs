//! What others are told: written in the transaction that causes it.

use common::pg::outbox::{self, Event};
use common::pg::{self, Tx};
use contracts::broker::v1::{ConnectionEventKind, WatchConnectionEventsResponse};
use prost::Message as _;
use uuid::Uuid;

use crate::api::encode;
use crate::connection::{Account, Connection};
use crate::session::Session;

/// Tells of a connection's change, as it is after it.
pub(crate) async fn append(
    tx: &Tx,
    kind: ConnectionEventKind,
    connection: &Connection,
    active: Option<&Account>,
    session_id: Option<Uuid>,
) -> Result<(), pg::Error> {
    let encoded = encode::connection(connection, active, &[]);
    let resource = format!("connections/{}", connection.connection_id);
    put(
        tx,
        connection.tenant,
        resource,
        connection.revision,
        kind,
        encoded,
        session_id,
    )
    .await
}

/// Tells that a session ended without a connection.
pub(crate) async fn append_failure(tx: &Tx, session: &Session) -> Result<(), pg::Error> {
    let (integration_tenant_id, integration_id) = match &session.integration {
        Some((owner, id)) => (owner.to_string(), id.clone()),
        None => Default::default(),
    };
    let connection = contracts::broker::v1::Connection {
        tenant_id: session.tenant.to_string(),
        user_id: session.user_id.clone(),
        user_email: session.user_email.clone(),
        integration_id,
        integration_tenant_id,
        last_error: session.error_reason.clone(),
        ..Default::default()
    };
    let resource = format!("connect-sessions/{}", session.session_id);
    let kind = ConnectionEventKind::ConnectFailed;
    put(
        tx,
        session.tenant,
        resource,
        1,
        kind,
        connection,
        Some(session.session_id),
    )
    .await
}

async fn put(
    tx: &Tx,
    tenant: common::TenantKey,
    resource: String,
    revision: i64,
    kind: ConnectionEventKind,
    connection: contracts::broker::v1::Connection,
    session_id: Option<Uuid>,
) -> Result<(), pg::Error> {
    let payload = WatchConnectionEventsResponse {
        cursor: String::new(),
        occurred_at: Some(encode::timestamp(tx.deps().now())),
        kind: kind.into(),
        connection: Some(connection),
        session_id: session_id.map(|id| id.to_string()).unwrap_or_default(),
        tenant_external_id: String::new(),
    };
    let event = Event {
        event_id: tenant.new_id(tx.deps()),
        resource,
        revision,
        payload: payload.encode_to_vec(),
    };
    outbox::append(tx, tenant, &event).await
}
