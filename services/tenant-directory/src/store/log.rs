//! What a change leaves behind: an event for others, and a line for the auditor.

use common::TenantKey;
use common::identity::Actor;
use common::pg::{audit, outbox};

use super::{StoreError, Tx};
use crate::events::Change;

/// Publishes a change, after the statement that makes it.
pub(crate) async fn event_append(
    tx: &Tx,
    tenant: TenantKey,
    change: Change,
) -> Result<(), StoreError> {
    let event = outbox::Event {
        event_id: tenant.new_id(tx.deps()),
        resource: change.resource,
        revision: change.revision,
        payload: change.payload,
    };
    Ok(outbox::append(tx, tenant, &event).await?)
}

/// Notes who made a change; why is what the actor says it acts for.
pub(crate) async fn audit_append(
    tx: &Tx,
    tenant: TenantKey,
    actor: &Actor,
    action: &str,
    resource: &str,
) -> Result<(), StoreError> {
    Ok(audit::append(tx, tenant, actor, action, resource, &actor.purpose).await?)
}
