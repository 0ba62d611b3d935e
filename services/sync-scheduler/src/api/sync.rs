//! `SyncService`.

use std::pin::Pin;

use common::Problem;
use common::identity::{Acting, Tenants};
use common::pg::outbox::{self, Watched};
use common::rpc::{caller, unimplemented};
use common::validate::{Fields, page_size};
use contracts::scheduler::v1::sync_service_server::SyncService;
use contracts::scheduler::v1::{
    CancelJobRequest, CancelJobResponse, DeleteScheduleRequest, DeleteScheduleResponse,
    GetJobRequest, GetJobResponse, GetSyncStateRequest, GetSyncStateResponse, JobState,
    ListCursorVersionsRequest, ListCursorVersionsResponse, ListCursorsRequest, ListCursorsResponse,
    ListJobsRequest, ListJobsResponse, ListSchedulesRequest, ListSchedulesResponse,
    ListSyncStatesRequest, ListSyncStatesResponse, PauseScheduleRequest, PauseScheduleResponse,
    PutScheduleRequest, PutScheduleResponse, ResumeScheduleRequest, ResumeScheduleResponse,
    RetryJobRequest, RetryJobResponse, RewindCursorRequest, RewindCursorResponse,
    StartInitialSyncRequest, StartInitialSyncResponse, TriggerSource, TriggerSyncRequest,
    TriggerSyncResponse, WatchJobRequest, WatchJobResponse, WatchSyncEventsRequest,
    WatchSyncEventsResponse,
};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::checks::{check_name, check_names, check_request_id};
use super::permission::next_page;
use crate::app::Scheduler;
use crate::encode;
use crate::read_syncs::{job_get, job_list, stream_list};
use crate::start_initial_sync::start_initial_sync;
use crate::steer_jobs;
use crate::store::jobs::JobFilter;
use crate::sync_state::sync_state;
use crate::trigger_sync::trigger_sync;

pub(super) struct Sync(pub(super) Scheduler);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SyncService for Sync {
    type WatchJobStream = Answers<WatchJobResponse>;
    type WatchSyncEventsStream = Answers<WatchSyncEventsResponse>;

