//! The scheduler's domain as the contract has it.

use common::Problem;
use contracts::scheduler::v1 as contract;
use time::OffsetDateTime;

use crate::job::Job;
use crate::lock::Override;
use crate::stream::Stream;

/// A moment as the contract has it: to the microsecond, as the database keeps it, so that an answer is what is read later.
pub(crate) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: (at.microsecond() * 1000) as i32,
    }
}

/// A moment of the contract's.
///
/// # Errors
/// A sentence where it is out of range.
pub(crate) fn moment(at: prost_types::Timestamp) -> Result<OffsetDateTime, &'static str> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| "is out of range")
}

/// A job.
pub(crate) fn job(job: &Job) -> contract::Job {
    contract::Job {
        tenant_id: job.key.tenant.to_string(),
        job_id: job.id.to_string(),
        connection_id: job.key.connection_id.to_string(),
        provider: job.provider.clone(),
        stream: job.key.stream.clone(),
        kind: job.kind.into(),
        state: job.state.into(),
        triggered_by: job.triggered_by.into(),
        user_id: job.user_id.clone(),
        window_start: job.window_start.map(timestamp),
        window_end: job.window_end.map(timestamp),
        cursor_json: job.cursor_json.clone().unwrap_or_default(),
        progress: Some(job.progress.into()),
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        last_error: job.last_error.clone(),
        scheduled_at: Some(timestamp(job.scheduled_at)),
        started_at: job.started_at.map(timestamp),
        finished_at: job.finished_at.map(timestamp),
        traceparent: job.traceparent.clone(),
        waiting_for: job.waiting_for.clone(),
        external_account_id: job.key.external_account_id.clone(),
        queue: job.queue.clone(),
        run_id: job.run_id.to_string(),
        priority: job.priority,
        revision: job.revision,
        external_ids: job.external_ids.clone(),
    }
}

/// An override, with the tenant's name where it is known.
pub(crate) fn granted(granted: &Override, company_name: String) -> contract::Override {
    contract::Override {
        tenant_id: granted.tenant.to_string(),
        connection_id: granted
            .connection_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        reason: granted.reason.clone(),
        granted_by: granted.granted_by.clone(),
        granted_at: Some(timestamp(granted.granted_at)),
        used_at: granted.used_at.map(timestamp),
        used_by_job_id: granted
            .used_by_job_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        override_id: granted.id.to_string(),
        revoked_at: granted.revoked_at.map(timestamp),
        company_name,
        expires_at: granted.expires_at.map(timestamp),
    }
}

/// The cursor of a page: what the last row's id was.
pub(crate) fn page_token(token: &str) -> Result<Option<uuid::Uuid>, Problem> {
    if token.is_empty() {
        return Ok(None);
    }
    let id = token.parse().map_err(|_| {
        Problem::invalid_field(
            "page_token",
            "must be the `next_page_token` of the page before",
        )
    })?;
    Ok(Some(id))
}

/// A stream's cursor.
pub(crate) fn cursor(stream: &Stream) -> contract::Cursor {
    contract::Cursor {
        tenant_id: stream.key.tenant.to_string(),
        connection_id: stream.key.connection_id.to_string(),
        external_account_id: stream.key.external_account_id.clone(),
        stream: stream.key.stream.clone(),
        user_id: stream.user_id.clone(),
        version: stream.cursor_version,
        cursor_json: stream.cursor_json.clone().unwrap_or_default(),
        job_id: String::new(),
        updated_at: Some(timestamp(stream.updated_at)),
    }
}
