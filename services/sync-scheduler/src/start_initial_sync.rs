//! The one-time historical sync: one transaction locks, checks, uses the override up, and makes the jobs.

use std::collections::HashMap;

use common::identity::Caller;
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, Tx, audit};
use common::telemetry::context;
use common::{Problem, TenantKey};
use contracts::broker::v1::{Connection, Provider};
use contracts::scheduler::v1::{
    InitialSyncState, JobKind, JobState, StartInitialSyncRequest, StartInitialSyncResponse,
    SyncEventKind, TriggerSource,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::app::Scheduler;
use crate::clients::{cadence, check_usable, most_backfill_days};
use crate::error::Error;
use crate::job::{CONNECTORS, Job};
use crate::lock::{LockKey, Override, SyncLock};
use crate::repeat::{Probe, first_answer};
use crate::store::jobs::{job_cancel, job_insert, job_superseded_lock};
use crate::store::locks::{lock_read, lock_retake, lock_take};
use crate::store::overrides::{override_claim, override_use};
use crate::store::streams::{stream_ensure, stream_prepare};
use crate::stream::{Stream, StreamKey};
use crate::{choose, encode, events};

const METHOD: &str = "SyncService/StartInitialSync";
/// A start that lost a race is looked at again so often.
const TRIES: u32 = 3;

/// What is to be started, once everything about it is known.
#[derive(Clone, Debug)]
struct Start {
    tenant: TenantKey,
    connection_id: Uuid,
    connection: Connection,
    account: String,
    streams: Vec<String>,
    /// Whether the caller named the streams, or means all that there are.
    named: bool,
    queue: String,
    /// How often each stream is to run afterwards, in seconds.
    cadences: HashMap<String, Option<i32>>,
    backfill_days: i32,
    user_id: String,
    triggered_by: TriggerSource,
    now: OffsetDateTime,
    traceparent: String,
}

/// Starts it, or says why not. The same request id gets the same answer; a refusal is not remembered.
///
/// # Errors
/// [`Error::Locked`] where it has been used and no override is in force.
pub(crate) async fn start_initial_sync(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    connection_id: Uuid,
    request: StartInitialSyncRequest,
) -> Result<StartInitialSyncResponse, Error> {
    let connection = scheduler.clients.connection(tenant, connection_id).await?;
    caller
        .user(&connection.user_id)
        .map_err(|_| Error::NotFound("connection"))?;
    if let Some(answer) = answered_before(scheduler, tenant, &request).await? {
        return Ok(answer);
    }
    let start = plan(
        scheduler,
        caller,
        tenant,
        connection_id,
        connection,
        &request,
    )
    .await?;
    let mut tries = 1;
    loop {
        match attempt(scheduler, caller, &start, &request).await {
            Err(Error::Raced) if tries < TRIES => tries += 1,
            outcome => {
                scheduler.wake.ring();
                return outcome;
            }
        }
    }
}

async fn answered_before(
    scheduler: &Scheduler,
    tenant: TenantKey,
    request: &StartInitialSyncRequest,
) -> Result<Option<StartInitialSyncResponse>, Error> {
    if request.request_id.is_empty() {
        return Ok(None);
    }
    let request = request.clone();
    let probed = scheduler
        .database
        .run_tx(
            "request_repeat",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let call = Call {
                    tenant,
                    method: METHOD,
                    request_id: &request.request_id,
                    body: &request,
                };
                request_ids::run(tx, call, async || Err(Probe::Fresh)).await
            },
        )
        .await;
    first_answer(probed)
}

