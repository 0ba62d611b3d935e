//! An incremental run now, besides the schedule. Runs that ask for the same work before it begins become one.

use common::TenantKey;
use common::identity::{Acting, Caller};
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, Tx, audit};
use common::telemetry::context;
use contracts::broker::v1::Connection;
use contracts::scheduler::v1::{TriggerSource, TriggerSyncRequest, TriggerSyncResponse};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::Scheduler;
use crate::clients::check_usable;
use crate::error::Error;
use crate::job::Job;
use crate::repeat::{Probe, first_answer};
use crate::store::jobs::{job_insert, job_waiting_lock, job_widen};
use crate::store::streams::{stream_ensure, stream_lock};
use crate::stream::{Stream, StreamKey};
use crate::{choose, encode};

const METHOD: &str = "SyncService/TriggerSync";
/// The most records that a run is narrowed to; beyond, the whole stream is read.
const MOST_EXTERNAL_IDS: usize = 1000;

/// What is asked for, once everything about it is known.
#[derive(Clone, Debug)]
struct Trigger {
    /// The connection, as the broker has it.
    connection: Connection,
    /// Which streams.
    keys: Vec<StreamKey>,
    /// Who serves it.
    queue: String,
    /// What asks.
    source: TriggerSource,
    /// Who asks, else who owns the connection.
    user_id: String,
    /// The only records concerned; the whole stream where empty.
    external_ids: Vec<String>,
    /// The time.
    now: OffsetDateTime,
    /// The trace of what asks.
    traceparent: String,
}

/// Makes the jobs, or finds those that have not begun.
///
/// # Errors
/// [`Error::NotUsable`], [`Error::UnknownStreams`].
pub(crate) async fn trigger_sync(
    scheduler: &Scheduler,
    caller: &Caller,
    tenant: TenantKey,
    connection_id: Uuid,
    request: TriggerSyncRequest,
) -> Result<TriggerSyncResponse, Error> {
    let connection = scheduler.clients.connection(tenant, connection_id).await?;
    caller
        .user(&connection.user_id)
        .map_err(|_| Error::NotFound("connection"))?;
    if let Some(answer) = answered_before(scheduler, tenant, &request).await? {
        return Ok(answer);
    }
    check_usable(&connection)?;
    scheduler.clients.usable_tenant(tenant).await?;
    let provider = scheduler.clients.provider(&connection.provider).await?;
    let queue = choose::queue(&request.queue);
    let streams = choose::streams(&provider, &queue, &request.streams, |stream| {
        stream.incremental
    })?;
    let account = choose::account(
        scheduler,
        tenant,
        &connection,
        &provider,
        &request.external_account_id,
    )
    .await?;
    let key = |stream: String| StreamKey {
        tenant,
        connection_id,
        external_account_id: account.clone(),
        stream,
    };
    let trigger = Trigger {
        keys: streams.into_iter().map(key).collect(),
        queue,
        source: source_of(caller, request.source()),
        user_id: choose::asking_user(caller, &connection, &request.user_id)?,
        external_ids: request.external_ids.clone(),
        connection,
        now: scheduler.deps.now(),
        traceparent: context::current_traceparent().unwrap_or_default(),
    };
    let caller = caller.clone();
    let answer = scheduler
        .database
        .run_tx(
            "sync_trigger",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let call = Call {
                    tenant,
                    method: METHOD,
                    request_id: &request.request_id,
                    body: &request,
                };
                request_ids::run(tx, call, async || {
                    let resource = format!("connections/{connection_id}");
                    audit::append(tx, tenant, caller.actor(), METHOD, &resource, "").await?;
                    let jobs = make_jobs(tx, &trigger).await?;
                    Ok::<_, Error>(TriggerSyncResponse {
                        jobs: jobs.iter().map(encode::job).collect(),
                    })
                })
                .await
            },
        )
        .await?;
    scheduler.wake.ring();
    Ok(answer)
}

async fn answered_before(
    scheduler: &Scheduler,
    tenant: TenantKey,
    request: &TriggerSyncRequest,
) -> Result<Option<TriggerSyncResponse>, Error> {
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

/// A caller says what it is itself; only our own services are believed to speak for a webhook or a schedule.
fn source_of(caller: &Caller, asked: TriggerSource) -> TriggerSource {
    match caller.acting {
        Acting::Service if asked != TriggerSource::Unspecified => asked,
        Acting::Operator => TriggerSource::Operator,
        _ => TriggerSource::User,
    }
}

/// One job a stream: a new one, or the one that waits already, about the records of both.
async fn make_jobs(tx: &Tx, trigger: &Trigger) -> Result<Vec<Job>, Error> {
    let run_id = trigger
        .keys
        .first()
        .map(|key| key.tenant.new_id(tx.deps()))
        .unwrap_or_default();
    let mut jobs = Vec::new();
    for key in &trigger.keys {
        stream_ensure(
            tx,
            &Stream::new(&trigger.connection, key.clone(), trigger.now),
        )
        .await?;
        // Whoever asks for work on this stream at the same time waits here.
        let stream = stream_lock(tx, key)
            .await?
            .ok_or(Error::NotFound("stream"))?;
        if let Some(waiting) = job_waiting_lock(tx, key, &trigger.queue).await? {
            let union = union(&waiting.external_ids, &trigger.external_ids);
            jobs.push(job_widen(tx, &waiting, &union).await?);
            continue;
        }
        let job = Job {
            queue: trigger.queue.clone(),
            triggered_by: trigger.source,
            user_id: trigger.user_id.clone(),
            external_ids: trigger.external_ids.clone(),
            // History is the initial sync's: without a cursor nothing older is read.
            window_start: stream.cursor_json.is_none().then_some(trigger.now),
            traceparent: trigger.traceparent.clone(),
            ..Job::queued(&stream, run_id, trigger.now, tx.deps())
        };
        job_insert(tx, &job).await?;
        jobs.push(job);
    }
    Ok(jobs)
}

/// The records of both; empty means the whole stream.
fn union(queued: &[String], asked: &[String]) -> Vec<String> {
    if queued.is_empty() || asked.is_empty() {
        return Vec::new();
    }
    let mut both: Vec<_> = queued.iter().chain(asked).cloned().collect();
    both.sort();
    both.dedup();
    if both.len() > MOST_EXTERNAL_IDS {
        Vec::new()
    } else {
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_for_records_add_up() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(union(&ids(&["a"]), &ids(&["b", "a"])), ids(&["a", "b"]));
        assert_eq!(
            union(&[], &ids(&["b"])),
            ids(&[]),
            "the whole stream stays the whole stream"
        );
        assert_eq!(
            union(&ids(&["a"]), &[]),
            ids(&[]),
            "the whole stream is more than some records"
        );
    }
}
