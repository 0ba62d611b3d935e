//! A broker whose credentials are the simulator's, and a ledger that keeps what it is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::rpc::{caller, unimplemented};
use contracts::broker::v1::connection_service_server::ConnectionService;
use contracts::broker::v1::*;
use contracts::ingest::v1::document_service_server::DocumentService;
use contracts::ingest::v1::{
    Document, FinishFullPassRequest, FinishFullPassResponse, GetDocumentRequest,
    GetDocumentResponse, GetUsageRequest, GetUsageResponse, ListDocumentChangesRequest,
    ListDocumentChangesResponse, ListDocumentsRequest, ListDocumentsResponse,
    RecordDocumentsRequest, RecordDocumentsResponse, WatchDocumentChangesRequest,
    WatchDocumentChangesResponse,
};
use http::Method;
use provider_sim::Control;
use provider_sim::http_client;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use crate::support::{Failures, Log, actor};

pub(crate) const EMAIL: &str = "ada@customer.example";

/// Gives contexts with the simulator's tokens.
#[derive(Clone)]
pub(crate) struct Broker(Arc<BrokerState>);

struct BrokerState {
    control: Control,
    provider: &'static str,
    scope: &'static str,
    log: Log,
    failures: Failures,
    credential: tokio::sync::Mutex<Credential>,
}

#[derive(Default)]
struct Credential {
    version: i64,
    token: String,
    /// What is given instead of the provider's tokens.
    only: Option<String>,
}

/// Keeps documents.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<LedgerState>);

struct LedgerState {
    log: Log,
    failures: Failures,
    documents: Mutex<BTreeMap<String, Document>>,
    /// Calls are answered only as far as there are permits.
    gate: Semaphore,
}

