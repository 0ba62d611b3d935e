//! Routing events again, as if they had just come in.

use common::TenantKey;
use common::identity::Caller;
use common::pg::{Scope, Tx, audit};
use uuid::Uuid;

use crate::app::Ingest;
use crate::error::Error;
use crate::store::events::events_replay;

/// Puts the tenant's events of these ids into the queue again; those that are in it stay as they are. Gives how many.
///
/// # Errors
/// Where the database is away.
pub(crate) async fn replay_events(
    ingest: &Ingest,
    caller: &Caller,
    tenant: TenantKey,
    event_ids: Vec<Uuid>,
) -> Result<u64, Error> {
    let caller = caller.clone();
    let replayed = ingest
        .database
        .run_tx(
            "events_replay",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let replayed = events_replay(tx, tenant, &event_ids).await?;
                for event_id in &event_ids {
                    let resource = format!("events/{event_id}");
                    let action = "WebhookEventService/ReplayEvents";
                    audit::append(tx, tenant, caller.actor(), action, &resource, "").await?;
                }
                Ok::<_, Error>(replayed)
            },
        )
        .await?;
    ingest.wake.ring([tenant.bucket()]);
    Ok(replayed)
}
