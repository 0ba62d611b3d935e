//! gRPC and HTTP: decode and validate, call the use case, encode.

mod destinations;
mod documents;
mod events;
pub(crate) mod hooks;
mod sources;

use common::rpc::{Operations, Server};
use contracts::ingest::v1::destination_service_server::DestinationServiceServer;
use contracts::ingest::v1::document_service_server::DocumentServiceServer;
use contracts::ingest::v1::webhook_event_service_server::WebhookEventServiceServer;
use contracts::ingest::v1::webhook_source_service_server::WebhookSourceServiceServer;
use contracts::operations::v1::operations_service_server::OperationsServiceServer;

use crate::app::Ingest;

/// Answers have to fit into what a gRPC client takes unless told otherwise, 4 MiB.
const MOST_BYTES: usize = 3 * 1024 * 1024;

/// Serves everything that the ingest has.
pub(crate) fn register(server: Server, ingest: &Ingest) -> Server {
    server
        .service(WebhookSourceServiceServer::new(sources::Sources(
            ingest.clone(),
        )))
        .service(WebhookEventServiceServer::new(events::Events(
            ingest.clone(),
        )))
        .service(DestinationServiceServer::new(destinations::Destinations))
        .service(DocumentServiceServer::new(documents::Documents(
            ingest.clone(),
        )))
        .service(OperationsServiceServer::new(Operations::new(
            ingest.database.clone(),
        )))
}