    async fn start_initial_sync(
        &self,
        request: Request<StartInitialSyncRequest>,
    ) -> Result<Response<StartInitialSyncResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = fields.id("connection_id", &request.connection_id);
        fields.check(
            request.backfill_days >= 0,
            "backfill_days",
            "must not be negative",
        );
        check_request_id(&mut fields, &request.request_id);
        check_names(&mut fields, "streams", &request.streams);
        check_name(&mut fields, "user_id", &request.user_id);
        check_name(&mut fields, "notify_email", &request.notify_email);
        check_name(
            &mut fields,
            "external_account_id",
            &request.external_account_id,
        );
        check_name(&mut fields, "queue", &request.queue);
        fields.finish()?;
        let (Some(tenant), Some(connection_id)) = (tenant, connection_id) else {
            return Err(Problem::not_found("connection").into());
        };
        let answer = start_initial_sync(&self.0, &caller, tenant, connection_id, request)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(answer))
    }

    async fn trigger_sync(
        &self,
        request: Request<TriggerSyncRequest>,
    ) -> Result<Response<TriggerSyncResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = fields.id("connection_id", &request.connection_id);
        check_names(&mut fields, "streams", &request.streams);
        check_names(&mut fields, "external_ids", &request.external_ids);
        check_request_id(&mut fields, &request.request_id);
        check_name(&mut fields, "user_id", &request.user_id);
        check_name(
            &mut fields,
            "external_account_id",
            &request.external_account_id,
        );
        check_name(&mut fields, "queue", &request.queue);
        fields.check(
            TriggerSource::try_from(request.source).is_ok(),
            "source",
            "is no source of a sync",
        );
        fields.finish()?;
        let (Some(tenant), Some(connection_id)) = (tenant, connection_id) else {
            return Err(Problem::not_found("connection").into());
        };
        let answer = trigger_sync(&self.0, &caller, tenant, connection_id, request)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(answer))
    }

    async fn get_sync_state(
        &self,
        request: Request<GetSyncStateRequest>,
    ) -> Result<Response<GetSyncStateResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = fields.id("connection_id", &request.connection_id);
        fields.finish()?;
        let (Some(tenant), Some(connection_id)) = (tenant, connection_id) else {
            return Err(Problem::not_found("connection").into());
        };
        let connection = self
            .0
            .clients
            .connection(tenant, connection_id)
            .await
            .map_err(Problem::from)?;
        caller
            .user(&connection.user_id)
            .map_err(|_| Problem::not_found("connection"))?;
        let company = self
            .0
            .clients
            .tenant(tenant)
            .await
            .map_err(Problem::from)?
            .company_name;
        let state = sync_state(&self.0, tenant, &connection, company)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(GetSyncStateResponse {
            sync_state: Some(state),
        }))
    }

    async fn list_sync_states(
        &self,
        _: Request<ListSyncStatesRequest>,
    ) -> Result<Response<ListSyncStatesResponse>, Status> {
        Err(unimplemented("SyncService/ListSyncStates"))
    }

    async fn put_schedule(
        &self,
        _: Request<PutScheduleRequest>,
    ) -> Result<Response<PutScheduleResponse>, Status> {
        Err(unimplemented("SyncService/PutSchedule"))
    }

    async fn list_schedules(
        &self,
        _: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        Err(unimplemented("SyncService/ListSchedules"))
    }

    async fn pause_schedule(
        &self,
        _: Request<PauseScheduleRequest>,
    ) -> Result<Response<PauseScheduleResponse>, Status> {
        Err(unimplemented("SyncService/PauseSchedule"))
    }

    async fn resume_schedule(
        &self,
        _: Request<ResumeScheduleRequest>,
    ) -> Result<Response<ResumeScheduleResponse>, Status> {
        Err(unimplemented("SyncService/ResumeSchedule"))
    }

    async fn delete_schedule(
        &self,
        _: Request<DeleteScheduleRequest>,
    ) -> Result<Response<DeleteScheduleResponse>, Status> {
        Err(unimplemented("SyncService/DeleteSchedule"))
    }

    async fn list_cursors(
        &self,
        request: Request<ListCursorsRequest>,
    ) -> Result<Response<ListCursorsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = fields.id("connection_id", &request.connection_id);
        page_size(&mut fields, request.page_size);
        fields.check(
            request.page_token.is_empty(),
            "page_token",
            "must be empty: there is one page",
        );
        fields.finish()?;
        let (Some(tenant), Some(connection_id)) = (tenant, connection_id) else {
            return Err(Problem::not_found("connection").into());
        };
        let connection = self
            .0
            .clients
            .connection(tenant, connection_id)
            .await
            .map_err(Problem::from)?;
        caller
            .user(&connection.user_id)
            .map_err(|_| Problem::not_found("connection"))?;
        let streams = stream_list(&self.0, tenant, connection_id)
            .await
            .map_err(Problem::from)?;
        // A connection has a handful of streams: one page holds them all.
        let cursors = streams
            .iter()
            .filter(|stream| stream.cursor_json.is_some())
            .map(encode::cursor)
            .collect();
        Ok(Response::new(ListCursorsResponse {
            cursors,
            next_page_token: String::new(),
        }))
    }

    async fn list_cursor_versions(
        &self,
        _: Request<ListCursorVersionsRequest>,
    ) -> Result<Response<ListCursorVersionsResponse>, Status> {
        Err(unimplemented("SyncService/ListCursorVersions"))
    }

    async fn rewind_cursor(
        &self,
        _: Request<RewindCursorRequest>,
    ) -> Result<Response<RewindCursorResponse>, Status> {
        Err(unimplemented("SyncService/RewindCursor"))
    }

    async fn get_job(
        &self,
        request: Request<GetJobRequest>,
    ) -> Result<Response<GetJobResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let job_id = fields.id("job_id", &request.job_id);
        fields.finish()?;
        let (Some(tenant), Some(job_id)) = (tenant, job_id) else {
            return Err(Problem::not_found("job").into());
        };
        let found = job_get(&self.0, tenant, job_id)
            .await
            .map_err(Problem::from)?;
        let visible =
            |job: &crate::job::Job| caller.own_user().is_none_or(|user| user == job.owner_id);
        let job = found
            .filter(visible)
            .ok_or_else(|| Problem::not_found("job"))?;
        Ok(Response::new(GetJobResponse {
            job: Some(encode::job(&job)),
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = match request.connection_id.as_str() {
            "" => None,
            id => fields.id("connection_id", id),
        };
        let state = fields.value(
            "state",
            JobState::try_from(request.state).map_err(|_| "is no state of a job"),
        );
        let before = fields
            .absorb(encode::page_token(&request.page_token))?
            .flatten();
        let size = page_size(&mut fields, request.page_size);
        fields.finish()?;
        let Some(tenant) = tenant else {
            return Err(Problem::not_found("tenant").into());
        };
        let filter = JobFilter {
            connection_id,
            state: state.filter(|state| *state != JobState::Unspecified),
            owner_id: caller.own_user().map(str::to_owned),
            before,
        };
        let jobs = job_list(&self.0, tenant, filter, size)
            .await
            .map_err(Problem::from)?;
        let next_page_token = next_page(&jobs, size, |job| job.id);
        Ok(Response::new(ListJobsResponse {
            jobs: jobs.iter().map(encode::job).collect(),
            next_page_token,
        }))
    }

    async fn watch_job(
        &self,
        _: Request<WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        Err(unimplemented("SyncService/WatchJob"))
    }

    async fn cancel_job(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<CancelJobResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let job_id = fields.id("job_id", &request.job_id);
        fields.finish()?;
        let (Some(tenant), Some(job_id)) = (tenant, job_id) else {
            return Err(Problem::not_found("job").into());
        };
        let job = steer_jobs::cancel_job(&self.0, &caller, tenant, job_id)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(CancelJobResponse {
            job: Some(encode::job(&job)),
        }))
    }

    async fn retry_job(
        &self,
        request: Request<RetryJobRequest>,
    ) -> Result<Response<RetryJobResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let job_id = fields.id("job_id", &request.job_id);
        fields.finish()?;
        let (Some(tenant), Some(job_id)) = (tenant, job_id) else {
            return Err(Problem::not_found("job").into());
        };
        let job = steer_jobs::retry_job(&self.0, &caller, tenant, job_id)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(RetryJobResponse {
            job: Some(encode::job(&job)),
        }))
    }

    async fn watch_sync_events(
        &self,
        request: Request<WatchSyncEventsRequest>,
    ) -> Result<Response<Self::WatchSyncEventsStream>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let tenant = match request.tenant_id.as_str() {
            "" if caller.tenants == Tenants::Any
                && (caller.user.is_none() || caller.acting >= Acting::Service) =>
            {
                None
            }
            id => Some(caller.tenant(id)?),
        };
        let events = outbox::watch(
            &self.0.database,
            &request.after_cursor,
            request.from_head,
            tenant,
        )
        .await
        .map_err(Problem::from)?;
        let until = self.0.shutdown.clone();
        let answers = events.map(|event| {
            event
                .map_err(|error| Problem::from(error).into())
                .and_then(answer)
        });
        Ok(Response::new(Box::pin(
            answers.take_until(async move { until.requested().await }),
        )))
    }
}

fn answer(watched: Watched) -> Result<WatchSyncEventsResponse, Status> {
    let Some(logged) = watched.event else {
        return Ok(WatchSyncEventsResponse {
            cursor: watched.cursor,
            ..WatchSyncEventsResponse::default()
        });
    };
    let message = WatchSyncEventsResponse::decode(logged.payload.as_slice())
        .map_err(|error| Status::from(Problem::internal(&error)))?;
    Ok(WatchSyncEventsResponse {
        cursor: watched.cursor,
        ..message
    })
}
