//! Users: read, created or brought up to date at sign-in, updated, deleted.

use common::TenantKey;
use common::identity::{Actor, Caller};
use time::OffsetDateTime;

use crate::deletion::Deletion;
use crate::directory::{Directory, Page};
use crate::error::Error;
use crate::etag::{self, Etag};
use crate::store::user::Written;
use crate::store::{self, Scope, Tx};
use crate::tenant::State;
use crate::user::{self, User, UserChanges};
use crate::{access, events};

const ENSURE: &str = "DirectoryService/EnsureUser";
const UPDATE: &str = "DirectoryService/UpdateUser";
const DELETE: &str = "DirectoryService/DeleteUser";

/// Before every user.
pub(crate) const BEGINNING: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

impl Directory {
    /// The user, if the caller may see it.
    pub(crate) async fn get_user(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        user_id: &str,
    ) -> Result<User, Error> {
        own(caller, user_id)?;
        store::user::user_get(&self.db, tenant, user_id)
            .await?
            .ok_or(Error::UserNotFound)
    }

    /// A page of the tenant's users, the oldest first; a user who is no administrator sees itself.
    pub(crate) async fn list_users(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        after: (OffsetDateTime, &str),
        size: i64,
    ) -> Result<Page<User>, Error> {
        if let Some(own) = caller.own_user() {
            let user = store::user::user_get(&self.db, tenant, own).await?;
            let shown = user.filter(|user| (user.created_at, user.user_id.as_str()) > after);
            return Ok(Page::of(shown.into_iter().collect(), size));
        }
        let users = store::user::users_list(&self.db, tenant, after, size + 1).await?;
        if users.is_empty() && after.0 == BEGINNING {
            // No users, or no tenant?
            self.get_tenant(tenant).await?;
        }
        Ok(Page::of(users, size))
    }

    /// The user after a sign-in, and whether it was made now. A sign-in that changes nothing else makes no revision, no
    /// event, and no line for the auditor.
    pub(crate) async fn ensure_user(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        user_id: &str,
        changes: UserChanges,
    ) -> Result<(User, bool), Error> {
        own(caller, user_id)?;
        if changes.roles.is_some() && caller.own_user().is_some() {
            return Err(Error::Denied(
                "no user gives itself roles: leave them out, or have an administrator set them",
            ));
        }
        let (actor, now) = (caller.actor().clone(), self.now());
        let id = user_id.to_owned();
        let (user, created) = self
            .db
            .run_tx("user_ensure", Scope::Tenant(tenant), async move |tx| {
                sign_in(tx, &actor, &User::new(tenant, &id, now), &changes).await
            })
            .await?;
        self.statistics.count(tenant, "sign_ins", &[]);
        if created {
            self.statistics.count(tenant, "users_created", &[]);
            tracing::info!(event = "user_created", tenant.id = %tenant, user.id = user_id, "a user was created");
        }
        Ok((user, created))
    }

    /// Changes the user; `given` is the etag that the change was made against.
    pub(crate) async fn update_user(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        user_id: &str,
        changes: UserChanges,
        given: Option<Etag>,
    ) -> Result<User, Error> {
        own(caller, user_id)?;
        access::administers(caller)?;
        let (actor, now) = (caller.actor().clone(), self.now());
        let id = user_id.to_owned();
        self.db
            .run_tx(
                "user_update",
                Scope::Tenant(tenant),
                async move |tx| -> Result<_, Error> {
                    let before = store::user::user_lock(tx, tenant, &id)
                        .await?
                        .ok_or(Error::UserNotFound)?;
                    if !etag::permits(given.as_ref(), before.revision) {
                        return Err(Error::EtagMismatch {
                            current: Etag::of(before.revision),
                        });
                    }
                    let Some(user) = before.changed(&changes, now) else {
                        return Ok(before);
                    };
                    write(tx, &user).await?;
                    store::log::event_append(tx, tenant, events::user_changed(&user)).await?;
                    store::log::audit_append(tx, tenant, &actor, UPDATE, &user.resource()).await?;
                    Ok(user)
                },
            )
            .await
    }

