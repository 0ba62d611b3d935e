//! `DestinationService`, which is not built yet.

use common::rpc::unimplemented;
use contracts::ingest::v1::destination_service_server::DestinationService;
use contracts::ingest::v1::{
    CreateDestinationRequest, CreateDestinationResponse, DeleteDestinationRequest,
    DeleteDestinationResponse, GetDeliveryRequest, GetDeliveryResponse, GetDestinationRequest,
    GetDestinationResponse, ListDeliveriesRequest, ListDeliveriesResponse, ListDestinationsRequest,
    ListDestinationsResponse, RetryDeliveriesRequest, RetryDeliveriesResponse,
    RotateDestinationSecretRequest, RotateDestinationSecretResponse, SendTestEventRequest,
    SendTestEventResponse, UpdateDestinationRequest, UpdateDestinationResponse,
};
use tonic::{Request, Response, Status};

pub(super) struct Destinations;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DestinationService for Destinations {
    async fn create_destination(
        &self,
        _: Request<CreateDestinationRequest>,
    ) -> Answer<CreateDestinationResponse> {
        Err(unimplemented("DestinationService/CreateDestination"))
    }

    async fn get_destination(
        &self,
        _: Request<GetDestinationRequest>,
    ) -> Answer<GetDestinationResponse> {
        Err(unimplemented("DestinationService/GetDestination"))
    }

    async fn list_destinations(
        &self,
        _: Request<ListDestinationsRequest>,
    ) -> Answer<ListDestinationsResponse> {
        Err(unimplemented("DestinationService/ListDestinations"))
    }

    async fn update_destination(
        &self,
        _: Request<UpdateDestinationRequest>,
    ) -> Answer<UpdateDestinationResponse> {
        Err(unimplemented("DestinationService/UpdateDestination"))
    }

    async fn rotate_destination_secret(
        &self,
        _: Request<RotateDestinationSecretRequest>,
    ) -> Answer<RotateDestinationSecretResponse> {
        Err(unimplemented("DestinationService/RotateDestinationSecret"))
    }

    async fn delete_destination(
        &self,
        _: Request<DeleteDestinationRequest>,
    ) -> Answer<DeleteDestinationResponse> {
        Err(unimplemented("DestinationService/DeleteDestination"))
    }

    async fn send_test_event(
        &self,
        _: Request<SendTestEventRequest>,
    ) -> Answer<SendTestEventResponse> {
        Err(unimplemented("DestinationService/SendTestEvent"))
    }

    async fn list_deliveries(
        &self,
        _: Request<ListDeliveriesRequest>,
    ) -> Answer<ListDeliveriesResponse> {
        Err(unimplemented("DestinationService/ListDeliveries"))
    }

    async fn get_delivery(&self, _: Request<GetDeliveryRequest>) -> Answer<GetDeliveryResponse> {
        Err(unimplemented("DestinationService/GetDelivery"))
    }

    async fn retry_deliveries(
        &self,
        _: Request<RetryDeliveriesRequest>,
    ) -> Answer<RetryDeliveriesResponse> {
        Err(unimplemented("DestinationService/RetryDeliveries"))
    }
}
