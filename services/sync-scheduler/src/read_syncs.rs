//! Reading: jobs, cursors, overrides, and locks, as lists show them.

use common::TenantKey;
use common::pg::{Scope, Tx};
use uuid::Uuid;

use crate::app::Scheduler;
use crate::error::Error;
use crate::job::Job;
use crate::lock::Override;
use crate::store::jobs::{self, JobFilter};
use crate::store::locks::{self, Locked};
use crate::store::overrides;
use crate::store::streams;
use crate::stream::Stream;

/// A job of the tenant's.
///
/// # Errors
/// Database trouble.
pub(crate) async fn job_get(
    scheduler: &Scheduler,
    tenant: TenantKey,
    job_id: Uuid,
) -> Result<Option<Job>, Error> {
    let read = async move |tx: &Tx| Ok::<_, Error>(jobs::job_get(tx, tenant, job_id).await?);
    scheduler
        .database
        .run_tx("job_get", Scope::Tenant(tenant), read)
        .await
}

/// Jobs of the tenant's, newest first.
///
/// # Errors
/// Database trouble.
pub(crate) async fn job_list(
    scheduler: &Scheduler,
    tenant: TenantKey,
    filter: JobFilter,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let read =
        async move |tx: &Tx| Ok::<_, Error>(jobs::job_list(tx, tenant, &filter, limit).await?);
    scheduler
        .database
        .run_tx("job_list", Scope::Tenant(tenant), read)
        .await
}

/// The streams of a connection.
///
/// # Errors
/// Database trouble.
pub(crate) async fn stream_list(
    scheduler: &Scheduler,
    tenant: TenantKey,
    connection_id: Uuid,
) -> Result<Vec<Stream>, Error> {
    let read =
        async move |tx: &Tx| Ok::<_, Error>(streams::stream_list(tx, tenant, connection_id).await?);
    scheduler
        .database
        .run_tx("stream_list", Scope::Tenant(tenant), read)
        .await
}

/// Overrides of a tenant or of all, newest first; those in force alone unless `all`.
///
/// # Errors
/// Database trouble.
pub(crate) async fn override_list(
    scheduler: &Scheduler,
    tenant: Option<TenantKey>,
    all: bool,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Override>, Error> {
    let now = scheduler.deps.now();
    let read = async move |tx: &Tx| {
        Ok::<_, Error>(overrides::override_list(tx, tenant, all, before, limit, now).await?)
    };
    scheduler
        .database
        .run_tx("override_list", scope(tenant), read)
        .await
}

/// What is locked, of a tenant or of all.
///
/// # Errors
/// Database trouble.
pub(crate) async fn lock_list(
    scheduler: &Scheduler,
    tenant: Option<TenantKey>,
    after: Option<Locked>,
    limit: i64,
) -> Result<Vec<Locked>, Error> {
    let read = async move |tx: &Tx| {
        Ok::<_, Error>(locks::lock_list(tx, tenant, after.clone(), limit).await?)
    };
    scheduler
        .database
        .run_tx("lock_list", scope(tenant), read)
        .await
}

fn scope(tenant: Option<TenantKey>) -> Scope {
    tenant.map_or(Scope::System, Scope::Tenant)
}