async fn plan(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    connection_id: Uuid,
    connection: Connection,
    request: &StartInitialSyncRequest,
) -> Result<Start, Error> {
    check_usable(&connection)?;
    let most = most_backfill_days(&scheduler.clients.usable_tenant(tenant).await?);
    let backfill_days = if request.backfill_days == 0 {
        most
    } else {
        request.backfill_days
    };
    if backfill_days > most {
        let most = format!("must be at most {most}, the tenant's quota");
        return Err(Problem::invalid_field("backfill_days", most).into());
    }
    let provider = scheduler.clients.provider(&connection.provider).await?;
    let queue = choose::queue(&request.queue);
    let streams = choose::streams(&provider, &queue, &request.streams, |stream| {
        stream.backfill
    })?;
    Ok(Start {
        tenant,
        connection_id,
        account: choose::account(
            scheduler,
            tenant,
            &connection,
            &provider,
            &request.external_account_id,
        )
        .await?,
        user_id: choose::asking_user(caller, &connection, &request.user_id)?,
        triggered_by: if caller.is_operator() {
            TriggerSource::Operator
        } else {
            TriggerSource::User
        },
        cadences: streams
            .iter()
            .map(|stream| (stream.clone(), cadence_seconds(&provider, &queue, stream)))
            .collect(),
        connection,
        streams,
        named: !request.streams.is_empty(),
        queue,
        backfill_days,
        now: scheduler.deps.now(),
        traceparent: context::current_traceparent().unwrap_or_default(),
    })
}

/// How often the stream is to run; `None` where its connector cannot read changes alone.
fn cadence_seconds(provider: &Provider, queue: &str, stream: &str) -> Option<i32> {
    let found = provider.streams.iter().find(|info| info.stream == stream);
    if queue == CONNECTORS && found.is_some_and(|info| !info.incremental) {
        return None;
    }
    let cadence = cadence(&found.cloned().unwrap_or_default());
    Some(i32::try_from(cadence.as_secs()).unwrap_or(i32::MAX).max(1))
}

async fn attempt(
    scheduler: &Scheduler,
    caller: &Caller,
    start: &Start,
    request: &StartInitialSyncRequest,
) -> Result<StartInitialSyncResponse, Error> {
    let (caller, start, request) = (caller.clone(), start.clone(), request.clone());
    scheduler
        .database
        .run_tx(
            "initial_sync_start",
            Scope::Tenant(start.tenant),
            async move |tx: &Tx| {
                let call = Call {
                    tenant: start.tenant,
                    method: METHOD,
                    request_id: &request.request_id,
                    body: &request,
                };
                request_ids::run(tx, call, async || lock_and_start(tx, &caller, &start).await).await
            },
        )
        .await
}

async fn lock_and_start(
    tx: &Tx,
    caller: &Caller,
    start: &Start,
) -> Result<StartInitialSyncResponse, Error> {
    let held = lock_read(tx, &start.lock_key(""), &start.streams).await?;
    let fresh: Vec<_> = start
        .streams
        .iter()
        .filter(|stream| held.iter().all(|lock| &lock.key.stream != *stream))
        .cloned()
        .collect();
    let refused = if start.named {
        !held.is_empty()
    } else {
        fresh.is_empty()
    };
    let opened = match (refused, held.first()) {
        (true, Some(lock)) => Some(open_by_override(tx, start, lock).await?),
        _ => None,
    };
    let run_id = start.tenant.new_id(tx.deps());
    let mut started = fresh.clone();
    for stream in &fresh {
        if !lock_take(tx, &start.lock(stream, run_id)).await? {
            return Err(Error::Raced);
        }
    }
    let mut revision = fresh.len() as i64;
    if opened.is_some() {
        supersede(tx, start, &held).await?;
        for lock in &held {
            lock_retake(tx, &start.lock(&lock.key.stream, run_id)).await?;
            started.push(lock.key.stream.clone());
            revision += lock.revision + 1;
        }
    }
    let mut jobs = Vec::new();
    for stream in &started {
        jobs.push(make_job(tx, start, stream, run_id).await?);
    }
    let first = jobs
        .first()
        .expect("at least one stream is started, or the start was refused");
    events::append_sync(tx, SyncEventKind::InitialSyncStarted, first, revision).await?;
    if let Some(found) = &opened {
        override_use(tx, found, first.id, start.now).await?;
        events::append_override(tx, SyncEventKind::OverrideUsed, found, Some(first)).await?;
    }
    let reason = opened.as_ref().map_or("", |found| found.reason.as_str());
    let resource = format!("connections/{}", start.connection_id);
    audit::append(tx, start.tenant, caller.actor(), METHOD, &resource, reason).await?;
    tracing::info!(
        event = "initial_sync_started",
        tenant.id = %start.tenant,
        user.id = start.user_id,
        connection.id = %start.connection_id,
        streams = jobs.len(),
        by_override = opened.is_some(),
        "an initial sync was started"
    );
    Ok(start.answer(&jobs, opened.is_some()))
}