impl Broker {
    pub(crate) fn new(
        control: &Control,
        provider: &'static str,
        scope: &'static str,
        log: &Log,
    ) -> Self {
        Self(Arc::new(BrokerState {
            control: control.clone(),
            provider,
            scope,
            log: log.clone(),
            failures: Failures::default(),
            credential: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Gives this token from now on, whatever version is asked for.
    pub(crate) async fn give_only(&self, token: &str) {
        self.0.credential.lock().await.only = Some(token.to_owned());
    }

    /// The token that was given last.
    pub(crate) async fn token(&self) -> String {
        self.0.credential.lock().await.token.clone()
    }

    async fn fresh_token(&self) -> String {
        let url = format!(
            "{}/oauth/token",
            self.0.control.issuer(self.0.provider).unwrap()
        );
        let form = format!(
            "grant_type=client_credentials&client_id=worker&client_secret=secret&scope={}",
            self.0.scope
        );
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let patience = Duration::from_secs(10);
        let answer = http_client::send(Method::POST, &url, &headers, Bytes::from(form), patience)
            .await
            .unwrap();
        answer.json().unwrap()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }
}

impl Ledger {
    pub(crate) fn new(log: &Log) -> Self {
        Self(Arc::new(LedgerState {
            log: log.clone(),
            failures: Failures::default(),
            documents: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }))
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Documents that are there.
    pub(crate) fn live(&self) -> BTreeMap<String, Document> {
        let all = self.documents().clone();
        all.into_iter()
            .filter(|(_, document)| document.deleted_at.is_none())
            .collect()
    }

    /// Answers no more calls until [`Ledger::open`].
    pub(crate) fn shut(&self) {
        self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open(&self) {
        self.0.gate.add_permits(1_000_000);
    }

    fn documents(&self) -> MutexGuard<'_, BTreeMap<String, Document>> {
        self.0
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, request: RecordDocumentsRequest) -> RecordDocumentsResponse {
        let mut answer = RecordDocumentsResponse::default();
        let count = request.documents.len();
        let mut documents = self.documents();
        for mut document in request.documents {
            document.connection_id.clone_from(&request.connection_id);
            document
                .external_account_id
                .clone_from(&request.external_account_id);
            document.job_id.clone_from(&request.job_id);
            let known = documents.get(&document.external_id);
            let is_gone = |document: &Document| document.deleted_at.is_some();
            match known {
                None => answer.inserted += 1,
                Some(known) if is_gone(&document) && !is_gone(known) => answer.deleted += 1,
                Some(known) if known.content_json == document.content_json => answer.unchanged += 1,
                Some(_) => answer.updated += 1,
            }
            documents.insert(document.external_id.clone(), document);
        }
        drop(documents);
        self.0.log.add(
            "documents",
            &request.job_id,
            json!({"count": count, "epoch": request.stream_epoch}),
        );
        answer
    }
}

macro_rules! not_here {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        $(
            fn $method<'s, 'f>(
                &'s self,
                _: Request<$request>,
            ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'f>>
            where
                's: 'f,
                Self: 'f,
            {
                Box::pin(async { Err(unimplemented(stringify!($method))) })
            }
        )*
    };
}

#[tonic::async_trait]
impl ConnectionService for Broker {
    type WatchConnectionEventsStream = Empty<Result<WatchConnectionEventsResponse, Status>>;

    async fn get_connection(
        &self,
        request: Request<GetConnectionRequest>,
    ) -> Result<Response<GetConnectionResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("get_connection", || {
            let connection = Connection {
                tenant_id: request.tenant_id,
                connection_id: request.connection_id,
                user_id: "ada".to_owned(),
                user_email: EMAIL.to_owned(),
                ..Connection::default()
            };
            Ok(GetConnectionResponse {
                connection: Some(connection),
            })
        })
    }

    async fn get_request_context(
        &self,
        request: Request<GetRequestContextRequest>,
    ) -> Result<Response<GetRequestContextResponse>, Status> {
        let actor = actor(caller(&request)?.actor());
        let request = request.into_inner();
        let detail = json!({
            "refused": request.refused_credential_version,
            "account": request.external_account_id,
            "purpose": request.purpose,
            "actor": actor,
        });
        self.0.log.add("context", "", detail);
        let mut credential = self.0.credential.lock().await;
        if request.refused_credential_version >= credential.version {
            credential.version += 1;
            credential.token = match &credential.only {
                Some(token) => token.clone(),
                None => self.fresh_token().await,
            };
        }
        self.0.failures.around("get_request_context", || {
            let mut answer = GetRequestContextResponse {
                base_url: self.0.control.issuer(self.0.provider).unwrap(),
                credential_version: credential.version,
                ..GetRequestContextResponse::default()
            };
            answer.headers.insert(
                "Authorization".to_owned(),
                format!("Bearer {}", credential.token),
            );
            if self.0.provider == "procore" {
                answer
                    .headers
                    .insert("Procore-Company-Id".to_owned(), request.external_account_id);
            }
            Ok(answer)
        })
    }

    not_here! {
        list_connections(ListConnectionsRequest) -> ListConnectionsResponse;
        get_connection_status(GetConnectionStatusRequest) -> GetConnectionStatusResponse;
        disconnect(DisconnectRequest) -> DisconnectResponse;
        update_connection(UpdateConnectionRequest) -> UpdateConnectionResponse;
        test_connection(TestConnectionRequest) -> TestConnectionResponse;
        list_accounts(ListAccountsRequest) -> ListAccountsResponse;
        refresh_accounts(RefreshAccountsRequest) -> RefreshAccountsResponse;
        select_account(SelectAccountRequest) -> SelectAccountResponse;
        disconnect_account(DisconnectAccountRequest) -> DisconnectAccountResponse;
        batch_get_request_contexts(BatchGetRequestContextsRequest) -> BatchGetRequestContextsResponse;
        find_connections_by_routing_key(FindConnectionsByRoutingKeyRequest) -> FindConnectionsByRoutingKeyResponse;
        add_routing_keys(AddRoutingKeysRequest) -> AddRoutingKeysResponse;
        watch_connection_events(WatchConnectionEventsRequest) -> Self::WatchConnectionEventsStream;
    }
}

#[tonic::async_trait]
impl DocumentService for Ledger {
    type WatchDocumentChangesStream = Empty<Result<WatchDocumentChangesResponse, Status>>;

    async fn record_documents(
        &self,
        request: Request<RecordDocumentsRequest>,
    ) -> Result<Response<RecordDocumentsResponse>, Status> {
        let request = request.into_inner();
        self.0
            .gate
            .acquire()
            .await
            .expect("the gate is never closed for good")
            .forget();
        self.0
            .failures
            .around("record_documents", || Ok(self.record(request)))
    }

    async fn finish_full_pass(
        &self,
        request: Request<FinishFullPassRequest>,
    ) -> Result<Response<FinishFullPassResponse>, Status> {
        let request = request.into_inner();
        self.0.failures.around("finish_full_pass", || {
            let detail = json!({"epoch": request.stream_epoch, "started_at": request.started_at.map(|at| at.seconds)});
            self.0.log.add("full_pass", &request.job_id, detail);
            Ok(FinishFullPassResponse { deleted: 3 })
        })
    }

    not_here! {
        get_document(GetDocumentRequest) -> GetDocumentResponse;
        list_documents(ListDocumentsRequest) -> ListDocumentsResponse;
        list_document_changes(ListDocumentChangesRequest) -> ListDocumentChangesResponse;
        watch_document_changes(WatchDocumentChangesRequest) -> Self::WatchDocumentChangesStream;
        get_usage(GetUsageRequest) -> GetUsageResponse;
    }
}
