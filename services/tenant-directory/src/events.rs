//! The events that others are told, as they lie in the log.

use contracts::directory::v1::watch_directory_events_response::Event;
use contracts::directory::v1::{TenantDeleted, UserDeleted, WatchDirectoryEventsResponse};
use prost::Message as _;
use time::OffsetDateTime;

use crate::deletion::Deletion;
use crate::encode;
use crate::tenant::Tenant;
use crate::user::User;

/// A change, ready to be published.
pub(crate) struct Change {
    /// What has changed.
    pub(crate) resource: String,
    /// To which revision.
    pub(crate) revision: i64,
    /// The watch's message, without its cursor and time.
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn tenant_changed(tenant: &Tenant, now: OffsetDateTime) -> Change {
    change(
        resource_of(tenant),
        tenant.revision,
        Event::TenantChanged(encode::tenant(tenant, now)),
    )
}

/// A resource of its own, so that it does not outdo the change to the tenant that it comes with.
pub(crate) fn tenant_deleted(tenant: &Tenant) -> Change {
    let event = TenantDeleted {
        tenant_id: tenant.key.to_string(),
    };
    change(
        format!("{}/deletion", resource_of(tenant)),
        tenant.revision,
        Event::TenantDeleted(event),
    )
}

pub(crate) fn user_changed(user: &User) -> Change {
    change(
        life_of(user),
        user.revision,
        Event::UserChanged(encode::user(user)),
    )
}

/// `user` is the one that is gone.
pub(crate) fn user_deleted(user: &User, delete_documents: bool) -> Change {
    let event = UserDeleted {
        tenant_id: user.tenant.to_string(),
        user_id: user.user_id.clone(),
        delete_documents,
    };
    change(life_of(user), user.revision + 1, Event::UserDeleted(event))
}

pub(crate) fn deletion_advanced(deletion: &Deletion) -> Change {
    change(
        deletion.resource(),
        deletion.revision,
        Event::DeletionAdvanced(encode::deletion(deletion)),
    )
}

/// The resource name of a tenant.
pub(crate) fn resource_of(tenant: &Tenant) -> String {
    format!("tenants/{}", tenant.key)
}

/// A user who was deleted may come back under the same id, and begins at revision 1 again: as another resource.
fn life_of(user: &User) -> String {
    format!(
        "{}@{}",
        user.resource(),
        user.created_at.unix_timestamp_nanos() / 1000
    )
}

fn change(resource: String, revision: i64, event: Event) -> Change {
    let message = WatchDirectoryEventsResponse {
        event: Some(event),
        ..WatchDirectoryEventsResponse::default()
    };
    Change {
        resource,
        revision,
        payload: message.encode_to_vec(),
    }
}