async fn make_job(tx: &Tx, start: &Start, stream: &str, run_id: Uuid) -> Result<Job, Error> {
    let kept = start.stream(stream);
    stream_ensure(tx, &kept).await?;
    let cadence = start.cadences.get(stream).copied().flatten();
    stream_prepare(tx, &kept.key, &start.queue, cadence).await?;
    let job = Job {
        kind: JobKind::Initial,
        triggered_by: start.triggered_by,
        user_id: start.user_id.clone(),
        queue: start.queue.clone(),
        window_start: Some(start.now - Duration::days(i64::from(start.backfill_days))),
        window_end: Some(start.now),
        traceparent: start.traceparent.clone(),
        ..Job::queued(&kept, run_id, start.now, tx.deps())
    };
    job_insert(tx, &job).await?;
    Ok(job)
}

async fn open_by_override(tx: &Tx, start: &Start, lock: &SyncLock) -> Result<Override, Error> {
    let found = override_claim(tx, start.tenant, start.connection_id, start.now).await?;
    found.ok_or_else(|| Error::Locked {
        reason: lock.reason.clone(),
        locked_at: lock.locked_at,
    })
}

/// What the older run has not done is done by the new one.
async fn supersede(tx: &Tx, start: &Start, held: &[SyncLock]) -> Result<(), Error> {
    let run_ids: Vec<_> = held.iter().map(|lock| lock.run_id).collect();
    let streams: Vec<_> = held.iter().map(|lock| lock.key.stream.clone()).collect();
    for job in job_superseded_lock(tx, start.tenant, &run_ids, &streams).await? {
        if job.state == JobState::Running {
            job_cancel(tx, &job, JobState::Cancelling, None).await?;
        } else {
            let job = job_cancel(tx, &job, JobState::Cancelled, Some(start.now)).await?;
            events::append(tx, SyncEventKind::JobCancelled, &job).await?;
        }
    }
    Ok(())
}

impl Start {
    fn lock_key(&self, stream: &str) -> LockKey {
        LockKey {
            tenant: self.tenant,
            integration_id: self.connection.integration_id.clone(),
            user_id: self.connection.user_id.clone(),
            external_account_id: self.account.clone(),
            stream: stream.to_owned(),
        }
    }

    fn lock(&self, stream: &str, run_id: Uuid) -> SyncLock {
        SyncLock {
            key: self.lock_key(stream),
            connection_id: self.connection_id,
            provider: self.connection.provider.clone(),
            user_email: self.connection.user_email.clone(),
            run_id,
            state: InitialSyncState::Running,
            reason: SyncLock::used(&self.connection.provider, self.now),
            locked_at: self.now,
            completed_at: None,
            revision: 1,
        }
    }

    fn stream(&self, stream: &str) -> Stream {
        let key = StreamKey {
            tenant: self.tenant,
            connection_id: self.connection_id,
            external_account_id: self.account.clone(),
            stream: stream.to_owned(),
        };
        Stream::new(&self.connection, key, self.now)
    }

    fn answer(&self, jobs: &[Job], override_used: bool) -> StartInitialSyncResponse {
        let days = self.backfill_days;
        StartInitialSyncResponse {
            jobs: jobs.iter().map(encode::job).collect(),
            backfill_days: days,
            locked: true,
            override_used,
            message: format!(
                "The sync of the last {days} days has begun. Afterwards the connection is kept up to date by itself."
            ),
        }
    }
}
