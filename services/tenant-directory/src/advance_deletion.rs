//! Carrying out deletions: hearing the services' reports, doing the directory's own part, saying when it is over.

use common::TenantKey;
use common::identity::{Actor, Caller};
use uuid::Uuid;

use crate::deletion::{DIRECTORY, Deletion, Report, Step};
use crate::directory::{Directory, Page};
use crate::error::Error;
use crate::name::{Claim, NameKind};
use crate::store::{self, Scope, Tx};
use crate::{access, events};

const ACTION: &str = "DirectoryService/ReportDeletion";
/// Users that one statement deletes.
const USERS_AT_ONCE: i64 = 500;

impl Directory {
    /// Takes a service's report, and goes on to the next step where it was the last one.
    pub(crate) async fn report_deletion(
        &self,
        caller: &Caller,
        key: TenantKey,
        id: Uuid,
        report: Report,
    ) -> Result<Deletion, Error> {
        self.take_report(caller.actor(), key, id, report).await
    }

    /// A page of the deletions that are not over, of one tenant or of all.
    pub(crate) async fn list_deletions(
        &self,
        caller: &Caller,
        tenant: Option<TenantKey>,
        after: Uuid,
        size: i64,
    ) -> Result<Page<Deletion>, Error> {
        access::administers(caller)?;
        let open = match tenant {
            Some(tenant) => {
                store::deletion::deletions_list(&self.db, tenant, after, size + 1).await?
            }
            None => store::across::deletions_open(&self.db, after, size + 1).await?,
        };
        let page = Page::of(open, size);
        let mut items = Vec::new();
        for (tenant, id) in page.items {
            items.extend(store::deletion::deletion_get(&self.db, tenant, id).await?);
        }
        Ok(Page {
            items,
            more: page.more,
        })
    }

    /// The directory's own part of every deletion that waits for it: the tenant's users and configuration.
    pub(crate) async fn erase_what_is_due(&self) -> Result<usize, Error> {
        let due =
            store::across::deletion_parts_due(&self.db, DIRECTORY, Step::EraseData, 100).await?;
        let count = due.len();
        for (tenant, id) in due {
            while store::user::users_erase(&self.db, tenant, USERS_AT_ONCE).await? > 0 {}
            store::tenant_config::tenant_config_erase(&self.db, tenant).await?;
            let report = Report {
                service: DIRECTORY.to_owned(),
                step: Step::EraseData,
                done: true,
                detail: String::new(),
            };
            let actor = Caller::service(DIRECTORY).actor;
            self.take_report(&actor, tenant, id, report).await?;
        }
        Ok(count)
    }

    async fn take_report(
        &self,
        actor: &Actor,
        key: TenantKey,
        id: Uuid,
        report: Report,
    ) -> Result<Deletion, Error> {
        let (actor, now) = (actor.clone(), self.now());
        let (deletion, released) = self
            .db
            .run_tx("deletion_report", Scope::Tenant(key), async move |tx| {
                let before = store::deletion::deletion_lock(tx, key, id)
                    .await?
                    .ok_or(Error::DeletionNotFound)?;
                let deletion = before.reported(&report, now)?;
                let changed = deletion
                    .parts
                    .iter()
                    .zip(&before.parts)
                    .find(|(now, before)| now != before);
                if let Some((part, _)) = changed {
                    store::deletion::deletion_part_report(tx, &deletion, part, now).await?;
                }
                let advanced = deletion.step != before.step;
                if advanced {
                    store::deletion::deletion_advance(tx, &deletion).await?;
                    store::log::event_append(tx, key, events::deletion_advanced(&deletion)).await?;
                    store::log::audit_append(tx, key, &actor, ACTION, &deletion.subject()).await?;
                }
                let mut released = Vec::new();
                if deletion.user_id.is_none() && changed.is_some() {
                    released = follow(tx, &deletion, advanced, now).await?;
                }
                Ok::<_, Error>((deletion, released))
            })
            .await?;
        self.settle_names(&released).await;
        if deletion.waiting_for().contains(&DIRECTORY) {
            self.deletion_due.notify_one();
        }
        if deletion.step == Step::Done && !released.is_empty() {
            tracing::info!(event = "tenant_deleted", tenant.id = %key, "a tenant is gone from every service");
        }
        Ok(deletion)
    }
}

/// Lets the tenant say how far its deletion is; a step is a change, what is said within one is not.
async fn follow(
    tx: &Tx,
    deletion: &Deletion,
    advanced: bool,
    now: time::OffsetDateTime,
) -> Result<Vec<Claim>, Error> {
    let key = deletion.tenant;
    let mut tenant = store::tenant::tenant_lock(tx, key)
        .await?
        .ok_or(Error::TenantNotFound)?;
    tenant.deletion = deletion.progress();
    let mut released = Vec::new();
    if deletion.step == Step::Done {
        tenant = tenant.deleted(now);
        for kind in [
            NameKind::Subdomain,
            NameKind::ExternalId,
            NameKind::BillingCustomerId,
        ] {
            released.extend(store::name::name_claim_release(tx, key, kind, None, now).await?);
        }
    } else if advanced {
        tenant = tenant.revised(now);
    }
    store::tenant::tenant_update(tx, &tenant).await?;
    if advanced {
        store::log::event_append(tx, key, events::tenant_changed(&tenant, now)).await?;
    }
    Ok(released)
}
