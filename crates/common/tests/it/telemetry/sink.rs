//! An OpenTelemetry collector that keeps what it is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Listens on a free port until it is dropped.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    kept: Kept,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Received>>);

#[derive(Clone, Default)]
pub(crate) struct Received {
    pub(crate) spans: Vec<Span>,
    pub(crate) logs: Vec<LogRecord>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) authorization: Vec<String>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let kept = Kept::default();
        let router = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(kept.clone()))
            .add_service(MetricsServiceServer::new(kept.clone()))
            .add_service(LogsServiceServer::new(kept.clone()));
        let server = tokio::spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
        Self {
            address,
            kept,
            server,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> Received {
        self.kept
            .0
            .lock()
            .expect("no test panics while it holds this")
            .clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Received {
    pub(crate) fn span(&self, name: &str) -> &Span {
        let names: Vec<_> = self.spans.iter().map(|span| &span.name).collect();
        self.spans
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("no span {name} among {names:?}"))
    }

    pub(crate) fn log(&self, message: &str) -> &LogRecord {
        self.logs
            .iter()
            .find(|log| matches!(&log.body, Some(body) if text(body) == message))
            .unwrap_or_else(|| panic!("no log {message:?} among {:?}", self.logs))
    }
}

pub(crate) fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref().map(text)
}

fn text(value: &AnyValue) -> &str {
    match &value.value {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

impl Kept {
    fn keep<T>(&self, request: Request<T>, keep: impl FnOnce(&mut Received, T)) {
        let mut received = self.0.lock().expect("no test panics while it holds this");
        if let Some(header) = request.metadata().get("authorization") {
            received
                .authorization
                .push(header.to_str().expect("text").to_owned());
        }
        keep(&mut received, request.into_inner());
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.keep(request, |received, request| {
            for spans in request.resource_spans {
                received.resources.extend(spans.resource);
                received
                    .spans
                    .extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        });
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Kept {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.keep(request, |received, request| {
            for metrics in request.resource_metrics {
                let scopes = metrics.scope_metrics.into_iter();
                received
                    .metrics
                    .extend(scopes.flat_map(|scope| scope.metrics));
            }
        });
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Kept {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.keep(request, |received, request| {
            for logs in request.resource_logs {
                let scopes = logs.scope_logs.into_iter();
                received
                    .logs
                    .extend(scopes.flat_map(|scope| scope.log_records));
            }
        });
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
