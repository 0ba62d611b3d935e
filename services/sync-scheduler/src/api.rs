//! gRPC: decode and validate, call the use case, encode.

mod checks;
mod permission;
mod sync;
mod worker;

use common::pg::Database;
use common::rpc::{Operations, Server};
use contracts::operations::v1::operations_service_server::OperationsServiceServer;
use contracts::scheduler::v1::sync_permission_service_server::SyncPermissionServiceServer;
use contracts::scheduler::v1::sync_service_server::SyncServiceServer;
use contracts::scheduler::v1::worker_service_server::WorkerServiceServer;

use crate::app::Scheduler;

/// Serves everything that the scheduler has.
pub(crate) fn register(server: Server, scheduler: &Scheduler) -> Server {
    let database: Database = scheduler.database.clone();
    server
        .service(SyncServiceServer::new(sync::Sync(scheduler.clone())))
        .service(SyncPermissionServiceServer::new(permission::Permission(
            scheduler.clone(),
        )))
        .service(WorkerServiceServer::new(worker::Worker(scheduler.clone())))
        .service(OperationsServiceServer::new(Operations::new(database)))
}
