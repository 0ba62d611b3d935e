//! Single grants: read, made, and changed under their lock.

use common::identity::Actor;
use common::pg::{self, Scope, Tx, audit, outbox};

use super::data_keys::{is_shredded, refuse_shredded};
use super::grant_row::{GRANT_INSERT, GRANT_SAVE, RowValues, grant_columns, grant_from};
use super::{Store, StoreError};
use crate::contract;
use crate::grant::{EventKind, Grant, GrantKey};

const GRANT_GET: &str = concat!(
    "-- {schema}.grant_get
SELECT ",
    grant_columns!(),
    ", now() AS read_at, ",
    is_shredded!("grants"),
    " AS is_shredded
FROM {schema}.grants
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3"
);

const GRANT_LOCK: &str = concat!(
    "-- {schema}.grant_lock
SELECT ",
    grant_columns!(),
    ", now() AS read_at, ",
    is_shredded!("grants"),
    " AS is_shredded
FROM {schema}.grants
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3
FOR UPDATE"
);

const GRANT_DELETE: &str = "-- {schema}.grant_delete
DELETE FROM {schema}.grants
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3
  AND fence = $4
  AND version = 0";

/// What a change leaves behind besides the row.
#[derive(Clone, Debug)]
pub(crate) struct Change<T> {
    /// For whoever asked for it.
    pub(crate) outcome: T,
    /// Whether the row is to be written.
    pub(crate) save: bool,
    /// What others are told.
    pub(crate) event: Option<EventKind>,
    /// By whom, where a person or a service asked for it.
    pub(crate) by: Option<Attribution>,
}

/// Who changed something, for the audit event.
#[derive(Clone, Debug)]
pub(crate) struct Attribution {
    pub(crate) actor: Actor,
    pub(crate) action: &'static str,
    pub(crate) reason: String,
}

impl<T> Change<T> {
    /// Nothing is written.
    pub(crate) fn none(outcome: T) -> Self {
        Self {
            outcome,
            save: false,
            event: None,
            by: None,
        }
    }

    /// The row is written.
    pub(crate) fn saved(outcome: T) -> Self {
        Self {
            outcome,
            save: true,
            event: None,
            by: None,
        }
    }

    /// The row is written, and others are told where there is something to tell.
    pub(crate) fn told(outcome: T, event: Option<EventKind>) -> Self {
        Self {
            outcome,
            save: true,
            event,
            by: None,
        }
    }

    /// The same, on somebody's behalf.
    pub(crate) fn by(self, attribution: Attribution) -> Self {
        Self {
            by: Some(attribution),
            ..self
        }
    }
}

impl Store {
    /// The grant, whoever may see it.
    pub(crate) async fn grant_get(&self, key: GrantKey) -> Result<Option<Grant>, StoreError> {
        let params: &[&(dyn pg::ToSql + Sync)] = &[&key.tenant.bucket(), &key.tenant.id(), &key.id];
        let row = self
            .db
            .query_opt(Scope::Tenant(key.tenant), GRANT_GET, params)
            .await?;
        row.map(|row| grant_from(&row, key)).transpose()
    }

    /// Locks the grant's row, changes it, and writes it back together with what others are told. `None` where there is
    /// no such grant.
    pub(crate) async fn grant_change<T, F>(
        &self,
        name: &'static str,
        key: GrantKey,
        change: F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Fn(&mut Grant) -> Change<T> + Send + Sync,
        T: Send,
    {
        self.db
            .run_tx(name, Scope::Tenant(key.tenant), async move |tx: &Tx| {
                let Some(mut grant) = lock(tx, key).await? else {
                    return Ok(None);
                };
                let change = change(&mut grant);
                write(tx, &grant, &change).await?;
                Ok(Some(change.outcome))
            })
            .await
    }

    /// Makes the grant, or changes the one that is there already.
    pub(crate) async fn grant_make_or_change<T, M, F>(
        &self,
        name: &'static str,
        key: GrantKey,
        make: M,
        change: F,
    ) -> Result<T, StoreError>
    where
        M: Fn() -> Grant + Send + Sync,
        F: Fn(&mut Grant, bool) -> Change<T> + Send + Sync,
        T: Send,
    {
        self.db
            .run_tx(name, Scope::Tenant(key.tenant), async move |tx: &Tx| {
                refuse_shredded(tx, key.tenant).await?;
                let new = make();
                let is_new = tx
                    .execute(GRANT_INSERT, &RowValues::of(&new).params())
                    .await?
                    == 1;
                let locked = lock(tx, key).await?;
                let mut grant = locked.ok_or(StoreError::Impossible {
                    table: "grants",
                    what: "gone while it was locked",
                })?;
                let change = change(&mut grant, is_new);
                write(tx, &grant, &change).await?;
                Ok(change.outcome)
            })
            .await
    }

    /// Forgets a grant that never had tokens.
    pub(crate) async fn grant_forget(&self, key: GrantKey, fence: i64) -> Result<(), StoreError> {
        let params: &[&(dyn pg::ToSql + Sync)] =
            &[&key.tenant.bucket(), &key.tenant.id(), &key.id, &fence];
        self.db
            .execute(Scope::Tenant(key.tenant), GRANT_DELETE, params)
            .await?;
        Ok(())
    }
}

pub(super) async fn lock(tx: &Tx, key: GrantKey) -> Result<Option<Grant>, StoreError> {
    let row = tx
        .query_opt(
            GRANT_LOCK,
            &[&key.tenant.bucket(), &key.tenant.id(), &key.id],
        )
        .await?;
    row.map(|row| grant_from(&row, key)).transpose()
}

pub(super) async fn write<T>(tx: &Tx, grant: &Grant, change: &Change<T>) -> Result<(), StoreError> {
    if change.save {
        let saved = tx
            .execute(GRANT_SAVE, &RowValues::of(grant).params())
            .await?;
        if saved != 1 {
            return Err(StoreError::Impossible {
                table: "grants",
                what: "gone while it was locked",
            });
        }
    }
    if let Some(kind) = change.event {
        let event = outbox::Event {
            event_id: grant.key.tenant.new_id(tx.deps()),
            resource: format!("grants/{}", grant.key.id),
            revision: grant.revision,
            payload: contract::grant_event(grant, kind),
        };
        outbox::append(tx, grant.key.tenant, &event).await?;
    }
    if let Some(by) = &change.by {
        let resource = format!("grants/{}", grant.key.id);
        audit::append(
            tx,
            grant.key.tenant,
            &by.actor,
            by.action,
            &resource,
            &by.reason,
        )
        .await?;
    }
    Ok(())
}