    /// Deletes the user here, and begins its end in every other service.
    pub(crate) async fn delete_user(
        &self,
        caller: &Caller,
        tenant: TenantKey,
        user_id: &str,
        delete_documents: bool,
    ) -> Result<(), Error> {
        own(caller, user_id)?;
        access::administers(caller)?;
        let (actor, now) = (caller.actor().clone(), self.now());
        let (id, deletion_id) = (user_id.to_owned(), tenant.new_id(&self.deps));
        self.db
            .run_tx(
                "user_delete",
                Scope::Tenant(tenant),
                async move |tx| -> Result<_, Error> {
                    let user = store::user::user_delete(tx, tenant, &id)
                        .await?
                        .ok_or(Error::UserNotFound)?;
                    let deletion =
                        Deletion::of_user(deletion_id, tenant, &id, delete_documents, now);
                    store::deletion::deletion_create(tx, &deletion).await?;
                    store::log::event_append(
                        tx,
                        tenant,
                        events::user_deleted(&user, delete_documents),
                    )
                    .await?;
                    store::log::event_append(tx, tenant, events::deletion_advanced(&deletion))
                        .await?;
                    store::log::audit_append(tx, tenant, &actor, DELETE, &user::resource(&id))
                        .await?;
                    Ok(())
                },
            )
            .await?;
        tracing::info!(event = "user_deleted", tenant.id = %tenant, user.id = user_id, "a user was deleted");
        Ok(())
    }
}

fn own(caller: &Caller, user_id: &str) -> Result<(), Error> {
    caller.user(user_id).map_err(|_| Error::UserNotFound)
}

/// The user after a sign-in; `new` is what it is where it is not there yet, before `changes`.
async fn sign_in(
    tx: &Tx,
    actor: &Actor,
    new: &User,
    changes: &UserChanges,
) -> Result<(User, bool), Error> {
    let (tenant, now) = (new.tenant, new.created_at);
    let mut before = store::user::user_lock(tx, tenant, &new.user_id).await?;
    if before.is_none() {
        let user = User {
            last_login_at: Some(now),
            ..new.clone().with(changes)
        };
        if add(tx, &user).await? {
            tell(tx, actor, &user).await?;
            return Ok((user, true));
        }
        // Another call has made it meanwhile.
        before = store::user::user_lock(tx, tenant, &new.user_id).await?;
    }
    let before = before.ok_or(Error::Busy)?;
    let Some(user) = before.changed(changes, now) else {
        let user = store::user::user_sign_in(tx, tenant, &new.user_id, now).await?;
        return Ok((user.ok_or(Error::UserNotFound)?, false));
    };
    let user = User {
        last_login_at: Some(now),
        ..user
    };
    write(tx, &user).await?;
    tell(tx, actor, &user).await?;
    Ok((user, false))
}

async fn tell(tx: &Tx, actor: &Actor, user: &User) -> Result<(), Error> {
    store::log::event_append(tx, user.tenant, events::user_changed(user)).await?;
    store::log::audit_append(tx, user.tenant, actor, ENSURE, &user.resource()).await?;
    Ok(())
}

/// Adds the user to a tenant that is not on its way out; `false` where it is there already.
async fn add(tx: &Tx, user: &User) -> Result<bool, Error> {
    match store::tenant::tenant_state_hold(tx, user.tenant).await? {
        None => return Err(Error::TenantNotFound),
        Some(state @ (State::Deleting | State::Deleted)) => return Err(Error::TenantEnding(state)),
        Some(State::Active | State::Suspended) => {}
    }
    match store::user::user_create(tx, user).await? {
        Written::Yes => Ok(true),
        Written::Exists => Ok(false),
        Written::EmailTaken => Err(Error::EmailTaken),
    }
}

async fn write(tx: &Tx, user: &User) -> Result<(), Error> {
    match store::user::user_update(tx, user).await? {
        Written::EmailTaken => Err(Error::EmailTaken),
        // The row is locked, so it is there.
        Written::Yes | Written::Exists => Ok(()),
    }
}
